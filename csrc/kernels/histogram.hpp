#pragma once

#include <vector>

#include "kernels/counts.hpp"
#include "kernels/reductions.hpp"
#include "kernels/tensor.hpp"

namespace pyquant {

constexpr std::size_t kMaxBins = std::size_t{1} << 20;

// Adds the histogram of |x|: bin i counts i * width <= |x| < (i + 1) * width, in exact arithmetic,
// and the last bin also |x| == bins * width. Larger values and NaN are not counted.
void histogram(const Tensor&, double width, Counts<std::uint64_t>, int threads);

struct Observation {
  Range range;
  std::size_t zeros;
  std::size_t non_finite;
  std::vector<float> sample_abs_max;
  bool counted;
  Channels channels;
};

// Reads samples of at least one value once: for their summary, for their channels if asked for, and
// for their histogram of bin width 2^width_exponent. If there is a finite |x| >= bins * width, the
// counts stay as they were and `counted` is false. A NaN makes the range and the abs max of its
// sample NaN.
Observation observe(const Tensor&, const Samples&, int width_exponent, Counts<std::uint64_t>,
                    int threads);

}  // namespace pyquant
