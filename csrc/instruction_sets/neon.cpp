#include "instruction_sets/loops.hpp"

namespace pyquant {

const KernelTable& neon_kernels() {
  static constexpr KernelTable table = kernel_table("neon");
  return table;
}

}  // namespace pyquant
