#include "kernels/mapped_files.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <mutex>

namespace pyquant {
namespace {

constexpr std::size_t kMostMappings = 8192;

struct Mapping {
  std::atomic<std::uintptr_t> begin{0};  // 0 if the place is free
  std::atomic<std::size_t> size{0};
  std::atomic<bool> is_cut{false};
};

std::array<Mapping, kMostMappings> mappings;
std::atomic<std::size_t> used{0};  // all places behind are free
std::mutex changes;
struct sigaction before;
std::uintptr_t page_size;

Mapping* mapping_of(std::uintptr_t address) {
  const std::size_t count = used.load();
  for (std::size_t i = 0; i < count; ++i) {
    const std::uintptr_t begin = mappings[i].begin.load();
    if (begin != 0 && address >= begin && address - begin < mappings[i].size.load())
      return &mappings[i];
  }
  return nullptr;
}

// Puts a page of zeros in the place of one that is gone. Everything else goes to the handler that
// was there before.
void handle(int signal, siginfo_t* info, void* context) {
  const int saved = errno;
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  Mapping* const mapping = mapping_of(address);
  if (mapping != nullptr) {
    void* const page = reinterpret_cast<void*>(address / page_size * page_size);
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    mapping->is_cut.store(true);
    if (mmap(page, page_size, PROT_READ, flags, -1, 0) != MAP_FAILED) {
      errno = saved;
      return;
    }
  }
  if ((before.sa_flags & SA_SIGINFO) != 0)
    before.sa_sigaction(signal, info, context);
  else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
    before.sa_handler(signal);
  else
    sigaction(signal, &before, nullptr);  // the access is repeated, and ends the process
}

// Another library may have replaced the handler since the last call.
void install() {
  page_size = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  struct sigaction now;
  sigaction(SIGBUS, nullptr, &now);
  if ((now.sa_flags & SA_SIGINFO) != 0 && now.sa_sigaction == handle) return;
  before = now;
  struct sigaction ours = {};
  ours.sa_sigaction = handle;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigaction(SIGBUS, &ours, nullptr);
}

}  // namespace

int watch_mapping(const void* begin, std::size_t size) {
  const std::lock_guard<std::mutex> lock(changes);
  install();
  for (std::size_t i = 0; i < kMostMappings; ++i) {
    Mapping& mapping = mappings[i];
    if (mapping.begin.load() != 0) continue;
    mapping.is_cut.store(false);
    mapping.size.store(size);
    mapping.begin.store(reinterpret_cast<std::uintptr_t>(begin));
    if (i >= used.load()) used.store(i + 1);
    return static_cast<int>(i);
  }
  return -1;
}

bool is_mapping_cut(int number) {
  return number >= 0 && static_cast<std::size_t>(number) < kMostMappings &&
         mappings[static_cast<std::size_t>(number)].is_cut.load();
}

void forget_mapping(int number) {
  if (number < 0 || static_cast<std::size_t>(number) >= kMostMappings) return;
  mappings[static_cast<std::size_t>(number)].begin.store(0);
}

}  // namespace pyquant
