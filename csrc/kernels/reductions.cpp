#include "kernels/reductions.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "instruction_sets/float_bits.hpp"
#include "kernels/parallel.hpp"

namespace pyquant {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Shorter rows are reduced side by side, as columns.
constexpr std::size_t kLongRow = 32;
// With fewer columns, several rows are read as one.
constexpr std::size_t kMinColumns = 512;

const BitKernels<std::uint32_t>& kernels_of(const std::uint32_t*) {
  return kernels().words;
}
const BitKernels<std::uint16_t>& kernels_of(const std::uint16_t*) {
  return kernels().halves;
}

template <typename Action>
auto with_bits(const Tensor& tensor, const Action& action) {
  return tensor.element == Element::kFloat32 ? action(tensor.words()) : action(tensor.halves());
}

// Makes every NaN a quiet one: numpy warns of signaling ones.
void widen(const Tensor& tensor, float* values) {
  const float* const read = read_floats(kernels(), tensor, 0, tensor.size, values);
  std::transform(read, read + tensor.size, values,
                 [](float value) { return std::isnan(value) ? kNan : value; });
}

float widen(std::uint16_t bits, Element element) {
  float value;
  widen(Tensor{&bits, 1, element}, &value);
  return value;
}

float widen(std::uint32_t bits, Element) {
  return float_of(bits);
}

template <typename Bits>
std::uint32_t abs_max_magnitude(const Bits* bits, std::size_t size, int requested) {
  const BitKernels<Bits>& table = kernels_of(bits);
  const std::size_t threads = thread_count(requested, size);
  std::vector<Bits> maxima(threads);
  for_each_part(size, threads, 1, [&](std::size_t thread, Part part) {
    maxima[thread] =
        std::max(maxima[thread], table.abs_max(bits + part.begin, part.end - part.begin));
  });
  return *std::max_element(maxima.begin(), maxima.end());
}

template <typename Bits>
auto key_range(const Bits* bits, std::size_t size, int requested) {
  const BitKernels<Bits>& table = kernels_of(bits);
  const std::size_t threads = thread_count(requested, size);
  const auto none = table.key_range(bits, 0);
  std::vector<std::decay_t<decltype(none)>> ranges(threads, none);
  for_each_part(size, threads, 1, [&](std::size_t thread, Part part) {
    extend(ranges[thread], table.key_range(bits + part.begin, part.end - part.begin));
  });
  auto whole = none;
  for (const auto& range : ranges) extend(whole, range);
  return whole;
}

template <typename Key>
Range range_of_keys(KeyRange<Key> keys, Element element) {
  const std::int32_t infinity = static_cast<std::int32_t>(infinity_bits(element));
  if (keys.maximum > infinity || keys.minimum < ~infinity) return {kNan, kNan};
  return {widen(bits_of_key(keys.minimum), element), widen(bits_of_key(keys.maximum), element)};
}

// A matrix [rows, columns], of which a part of the columns is reduced.
template <typename Bits>
struct Matrix {
  const Bits* bits;
  std::size_t rows;
  std::size_t columns;
};

// The greatest magnitude in each column of `part`. Rows far apart are read together, as streams
// that each go through memory in order: short neighbouring rows would defeat the prefetcher.
template <typename Bits>
void reduce_columns(const BitKernels<Bits>& table, const Matrix<Bits>& matrix, Part part,
                    Bits* maxima) {
  const std::size_t size = part.end - part.begin;
  const std::size_t rows = matrix.rows / kStreams;
  const std::size_t stride = rows * matrix.columns;
  const Bits* row = matrix.bits + part.begin;
  for (std::size_t i = 0; i < rows; ++i, row += matrix.columns)
    table.raise_abs_max(row, stride, size, maxima);
  row += (kStreams - 1) * stride;
  for (std::size_t i = kStreams * rows; i < matrix.rows; ++i, row += matrix.columns)
    table.raise_abs_max_of_row(row, size, maxima);
}

// The same for a narrow matrix: several of its rows are read as one.
template <typename Bits>
void reduce_narrow_columns(const BitKernels<Bits>& table, const Matrix<Bits>& matrix,
                           Bits* maxima) {
  const std::size_t joined = (kMinColumns / matrix.columns + 15) / 16 * 16;
  const std::size_t columns = joined * matrix.columns;
  std::vector<Bits> wide(columns);
  const Matrix<Bits> joined_rows{matrix.bits, matrix.rows / joined, columns};
  reduce_columns(table, joined_rows, {0, columns}, wide.data());
  const std::size_t read = joined_rows.rows * columns;
  table.raise_abs_max_of_row(matrix.bits + read, matrix.rows * matrix.columns - read, wide.data());
  for (std::size_t i = 0; i < joined; ++i)
    table.raise_abs_max_of_row(wide.data() + i * matrix.columns, matrix.columns, maxima);
}

// For short rows: finds each column's maximum, then the greatest of each channel's columns.
template <typename Bits>
std::vector<Bits> channel_magnitudes_by_column(const Bits* bits, const ChannelShape& shape,
                                               int requested) {
  const BitKernels<Bits>& table = kernels_of(bits);
  const std::size_t columns = shape.channels * shape.inner;
  const std::size_t threads = thread_count(requested, shape.outer * columns);
  const std::size_t strips = ceil_div(columns, kMaxColumns);
  const std::size_t parts = part_count(shape.outer, threads, columns);
  const std::size_t copies = std::min(parts, threads);
  std::vector<Bits> maxima(copies * columns);
  for_each_task(parts * strips, threads, [&](std::size_t thread, std::size_t task) {
    const std::size_t part = task / strips;
    const Part rows = part_of(shape.outer, parts, part);
    const Matrix<Bits> matrix{bits + rows.begin * columns, rows.end - rows.begin, columns};
    const Part strip = part_of(columns, strips, task % strips);
    const std::size_t copy = parts < threads ? part : thread;
    Bits* const target = maxima.data() + copy * columns + strip.begin;
    if (columns < kMinColumns)
      reduce_narrow_columns(table, matrix, target);
    else
      reduce_columns(table, matrix, strip, target);
  });
  for (std::size_t copy = 1; copy < copies; ++copy)
    table.raise_abs_max_of_row(maxima.data() + copy * columns, columns, maxima.data());
  std::vector<Bits> channels(shape.channels);
  for (std::size_t c = 0; c < shape.channels; ++c)
    channels[c] =
        *std::max_element(&maxima[c * shape.inner], &maxima[c * shape.inner] + shape.inner);
  return channels;
}

// For long rows: reads one after the other, in the order of memory.
template <typename Bits>
std::vector<Bits> channel_magnitudes_by_row(const Bits* bits, const ChannelShape& shape,
                                            int requested) {
  const BitKernels<Bits>& table = kernels_of(bits);
  const std::size_t rows = shape.outer * shape.channels;
  const std::size_t threads = std::min(thread_count(requested, rows * shape.inner), rows);
  std::vector<Bits> maxima(threads * shape.channels);
  for_each_part(rows, threads, shape.inner, [&](std::size_t thread, Part part) {
    Bits* const mine = maxima.data() + thread * shape.channels;
    for (std::size_t row = part.begin; row < part.end; ++row) {
      Bits& maximum = mine[row % shape.channels];
      maximum = std::max(maximum, table.abs_max(bits + row * shape.inner, shape.inner));
    }
  });
  for (std::size_t thread = 1; thread < threads; ++thread)
    table.raise_abs_max_of_row(maxima.data() + thread * shape.channels, shape.channels,
                               maxima.data());
  maxima.resize(shape.channels);
  return maxima;
}

template <typename Bits>
std::vector<Bits> channel_magnitudes(const Bits* bits, const ChannelShape& shape, int requested) {
  return shape.inner >= kLongRow ? channel_magnitudes_by_row(bits, shape, requested)
                                 : channel_magnitudes_by_column(bits, shape, requested);
}

// Wider rows are summed in parts, so that the sums stay in the first-level cache.
constexpr std::size_t kColumnsAtOnce = 4096;

// Adds the values of positions, each with all channels together, to the sums of some channels.
void add_positions(const Tensor& tensor, std::size_t first, std::size_t positions,
                   std::size_t channels, Part part, double* sums) {
  const KernelTable& table = kernels();
  const std::size_t columns = std::min(part.end - part.begin, kColumnsAtOnce);
  std::vector<float> buffer(tensor.element == Element::kFloat32 ? 0 : kSummedPositions * columns);
  std::vector<double> run(columns);
  for (std::size_t position = 0; position < positions; position += kSummedPositions) {
    const std::size_t count = std::min(kSummedPositions, positions - position);
    for (std::size_t column = part.begin; column < part.end; column += columns) {
      const std::size_t width = std::min(columns, part.end - column);
      const std::size_t begin = (first + position) * channels + column;
      std::fill(run.begin(), run.end(), 0.0);
      if (buffer.empty()) {
        const float* values = static_cast<const float*>(tensor.data) + begin;
        table.add_columns(values, count, channels, width, run.data());
      } else {
        for (std::size_t row = 0; row < count; ++row)
          read_floats(table, tensor, begin + row * channels, width, &buffer[row * width]);
        table.add_columns(buffer.data(), count, width, width, run.data());
      }
      for (std::size_t i = 0; i < width; ++i) sums[column + i] += run[i];
    }
  }
}

// Adds the values of a part of a sample's channels to their sums. A channel's values lie in rows of
// `inner`.
void add_rows(const Tensor& tensor, std::size_t sample, const ChannelShape& shape, Part channels,
              double* sums) {
  const KernelTable& table = kernels();
  const std::size_t positions = shape.outer * shape.inner;
  float buffer[kSummedPositions];
  float gathered[kSummedPositions];
  for (std::size_t channel = channels.begin; channel < channels.end; ++channel) {
    for (std::size_t begin = 0; begin < positions; begin += kSummedPositions) {
      const std::size_t size = std::min(kSummedPositions, positions - begin);
      const float* values = gathered;
      for (std::size_t i = 0, part; i < size; i += part) {
        const std::size_t outer = (begin + i) / shape.inner, inner = (begin + i) % shape.inner;
        part = std::min(size - i, shape.inner - inner);
        const std::size_t row = (sample * shape.outer + outer) * shape.channels + channel;
        const float* read = read_floats(table, tensor, row * shape.inner + inner, part, buffer);
        if (part == size)
          values = read;
        else
          std::copy_n(read, part, gathered + i);
      }
      sums[channel] += table.sum_row(values, size, 0.0);
    }
  }
}

}  // namespace

float float_of_magnitude(std::uint32_t magnitude, Element element) {
  if (magnitude > infinity_bits(element)) return kNan;
  if (element == Element::kFloat32) return float_of(magnitude);
  return widen(static_cast<std::uint16_t>(magnitude), element);
}

Range range_of_keys(KeyRange<std::int32_t> keys) {
  return range_of_keys(keys, Element::kFloat32);
}

float abs_max(const Tensor& tensor, int threads) {
  const std::uint32_t magnitude = with_bits(
      tensor, [&](const auto* bits) { return abs_max_magnitude(bits, tensor.size, threads); });
  return float_of_magnitude(magnitude, tensor.element);
}

Range min_max(const Tensor& tensor, int threads) {
  return with_bits(tensor, [&](const auto* bits) {
    return range_of_keys(key_range(bits, tensor.size, threads), tensor.element);
  });
}

void channel_abs_max(const Tensor& tensor, const ChannelShape& shape, float* maxima, int threads) {
  if (tensor.size == 0) {
    std::fill_n(maxima, shape.channels, 0.0f);
    return;
  }
  with_bits(tensor, [&](const auto* bits) {
    const auto magnitudes = channel_magnitudes(bits, shape, threads);
    widen(Tensor{magnitudes.data(), magnitudes.size(), tensor.element}, maxima);
  });
}

void channel_sums(const Tensor& tensor, std::size_t samples, const ChannelShape& shape,
                  double* sums, int requested) {
  std::fill_n(sums, samples * shape.channels, 0.0);
  const std::size_t threads = thread_count(requested, tensor.size);
  const std::size_t parts = std::min(ceil_div(threads, std::max<std::size_t>(samples, 1)),
                                     std::max<std::size_t>(shape.channels, 1));
  parallel_for(samples * parts, threads, [&](std::size_t task) {
    const std::size_t sample = task / parts;
    const Part channels = part_of(shape.channels, parts, task % parts);
    double* const of_sample = sums + sample * shape.channels;
    if (shape.inner == 1)
      add_positions(tensor, sample * shape.outer, shape.outer, shape.channels, channels, of_sample);
    else
      add_rows(tensor, sample, shape, channels, of_sample);
  });
  make_nan_the_same(sums, samples * shape.channels);
}

void add_exactly(const double* sums, std::size_t samples, std::size_t channels, std::int64_t* whole,
                 std::int64_t* fraction) {
  const DefaultFloatMode mode;
  for (std::size_t sample = 0; sample < samples; ++sample) {
    for (std::size_t channel = 0; channel < channels; ++channel) {
      const double sum = sums[sample * channels + channel];
      // Written so that NaN becomes a number, too: NaN is reported elsewhere.
      const double kept =
          sum > -kLargestSum ? (sum < kLargestSum ? sum : kLargestSum) : -kLargestSum;
      const auto truncated = static_cast<std::int64_t>(kept);
      const std::int64_t floor = truncated - (static_cast<double>(truncated) > kept ? 1 : 0);
      const double rest = (kept - static_cast<double>(floor)) * (std::int64_t{1} << kFractionBits);
      const std::int64_t total = fraction[channel] + static_cast<std::int64_t>(rest);
      const std::int64_t carried = total >> kFractionBits;
      whole[channel] += floor + carried;
      fraction[channel] = total - (carried << kFractionBits);
    }
  }
}

void make_nan_the_same(double* sums, std::size_t size) {
  std::replace_if(
      sums, sums + size, [](double sum) { return std::isnan(sum); },
      std::numeric_limits<double>::quiet_NaN());
}

Maxima sample_maxima(const Tensor& tensor, const Samples& samples, int requested) {
  const std::size_t threads = thread_count(requested, tensor.size);
  const Pieces pieces(samples, threads);
  Maxima found;
  with_bits(tensor, [&](const auto* bits) {
    const auto& table = kernels_of(bits);
    std::vector<std::decay_t<decltype(*bits)>> magnitudes(pieces.count());
    found.channels = for_each_chunk(
        tensor, samples, pieces, threads, [&](std::size_t, std::size_t piece, Part part) {
          const auto magnitude = table.abs_max(bits + part.begin, part.end - part.begin);
          magnitudes[piece] = std::max(magnitudes[piece], magnitude);
        });
    for (std::size_t piece = 0; piece < pieces.count(); piece += pieces.per_sample()) {
      const auto first = magnitudes.begin() + static_cast<std::ptrdiff_t>(piece);
      const auto greatest =
          *std::max_element(first, first + static_cast<std::ptrdiff_t>(pieces.per_sample()));
      found.of_samples.push_back(float_of_magnitude(greatest, tensor.element));
    }
  });
  return found;
}

std::size_t count_non_finite(const Tensor& tensor, int requested) {
  const std::size_t threads = thread_count(requested, tensor.size);
  std::vector<std::size_t> counts(threads);
  with_bits(tensor, [&](const auto* bits) {
    const auto& table = kernels_of(bits);
    const auto infinity = static_cast<std::decay_t<decltype(*bits)>>(infinity_bits(tensor.element));
    for_each_part(tensor.size, threads, 1, [&](std::size_t thread, Part part) {
      counts[thread] += table.count_non_finite(bits + part.begin, part.end - part.begin, infinity);
    });
  });
  std::size_t total = 0;
  for (const std::size_t count : counts) total += count;
  return total;
}

}  // namespace pyquant
