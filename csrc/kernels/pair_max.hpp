#pragma once

#include "kernels/tensor.hpp"

namespace pyquant {

// Of each channel, the greatest of |a|, |b| and |a + b| over the pairs of neighbours (0, 1), (2, 3)
// and so on along another axis, the sum in float32; a last odd one stands alone. `pairs` is the
// tensor seen as [outer, neighbours, inner], `shape` is it as [outer, channels, inner]. A NaN among
// a channel's values makes it NaN; infinities of opposite signs do not.
void channel_pair_max(const Tensor&, const ChannelShape& shape, const ChannelShape& pairs,
                      float* maxima, int threads);

}  // namespace pyquant
