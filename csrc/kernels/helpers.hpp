#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <vector>

namespace pyquant {

// Helper threads. An OpenMP region ends when all of its threads have come, and on a busy machine
// one of them may get no core for milliseconds, a thousand times as long as the work takes. Here a
// call waits only for the threads that have begun.
class Helpers {
 public:
  using Work = void (*)(void*);

  // The helpers of this process: after a fork, a child has its own.
  static Helpers& instance();

  // Calls work(argument) on this thread, and on up to `helpers` others that come before it is done.
  void run(std::size_t helpers, Work work, void* argument) noexcept;

 private:
  struct Job {
    const Work work;
    void* const argument;
    std::size_t places;               // for helpers that may still come
    std::atomic<std::size_t> inside;  // helpers at work
  };

  void hire();
  void help();
  Job* open_job() const;
  void close(Job& job);

  std::mutex mutex_;
  std::condition_variable opened_;
  std::condition_variable left_;
  std::vector<Job*> jobs_;
  std::size_t hired_ = 0;
  std::size_t asleep_ = 0;
  std::atomic<unsigned> count_opened_{0};
};

}  // namespace pyquant
