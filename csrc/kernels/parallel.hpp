#pragma once

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <cstddef>

#include "kernels/team.hpp"

namespace pyquant {

// Other libraries leave threads flushing denormals or rounding elsewhere; results must not follow.
class DefaultFloatMode {
 public:
  DefaultFloatMode() {
    std::fegetenv(&saved_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloatMode() { std::fesetenv(&saved_); }
  DefaultFloatMode(const DefaultFloatMode&) = delete;
  DefaultFloatMode& operator=(const DefaultFloatMode&) = delete;

 private:
  std::fenv_t saved_;
};

constexpr std::size_t kValuesPerThread = 32768;

// Zero `requested` threads means OpenMP's default. Fewer are used where a thread would have less
// than `grain` values, the work that starting it must pay for.
inline std::size_t thread_count(int requested, std::size_t values,
                                std::size_t grain = kValuesPerThread) {
  const std::size_t threads = requested > 0 ? requested : Team::size();
  return std::clamp<std::size_t>(values / grain, 1, threads);
}

// Calls body(task) for every task below `tasks`, each once, on whichever thread is free.
template <typename Body>
void parallel_for(std::size_t tasks, std::size_t threads, const Body& body) {
  if (threads == 1) {
    const DefaultFloatMode mode;
    for (std::size_t task = 0; task < tasks; ++task) body(task);
    return;
  }
  struct Shared {
    const Body& body;
    const std::size_t tasks;
    std::atomic<std::size_t> next{0};
  } shared{body, tasks};
  const auto work = [](void* argument) {
    const DefaultFloatMode mode;
    Shared& mine = *static_cast<Shared*>(argument);
    for (std::size_t task; (task = mine.next.fetch_add(1)) < mine.tasks;) mine.body(task);
  };
  Team::run(threads, work, &shared);
}

struct Part {
  std::size_t begin;
  std::size_t end;
};

// The index-th of `parts` nearly equal parts of [0, size).
inline Part part_of(std::size_t size, std::size_t parts, std::size_t index) {
  const std::size_t base = size / parts;
  const std::size_t rest = size % parts;
  const std::size_t begin = index * base + std::min(index, rest);
  return {begin, begin + base + (index < rest ? 1 : 0)};
}

}  // namespace pyquant
