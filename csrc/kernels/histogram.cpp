#include "kernels/histogram.hpp"

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "kernels/parallel.hpp"
#include "kernels/samples.hpp"

namespace pyquant {
namespace {

constexpr float kNoEdge = std::numeric_limits<float>::quiet_NaN();

// Below 1 / width by more than the rounding of it, and of a product with it, could add.
float low_inverse(float width) {
  const double wanted = 1.0 - 0x1p-23;
  float inverse = static_cast<float>((1.0 - 0x1p-22) / width);
  while (static_cast<double>(inverse) * width > wanted) inverse = std::nextafter(inverse, 0.0f);
  return inverse;
}

// The same, with the greatest finite value in place of infinity, so that 0 * inverse is 0.
double low_inverse(double width) {
  return std::min((1.0 - 0x1p-40) / width, DBL_MAX);
}

// bins * width if it is exact in float32, else kNoEdge.
float representable_last_edge(double width, std::size_t bins) {
  const double edge = width * static_cast<double>(bins);
  const bool rounded = std::fma(width, static_cast<double>(bins), -edge) != 0.0;
  const bool fits = edge <= FLT_MAX && static_cast<double>(static_cast<float>(edge)) == edge;
  return fits && !rounded ? static_cast<float>(edge) : kNoEdge;
}

// Finds the bins of values in the narrowest arithmetic that is exact for the bin width.
class BinFinder {
 public:
  BinFinder(double width, std::size_t bins, float last_edge)
      : narrow_{0.0f, 0.0f, last_edge, static_cast<std::uint32_t>(bins)},
        wide_{low_inverse(width), width, last_edge, narrow_.bins} {
    if (width > FLT_MAX || width < 1.0 / FLT_MAX) return;
    narrow_.width = static_cast<float>(width);
    if (static_cast<double>(narrow_.width) != width) return;
    int exponent;
    const bool power_of_two = std::frexp(width, &exponent) == 0.5;
    narrow_.inverse_width = power_of_two ? 1.0f / narrow_.width : low_inverse(narrow_.width);
    find_narrow_ = power_of_two ? kernels().find_bins_power_of_two : kernels().find_bins_float;
  }

  void operator()(const float* values, std::size_t size, std::uint32_t* bins) const {
    if (find_narrow_ != nullptr)
      find_narrow_(values, size, narrow_, bins);
    else
      find_wide_(values, size, wide_, bins);
  }

 private:
  Binning<float> narrow_;
  Binning<double> wide_;
  decltype(KernelTable::find_bins_float) find_narrow_ = nullptr;
  decltype(KernelTable::find_bins_double) find_wide_ = kernels().find_bins_double;
};

// Each bin has kWays counts, which lie side by side; consecutive values raise them in turn. The
// counts are emptied into the totals before one could overflow.
template <typename Count, std::size_t kWays>
class WayCounts {
 public:
  void count(const std::uint32_t* bins, std::size_t size, std::vector<std::uint64_t>& totals) {
    const std::size_t most_in_one = ceil_div(size, kWays);
    if (counts_.empty()) counts_.resize(totals.size());
    if (fill_ + most_in_one > std::numeric_limits<Count>::max()) empty(totals);
    fill_ += most_in_one;
    std::size_t begin = 0;
    for (; begin + kUnrolled <= size; begin += kUnrolled) count_unrolled(bins + begin);
    for (; begin < size; ++begin) ++counts_[bins[begin]][begin % kWays];
  }

  void empty(std::vector<std::uint64_t>& totals) {
    if (fill_ == 0) return;
    for (std::size_t bin = 0; bin < totals.size(); ++bin) {
      Ways& ways = counts_[bin];
      if (std::memcmp(&ways, &kNone, sizeof kNone) == 0) continue;
      totals[bin] = std::accumulate(ways.begin(), ways.end(), totals[bin]);
      ways.fill(0);
    }
    fill_ = 0;
  }

 private:
  using Ways = std::array<Count, kWays>;
  static constexpr Ways kNone{};
  static constexpr std::size_t kUnrolled = 8;

  // Reads ahead of the stores: for all the compiler knows, these might change what is read.
  void count_unrolled(const std::uint32_t* bins) {
    Ways* const counts = counts_.data();
    std::size_t bin[kUnrolled];
    for (std::size_t i = 0; i < kUnrolled; ++i) bin[i] = bins[i];
    for (std::size_t i = 0; i < kUnrolled; ++i) ++counts[bin[i]][i % kWays];
  }

  std::vector<Ways> counts_;
  std::size_t fill_ = 0;  // an upper bound of every count
};

// The counts of one thread. An increment waits for the last store to the same count if that was
// only shortly before. Where values near each other share bins, eight counts per bin hide the wait;
// where values lie in many bins, eight would not fit into the first-level cache, and one will do.
// On cache lines of its own: threads that write to the same line would wait for each other.
class alignas(128) ThreadHistogram {
 public:
  explicit ThreadHistogram(std::size_t bins) : bins_(bins + kUncountedBins) {}

  void count(const std::uint32_t* bins, std::size_t size) {
    if (tiles_++ % kTilesAlike == 0) crowded_ = is_crowded(bins, size);
    if (crowded_)
      by_turns_.count(bins, size, bins_);
    else
      single_.count(bins, size, bins_);
  }

  // The last two bins count the values outside the histogram.
  const std::vector<std::uint64_t>& bins() {
    single_.empty(bins_);
    by_turns_.empty(bins_);
    return bins_;
  }

  std::uint64_t uncounted() {
    return std::accumulate(bins().end() - kUncountedBins, bins().end(), std::uint64_t{0});
  }

 private:
  static constexpr std::size_t kUncountedBins = 2;
  static constexpr std::size_t kTilesAlike = 32;  // the first decides for all of them

  // Whether more than one in 128 sampled pairs of values near each other share a bin.
  static bool is_crowded(const std::uint32_t* bins, std::size_t size) {
    constexpr std::size_t kNear = 8, kStep = 16;
    std::size_t looked_at = 0, shared = 0;
    for (std::size_t begin = 0; begin + kNear < size; begin += kStep, looked_at += kNear)
      for (std::size_t i = 1; i <= kNear; ++i) shared += bins[begin] == bins[begin + i];
    return 128 * shared > looked_at;
  }

  std::vector<std::uint64_t> bins_;
  WayCounts<std::uint32_t, 1> single_;
  WayCounts<std::uint16_t, 8> by_turns_;
  std::size_t tiles_ = 0;
  bool crowded_ = false;
};

using ThreadHistograms = std::vector<ThreadHistogram>;

std::uint64_t uncounted(ThreadHistograms& histograms) {
  std::uint64_t sum = 0;
  for (ThreadHistogram& histogram : histograms) sum += histogram.uncounted();
  return sum;
}

void add_counts(ThreadHistograms& histograms, Counts<std::uint64_t> counts) {
  for (ThreadHistogram& histogram : histograms) {
    const std::vector<std::uint64_t>& bins = histogram.bins();
    for (std::size_t bin = 0; bin < counts.bins; ++bin) counts[bin] += bins[bin];
  }
}

// Counting touches no new memory for so long that the processor's own prefetcher falls behind.
// Prefetches into the second-level cache, because the counts may take up all of the first.
void prefetch_tile(const Tensor& tensor, std::size_t begin, std::size_t end) {
  constexpr std::size_t kCacheLine = 64;
  const std::size_t size = tensor.element == Element::kFloat32 ? 4 : 2;
  const char* const data = static_cast<const char*>(tensor.data);
  const std::size_t last = std::min(begin + kTileSize, end) * size;
  for (std::size_t i = begin * size; i < last; i += kCacheLine) __builtin_prefetch(data + i, 0, 2);
}

// Calls visit(values, size) tile by tile.
template <typename Visit>
void for_each_tile(const Tensor& tensor, Part part, const Visit& visit) {
  const KernelTable& table = kernels();
  alignas(64) float buffer[kTileSize];
  for (std::size_t begin = part.begin; begin < part.end; begin += kTileSize) {
    const std::size_t size = std::min(kTileSize, part.end - begin);
    prefetch_tile(tensor, begin + kTileSize, tensor.size);
    visit(read_floats(table, tensor, begin, size, buffer), size);
  }
}

// Calls visit(bins, size) tile by tile.
template <typename Visit>
void for_each_tile_of_bins(const Tensor& tensor, Part part, const BinFinder& find_bins,
                           const Visit& visit) {
  alignas(64) std::uint32_t bins[kTileSize];
  for_each_tile(tensor, part, [&](const float* values, std::size_t size) {
    find_bins(values, size, bins);
    visit(bins, size);
  });
}

// Whether there are too few values for per-thread histograms, which have to be emptied, to pay off.
bool is_small(const Tensor& tensor, std::size_t bins) {
  return tensor.size < 4 * bins;
}

void count_in_place(const Tensor& tensor, const BinFinder& finder, Counts<std::uint64_t> counts) {
  for_each_tile_of_bins(tensor, {0, tensor.size}, finder,
                        [&](const std::uint32_t* bins, std::size_t size) {
                          for (std::size_t i = 0; i < size; ++i)
                            if (bins[i] < counts.bins) ++counts[bins[i]];
                        });
}

std::size_t counting_threads(int requested, const Tensor& tensor, std::size_t bins) {
  return thread_count(requested, tensor.size, std::max(kValuesPerThread, 4 * bins));
}

// Summary of a run of values.
struct Summary {
  KeyRange<std::int32_t> keys{std::numeric_limits<std::int32_t>::max(),
                              std::numeric_limits<std::int32_t>::min()};
  std::size_t zeros = 0;
  std::size_t left_out = 0;  // zeros without a bin

  // Adds a tile. Its magnitudes nearly always tell its new extreme, or that it has none; otherwise
  // its values are read again.
  void add(const KernelTable& table, const float* values, std::size_t size,
           const TileSummary& tile) {
    const std::int32_t least = static_cast<std::int32_t>(tile.least);
    const std::int32_t greatest = static_cast<std::int32_t>(tile.greatest);
    const bool any_negative = (tile.any_bits >> 31) != 0;
    if (!any_negative)
      extend(keys, {least, greatest});
    else if (greatest > keys.maximum || ~greatest < keys.minimum)  // ~: the key of its negative
      extend(keys, table.words.key_range(words_of(values), size));
    zeros += tile.zeros;
    left_out += size - tile.bins;
  }
};

// The summary of every piece, and the statistics of the channels.
struct Seen {
  std::vector<Summary> pieces;
  Channels channels;
};

// Summarizes every piece, and calls count(thread, bins, size) tile by tile. Zeros may be left out
// of the bins.
template <typename Count>
Seen summarize_and_count(const Tensor& tensor, const Samples& samples, std::size_t threads,
                         const Binning<float>& binning, const Count& count) {
  const KernelTable& table = kernels();
  const Pieces pieces(samples, threads);
  std::vector<Summary> summaries(pieces.count());
  Channels channels = for_each_chunk(
      tensor, samples, pieces, threads, [&](std::size_t thread, std::size_t piece, Part part) {
        alignas(64) std::uint32_t bins[kTileSize + kBinsPadding];
        Summary summary = summaries[piece];
        for_each_tile(tensor, part, [&](const float* values, std::size_t size) {
          const TileSummary tile = table.find_bins_of_tile(values, size, binning, bins);
          count(thread, bins, tile.bins);
          summary.add(table, values, size, tile);
        });
        summaries[piece] = summary;
      });
  return {std::move(summaries), std::move(channels)};
}

std::vector<float> abs_max_of_samples(const std::vector<Summary>& pieces, std::size_t samples) {
  std::vector<float> maxima(samples);
  const std::size_t per_sample = pieces.size() / samples;
  for (std::size_t sample = 0; sample < samples; ++sample) {
    Summary whole;
    for (std::size_t i = 0; i < per_sample; ++i)
      extend(whole.keys, pieces[sample * per_sample + i].keys);
    const Range range = range_of_keys(whole.keys);
    maxima[sample] = std::max(std::fabs(range.minimum), std::fabs(range.maximum));
  }
  return maxima;
}

std::size_t left_out(const std::vector<Summary>& pieces) {
  std::size_t sum = 0;
  for (const Summary& summary : pieces) sum += summary.left_out;
  return sum;
}

// The whole observation, except whether the tensor was counted.
Observation observation_of(Seen seen, std::size_t samples, const Tensor& tensor, int requested) {
  Summary whole;
  for (const Summary& summary : seen.pieces) {
    extend(whole.keys, summary.keys);
    whole.zeros += summary.zeros;
  }
  Observation observation{
      range_of_keys(whole.keys), whole.zeros, 0, abs_max_of_samples(seen.pieces, samples), false,
      std::move(seen.channels)};
  const bool finite =
      std::isfinite(observation.range.minimum) && std::isfinite(observation.range.maximum);
  if (!finite) observation.non_finite = count_non_finite(tensor, requested);
  return observation;
}

Observation observe_small(const Tensor& tensor, const Samples& samples, double width,
                          const Binning<float>& binning, Counts<std::uint64_t> counts) {
  std::size_t beyond = 0;
  Seen seen = summarize_and_count(tensor, samples, 1, binning,
                                  [&](std::size_t, const std::uint32_t* bins, std::size_t size) {
                                    for (std::size_t i = 0; i < size; ++i)
                                      beyond += bins[i] >= counts.bins;
                                  });
  Observation observation = observation_of(std::move(seen), samples.count, tensor, 1);
  observation.counted = beyond == observation.non_finite;
  if (observation.counted) count_in_place(tensor, BinFinder(width, counts.bins, kNoEdge), counts);
  return observation;
}

}  // namespace

void histogram(const Tensor& tensor, double width, Counts<std::uint64_t> counts, int requested) {
  const DefaultFloatMode mode;
  const BinFinder finder(width, counts.bins, representable_last_edge(width, counts.bins));
  if (is_small(tensor, counts.bins)) return count_in_place(tensor, finder, counts);
  const std::size_t threads = counting_threads(requested, tensor, counts.bins);
  ThreadHistograms histograms(threads, ThreadHistogram(counts.bins));
  for_each_part(tensor.size, threads, 1, [&](std::size_t thread, Part part) {
    for_each_tile_of_bins(tensor, part, finder, [&](const std::uint32_t* bins, std::size_t size) {
      histograms[thread].count(bins, size);
    });
  });
  add_counts(histograms, counts);
}

Observation observe(const Tensor& tensor, const Samples& samples, int width_exponent,
                    Counts<std::uint64_t> counts, int requested) {
  const DefaultFloatMode mode;
  const float width = std::ldexp(1.0f, width_exponent);
  const Binning<float> binning{1.0f / width, width, kNoEdge,
                               static_cast<std::uint32_t>(counts.bins)};
  if (is_small(tensor, counts.bins)) return observe_small(tensor, samples, width, binning, counts);
  const std::size_t threads = counting_threads(requested, tensor, counts.bins);
  ThreadHistograms histograms(threads, ThreadHistogram(counts.bins));
  Seen seen = summarize_and_count(tensor, samples, threads, binning,
                                  [&](std::size_t thread, const std::uint32_t* bins,
                                      std::size_t size) { histograms[thread].count(bins, size); });
  const std::size_t zeros = left_out(seen.pieces);
  Observation observation = observation_of(std::move(seen), samples.count, tensor, requested);
  observation.counted = uncounted(histograms) == observation.non_finite;
  if (observation.counted) {
    add_counts(histograms, counts);
    counts[0] += zeros;
  }
  return observation;
}

}  // namespace pyquant
