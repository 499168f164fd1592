#pragma once

#include <pybind11/pybind11.h>

namespace pyquant {

void register_instruction_sets(pybind11::module_&);
void register_memory(pybind11::module_&);
void register_team(pybind11::module_&);
void register_reductions(pybind11::module_&);
void register_rows(pybind11::module_&);
void register_histogram(pybind11::module_&);
void register_thresholds(pybind11::module_&);
void register_quantization(pybind11::module_&);
void register_rounding(pybind11::module_&);
void register_error_sums(pybind11::module_&);
void register_mean_error(pybind11::module_&);
void register_scaled_inputs(pybind11::module_&);
void register_groups(pybind11::module_&);

}  // namespace pyquant
