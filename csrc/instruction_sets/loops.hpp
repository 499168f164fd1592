// The inner loops in plain C++, written for the compiler to vectorise: included once by each
// instruction set's source file and compiled there with that set's flags.
//
// Everything is in an unnamed namespace and nothing of the standard library is instantiated. An
// inline function shared between the files would be emitted in each, and the linker might keep the
// AVX-512 one for all.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "instruction_sets/float_bits.hpp"
#include "instruction_sets/kernel_table.hpp"

namespace pyquant {
namespace {

template <typename Bits>
constexpr Bits kMagnitudeMask = static_cast<Bits>(static_cast<Bits>(~Bits{0}) >> 1);

// A long run is read as several parts in parallel: to the prefetcher each is a stream of its own,
// and several streams reach 1.4 times the bandwidth of one (AMD EPYC). Parts of few pages would
// lose this gain, because the prefetcher stops at their ends. Parts begin at cache lines, since a
// wide load across two lines counts twice.
constexpr size_t kParts = 4;

struct Parts {
  size_t begin;
  size_t size;  // of each
};

template <typename Bits>
Parts parts_of(const Bits* bits, size_t size) {
  constexpr size_t line = 64 / sizeof(Bits);
  constexpr size_t long_run = (size_t{1} << 18) / sizeof(Bits);
  if (size < long_run) return {0, 0};
  const size_t begin = (line - reinterpret_cast<uintptr_t>(bits) / sizeof(Bits) % line) % line;
  return {begin, (size - begin) / kParts / line * line};
}

// Calls action(value) once for every value.
template <typename Bits, typename Action>
void for_each_value(const Bits* bits, size_t size, const Action& action) {
  const Parts parts = parts_of(bits, size);
  for (size_t i = 0; i < parts.begin; ++i) action(loaded(bits + i));
  const Bits* const first = bits + parts.begin;
  for (size_t i = 0; i < parts.size; ++i) {
    for (size_t part = 0; part < kParts; ++part) action(loaded(first + part * parts.size + i));
  }
  for (size_t i = parts.begin + kParts * parts.size; i < size; ++i) action(loaded(bits + i));
}

template <typename Bits>
Bits magnitude_of(Bits bits) {
  return static_cast<Bits>(bits & kMagnitudeMask<Bits>);
}

template <typename Bits>
Bits greater(Bits a, Bits b) {
  return a > b ? a : b;
}

template <typename Bits>
Bits abs_max(const Bits* bits, size_t size) {
  Bits maximum = 0;
  for_each_value(bits, size, [&](Bits value) { maximum = greater(maximum, magnitude_of(value)); });
  return maximum;
}

template <typename Bits>
void raise_abs_max_of_row(const Bits* __restrict bits, size_t size, Bits* __restrict maxima) {
  for (size_t i = 0; i < size; ++i) maxima[i] = greater(maxima[i], magnitude_of(loaded(bits + i)));
}

template <typename Bits>
void raise_abs_max(const Bits* __restrict bits, size_t stride, size_t size,
                   Bits* __restrict maxima) {
  for (size_t i = 0; i < size; ++i) {
    Bits maximum = maxima[i];
    for (size_t stream = 0; stream < kStreams; ++stream)
      maximum = greater(maximum, magnitude_of(loaded(bits + stream * stride + i)));
    maxima[i] = maximum;
  }
}

// The magnitude of the sum of two floats of the same sign. Zero if the signs differ: then the sum's
// magnitude is at most the greater of the two.
inline uint32_t pair_sum(uint32_t one, uint32_t other) {
  const float sum = float_of(magnitude_of(one)) + float_of(magnitude_of(other));
  return bits_of(sum) & ~static_cast<uint32_t>(static_cast<int32_t>(one ^ other) >> 31);
}

void raise_pair_max(const uint32_t* __restrict one, const uint32_t* __restrict other, size_t size,
                    uint32_t* __restrict maxima) {
  for (size_t i = 0; i < size; ++i) {
    const uint32_t a = loaded(one + i), b = loaded(other + i);
    const uint32_t maximum = greater(magnitude_of(a), magnitude_of(b));
    maxima[i] = greater(maxima[i], greater(maximum, pair_sum(a, b)));
  }
}

uint32_t joined_pair_max(const uint32_t* __restrict bits, size_t distance,
                         const uint32_t* __restrict begins_pair, size_t size) {
  uint32_t maximum = 0;
  for (size_t i = 0; i < size; ++i) {
    const uint32_t value = loaded(bits + i);
    const uint32_t sum = pair_sum(value, loaded(bits + i + distance)) & begins_pair[i];
    maximum = greater(maximum, greater(magnitude_of(value), sum));
  }
  return maximum;
}

template <typename Key, typename Bits>
KeyRange<Key> key_range(const Bits* bits, size_t size) {
  Key minimum = static_cast<Key>(kMagnitudeMask<Bits>);
  Key maximum = static_cast<Key>(~minimum);
  for_each_value(bits, size, [&](Bits value) {
    const Key key = key_of(value);
    minimum = key < minimum ? key : minimum;
    maximum = key > maximum ? key : maximum;
  });
  return {minimum, maximum};
}

template <typename Bits>
size_t count_non_finite(const Bits* bits, size_t size, Bits infinity) {
  size_t count = 0;
  for (size_t i = 0; i < size; ++i) count += magnitude_of(loaded(bits + i)) >= infinity;
  return count;
}

// Neither side of the select touches a float32 denormal, which is slow on some processors: a
// float16 denormal of m units of 2^-24 is computed as (0.5 + m * 2^-24) - 0.5.
inline float float_from_float16(uint16_t bits) {
  const uint32_t magnitude = bits & 0x7fffu;
  const uint32_t exponent_shift = magnitude < 0x7c00u ? 0x38000000u : 0x70000000u;
  const uint32_t normal = (magnitude << 13) + exponent_shift;
  const uint32_t denormal = bits_of(float_of(0x3f000000u + magnitude) - 0.5f);
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  return float_of(sign | (magnitude < 0x0400u ? denormal : normal));
}

void widen_float16(const uint16_t* __restrict bits, size_t size, float* __restrict values) {
  for (size_t i = 0; i < size; ++i) values[i] = float_from_float16(loaded(bits + i));
}

void widen_bfloat16(const uint16_t* __restrict bits, size_t size, float* __restrict values) {
  for (size_t i = 0; i < size; ++i)
    values[i] = float_of(static_cast<uint32_t>(loaded(bits + i)) << 16);
}

inline float fused_multiply_add(float a, float b, float c) {
  return __builtin_fmaf(a, b, c);
}
inline double fused_multiply_add(double a, double b, double c) {
  return __builtin_fma(a, b, c);
}

// floor(magnitude / width), or at least `bins` for NaN and for values beyond the range. The product
// with the reciprocal falls short by less than one bin. The remainder, which is exact wherever it
// lies in [0, width), tells whether it did.
template <bool kPowerOfTwo, typename Real>
uint32_t bin_of(Real magnitude, const Binning<Real>& binning) {
  const Real bins = static_cast<Real>(binning.bins);
  Real quotient = magnitude * binning.inverse_width;
  quotient = quotient < bins ? quotient : bins;
  const int32_t bin = static_cast<int32_t>(quotient);
  int32_t shortfall = 0;
  if (!kPowerOfTwo) {
    const Real start = static_cast<Real>(bin);
    shortfall = fused_multiply_add(-start, binning.width, magnitude) >= binning.width;
  }
  return static_cast<uint32_t>(bin + shortfall - (magnitude == binning.last_edge));
}

template <bool kPowerOfTwo, typename Real>
void find_bins(const float* __restrict values, size_t size, const Binning<Real>& by,
               uint32_t* __restrict bins) {
  const Binning<Real> binning = by;  // a copy: the compiler knows that no store to bins changes it
  for (size_t i = 0; i < size; ++i) {
    const Real magnitude = static_cast<Real>(__builtin_fabsf(loaded(values + i)));
    bins[i] = bin_of<kPowerOfTwo>(magnitude, binning);
  }
}

// Computes everything in one pass, because loading the values is most of the cost.
TileSummary find_bins_of_tile(const float* __restrict values, size_t size, const Binning<float>& by,
                              uint32_t* __restrict bins) {
  const Binning<float> binning = by;
  TileSummary tile{UINT32_MAX, 0, 0, 0, static_cast<uint32_t>(size)};
  for (size_t i = 0; i < size; ++i) {
    const uint32_t bits = bits_of(loaded(values + i));
    const uint32_t magnitude = magnitude_of(bits);
    tile.least = magnitude < tile.least ? magnitude : tile.least;
    tile.greatest = greater(tile.greatest, magnitude);
    tile.any_bits |= bits;
    tile.zeros += magnitude == 0;
    bins[i] = bin_of<true>(float_of(magnitude), binning);
  }
  return tile;
}

inline uint64_t bits_of(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline double double_of(uint64_t bits) {
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// Only for logarithms, whose last bits may differ: rounds once where the processor has an FMA.
inline double multiply_add(double a, double b, double c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}

// The logarithm of a finite value >= 1, to a few units in the last place: with value = 2^k m and m
// around 1, log(m) = 2 artanh(s) where s = (m - 1) / (m + 1). The polynomial interpolates
// (2 artanh(s) / s - 2) / s^2 at the Chebyshev nodes of s^2 for m from sqrt(1/2) to sqrt(2); its
// error is 2^-57. Separate even and odd terms halve the chain of dependent operations.
inline double logarithm(double value) {
  constexpr uint64_t kRootOfHalf = 0x3fe6a09e667f3bcd;
  constexpr uint64_t kRounder =
      0x4330000000000000;  // 2^52, to make k a double without a conversion
  const uint64_t bits = bits_of(value);
  const uint64_t exponent = (bits - kRootOfHalf) >> 52;
  const double k = double_of(exponent | kRounder) - double_of(kRounder);
  const double m = double_of(bits - (exponent << 52));
  const double s = (m - 1.0) / (m + 1.0);
  const double square = s * s;
  const double fourth = square * square;
  double even = multiply_add(0.14616453476402028, fourth, 0.18182889136477962);
  even = multiply_add(even, fourth, 0.2857142862597663);
  even = multiply_add(even, fourth, 0.666666666666667);
  double odd = multiply_add(0.1533172126339424, fourth, 0.2222221113462439);
  odd = multiply_add(odd, fourth, 0.39999999999899505);
  const double series = multiply_add(multiply_add(odd, square, even), square, 2.0);
  return multiply_add(s, series, k * 0.693147180559945309);
}

void logarithms(const double* __restrict values, size_t size, double* __restrict logarithms) {
  for (size_t i = 0; i < size; ++i) logarithms[i] = logarithm(values[i]);
}

// The weighted sum of the counts and sums below the edges. Four partial sums keep additions from
// waiting for each other. Neighbours share one, so that opposite signs leave no great partial sum.
Below weigh_edges(const Edges& edges, double step, const Below* __restrict bins) {
  constexpr size_t kSums = 4;
  constexpr size_t kTile = 8 * kEdgesAtOnce;
  Below sums[kSums] = {};
  int32_t first_above[kTile];
  for (size_t begin = 0; begin < edges.size; begin += kTile) {
    const size_t size = edges.size - begin < kTile ? edges.size - begin : kTile;
    for (size_t i = 0; i < size; ++i)
      first_above[i] = static_cast<int32_t>(edges.steps[begin + i] * step + 0.5);
    for (size_t i = 0; i < size; i += kEdgesAtOnce) {
      for (size_t k = 0; k < kEdgesAtOnce; ++k) {
        const Below& weights = edges.weights[begin + i + k];
        const Below& below = bins[first_above[i + k]];
        sums[k / 2].count += weights.count * below.count;
        sums[k / 2].sum += weights.sum * below.sum;
      }
    }
  }
  return {(sums[0].count + sums[1].count) + (sums[2].count + sums[3].count),
          (sums[0].sum + sums[1].sum) + (sums[2].sum + sums[3].sum)};
}

// Rounds half to even: 1.5 * 2^23 has no bits for fractions, so adding it rounds, in default mode.
inline int32_t round_to_int(float value) {
  constexpr float kRounder = 12582912.0f;
  return static_cast<int32_t>(bits_of(value + kRounder)) - static_cast<int32_t>(0x4b400000);
}

template <typename Quantized>
Quantized quantize_value(float value, float multiplier, QuantizedRange range) {
  float scaled = value * multiplier;
  scaled = scaled == scaled ? scaled : 0.0f;
  scaled = scaled > range.lowest ? scaled : range.lowest;
  scaled = scaled < range.highest ? scaled : range.highest;
  return static_cast<Quantized>(round_to_int(scaled));
}

template <typename Quantized>
void quantize(const float* __restrict values, size_t size, const float* __restrict multipliers,
              bool uniform, QuantizedRange range, Quantized* __restrict quantized) {
  if (uniform) {
    const float multiplier = *multipliers;
    for (size_t i = 0; i < size; ++i)
      quantized[i] = quantize_value<Quantized>(loaded(values + i), multiplier, range);
  } else {
    for (size_t i = 0; i < size; ++i)
      quantized[i] = quantize_value<Quantized>(loaded(values + i), multipliers[i], range);
  }
}

template <typename Quantized>
void dequantize(const Quantized* __restrict quantized, size_t size,
                const float* __restrict thresholds, bool uniform, float levels,
                float* __restrict values) {
  if (uniform) {
    const float threshold = *thresholds;
    for (size_t i = 0; i < size; ++i)
      values[i] = static_cast<float>(loaded(quantized + i)) * threshold / levels;
  } else {
    for (size_t i = 0; i < size; ++i)
      values[i] = static_cast<float>(loaded(quantized + i)) * thresholds[i] / levels;
  }
}

template <typename Value>
void add_scaled(double factor, const Value* __restrict values, size_t size,
                double* __restrict sums) {
  for (size_t i = 0; i < size; ++i) sums[i] += factor * values[i];
}

// The square of a float is exact in a double.
void add_scaled_squares(double factor, const float* __restrict values, size_t size,
                        double* __restrict sums) {
  for (size_t i = 0; i < size; ++i) {
    const double value = loaded(values + i);
    sums[i] += factor * (value * value);
  }
}

void raise_scaled_max(float factor, const float* __restrict values, size_t size,
                      float* __restrict maxima) {
  for (size_t i = 0; i < size; ++i) {
    const float magnitude = __builtin_fabsf(factor * loaded(values + i));
    maxima[i] = magnitude > maxima[i] ? magnitude : maxima[i];
  }
}

void add_weighted(const float* __restrict values, const double* __restrict weights, size_t size,
                  double* __restrict sums) {
  size_t begin = 0;
  for (; begin + kWeightedSums <= size; begin += kWeightedSums)
    for (size_t i = 0; i < kWeightedSums; ++i) sums[i] += values[begin + i] * weights[begin + i];
  for (size_t i = 0; begin + i < size; ++i) sums[i] += values[begin + i] * weights[begin + i];
}

inline void add_error(double reference, double other, size_t lane, double* __restrict sums) {
  const double difference = reference - other;
  sums[lane] += reference;
  sums[kErrorLanes + lane] += reference * reference;
  sums[2 * kErrorLanes + lane] += difference * difference;
  sums[3 * kErrorLanes + lane] += other * other;
  sums[4 * kErrorLanes + lane] += reference * other;
}

template <typename Value>
void add_errors(const Value* __restrict reference, const Value* __restrict other, size_t size,
                double* __restrict sums) {
  size_t begin = 0;
  for (; begin + kErrorLanes <= size; begin += kErrorLanes)
    for (size_t lane = 0; lane < kErrorLanes; ++lane)
      add_error(loaded(reference + begin + lane), loaded(other + begin + lane), lane, sums);
  for (size_t lane = 0; begin + lane < size; ++lane)
    add_error(loaded(reference + begin + lane), loaded(other + begin + lane), lane, sums);
}

void subtract_integers(const float* __restrict values, const int8_t* __restrict integers,
                       size_t size, const float* __restrict steps, bool uniform,
                       float* __restrict rest) {
  if (uniform) {
    const float step = *steps;
    for (size_t i = 0; i < size; ++i)
      rest[i] = loaded(values + i) - static_cast<float>(integers[i]) * step;
  } else {
    for (size_t i = 0; i < size; ++i)
      rest[i] = loaded(values + i) - static_cast<float>(integers[i]) * steps[i];
  }
}

// A smaller magnitude counts as zero: no step or product is denormal.
constexpr float kLeastMagnitude = 1e-30f;

// How many steps are tried. The first maps the value of greatest magnitude to the end of the
// integers that has one level less. Each further one makes that value 0.4 steps longer: it nears
// the other end, then it is clipped. On weights of networks, more steps lessen the error by 0.5 %.
constexpr size_t kStepsTried = 5;
constexpr float kLonger = 0.4f;

// The value of greatest magnitude in each column, and NaN in `spoiled` if not all are finite.
void find_extremes(const float* __restrict values, size_t rows, size_t columns,
                   float* __restrict extremes, float* __restrict spoiled) {
  for (size_t i = 0; i < columns; ++i) extremes[i] = spoiled[i] = 0.0f;
  for (size_t row = 0; row < rows; ++row) {
    const float* __restrict v = values + row * columns;
    for (size_t i = 0; i < columns; ++i) {
      extremes[i] = __builtin_fabsf(v[i]) > __builtin_fabsf(extremes[i]) ? v[i] : extremes[i];
      spoiled[i] += v[i] - v[i];
    }
  }
}

// The mean square of each column in units of its extreme.
void find_mean_squares(const float* __restrict values, size_t rows, size_t columns,
                       const float* __restrict extremes, float* __restrict mean_squares) {
  float inverses[kGroupsAtOnce];
  for (size_t i = 0; i < columns; ++i) {
    inverses[i] = __builtin_fabsf(extremes[i]) < kLeastMagnitude ? 0.0f : 1.0f / extremes[i];
    mean_squares[i] = 0.0f;
  }
  for (size_t row = 0; row < rows; ++row) {
    const float* __restrict v = values + row * columns;
    for (size_t i = 0; i < columns; ++i) {
      const float t = v[i] * inverses[i];
      mean_squares[i] += t * t;
    }
  }
  for (size_t i = 0; i < columns; ++i) mean_squares[i] /= static_cast<float>(rows);
}

// For each column, with t = value * multiplier, its integer q, and the weight w = weights + t^2:
// the sums of w * t * q and w * q * q.
void sum_products(const float* __restrict values, size_t rows, size_t columns,
                  const float* __restrict multipliers, const float* __restrict weights,
                  float levels, float* __restrict products, float* __restrict squares) {
  constexpr float kRounder = 12582912.0f;  // as in round_to_int
  for (size_t i = 0; i < columns; ++i) products[i] = squares[i] = 0.0f;
  for (size_t row = 0; row < rows; ++row) {
    const float* __restrict v = values + row * columns;
    for (size_t i = 0; i < columns; ++i) {
      const float t = v[i] * multipliers[i];
      float q = t > -levels - 1.0f ? t : -levels - 1.0f;
      q = q < levels ? q : levels;
      q = (q + kRounder) - kRounder;
      const float weighted = (weights[i] + t * t) * q;
      products[i] += weighted * t;
      squares[i] += weighted * q;
    }
  }
}

// With the integers of a column given, the step of least squares is sum(wvq) / sum(wqq), and it
// takes sum(wvq)^2 / sum(wqq) off the squared error. The weight w of an error is v^2 plus the mean
// of all v^2: with equal weights, the largest values are clipped, which decoders do not bear.
void find_steps(const float* __restrict values, size_t rows, size_t columns, float levels,
                bool search, float* __restrict steps) {
  float extremes[kGroupsAtOnce], spoiled[kGroupsAtOnce], multipliers[kGroupsAtOnce];
  float products[kGroupsAtOnce], squares[kGroupsAtOnce], gains[kGroupsAtOnce];
  float mean_squares[kGroupsAtOnce], weights[kGroupsAtOnce];
  find_extremes(values, rows, columns, extremes, spoiled);
  if (search) find_mean_squares(values, rows, columns, extremes, mean_squares);
  for (size_t i = 0; i < columns; ++i) {
    steps[i] = __builtin_fabsf(extremes[i]) / levels;
    gains[i] = 0.0f;
  }
  for (size_t tried = 0; search && tried < kStepsTried; ++tried) {
    const float length = levels + kLonger * static_cast<float>(tried);
    for (size_t i = 0; i < columns; ++i) {
      multipliers[i] =
          __builtin_fabsf(extremes[i]) < kLeastMagnitude ? 0.0f : -length / extremes[i];
      weights[i] = mean_squares[i] * length * length;
    }
    sum_products(values, rows, columns, multipliers, weights, levels, products, squares);
    const float unit = length * length * length * length;
    for (size_t i = 0; i < columns; ++i) {
      const float least = squares[i] > 1.0f ? squares[i] : 1.0f;
      const float gain = products[i] * products[i] / (least * unit);
      const float step = products[i] / (least * multipliers[i]);
      steps[i] = gain > gains[i] ? step : steps[i];
      gains[i] = gain > gains[i] ? gain : gains[i];
    }
  }
  for (size_t i = 0; i < columns; ++i)
    steps[i] = (__builtin_fabsf(extremes[i]) < kLeastMagnitude ? 1.0f : steps[i]) + spoiled[i];
}

// Takes four samples at once but adds each by itself. A product of two floats is exact in a double,
// so it does not matter whether it is rounded before it is added.
void add_products(const float* __restrict samples, size_t stride, size_t count, size_t of,
                  size_t begin, size_t width, double* __restrict sums) {
  size_t n = 0;
  for (; n + 4 <= count; n += 4) {
    const float* a = samples + n * stride;
    const float *b = a + stride, *c = b + stride, *d = c + stride;
    const double of_a = a[of], of_b = b[of], of_c = c[of], of_d = d[of];
    for (size_t i = 0; i < width; ++i) {
      double sum = sums[i] + of_a * a[begin + i];
      sum += of_b * b[begin + i];
      sum += of_c * c[begin + i];
      sums[i] = sum + of_d * d[begin + i];
    }
  }
  for (; n < count; ++n) {
    const float* a = samples + n * stride;
    const double of_a = a[of];
    for (size_t i = 0; i < width; ++i) sums[i] += of_a * a[begin + i];
  }
}

// Only one float in eight is converted to double, which takes the time of these seven additions.
inline float sum_of_eight(float a, float b, float c, float d, float e, float f, float g, float h) {
  return ((a + b) + (c + d)) + ((e + f) + (g + h));
}

double sum_row(const float* values, size_t size, double sum) {
  size_t i = 0;
  for (; i + kSummedAtOnce <= size; i += kSummedAtOnce) {
    const float* v = values + i;
    sum += sum_of_eight(loaded(v), loaded(v + 1), loaded(v + 2), loaded(v + 3), loaded(v + 4),
                        loaded(v + 5), loaded(v + 6), loaded(v + 7));
  }
  for (; i < size; ++i) sum += loaded(values + i);
  return sum;
}

void add_columns(const float* values, size_t rows, size_t stride, size_t columns,
                 double* __restrict sums) {
  size_t row = 0;
  for (; row + kSummedAtOnce <= rows; row += kSummedAtOnce) {
    const float* __restrict a = values + row * stride;
    const float *b = a + stride, *c = b + stride, *d = c + stride, *e = d + stride;
    const float *f = e + stride, *g = f + stride, *h = g + stride;
    for (size_t i = 0; i < columns; ++i)
      sums[i] += sum_of_eight(loaded(a + i), loaded(b + i), loaded(c + i), loaded(d + i),
                              loaded(e + i), loaded(f + i), loaded(g + i), loaded(h + i));
  }
  for (; row < rows; ++row)
    for (size_t i = 0; i < columns; ++i) sums[i] += loaded(values + row * stride + i);
}

// The table's types pick the template instances. The compiler rejects names in another order than
// the table's, and warns of a missing one.
template <typename Bits>
constexpr BitKernels<Bits> bit_kernels() {
  return {.abs_max = abs_max,
          .raise_abs_max = raise_abs_max,
          .raise_abs_max_of_row = raise_abs_max_of_row,
          .key_range = key_range,
          .count_non_finite = count_non_finite};
}

template <typename Quantized>
constexpr IntegerKernels<Quantized> integer_kernels() {
  return {.quantize = quantize, .dequantize = dequantize};
}

constexpr KernelTable kernel_table(const char* name) {
  return {.name = name,
          .words = bit_kernels<uint32_t>(),
          .halves = bit_kernels<uint16_t>(),
          .int8 = integer_kernels<int8_t>(),
          .int16 = integer_kernels<int16_t>(),
          .raise_pair_max = raise_pair_max,
          .joined_pair_max = joined_pair_max,
          .widen_float16 = widen_float16,
          .widen_bfloat16 = widen_bfloat16,
          .find_bins_power_of_two = find_bins<true>,
          .find_bins_float = find_bins<false>,
          .find_bins_double = find_bins<false>,
          .find_bins_of_tile = find_bins_of_tile,
          .logarithms = logarithms,
          .weigh_edges = weigh_edges,
          .sum_row = sum_row,
          .add_columns = add_columns,
          .add_scaled = add_scaled,
          .add_scaled_floats = add_scaled,
          .add_scaled_squares = add_scaled_squares,
          .raise_scaled_max = raise_scaled_max,
          .add_weighted = add_weighted,
          .add_errors = add_errors<float>,
          .add_errors_of_doubles = add_errors<double>,
          .subtract_integers = subtract_integers,
          .find_steps = find_steps,
          .add_products = add_products};
}

}  // namespace
}  // namespace pyquant
