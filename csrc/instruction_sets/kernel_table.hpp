#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace pyquant {

// How many rows `raise_abs_max` reads in parallel.
constexpr std::size_t kStreams = 6;

// This many values are summed pairwise in float32, and their sum is added in float64. If fewer are
// left at the end, they are added one by one.
constexpr std::size_t kSummedAtOnce = 8;

// Weighted values are summed in this many separate sums, which take the values in turn.
constexpr std::size_t kWeightedSums = 16;

// The sums of `add_errors`, each in so many separate sums, which take the values in turn.
constexpr std::size_t kErrorSums = 5;
constexpr std::size_t kErrorLanes = 8;

// The most columns that `find_steps` takes.
constexpr std::size_t kGroupsAtOnce = 128;

// How |x| maps to a bin. Two extra bins, past `bins`, take what is not counted: values beyond the
// range, and NaN.
template <typename Real>
struct Binning {
  Real inverse_width;  // exact for a power of two, else low enough that no product is too great
  Real width;
  Real last_edge;  // the last bin counts this value, too; NaN if no value can equal it
  std::uint32_t bins;
};

// Integer keys in the order of their floats: every NaN lies outside [-inf, +inf].
template <typename Key>
struct KeyRange {
  Key minimum;
  Key maximum;
};

// Summary of a tile: its least and greatest magnitude, the OR of all bits, the number of zeros, and
// the number of bins found. Zeros may get no bin: after a ReLU, half of all values are zero, and
// counting a value costs more than everything else.
struct TileSummary {
  std::uint32_t least;
  std::uint32_t greatest;
  std::uint32_t any_bits;
  std::uint32_t zeros;
  std::uint32_t bins;
};

// How many bins past the number of values `find_bins_of_tile` may overwrite.
constexpr std::size_t kBinsPadding = 16;

// The number of values below a bin's edge and their sum; or the weights of these two.
struct Below {
  double count;
  double sum;
};

// Edges whose positions are multiples of the step between two levels, and the weights of the values
// below each edge. Their number is a multiple of kEdgesAtOnce.
constexpr std::size_t kEdgesAtOnce = 8;
struct Edges {
  const double* steps;
  const Below* weights;
  std::size_t size;
};

struct QuantizedRange {
  float lowest;
  float highest;
};

// Kernels for floats given as their bits.
template <typename Bits>
struct BitKernels {
  Bits (*abs_max)(const Bits* bits, std::size_t size);
  // Raise each column's maximum: over kStreams rows that lie `stride` apart, or over one row.
  void (*raise_abs_max)(const Bits* bits, std::size_t stride, std::size_t size, Bits* maxima);
  void (*raise_abs_max_of_row)(const Bits* bits, std::size_t size, Bits* maxima);
  KeyRange<std::make_signed_t<Bits>> (*key_range)(const Bits* bits, std::size_t size);
  std::size_t (*count_non_finite)(const Bits* bits, std::size_t size, Bits infinity);
};

// A scale is one value for the whole run (`uniform`) or one per element.
template <typename Quantized>
struct IntegerKernels {
  void (*quantize)(const float* values, std::size_t size, const float* multipliers, bool uniform,
                   QuantizedRange, Quantized* quantized);
  void (*dequantize)(const Quantized* quantized, std::size_t size, const float* thresholds,
                     bool uniform, float levels, float* values);
};

// The inner loops, single-threaded, once per instruction set.
struct KernelTable {
  const char* name;

  BitKernels<std::uint32_t> words;
  BitKernels<std::uint16_t> halves;
  IntegerKernels<std::int8_t> int8;
  IntegerKernels<std::int16_t> int16;

  // Raises maxima[i] to the magnitudes of one[i] and other[i], and to that of their sum if their
  // signs agree.
  void (*raise_pair_max)(const std::uint32_t* one, const std::uint32_t* other, std::size_t size,
                         std::uint32_t* maxima);
  // The greatest of all these magnitudes. A float pairs with the one `distance` after it where
  // `begins_pair` has all bits set; elsewhere `begins_pair` is zero.
  std::uint32_t (*joined_pair_max)(const std::uint32_t* bits, std::size_t distance,
                                   const std::uint32_t* begins_pair, std::size_t size);

  void (*widen_float16)(const std::uint16_t* bits, std::size_t size, float* values);
  void (*widen_bfloat16)(const std::uint16_t* bits, std::size_t size, float* values);

  void (*find_bins_power_of_two)(const float* values, std::size_t size, const Binning<float>&,
                                 std::uint32_t* bins);
  void (*find_bins_float)(const float* values, std::size_t size, const Binning<float>&,
                          std::uint32_t* bins);
  void (*find_bins_double)(const float* values, std::size_t size, const Binning<double>&,
                           std::uint32_t* bins);
  TileSummary (*find_bins_of_tile)(const float* values, std::size_t size,
                                   const Binning<float>& by_power_of_two, std::uint32_t* bins);

  // Only for the shortlists of searches: the last bits may differ between instruction sets.
  void (*logarithms)(const double* values, std::size_t size, double* logarithms);
  Below (*weigh_edges)(const Edges&, double step, const Below* bins);

  // Returns `sum` plus all values, which are added kSummedAtOnce at a time.
  double (*sum_row)(const float* values, std::size_t size, double sum);
  // Adds the rows, which begin `stride` values apart, to `sums`, kSummedAtOnce rows at a time.
  void (*add_columns)(const float* values, std::size_t rows, std::size_t stride,
                      std::size_t columns, double* sums);
  // sums += factor * values.
  void (*add_scaled)(double factor, const double* values, std::size_t size, double* sums);
  void (*add_scaled_floats)(double factor, const float* values, std::size_t size, double* sums);
  // sums += factor * values^2.
  void (*add_scaled_squares)(double factor, const float* values, std::size_t size, double* sums);
  // Raises maxima[i] to |factor * values[i]|, which is not NaN.
  void (*raise_scaled_max)(float factor, const float* values, std::size_t size, float* maxima);
  // sums[i % kWeightedSums] += values[i] * weights[i], one after the other.
  void (*add_weighted)(const float* values, const double* weights, std::size_t size, double* sums);
  // Adds to sums[0 .. kErrorSums - 1][i % kErrorLanes] the reference value, its square, the square
  // of its difference from the other value, the other's square and their product.
  void (*add_errors)(const float* reference, const float* other, std::size_t size, double* sums);
  void (*add_errors_of_doubles)(const double* reference, const double* other, std::size_t size,
                                double* sums);
  // rest = values - integers * steps, with a single step if `uniform`.
  void (*subtract_integers)(const float* values, const std::int8_t* integers, std::size_t size,
                            const float* steps, bool uniform, float* rest);
  // The step of each column's integers, of -levels - 1 to levels: the one of least weighted
  // squared error among a few, if `search`; otherwise it maps the greatest magnitude to `levels`.
  // It is 1 for a column of zeros, NaN for one that holds NaN or infinity.
  void (*find_steps)(const float* values, std::size_t rows, std::size_t columns, float levels,
                     bool search, float* steps);
  // Adds to `sums` the products of column `of` with columns [begin, begin + width) of each sample.
  void (*add_products)(const float* samples, std::size_t stride, std::size_t count, std::size_t of,
                       std::size_t begin, std::size_t width, double* sums);
};

// Each set has its own source file, built if the compiler's target has the set.
const KernelTable& portable_kernels();
const KernelTable& avx2_kernels();
const KernelTable& avx512_kernels();
const KernelTable& neon_kernels();

}  // namespace pyquant
