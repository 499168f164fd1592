#pragma once

#include "kernels/tensor.hpp"

namespace pyquant {

// For each channel, the greatest of |a|, |b| and |a + b| over the pairs of neighbours (0, 1),
// (2, 3) and so on along another axis. The sum is in float32; an odd last value stands alone.
// `shape` is the tensor seen as [outer, channels, inner], `pairs` as [outer, neighbours, inner]. A
// NaN among a channel's values makes its result NaN; infinities of opposite signs do not.
void channel_pair_max(const Tensor&, const ChannelShape& shape, const ChannelShape& pairs,
                      float* maxima, int threads);

}  // namespace pyquant
