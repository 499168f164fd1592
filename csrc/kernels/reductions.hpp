#pragma once

#include "kernels/tensor.hpp"

namespace pyquant {

struct Range {
  float minimum;
  float maximum;
};

// In all of these a NaN among the values makes the result NaN.
float abs_max(const Tensor&, int threads);
Range min_max(const Tensor&, int threads);  // of at least one value
void channel_abs_max(const Tensor&, const ChannelShape&, float* maxima, int threads);

// Of each channel of each of `samples` tensors of the same shape: sums[samples * channels].
void channel_sums(const Tensor&, std::size_t samples, const ChannelShape& of_sample, double* sums,
                  int threads);

// From the integer images that the kernel table's reductions give.
float float_of_magnitude(std::uint32_t magnitude, Element);
Range range_of_keys(KeyRange<std::int32_t>);
std::size_t count_non_finite(const Tensor&, int threads);

}  // namespace pyquant
