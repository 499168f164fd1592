#include "bindings/register.hpp"

PYBIND11_MODULE(_native, m) {
  m.doc() = "Kernels of pyquant; pyquant.kernels is their interface.";
  pyquant::register_instruction_sets(m);
  pyquant::register_memory(m);
  pyquant::register_team(m);
  pyquant::register_reductions(m);
  pyquant::register_rows(m);
  pyquant::register_histogram(m);
  pyquant::register_thresholds(m);
  pyquant::register_quantization(m);
  pyquant::register_rounding(m);
  pyquant::register_error_sums(m);
  pyquant::register_mean_error(m);
  pyquant::register_scaled_inputs(m);
  pyquant::register_groups(m);
}
