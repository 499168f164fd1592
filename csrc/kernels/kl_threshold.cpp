// The threshold of least Kullback-Leibler divergence, as paddle/static/quantization/
// cal_kl_threshold.py finds it (after Migacz, "8-bit Inference with TensorRT", GTC 2017).
//
// A candidate keeps the first i bins as the reference P, whose last bin also takes all outliers;
// Q merges them into `levels` runs of i / levels bins, the last run longer, and spreads each run's
// mass evenly over its non-zero bins. With T the total and S the mass within the first i bins,
//   T * KL = sum P log P + T log S - T log T - sum over runs of P(run) log(Q(run) / non-zero(run)).
// All of it comes from prefix sums, and candidates of equal i / levels share all runs but the last.
#include <cfloat>
#include <cmath>

#include "kernels/parallel.hpp"
#include "kernels/quantization.hpp"
#include "kernels/threshold_search.hpp"

namespace pyquant {
namespace {

double x_log_x(double x) {
  return x > 0.0 ? x * std::log(x) : 0.0;
}

class KlSearch {
 public:
  KlSearch(ConstCounts counts, std::size_t levels)
      : counts_(counts),
        levels_(levels),
        total_(total_count(counts)),
        log_total_(std::log(static_cast<double>(total_))),
        non_zero_bins_(non_zero_bins(counts)),
        mass_(counts.bins + 1),
        non_zero_(counts.bins + 1),
        entropy_(counts.bins + 1) {
    for (std::size_t bin = 0; bin < counts.bins; ++bin) {
      mass_[bin + 1] = mass_[bin] + counts[bin];
      non_zero_[bin + 1] = non_zero_[bin] + (counts[bin] != 0);
      entropy_[bin + 1] = entropy_[bin] + x_log_x(static_cast<double>(counts[bin]));
    }
  }

  std::size_t best(std::size_t start) const {
    const std::vector<Candidate> candidates = candidates_from(start);
    if (candidates.empty()) return last_non_zero(start);
    return first_minimum(candidates, [this](std::size_t bins) { return definition(bins); });
  }

 private:
  std::vector<Candidate> candidates_from(std::size_t start) const {
    std::vector<Candidate> candidates;
    std::size_t run_length = SIZE_MAX;
    double shared_runs = 0.0;
    const double error = rounding_bound();
    for (std::size_t bins = std::max<std::size_t>(start, 1); bins < counts_.bins; ++bins) {
      if (counts_[bins - 1] == 0) continue;
      if (bins / levels_ != run_length) {
        run_length = bins / levels_;
        shared_runs = runs_but_last(run_length);
      }
      candidates.push_back({bins, score(bins, shared_runs), error});
    }
    return candidates;
  }

  double mass(std::size_t begin, std::size_t end) const {
    return static_cast<double>(mass_[end] - mass_[begin]);
  }

  double log_mean(std::size_t begin, std::size_t end) const {
    return std::log(mass(begin, end) / static_cast<double>(non_zero_[end] - non_zero_[begin]));
  }

  double runs_but_last(std::size_t run_length) const {
    double sum = 0.0;
    for (std::size_t run = 0; run + 1 < levels_; ++run) {
      const std::size_t begin = run * run_length;
      const std::size_t end = begin + run_length;
      if (mass_[end] != mass_[begin]) sum += mass(begin, end) * log_mean(begin, end);
    }
    return sum;
  }

  std::uint64_t outliers(std::size_t bins) const { return total_ - mass_[bins]; }

  std::size_t last_run(std::size_t bins) const { return bins / levels_ * (levels_ - 1); }

  double score(std::size_t bins, double shared_runs) const {
    const double total = static_cast<double>(total_);
    const double beyond = static_cast<double>(outliers(bins));
    const double reference_entropy =
        entropy_[bins - 1] + x_log_x(static_cast<double>(counts_[bins - 1] + outliers(bins)));
    const std::size_t begin = last_run(bins);
    const double runs = shared_runs + (mass(begin, bins) + beyond) * log_mean(begin, bins);
    return reference_entropy + total * (std::log(mass(0, bins)) - log_total_) - runs;
  }

  // Of both sums: as many additions as non-zero bins, to at most total * log(total^2).
  double rounding_bound() const {
    const double total = static_cast<double>(total_);
    const double additions = static_cast<double>(non_zero_bins_.size() + 8);
    return 16.0 * DBL_EPSILON * additions * total * (log_total_ + 1.0);
  }

  // The divergence in the order of operations of Paddle's safe_entropy and of Python's sum(),
  // up to 3.11, where it adds one after the other.
  double definition(std::size_t bins) const {
    std::vector<Mean> means = run_means(bins);
    const double total = static_cast<double>(total_);
    double candidate_sum = 0.0;
    for (const Mean& run : means)
      for (std::size_t bin = 0; bin < run.non_zero; ++bin) candidate_sum += run.value;

    double reference_term = 0.0;
    double candidate_term = 0.0;
    const std::size_t* bin = non_zero_bins_.data();
    for (const Mean& run : means) {
      const double log_candidate = std::log(total * run.value);
      for (const std::size_t* end = bin + run.non_zero; bin != end; ++bin) {
        const std::uint64_t extra = *bin + 1 == bins ? outliers(bins) : 0;
        const double reference = static_cast<double>(counts_[*bin] + extra);
        reference_term += reference * std::log(candidate_sum * reference);
        candidate_term += reference * log_candidate;
      }
    }
    return (reference_term - candidate_term) / total;
  }

  struct Mean {
    double value;
    std::size_t non_zero;
  };

  std::vector<Mean> run_means(std::size_t bins) const {
    std::vector<Mean> means;
    const std::size_t run_length = bins / levels_;
    const std::size_t last = last_run(bins);
    const auto append = [&](std::size_t begin, std::size_t end) {
      const std::size_t non_zero = non_zero_[end] - non_zero_[begin];
      if (non_zero != 0)
        means.push_back({mass(begin, end) / static_cast<double>(non_zero), non_zero});
    };
    for (std::size_t begin = 0; begin < last; begin += run_length)
      append(begin, begin + run_length);
    append(last, bins);
    return means;
  }

  std::size_t last_non_zero(std::size_t bin) const {
    while (bin > 0 && counts_[bin] == 0) --bin;
    return bin;
  }

  ConstCounts counts_;
  std::size_t levels_;
  std::uint64_t total_;
  double log_total_;
  std::vector<std::size_t> non_zero_bins_;
  std::vector<std::uint64_t> mass_;
  std::vector<std::size_t> non_zero_;
  std::vector<double> entropy_;
};

}  // namespace

std::size_t default_kl_start(std::size_t bins, int bits) {
  return std::min<std::size_t>(levels_of(bits), bins - 1);
}

double kl_threshold(ConstCounts counts, double width, int bits, std::size_t start) {
  const DefaultFloatMode mode;
  const KlSearch search(counts, levels_of(bits));
  return (static_cast<double>(search.best(start)) + 0.5) * width;
}

}  // namespace pyquant
