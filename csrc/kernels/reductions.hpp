#pragma once

#include <algorithm>
#include <vector>

#include "kernels/samples.hpp"
#include "kernels/tensor.hpp"

namespace pyquant {

// Columns reduced at once: few enough for their maxima to stay in the second-level cache, and
// enough for a row to be read in long stretches.
constexpr std::size_t kMaxColumns = 65536;

struct Range {
  float minimum;
  float maximum;
};

// In all of these a NaN among the values makes the result NaN.
float abs_max(const Tensor&, int threads);
Range min_max(const Tensor&, int threads);  // of at least one value
void channel_abs_max(const Tensor&, const ChannelShape&, float* maxima, int threads);

// Sums each channel of each of `samples` tensors of the same shape: sums[samples * channels]. Adds
// up the values of kSummedAtOnce positions in float32, then these sums in order for
// kSummedPositions at a time, and then those sums in order. So the result does not depend on how
// channels and positions lie in memory.
constexpr std::size_t kSummedPositions = 128;
void channel_sums(const Tensor&, std::size_t samples, const ChannelShape& of_sample, double* sums,
                  int threads);

// Adds sums[samples * channels] to each channel's total, a whole part and a fraction below one in
// units of 2^-kFractionBits, so that the total does not depend on the order of addition. A sum
// counts for kLargestSum at most.
constexpr int kFractionBits = 40;
constexpr double kLargestSum = 0x1p45;
void add_exactly(const double* sums, std::size_t samples, std::size_t channels, std::int64_t* whole,
                 std::int64_t* fraction);

// Makes all NaN alike: which of several NaN an addition passes on depends on the instruction.
void make_nan_the_same(double* sums, std::size_t size);

// The greatest magnitude of each sample, and the channels' statistics if asked for.
struct Maxima {
  std::vector<float> of_samples;
  Channels channels;
};
Maxima sample_maxima(const Tensor&, const Samples&, int threads);

template <typename Key>
void extend(KeyRange<Key>& range, const KeyRange<Key>& other) {
  range.minimum = std::min(range.minimum, other.minimum);
  range.maximum = std::max(range.maximum, other.maximum);
}

// From the integers that the kernel table's reductions return.
float float_of_magnitude(std::uint32_t magnitude, Element);
Range range_of_keys(KeyRange<std::int32_t>);
std::size_t count_non_finite(const Tensor&, int threads);

}  // namespace pyquant
