#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/thresholds.hpp"

namespace pyquant {

inline std::uint64_t total_count(ConstCounts counts) {
  return std::accumulate(counts.data, counts.data + counts.bins, std::uint64_t{0});
}

inline std::vector<std::size_t> non_zero_bins(ConstCounts counts) {
  std::vector<std::size_t> bins;
  for (std::size_t bin = 0; bin < counts.bins; ++bin)
    if (counts[bin] != 0) bins.push_back(bin);
  return bins;
}

struct Candidate {
  std::size_t bins;  // within the threshold
  double score;      // by prefix sums
  double error;      // a bound on what rounding may have done to the score and to its definition
};

// Prefix sums give every candidate's score fast but round otherwise than the definition does. So
// they only draw up the shortlist; of that, the first minimum of the definition itself wins.
template <typename Definition>
std::size_t first_minimum(const std::vector<Candidate>& candidates, const Definition& definition) {
  double bound = std::numeric_limits<double>::infinity();
  for (const Candidate& c : candidates) bound = std::min(bound, c.score + c.error);
  double least = std::numeric_limits<double>::infinity();
  std::size_t best = candidates.front().bins;
  for (const Candidate& c : candidates) {
    if (c.score - c.error > bound) continue;
    const double value = definition(c.bins);
    if (value < least) {
      least = value;
      best = c.bins;
    }
  }
  return best;
}

}  // namespace pyquant
