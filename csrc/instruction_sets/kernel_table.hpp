#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace pyquant {

// The parts of an array that `raise_abs_max` reads side by side.
constexpr std::size_t kStreams = 6;

// So many values are summed up in float32, by pairs, and their sum added in float64; the last ones,
// if they are fewer, one by one.
constexpr std::size_t kSummedAtOnce = 8;

// Weighted values are summed side by side, each so many places from the next of its sum.
constexpr std::size_t kWeightedSums = 16;

// How |x| maps to a bin. Two more than `bins` exist, for what is not counted: values beyond the
// range, and NaN.
template <typename Real>
struct Binning {
  Real inverse_width;  // exact for a power of two, else low enough for no product to be too great
  Real width;
  Real last_edge;  // counted in the last bin; NaN when no value can equal it
  std::uint32_t bins;
};

// Order-preserving integer images of the floats: every NaN lies outside [-inf, +inf].
template <typename Key>
struct KeyRange {
  Key minimum;
  Key maximum;
};

// What is seen of a tile: the extremes of its magnitudes, the union of all bits, the zeros, and how
// many bins were found. Zeros may be left out of the bins: behind a ReLU half of all values are,
// and counting a value costs more than all else.
struct TileSummary {
  std::uint32_t least;
  std::uint32_t greatest;
  std::uint32_t any_bits;
  std::uint32_t zeros;
  std::uint32_t bins;
};

// How many bins more than values `find_bins_of_tile` may write over.
constexpr std::size_t kBinsPadding = 16;

// How many values lie below an edge of a bin, and their sum; or the weights of both.
struct Below {
  double count;
  double sum;
};

// Places that move with the step between two levels, each so many steps from zero, and the weights
// of what lies below them. Their number is a multiple of kEdgesAtOnce.
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

// Of floats that are given as their bits.
template <typename Bits>
struct BitKernels {
  Bits (*abs_max)(const Bits* bits, std::size_t size);
  // Column by column, over kStreams rows that lie `stride` apart, or over one.
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

  // Raises maxima to the magnitudes of two rows' floats, place by place, and of the sums of those
  // of like signs.
  void (*raise_pair_max)(const std::uint32_t* one, const std::uint32_t* other, std::size_t size,
                         std::uint32_t* maxima);
  // The greatest of all these, a pair being a float and the one `distance` behind it where
  // `begins_pair` has all bits rather than none.
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

  // For searches' shortlists alone: their last bits may differ from set to set.
  void (*logarithms)(const double* values, std::size_t size, double* logarithms);
  Below (*weigh_edges)(const Edges&, double step, const Below* bins);

  // The sum with all values added to it, kSummedAtOnce of them at once.
  double (*sum_row)(const float* values, std::size_t size, double sum);
  // sums += the rows, which begin `stride` values apart, kSummedAtOnce of them at once.
  void (*add_columns)(const float* values, std::size_t rows, std::size_t stride,
                      std::size_t columns, double* sums);
  // sums += factor * values.
  void (*add_scaled)(double factor, const double* values, std::size_t size, double* sums);
  void (*add_scaled_floats)(double factor, const float* values, std::size_t size, double* sums);
  // sums[i % kWeightedSums] += values[i] * weights[i], one after the other.
  void (*add_weighted)(const float* values, const double* weights, std::size_t size, double* sums);
  // rest = values - integers * steps, of which there is one if `uniform`.
  void (*subtract_integers)(const float* values, const std::int8_t* integers, std::size_t size,
                            const float* steps, bool uniform, float* rest);
  // sums += the products of column `of` with `width` columns from `begin` on, sample by sample.
  void (*add_products)(const float* samples, std::size_t stride, std::size_t count, std::size_t of,
                       std::size_t begin, std::size_t width, double* sums);
};

// One source file each, built where the compiler's target has the set.
const KernelTable& portable_kernels();
const KernelTable& avx2_kernels();
const KernelTable& avx512_kernels();
const KernelTable& neon_kernels();

}  // namespace pyquant
