#include "instruction_sets/loops.hpp"

namespace pyquant {

const KernelTable& portable_kernels() {
  static constexpr KernelTable table = kernel_table("portable");
  return table;
}

}  // namespace pyquant
