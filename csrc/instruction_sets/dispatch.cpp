#include "instruction_sets/dispatch.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace pyquant {
namespace {

std::vector<const KernelTable*> runnable_tables() {
  std::vector<const KernelTable*> tables = {&portable_kernels()};
#ifdef PYQUANT_HAS_AVX2
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2) tables.push_back(&avx2_kernels());
#endif
#ifdef PYQUANT_HAS_AVX512
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2 && avx512) tables.push_back(&avx512_kernels());
#endif
#ifdef PYQUANT_HAS_NEON
  tables.push_back(&neon_kernels());
#endif
  return tables;
}

std::string join(const std::vector<std::string>& names) {
  std::string joined;
  for (const std::string& name : names) joined += (joined.empty() ? "" : ", ") + name;
  return joined;
}

const KernelTable& find_table(const std::string& name, const std::string& asked_by) {
  for (const KernelTable* table : runnable_tables())
    if (table->name == name) return *table;
  throw std::runtime_error(
      asked_by + ": instruction set '" + name +
      "' is not available here; available: " + join(available_instruction_sets()));
}

const KernelTable& initial_table() {
  const char* forced = std::getenv("PYQUANT_ISA");
  if (forced != nullptr && *forced != '\0') return find_table(forced, "PYQUANT_ISA");
  return *runnable_tables().back();
}

std::atomic<const KernelTable*> active_table{nullptr};

}  // namespace

const KernelTable& kernels() {
  const KernelTable* table = active_table.load();
  if (table == nullptr) {
    table = &initial_table();
    active_table.store(table);
  }
  return *table;
}

void select_instruction_set(const std::string& name) {
  active_table.store(&find_table(name, "set_isa"));
}

std::vector<std::string> available_instruction_sets() {
  std::vector<std::string> names;
  for (const KernelTable* table : runnable_tables()) names.emplace_back(table->name);
  return names;
}

}  // namespace pyquant
