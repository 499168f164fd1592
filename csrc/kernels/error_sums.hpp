#pragma once

#include <cstddef>

namespace pyquant {

// Sums over the values of two arrays, a reference and another one.
struct ErrorSums {
  double total;    // of the reference
  double signal;   // of its squares
  double noise;    // of the squares of the differences
  double other;    // of the squares of the other values
  double product;  // of the products
};

// The values become doubles before anything is computed of them. A NaN makes sums NaN.
ErrorSums error_sums(const float* reference, const float* other, std::size_t size, int threads);
ErrorSums error_sums(const double* reference, const double* other, std::size_t size, int threads);

}  // namespace pyquant
