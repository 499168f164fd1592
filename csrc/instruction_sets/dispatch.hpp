#pragma once

#include <string>
#include <vector>

#include "instruction_sets/kernel_table.hpp"

namespace pyquant {

// The table in use: the last one selected, else the one that PYQUANT_ISA names, else the fastest
// this processor and its operating system can run.
const KernelTable& kernels();

void select_instruction_set(const std::string& name);

// Slowest first.
std::vector<std::string> available_instruction_sets();

}  // namespace pyquant
