#pragma once

#include <cstddef>
#include <string>

namespace pyquant {

// The threads that the kernels run on: helpers of their own, as many as OpenMP would have; or those
// of an OpenMP runtime.
//
// Two OpenMP runtimes in one process hinder each other: after a parallel region the threads of the
// one go on spinning for its next, on the cores that the other's are given. Between the ops of a
// network that runs on another runtime, its own threads are therefore the ones to use.
class Team {
 public:
  using Work = void (*)(void*);

  // OpenMP's default number of threads.
  static std::size_t size();

  // Calls work(argument) on up to `threads` threads at once, this one among them.
  static void run(std::size_t threads, Work work, void* argument);

  // From now on the threads are those of the runtime in the library `path`, if it is loaded and has
  // GCC's interface, as LLVM's and Intel's have; tells whether that is so.
  static bool join(const std::string& path);
};

}  // namespace pyquant
