#include "kernels/team.hpp"

#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "kernels/helpers.hpp"

namespace pyquant {
namespace {

// What GCC compiles a parallel region to: libgomp's ABI, GOMP_4.0.
using ParallelRegion = void (*)(Team::Work, void*, unsigned threads, unsigned flags);
using MaxThreads = int (*)();

void own_region(Team::Work work, void* argument, unsigned threads, unsigned) {
  Helpers::instance().run(threads - 1, work, argument);
}

int own_max_threads() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

std::atomic<ParallelRegion> region{own_region};
std::atomic<MaxThreads> max_threads{own_max_threads};
std::atomic<bool> is_forked{false};

// A fork leaves the threads of a runtime behind, and a region in the child would wait for them.
const int registered = pthread_atfork(nullptr, nullptr, [] {
  Team::leave();
  is_forked.store(true);
});

}  // namespace

std::size_t Team::size() {
  return static_cast<std::size_t>(std::max(1, max_threads.load()()));
}

void Team::run(std::size_t threads, Work work, void* argument) {
  region.load()(work, argument, static_cast<unsigned>(threads), 0);
}

void Team::leave() {
  region.store(own_region);
  max_threads.store(own_max_threads);
}

bool Team::join(const std::string& path) {
  if (is_forked.load()) return false;
  void* const library = dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
  if (library == nullptr) return false;
  const auto parallel = reinterpret_cast<ParallelRegion>(dlsym(library, "GOMP_parallel"));
  const auto maximum = reinterpret_cast<MaxThreads>(dlsym(library, "omp_get_max_threads"));
  if (parallel == nullptr || maximum == nullptr) return false;
  region.store(parallel);
  max_threads.store(maximum);
  return true;
}

}  // namespace pyquant
