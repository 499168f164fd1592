#include "kernels/histogram.hpp"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>

#include "kernels/parallel.hpp"

namespace pyquant {
namespace {

constexpr std::size_t kMinValuesPerPiece = 8192;
constexpr std::size_t kPiecesPerThread = 4;

// The greatest finite value in place of infinity, for 0 * inverse to be 0.
double finite_inverse(double width) {
  return std::min(1.0 / width, DBL_MAX);
}

// bins * width if a float32 can be exactly that, else NaN.
float representable_last_edge(double width, std::size_t bins) {
  const double edge = width * static_cast<double>(bins);
  const bool rounded = std::fma(width, static_cast<double>(bins), -edge) != 0.0;
  const bool fits = edge <= FLT_MAX && static_cast<double>(static_cast<float>(edge)) == edge;
  return fits && !rounded ? static_cast<float>(edge) : std::numeric_limits<float>::quiet_NaN();
}

// Finds values' slots in the narrowest arithmetic that is exact for the bin width.
class SlotFinder {
 public:
  SlotFinder(double width, std::size_t bins, float last_edge)
      : narrow_{0.0f, 0.0f, last_edge, static_cast<std::uint32_t>(bins)},
        wide_{finite_inverse(width), width, last_edge, narrow_.bins} {
    if (width > FLT_MAX || width < 1.0 / FLT_MAX) return;
    narrow_.width = static_cast<float>(width);
    narrow_.inverse_width = 1.0f / narrow_.width;
    int exponent;
    if (static_cast<double>(narrow_.width) != width) return;
    find_narrow_ = std::frexp(width, &exponent) == 0.5 ? kernels().find_slots_power_of_two
                                                       : kernels().find_slots_float;
  }

  void operator()(const float* values, std::size_t size, std::uint32_t* slots) const {
    if (find_narrow_ != nullptr)
      find_narrow_(values, size, narrow_, slots);
    else
      find_wide_(values, size, wide_, slots);
  }

 private:
  Binning<float> narrow_;
  Binning<double> wide_;
  decltype(KernelTable::find_slots_float) find_narrow_ = nullptr;
  decltype(KernelTable::find_slots_double) find_wide_ = kernels().find_slots_double;
};

// What one thread counts. The slots are of 16 bits, to have as many as can be in the first-level
// cache, and are emptied into the bins before one could overflow.
class SlotSet {
 public:
  explicit SlotSet(std::size_t bins) : slots_((bins + 1) * kSlotsPerBin), bins_(bins + 1) {}

  void count(const std::uint32_t* slots, std::size_t size) {
    const std::size_t most_in_one_slot = (size + kSlotsPerBin - 1) / kSlotsPerBin;
    if (fill_ + most_in_one_slot > std::numeric_limits<std::uint16_t>::max()) empty_slots();
    fill_ += most_in_one_slot;
    for (std::size_t i = 0; i < size; ++i) ++slots_[slots[i]];
  }

  // The last bin's count is of the values outside of the histogram.
  const std::vector<std::uint64_t>& bins() {
    empty_slots();
    return bins_;
  }

 private:
  void empty_slots() {
    const std::uint16_t* slot = slots_.data();
    for (std::uint64_t& bin : bins_)
      for (std::size_t i = 0; i < kSlotsPerBin; ++i) bin += *slot++;
    std::fill(slots_.begin(), slots_.end(), std::uint16_t{0});
    fill_ = 0;
  }

  std::vector<std::uint16_t> slots_;
  std::vector<std::uint64_t> bins_;
  std::size_t fill_ = 0;  // an upper bound of every slot
};

using SlotSets = std::vector<SlotSet>;

std::uint64_t uncounted(SlotSets& sets) {
  std::uint64_t sum = 0;
  for (SlotSet& set : sets) sum += set.bins().back();
  return sum;
}

void add_counts(SlotSets& sets, Counts<std::uint64_t> counts) {
  for (SlotSet& set : sets) {
    const std::vector<std::uint64_t>& bins = set.bins();
    for (std::size_t bin = 0; bin < counts.bins; ++bin) counts[bin] += bins[bin];
  }
}

// Calls visit(values, size) block by block.
template <typename Visit>
void for_each_block(const Tensor& tensor, Part part, const Visit& visit) {
  const KernelTable& table = kernels();
  alignas(64) float buffer[kBlockSize];
  for (std::size_t begin = part.begin; begin < part.end; begin += kBlockSize) {
    const std::size_t size = std::min(kBlockSize, part.end - begin);
    visit(read_block(table, tensor, begin, size, buffer), size);
  }
}

void count_values(const Tensor& tensor, Part part, const SlotFinder& find_slots, SlotSet& set) {
  alignas(64) std::uint32_t slots[kBlockSize];
  for_each_block(tensor, part, [&](const float* values, std::size_t size) {
    find_slots(values, size, slots);
    set.count(slots, size);
  });
}

std::size_t counting_threads(int requested, const Tensor& tensor, std::size_t bins) {
  return thread_count(requested, tensor.size, std::max(kValuesPerThread, bins * kSlotsPerBin));
}

struct Summary {
  KeyRange<std::int32_t> keys{std::numeric_limits<std::int32_t>::max(),
                              std::numeric_limits<std::int32_t>::min()};
  std::size_t zeros = 0;

  void merge(const KeyRange<std::int32_t>& other_keys, std::size_t other_zeros) {
    keys.minimum = std::min(keys.minimum, other_keys.minimum);
    keys.maximum = std::max(keys.maximum, other_keys.maximum);
    zeros += other_zeros;
  }
};

Summary summarize_and_count(const Tensor& tensor, Part part, const SlotFinder& find_slots,
                            SlotSet& set) {
  const KernelTable& table = kernels();
  Summary summary;
  alignas(64) std::uint32_t slots[kBlockSize];
  for_each_block(tensor, part, [&](const float* values, std::size_t size) {
    find_slots(values, size, slots);
    set.count(slots, size);
    const BlockSummary block = table.summarize(values, size);
    summary.merge(block.keys, block.zeros);
  });
  return summary;
}

// Samples cut into pieces, enough of them for the threads to share evenly.
struct Pieces {
  std::size_t samples;
  std::size_t values;
  std::size_t per_sample;

  Pieces(const Tensor& tensor, std::size_t samples, std::size_t threads)
      : samples(samples), values(tensor.size / samples) {
    const std::size_t wanted = threads == 1 ? 1 : kPiecesPerThread * threads / samples + 1;
    per_sample = std::clamp<std::size_t>(values / kMinValuesPerPiece, 1, wanted);
  }

  std::size_t count() const { return samples * per_sample; }

  Part operator[](std::size_t index) const {
    const Part piece = part_of(values, per_sample, index % per_sample);
    const std::size_t start = index / per_sample * values;
    return {start + piece.begin, start + piece.end};
  }
};

std::vector<Summary> summarize_and_count(const Tensor& tensor, const Pieces& pieces,
                                         const SlotFinder& finder, SlotSets& sets) {
  const std::size_t threads = sets.size();
  std::vector<Summary> summaries(pieces.count());
  parallel_for(threads, threads, [&](std::size_t thread) {
    const Part mine = part_of(pieces.count(), threads, thread);
    for (std::size_t i = mine.begin; i < mine.end; ++i)
      summaries[i] = summarize_and_count(tensor, pieces[i], finder, sets[thread]);
  });
  return summaries;
}

std::vector<float> abs_max_of_samples(const std::vector<Summary>& pieces, std::size_t samples) {
  std::vector<float> maxima(samples);
  const std::size_t per_sample = pieces.size() / samples;
  for (std::size_t sample = 0; sample < samples; ++sample) {
    Summary whole;
    for (std::size_t i = 0; i < per_sample; ++i)
      whole.merge(pieces[sample * per_sample + i].keys, 0);
    const Range range = range_of_keys(whole.keys);
    maxima[sample] = std::max(std::fabs(range.minimum), std::fabs(range.maximum));
  }
  return maxima;
}

}  // namespace

void histogram(const Tensor& tensor, double width, Counts<std::uint64_t> counts, int requested) {
  const DefaultFloatMode mode;
  const SlotFinder finder(width, counts.bins, representable_last_edge(width, counts.bins));
  const std::size_t threads = counting_threads(requested, tensor, counts.bins);
  SlotSets sets(threads, SlotSet(counts.bins));
  parallel_for(threads, threads, [&](std::size_t thread) {
    count_values(tensor, part_of(tensor.size, threads, thread), finder, sets[thread]);
  });
  add_counts(sets, counts);
}

Observation observe(const Tensor& tensor, std::size_t samples, int width_exponent,
                    Counts<std::uint64_t> counts, int requested) {
  const DefaultFloatMode mode;
  const SlotFinder finder(std::ldexp(1.0, width_exponent), counts.bins,
                          std::numeric_limits<float>::quiet_NaN());
  const std::size_t threads = counting_threads(requested, tensor, counts.bins);
  SlotSets sets(threads, SlotSet(counts.bins));
  const std::vector<Summary> summaries =
      summarize_and_count(tensor, Pieces(tensor, samples, threads), finder, sets);

  Summary whole;
  for (const Summary& summary : summaries) whole.merge(summary.keys, summary.zeros);
  Observation observation{range_of_keys(whole.keys), whole.zeros, 0,
                          abs_max_of_samples(summaries, samples), false};
  const bool finite =
      std::isfinite(observation.range.minimum) && std::isfinite(observation.range.maximum);
  if (!finite) observation.non_finite = count_non_finite(tensor, requested);
  observation.counted = uncounted(sets) == observation.non_finite;
  if (observation.counted) add_counts(sets, counts);
  return observation;
}

}  // namespace pyquant
