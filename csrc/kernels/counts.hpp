#pragma once

#include <cstddef>
#include <cstdint>

namespace pyquant {

// A histogram's counts, std::uint64_t or const std::uint64_t.
template <typename Count>
struct Counts {
  Count* data;
  std::size_t bins;

  Count& operator[](std::size_t bin) const { return data[bin]; }
};

}  // namespace pyquant
