// The threshold of least mean quantization error: of squares (Banner et al., arXiv 1810.05723;
// Sakr et al., arXiv 2206.06501), or of distances, which is the earth mover's distance between the
// values and their quantized images.
//
// In units of the bin width, bin j holds the value j + 1/2, and a candidate of i bins has the step
// i / levels. What one level's cell contributes follows from prefix sums.
#include <cfloat>
#include <cmath>

#include "kernels/parallel.hpp"
#include "kernels/quantization.hpp"
#include "kernels/threshold_search.hpp"

namespace pyquant {
namespace {

// Half to even, in the default rounding mode, and without a call.
double round_to_integer(double value) {
  constexpr double kRounder = 6755399441055744.0;  // 1.5 * 2^52
  return (value + kRounder) - kRounder;
}

double centre_of(std::size_t bin) {
  return static_cast<double>(bin) + 0.5;
}

// Sums of counts times the 0th, 1st and 2nd power of their values, over the bins before each.
class Moments {
 public:
  explicit Moments(ConstCounts counts) : sums_(counts.bins + 1) {
    for (std::size_t bin = 0; bin < counts.bins; ++bin) {
      const double count = static_cast<double>(counts[bin]);
      const double value = centre_of(bin);
      sums_[bin + 1] = {sums_[bin].count + count, sums_[bin].first + count * value,
                        sums_[bin].second + count * value * value};
    }
  }

  double squares_about(double level, std::size_t begin, std::size_t end) const {
    const Sums cell = between(begin, end);
    return cell.second - 2.0 * level * cell.first + level * level * cell.count;
  }

  double distances_from(double level, std::size_t begin, std::size_t end) const {
    const std::size_t middle = std::clamp(first_bin_from(level), begin, end);
    const Sums below = between(begin, middle);
    const Sums above = between(middle, end);
    return (level * below.count - below.first) + (above.first - level * above.count);
  }

  // The first bin of a value above `edge`, a value on it being as far from either side's level.
  static std::size_t first_bin_from(double edge) { return static_cast<std::size_t>(edge + 0.5); }

  // What the largest terms in a candidate's sum of squares can add up to.
  double square_scale(double threshold) const {
    const Sums& all = sums_.back();
    return all.second + 2.0 * threshold * all.first + threshold * threshold * all.count;
  }

  double distance_scale(double threshold) const {
    return sums_.back().first + threshold * sums_.back().count;
  }

 private:
  struct Sums {
    double count = 0.0;
    double first = 0.0;
    double second = 0.0;
  };

  Sums between(std::size_t begin, std::size_t end) const {
    const Sums& low = sums_[begin];
    const Sums& high = sums_[end];
    return {high.count - low.count, high.first - low.first, high.second - low.second};
  }

  std::vector<Sums> sums_;
};

struct SquaredError {
  static double of(double difference) { return difference * difference; }
  static double of_cell(const Moments& m, double level, std::size_t begin, std::size_t end) {
    return m.squares_about(level, begin, end);
  }
  static double scale(const Moments& m, double threshold) { return m.square_scale(threshold); }
};

struct AbsoluteError {
  static double of(double difference) { return std::fabs(difference); }
  static double of_cell(const Moments& m, double level, std::size_t begin, std::size_t end) {
    return m.distances_from(level, begin, end);
  }
  static double scale(const Moments& m, double threshold) { return m.distance_scale(threshold); }
};

template <typename Error>
class ErrorSearch {
 public:
  ErrorSearch(ConstCounts counts, std::size_t levels)
      : counts_(counts), levels_(levels), bins_(non_zero_bins(counts)), moments_(counts) {}

  std::size_t best() const {
    std::vector<Candidate> candidates;
    for (std::size_t bins = 1; bins <= bins_.back() + 1; ++bins)
      candidates.push_back({bins, score(bins), rounding_bound(bins)});
    return first_minimum(candidates,
                         [this](std::size_t bins) { return sum_over_bins(bins, counts_.bins); });
  }

 private:
  double step_of(std::size_t bins) const {
    return static_cast<double>(bins) / static_cast<double>(levels_);
  }

  // A step of less than a bin leaves fewer bins than levels to go through.
  double score(std::size_t bins) const {
    if (bins > levels_) return sum_over_levels(bins);
    const double threshold = static_cast<double>(bins);
    return sum_over_bins(bins, bins) + Error::of_cell(moments_, threshold, bins, counts_.bins);
  }

  double sum_over_levels(std::size_t bins) const {
    const double step = step_of(bins);
    double sum = 0.0;
    std::size_t begin = 0;
    for (std::size_t level = 0; level < levels_; ++level) {
      const std::size_t end = Moments::first_bin_from((static_cast<double>(level) + 0.5) * step);
      sum += Error::of_cell(moments_, static_cast<double>(level) * step, begin, end);
      begin = end;
    }
    return sum + Error::of_cell(moments_, static_cast<double>(bins), begin, counts_.bins);
  }

  // The definition, of the first `end` bins' values.
  double sum_over_bins(std::size_t bins, std::size_t end) const {
    const double step = step_of(bins);
    double sum = 0.0;
    for (const std::size_t bin : bins_) {
      if (bin >= end) break;
      const double value = centre_of(bin);
      const double level = std::min(round_to_integer(value / step), static_cast<double>(levels_));
      sum += static_cast<double>(counts_[bin]) * Error::of(value - level * step);
    }
    return sum;
  }

  double rounding_bound(std::size_t bins) const {
    const double additions = static_cast<double>(bins_.size() + std::min(levels_, bins) + 8);
    return 4.0 * DBL_EPSILON * additions * Error::scale(moments_, static_cast<double>(bins));
  }

  ConstCounts counts_;
  std::size_t levels_;
  std::vector<std::size_t> bins_;
  Moments moments_;
};

template <typename Error>
double error_threshold(ConstCounts counts, double width, int bits) {
  const DefaultFloatMode mode;
  const ErrorSearch<Error> search(counts, levels_of(bits));
  return static_cast<double>(search.best()) * width;
}

}  // namespace

double mse_threshold(ConstCounts counts, double width, int bits) {
  return error_threshold<SquaredError>(counts, width, bits);
}

double emd_threshold(ConstCounts counts, double width, int bits) {
  return error_threshold<AbsoluteError>(counts, width, bits);
}

}  // namespace pyquant
