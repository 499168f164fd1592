#pragma once

#include <cstddef>

namespace pyquant {

// Finite matrices [groups, rows, columns]: a row holds the weights of one input.
struct Matrices {
  const float* values;
  std::size_t groups;
  std::size_t rows;
  std::size_t columns;
};

// sums[group, column] = the sum over the rows, in their order, of factors[group, row] * value^2.
void scaled_square_sums(const Matrices&, const double* factors, double* sums, int threads);

// maxima[group, column] = the greatest |factors[group, row] * value| of the rows; 0 without rows.
void scaled_maxima(const Matrices&, const float* factors, float* maxima, int threads);

}  // namespace pyquant
