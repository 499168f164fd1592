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

#include "instruction_sets/dispatch.hpp"
#include "kernels/parallel.hpp"
#include "kernels/quantization.hpp"
#include "kernels/threshold_search.hpp"

namespace pyquant {
namespace {

class KlSearch {
 public:
  KlSearch(ConstCounts counts, std::size_t levels)
      : counts_(counts),
        levels_(levels),
        total_(total_count(counts)),
        log_total_(std::log(as_double(total_))),
        mass_(counts.bins + 1),
        non_zero_(counts.bins + 1),
        entropy_(counts.bins + 1) {
    std::vector<double> masses(counts.bins);
    std::vector<double> logarithms(counts.bins);
    for (std::size_t bin = 0; bin < counts.bins; ++bin) {
      mass_[bin + 1] = mass_[bin] + counts[bin];
      non_zero_[bin + 1] = non_zero_[bin] + (counts[bin] != 0);
      masses[bin] = counts[bin] != 0 ? as_double(counts[bin]) : 1.0;  // 1 log 1 = 0
    }
    kernels().logarithms(masses.data(), counts.bins, logarithms.data());
    for (std::size_t bin = 0; bin < counts.bins; ++bin)
      entropy_[bin + 1] = entropy_[bin] + masses[bin] * logarithms[bin];
  }

  std::size_t best(std::size_t start) const {
    const std::vector<Candidate> candidates = candidates_from(start);
    if (candidates.empty()) return last_non_zero(start);
    return first_minimum(candidates, rounding_bound(),
                         [this](std::size_t bins) { return definition(bins); });
  }

 private:
  std::vector<Candidate> candidates_from(std::size_t start) const {
    std::vector<Candidate> candidates;
    candidates.reserve(counts_.bins);
    Runs runs(levels_ - 1);
    Terms terms;
    const std::size_t first = std::max<std::size_t>(start, 1);
    std::size_t run_length = first / levels_;
    double shared_runs = runs_but_last(run_length, runs);
    for (std::size_t bins = first; bins < counts_.bins; ++bins) {
      if (bins == (run_length + 1) * levels_) shared_runs = runs_but_last(++run_length, runs);
      if (counts_[bins - 1] == 0) continue;
      const std::size_t begin = run_length * (levels_ - 1);
      const std::uint64_t outliers = total_ - mass_[bins];
      const std::size_t i = terms.size++;
      terms.bins[i] = bins;
      terms.score[i] = entropy_[bins - 1] - shared_runs;
      terms.last_bin[i] = as_double(counts_[bins - 1] + outliers);
      terms.inliers[i] = mass(0, bins);
      terms.last_run[i] = mass(begin, bins);
      terms.last_non_zero[i] = as_double(non_zero_[bins] - non_zero_[begin]);
      terms.outliers[i] = as_double(outliers);
      if (terms.size == Terms::kMost) add_candidates(terms, candidates);
    }
    add_candidates(terms, candidates);
    return candidates;
  }

  // The terms of the scores of up to kMost candidates.
  struct Terms {
    static constexpr std::size_t kMost = 128;
    std::size_t bins[kMost];
    double score[kMost];     // without the terms below
    double last_bin[kMost];  // with all outliers
    double inliers[kMost];
    double last_run[kMost];
    double last_non_zero[kMost];
    double outliers[kMost];
    std::size_t size = 0;
  };

  void add_candidates(Terms& terms, std::vector<Candidate>& candidates) const {
    const KernelTable& table = kernels();
    double last_mean[Terms::kMost];
    double log_last_bin[Terms::kMost];
    double log_inliers[Terms::kMost];
    double log_last_mean[Terms::kMost];
    for (std::size_t i = 0; i < terms.size; ++i)
      last_mean[i] = terms.last_run[i] / terms.last_non_zero[i];
    table.logarithms(terms.last_bin, terms.size, log_last_bin);
    table.logarithms(terms.inliers, terms.size, log_inliers);
    table.logarithms(last_mean, terms.size, log_last_mean);
    const double total = as_double(total_);
    for (std::size_t i = 0; i < terms.size; ++i)
      terms.score[i] += terms.last_bin[i] * log_last_bin[i] +
                        total * (log_inliers[i] - log_total_) -
                        (terms.last_run[i] + terms.outliers[i]) * log_last_mean[i];
    // Member by member: building a candidate first would wait until both members are stored.
    candidates.resize(candidates.size() + terms.size);
    Candidate* const added = candidates.data() + (candidates.size() - terms.size);
    for (std::size_t i = 0; i < terms.size; ++i) {
      added[i].bins = terms.bins[i];
      added[i].score = terms.score[i];
    }
    terms.size = 0;
  }

  double mass(std::size_t begin, std::size_t end) const {
    return as_double(mass_[end] - mass_[begin]);
  }

  // The buffers of `runs_but_last`.
  struct Runs {
    explicit Runs(std::size_t size) : mass(size), non_zero(size), mean(size), logarithm(size) {}
    std::vector<double> mass;
    std::vector<double> non_zero;
    std::vector<double> mean;
    std::vector<double> logarithm;
  };

  double runs_but_last(std::size_t run_length, Runs& runs) const {
    const std::size_t count = runs.mass.size();
    for (std::size_t run = 0; run < count; ++run) {
      const std::size_t begin = run * run_length;
      const std::size_t end = begin + run_length;
      runs.mass[run] = mass(begin, end);
      runs.non_zero[run] = as_double(non_zero_[end] - non_zero_[begin]);
    }
    // A mean is at least one; an empty run gets one, since log(1) = 0.
    for (std::size_t run = 0; run < count; ++run)
      runs.mean[run] = std::max(runs.mass[run] / std::max(runs.non_zero[run], 1.0), 1.0);
    kernels().logarithms(runs.mean.data(), count, runs.logarithm.data());
    constexpr std::size_t kSums = 4;  // so that additions do not wait for each other
    double sums[kSums] = {};
    for (std::size_t run = 0; run < count; ++run)
      sums[run % kSums] += runs.mass[run] * runs.logarithm[run];
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }

  // For both sums: as many additions as non-zero bins, to at most total * log(total^2).
  double rounding_bound() const {
    const double total = as_double(total_);
    const double additions = as_double(non_zero_.back() + 8);
    return 16.0 * DBL_EPSILON * additions * total * (log_total_ + 1.0);
  }

  // The divergence, in the order of operations of Paddle's safe_entropy and of Python's sum() up to
  // 3.11, which adds one value after the other.
  double definition(std::size_t bins) const {
    const std::vector<Run> runs = runs_of(bins);
    const double total = as_double(total_);
    double candidate_sum = 0.0;
    for (const Run& run : runs)
      for (std::size_t bin = 0; bin < run.non_zero; ++bin) candidate_sum += run.mean;

    double reference_term = 0.0;
    double candidate_term = 0.0;
    for (const Run& run : runs) {
      const double log_candidate = std::log(total * run.mean);
      for (std::size_t bin = run.begin; bin != run.end; ++bin) {
        if (counts_[bin] == 0) continue;
        const std::uint64_t extra = bin + 1 == bins ? total_ - mass_[bins] : 0;
        const double reference = as_double(counts_[bin] + extra);
        reference_term += reference * std::log(candidate_sum * reference);
        candidate_term += reference * log_candidate;
      }
    }
    return (reference_term - candidate_term) / total;
  }

  struct Run {
    std::size_t begin;
    std::size_t end;
    std::size_t non_zero;
    double mean;  // of the bins that are not empty
  };

  // The runs that are not empty.
  std::vector<Run> runs_of(std::size_t bins) const {
    std::vector<Run> runs;
    const std::size_t run_length = bins / levels_;
    const std::size_t last = run_length * (levels_ - 1);
    const auto append = [&](std::size_t begin, std::size_t end) {
      const std::size_t non_zero = non_zero_[end] - non_zero_[begin];
      if (non_zero == 0) return;
      runs.push_back({begin, end, non_zero, mass(begin, end) / as_double(non_zero)});
    };
    for (std::size_t begin = 0; begin < last; begin += run_length)
      append(begin, begin + run_length);
    append(last, bins);
    return runs;
  }

  std::size_t last_non_zero(std::size_t bin) const {
    while (bin > 0 && counts_[bin] == 0) --bin;
    return bin;
  }

  ConstCounts counts_;
  std::size_t levels_;
  std::uint64_t total_;
  double log_total_;
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
