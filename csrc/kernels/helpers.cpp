#include "kernels/helpers.hpp"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <system_error>
#include <thread>

namespace pyquant {
namespace {

// Waking a thread takes about 30 us. Spinning saves them where one call follows another; after this
// time the thread leaves the core to others.
constexpr auto kLongestSpin = std::chrono::microseconds(100);

// Returns whether the condition came to hold.
template <typename Condition>
bool spin_until(const Condition& holds) {
  constexpr int kLooksPerTime = 32;
  const auto end = std::chrono::steady_clock::now() + kLongestSpin;
  do {
    for (int look = 0; look < kLooksPerTime; ++look) {
      if (holds()) return true;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

std::atomic<Helpers*> of_process{nullptr};

}  // namespace

Helpers& Helpers::instance() {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { of_process.store(nullptr); });
  (void)registered;
  Helpers* helpers = of_process.load();
  if (helpers != nullptr) return *helpers;
  auto* const made = new Helpers;  // never deleted: its threads wait until the process ends
  if (of_process.compare_exchange_strong(helpers, made)) return *made;
  delete made;
  return *helpers;
}

void Helpers::run(std::size_t helpers, Work work, void* argument) noexcept {
  Job job{work, argument, helpers, {0}};
  bool any_asleep;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back(&job);
    hire();
    count_opened_.fetch_add(1);
    any_asleep = asleep_ != 0;
  }
  if (any_asleep) opened_.notify_all();
  work(argument);
  close(job);
}

// If the system gives no more threads, fewer will do.
void Helpers::hire() {
  std::size_t wanted = 0;
  for (const Job* job : jobs_) wanted += job->places + job->inside.load();
  try {
    for (; hired_ < wanted; ++hired_) std::thread(&Helpers::help, this).detach();
  } catch (const std::system_error&) {
  }
}

Helpers::Job* Helpers::open_job() const {
  const auto open =
      std::find_if(jobs_.begin(), jobs_.end(), [](const Job* job) { return job->places != 0; });
  return open == jobs_.end() ? nullptr : *open;
}

void Helpers::help() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    Job* const job = open_job();
    if (job != nullptr) {
      --job->places;
      job->inside.fetch_add(1);
      lock.unlock();
      job->work(job->argument);
      lock.lock();
      if (job->inside.fetch_sub(1) == 1) left_.notify_all();  // the job may be gone from here on
      continue;
    }
    const unsigned seen = count_opened_.load();
    lock.unlock();
    const bool opened = spin_until([&] { return count_opened_.load() != seen; });
    lock.lock();
    if (opened) continue;
    ++asleep_;
    opened_.wait(lock, [this] { return open_job() != nullptr; });
    --asleep_;
  }
}

void Helpers::close(Job& job) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    job.places = 0;
    jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
  }
  const auto empty = [&] { return job.inside.load() == 0; };
  if (spin_until(empty)) return;
  std::unique_lock<std::mutex> lock(mutex_);
  left_.wait(lock, empty);
}

}  // namespace pyquant
