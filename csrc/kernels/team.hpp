#pragma once

#include <cstddef>
#include <string>

namespace pyquant {

// The threads that the kernels run on: either helpers of their own, as many as OpenMP would have,
// or the threads of an OpenMP runtime.
//
// Two OpenMP runtimes in one process hinder each other: after a parallel region, the threads of one
// go on spinning for its next region, on cores that the other needs. Between the ops of a network
// that runs on another runtime, the kernels should therefore use that runtime's threads.
class Team {
 public:
  using Work = void (*)(void*);

  // OpenMP's default number of threads.
  static std::size_t size();

  // Calls work(argument) on up to `threads` threads at once, this one among them.
  static void run(std::size_t threads, Work work, void* argument);

  // From now on uses the threads of the runtime in the library `path`, if it is loaded and has
  // GCC's interface, as LLVM's and Intel's have. Returns whether that is so. In a forked child, the
  // kernels have helpers of their own again, and join no runtime.
  static bool join(const std::string& path);

  // From now on has helpers of its own again.
  static void leave();
};

}  // namespace pyquant
