#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/samples.hpp"
#include "kernels/tensor.hpp"

namespace pyquant {

// Gathers all channels of every sample at these positions, rows[samples * positions, channels], and
// hashes the bits of each row.
void sample_rows(const Tensor&, const Samples&, const std::vector<std::size_t>& positions,
                 float* rows, std::uint64_t* hashes, int threads);

}  // namespace pyquant
