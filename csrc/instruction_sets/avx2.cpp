#include "instruction_sets/loops.hpp"

namespace pyquant {

const KernelTable& avx2_kernels() {
  static constexpr KernelTable table = kernel_table("avx2");
  return table;
}

}  // namespace pyquant
