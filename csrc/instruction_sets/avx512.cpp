#include "instruction_sets/loops.hpp"

namespace pyquant {

const KernelTable& avx512_kernels() {
  static constexpr KernelTable table = kernel_table("avx512");
  return table;
}

}  // namespace pyquant
