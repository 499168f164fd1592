#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/thresholds.hpp"

namespace pyquant {

// Counts add up to less than 2^63, and only signed integers are converted by one instruction.
inline double as_double(std::uint64_t count) {
  return static_cast<double>(static_cast<std::int64_t>(count));
}

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
};

// Prefix sums give every candidate's score fast, but round differently from the definition; `error`
// bounds both roundings together. So they only make a shortlist, from which the first minimum by
// the definition itself wins. The candidates may come in any order.
template <typename Definition>
std::size_t first_minimum(const std::vector<Candidate>& candidates, double error,
                          const Definition& definition) {
  double least_score = std::numeric_limits<double>::infinity();
  for (const Candidate& c : candidates) least_score = std::min(least_score, c.score);
  std::vector<std::size_t> shortlist;
  for (const Candidate& c : candidates)
    if (!(c.score > least_score + 2.0 * error)) shortlist.push_back(c.bins);
  if (shortlist.size() == 1) return shortlist.front();
  double least = std::numeric_limits<double>::infinity();
  std::size_t best = std::numeric_limits<std::size_t>::max();
  for (const std::size_t bins : shortlist) {
    const double value = definition(bins);
    if (value < least || (value == least && bins < best)) {
      least = value;
      best = bins;
    }
  }
  return best;
}

}  // namespace pyquant
