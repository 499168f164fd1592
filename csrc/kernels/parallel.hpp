#pragma once

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <cstddef>

#include "kernels/team.hpp"

namespace pyquant {

// Other libraries may let a thread flush denormals or round differently: results must not change.
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
// than `grain` values, too little work to pay for starting it.
inline std::size_t thread_count(int requested, std::size_t values,
                                std::size_t grain = kValuesPerThread) {
  const std::size_t threads = requested > 0 ? requested : Team::size();
  return std::clamp<std::size_t>(values / grain, 1, threads);
}

// size / part, rounded up.
constexpr std::size_t ceil_div(std::size_t size, std::size_t part) {
  return (size + part - 1) / part;
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

// Calls body(thread, task) for every task below `tasks`, each once, on whichever thread is free.
// Threads have indices below `threads`; not all of them need to come.
template <typename Body>
void for_each_task(std::size_t tasks, std::size_t threads, const Body& body) {
  if (threads == 1) {
    const DefaultFloatMode mode;
    for (std::size_t task = 0; task < tasks; ++task) body(std::size_t{0}, task);
    return;
  }
  struct Shared {
    const Body& body;
    const std::size_t tasks;
    std::atomic<std::size_t> next_task{0};
    std::atomic<std::size_t> next_thread{0};
  } shared{body, tasks};
  const auto work = [](void* argument) {
    const DefaultFloatMode mode;
    Shared& mine = *static_cast<Shared*>(argument);
    const std::size_t thread = mine.next_thread.fetch_add(1);
    for (std::size_t task; (task = mine.next_task.fetch_add(1)) < mine.tasks;)
      mine.body(thread, task);
  };
  Team::run(threads, work, &shared);
}

template <typename Body>
void parallel_for(std::size_t tasks, std::size_t threads, const Body& body) {
  for_each_task(tasks, threads, [&](std::size_t, std::size_t task) { body(task); });
}

// How many parts `size` things of `values` values each are cut into. Each thread gets several, so
// that one whose core another process takes for a while holds up only one of them.
inline std::size_t part_count(std::size_t size, std::size_t threads, std::size_t values) {
  constexpr std::size_t kPartsPerThread = 16;
  constexpr std::size_t kValuesPerPart = 65536;  // fewer would be read at less than full speed
  if (threads == 1) return 1;
  const std::size_t most = std::min(size, kPartsPerThread * threads);
  return std::clamp(size * values / kValuesPerPart, std::min(threads, most), most);
}

// Calls body(thread, part) for parts of [0, size) things of `values` values each.
template <typename Body>
void for_each_part(std::size_t size, std::size_t threads, std::size_t values, const Body& body) {
  const std::size_t parts = part_count(size, threads, values);
  for_each_task(parts, threads, [&](std::size_t thread, std::size_t part) {
    body(thread, part_of(size, parts, part));
  });
}

}  // namespace pyquant
