// The threshold of least mean quantization error. The error is either squared (Banner et al., arXiv
// 1810.05723; Sakr et al., arXiv 2206.06501) or absolute, which gives the earth mover's distance
// between the values and their quantized values.
//
// In units of the bin width, bin j holds c_j values of j + 1/2, and a candidate of T bins has the
// step s = T / levels. Let N(e) and S(e) be the number and the sum of the values below e. Summed by
// parts over the levels l = 1 .. L, with the edge between l - 1 and l at (l - 1/2) s,
//   sum of squares   = sum c (v - T)^2 + 2 s sum S((l - 1/2) s)
//                      - 2 s^2 sum (l - 1/2) N((l - 1/2) s).
// With the levels themselves as edges too, at h s / 2 for h = 1 .. 2 L,
//   sum of distances = sum c (v - T) + 2 sum (-1)^(h+1) (S(h s / 2) - s h / 2 N(h s / 2)).
#include <cfloat>
#include <cmath>

#include "instruction_sets/dispatch.hpp"
#include "kernels/parallel.hpp"
#include "kernels/quantization.hpp"
#include "kernels/threshold_search.hpp"

namespace pyquant {
namespace {

// Rounds half to even, in the default rounding mode, without a function call.
double round_to_integer(double value) {
  constexpr double kRounder = 6755399441055744.0;  // 1.5 * 2^52
  return (value + kRounder) - kRounder;
}

double centre_of(std::size_t bin) {
  return static_cast<double>(bin) + 0.5;
}

// Prefix sums, up to each bin, of the counts times the 0th, 1st and 2nd power of their values.
struct Moments {
  explicit Moments(ConstCounts counts) : below(counts.bins + 1), squares(counts.bins + 1) {
    for (std::size_t bin = 0; bin < counts.bins; ++bin) {
      const double count = as_double(counts[bin]);
      const double value = centre_of(bin);
      below[bin + 1] = {below[bin].count + count, below[bin].sum + count * value};
      squares[bin + 1] = squares[bin] + count * value * value;
    }
  }

  std::vector<Below> below;
  std::vector<double> squares;
};

// Edges and their weights, filled up with edges of zero weight.
class EdgeList {
 public:
  void add(double steps, Below weights) {
    steps_.push_back(steps);
    weights_.push_back(weights);
  }

  void fill_up() {
    while (steps_.size() % kEdgesAtOnce != 0) add(0.0, {0.0, 0.0});
  }

  Edges view() const { return {steps_.data(), weights_.data(), steps_.size()}; }

 private:
  std::vector<double> steps_;
  std::vector<Below> weights_;
};

// How an error is measured: `of` is the error of one value, `sum` that of all, by prefix sums. From
// a threshold T to a greater one, the `norm` of the sum changes by at most `slope` for every bin: a
// level moves at most as fast as the threshold, v's nearest level at most (v + s / 2) / T as fast.
struct SquaredError {
  static double of(double difference) { return difference * difference; }

  static void add_edges(std::size_t levels, EdgeList& edges) {
    for (std::size_t level = 0; level < levels; ++level) {
      const double steps = centre_of(level);
      edges.add(steps, {steps, 1.0});
    }
  }

  static double sum(const Moments& m, double threshold, double step, Below weighed) {
    const Below& all = m.below.back();
    return (m.squares.back() - 2.0 * threshold * all.sum + threshold * threshold * all.count) +
           2.0 * step * (weighed.sum - step * weighed.count);
  }

  // What the largest terms of `sum` can add up to.
  static double scale(const Moments& m, double threshold) {
    const Below& all = m.below.back();
    return m.squares.back() + 4.0 * threshold * all.sum + 2.0 * threshold * threshold * all.count;
  }

  static double norm(double sum) { return std::sqrt(sum); }

  static double slope(const Moments& m, std::size_t bins, double half_level) {
    const Below& inside = m.below[bins];
    const double t = static_cast<double>(bins);
    const double moved = m.squares[bins] / (t * t) + 2.0 * half_level * inside.sum / t +
                         half_level * half_level * inside.count;
    return std::sqrt(moved + m.below.back().count - inside.count);
  }
};

struct AbsoluteError {
  static double of(double difference) { return std::fabs(difference); }

  static void add_edges(std::size_t levels, EdgeList& edges) {
    for (std::size_t half = 1; half <= 2 * levels; ++half) {
      const double steps = 0.5 * static_cast<double>(half);
      const double sign = half % 2 == 1 ? 1.0 : -1.0;
      edges.add(steps, {sign * steps, sign});
    }
  }

  static double sum(const Moments& m, double threshold, double step, Below weighed) {
    const Below& all = m.below.back();
    return (all.sum - threshold * all.count) + 2.0 * (weighed.sum - step * weighed.count);
  }

  // The terms of neighbouring edges cancel, except for one.
  static double scale(const Moments& m, double threshold) {
    const Below& all = m.below.back();
    return 5.0 * (all.sum + threshold * all.count);
  }

  static double norm(double sum) { return sum; }

  static double slope(const Moments& m, std::size_t bins, double half_level) {
    const Below& inside = m.below[bins];
    return inside.sum / static_cast<double>(bins) + half_level * inside.count +
           (m.below.back().count - inside.count);
  }
};

template <typename Error>
class ErrorSearch {
 public:
  ErrorSearch(ConstCounts counts, std::size_t levels)
      : counts_(counts), levels_(levels), bins_(non_zero_bins(counts)), moments_(counts) {
    Error::add_edges(levels, edges_);
    edges_.fill_up();
    error_ = rounding_bound();
  }

  std::size_t best() const {
    return first_minimum(candidates(), error_,
                         [this](std::size_t bins) { return sum_over_bins(bins); });
  }

 private:
  // Two candidates, and lower bounds of the norms of their errors.
  struct Interval {
    std::size_t begin;
    std::size_t end;
    double begin_norm;
    double end_norm;
  };

  // All candidates except those that their neighbours prove to be worse than the best: an interval
  // is halved until that is proven for it, or nothing is left in between.
  std::vector<Candidate> candidates() const {
    std::vector<Candidate> candidates;
    double bound = std::numeric_limits<double>::infinity();
    const auto least_norm = [&](std::size_t bins) {
      candidates.push_back({bins, score(bins)});
      bound = std::min(bound, candidates.back().score + 2.0 * error_);
      return Error::norm(std::max(candidates.back().score - error_, 0.0));
    };
    const std::size_t last = bins_.back() + 1;
    std::vector<Interval> intervals = {{1, last, least_norm(1), least_norm(last)}};
    std::vector<Interval> halves;
    while (!intervals.empty()) {
      halves.clear();
      for (const Interval& interval : intervals) {
        if (interval.end - interval.begin < 2 || is_worse(interval, bound)) continue;
        const std::size_t middle = interval.begin + (interval.end - interval.begin) / 2;
        const double norm = least_norm(middle);
        halves.push_back({interval.begin, middle, interval.begin_norm, norm});
        halves.push_back({middle, interval.end, norm, interval.end_norm});
      }
      intervals.swap(halves);
    }
    return candidates;
  }

  // Whether no threshold in between can bring the error down to `bound`.
  bool is_worse(const Interval& interval, double bound) const {
    const double half_level = 0.5 / static_cast<double>(levels_);
    const double slope = Error::slope(moments_, interval.begin, half_level) * (1.0 + kMargin);
    const double length = static_cast<double>(interval.end - interval.begin);
    const double least = 0.5 * (interval.begin_norm + interval.end_norm - slope * length);
    return least > Error::norm(bound);
  }

  double score(std::size_t bins) const {
    const double threshold = static_cast<double>(bins);
    const double step = threshold / static_cast<double>(levels_);
    const Below weighed = table_.weigh_edges(edges_.view(), step, moments_.below.data());
    return Error::sum(moments_, threshold, step, weighed);
  }

  // The error by its definition.
  double sum_over_bins(std::size_t bins) const {
    const double step = static_cast<double>(bins) / static_cast<double>(levels_);
    double sum = 0.0;
    for (const std::size_t bin : bins_) {
      const double value = centre_of(bin);
      const double level = std::min(round_to_integer(value / step), static_cast<double>(levels_));
      sum += as_double(counts_[bin]) * Error::of(value - level * step);
    }
    return sum;
  }

  double rounding_bound() const {
    const double additions = static_cast<double>(bins_.size() + edges_.view().size + 8);
    const double threshold = static_cast<double>(bins_.back() + 1);
    return 4.0 * DBL_EPSILON * additions * Error::scale(moments_, threshold);
  }

  static constexpr double kMargin = 1e-6;  // far above what rounding does to the slope

  const KernelTable& table_ = kernels();
  ConstCounts counts_;
  std::size_t levels_;
  std::vector<std::size_t> bins_;
  Moments moments_;
  EdgeList edges_;
  double error_;
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
