#pragma once

#include "kernels/tensor.hpp"

namespace pyquant {

// A tensor seen as [outer, size, inner]: `size` values along the middle axis are a group.
struct GroupShape {
  std::size_t outer;
  std::size_t size;
  std::size_t inner;
};

constexpr std::size_t kMaxGroupSize = 1024;
constexpr int kPackedBits = 4;

// Rounds the values of each group to integers of `bits` bits times the group's step, [outer,
// inner]. The step is the one of least squared error among those that `find_steps` tries, if
// `search`; otherwise it maps the greatest magnitude to the greatest integer. It is NaN for a group
// that holds NaN or infinity, and 1 for a group of zeros.
//
// Integers of 8 bits are [outer, size, inner]. Two of 4 bits share a byte, [outer, size / 2,
// inner]: 16 * the one of the second half of the group + 8 + the one of the first half.
void quantize_groups(const Tensor&, const GroupShape&, int bits, bool search, std::int8_t* integers,
                     float* steps, int threads);

}  // namespace pyquant
