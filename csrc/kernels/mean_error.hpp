#pragma once

#include <cstddef>
#include <cstdint>

namespace pyquant {

// A matrix [rows, columns], and the same matrix as integers times steps. The step of an element is
// steps[row * step_of_row + column * step_of_column].
struct RoundedMatrix {
  const float* values;
  const std::int8_t* integers;
  std::size_t rows;
  std::size_t columns;
  const float* steps;
  std::size_t step_of_row;
  std::size_t step_of_column;
};

// Each row holds the weights of one output; the rows are in `groups` groups with their own inputs:
// outputs[row] = the sum over the columns of (value - integer * step) * inputs[group, column].
void mean_errors_of_rows(const RoundedMatrix&, std::size_t groups, const double* inputs,
                         double* outputs, int threads);

// The same for a matrix whose rows each hold the weights of one input:
// outputs[group, column] = the sum over the group's rows of (...) * inputs[row].
void mean_errors_of_columns(const RoundedMatrix&, std::size_t groups, const double* inputs,
                            double* outputs, int threads);

}  // namespace pyquant
