#include <cmath>

#include "kernels/threshold_search.hpp"

namespace pyquant {
namespace {

__extension__ using uint128 = unsigned __int128;

// ceil(share * total) in exact arithmetic: share is an integer of 53 bits times a power of two.
std::uint64_t count_reaching(double share, std::uint64_t total) {
  int exponent;
  const double mantissa = std::ldexp(std::frexp(share, &exponent), 53);
  const int shift = 53 - exponent;
  const uint128 product = uint128{static_cast<std::uint64_t>(mantissa)} * total;
  if (shift >= 127) return 1;
  const uint128 round_up = (uint128{1} << shift) - 1;
  return static_cast<std::uint64_t>((product + round_up) >> shift);
}

}  // namespace

double percentile_threshold(ConstCounts counts, double width, double share) {
  const std::uint64_t needed = count_reaching(share, total_count(counts));
  std::uint64_t cumulative = 0;
  std::size_t bin = 0;
  while ((cumulative += counts[bin]) < needed) ++bin;
  return static_cast<double>(bin + 1) * width;
}

}  // namespace pyquant
