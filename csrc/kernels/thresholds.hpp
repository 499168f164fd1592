#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/counts.hpp"

// Thresholds chosen from a histogram of |x|. At least one value, and fewer than 2^63, must have
// been counted.
namespace pyquant {

using ConstCounts = Counts<const std::uint64_t>;

// One bin for each level, or all bins but one if there are not so many.
std::size_t default_kl_start(std::size_t bins, int bits);
// `start`: the least number of bins within the threshold that is tried.
double kl_threshold(ConstCounts, double width, int bits, std::size_t start);

double mse_threshold(ConstCounts, double width, int bits);
double emd_threshold(ConstCounts, double width, int bits);

// The upper edge of the first bin at which the cumulative share reaches `share`, in (0, 1].
double percentile_threshold(ConstCounts, double width, double share);

}  // namespace pyquant
