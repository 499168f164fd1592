#pragma once

#include <cstddef>
#include <cstdint>

namespace pyquant {

// A matrix [rows, columns], and as integers times steps: the step of an element is
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

// The rows, in `groups` groups, hold the weights of one output each, for the inputs of their group:
// outputs[row] = the sum over the columns of (value - integer * step) * inputs[group, column].
void mean_errors_of_rows(const RoundedMatrix&, std::size_t groups, const double* inputs,
                         double* outputs, int threads);

// The same of a matrix whose rows hold the weights of one input each:
// outputs[group, column] = the sum over the group's rows of (...) * inputs[row].
void mean_errors_of_columns(const RoundedMatrix&, std::size_t groups, const double* inputs,
                            double* outputs, int threads);

}  // namespace pyquant
