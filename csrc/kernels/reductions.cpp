#include "kernels/reductions.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/parallel.hpp"

namespace pyquant {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Shorter rows are reduced side by side, as columns.
constexpr std::size_t kLongRow = 32;
constexpr std::size_t kColumnsPerTask = 2048;

std::uint32_t abs_max(const KernelTable& table, const std::uint32_t* bits, std::size_t size) {
  return table.abs_max_32(bits, size);
}
std::uint16_t abs_max(const KernelTable& table, const std::uint16_t* bits, std::size_t size) {
  return table.abs_max_16(bits, size);
}
void raise(const KernelTable& table, const std::uint32_t* bits, std::size_t size,
           std::uint32_t* maxima) {
  table.raise_abs_max_32(bits, size, maxima);
}
void raise(const KernelTable& table, const std::uint16_t* bits, std::size_t size,
           std::uint16_t* maxima) {
  table.raise_abs_max_16(bits, size, maxima);
}
KeyRange<std::int32_t> key_range(const KernelTable& table, const std::uint32_t* bits,
                                 std::size_t size) {
  return table.key_range_32(bits, size);
}
KeyRange<std::int16_t> key_range(const KernelTable& table, const std::uint16_t* bits,
                                 std::size_t size) {
  return table.key_range_16(bits, size);
}
std::size_t count_non_finite(const KernelTable& table, const std::uint32_t* bits, std::size_t size,
                             Element element) {
  return table.count_non_finite_32(bits, size, infinity_bits(element));
}
std::size_t count_non_finite(const KernelTable& table, const std::uint16_t* bits, std::size_t size,
                             Element element) {
  return table.count_non_finite_16(bits, size, static_cast<std::uint16_t>(infinity_bits(element)));
}

template <typename Action>
auto with_bits(const Tensor& tensor, const Action& action) {
  return tensor.element == Element::kFloat32 ? action(tensor.words()) : action(tensor.halves());
}

float float_of_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

float widen(std::uint16_t bits, Element element) {
  const Tensor tensor{&bits, 1, element};
  float buffer;
  return *read_block(kernels(), tensor, 0, 1, &buffer);
}

template <typename Bits>
std::uint32_t abs_max_magnitude(const Bits* bits, std::size_t size, int requested) {
  const KernelTable& table = kernels();
  const std::size_t threads = thread_count(requested, size);
  std::vector<Bits> maxima(threads);
  parallel_for(threads, threads, [&](std::size_t task) {
    const Part part = part_of(size, threads, task);
    maxima[task] = abs_max(table, bits + part.begin, part.end - part.begin);
  });
  return *std::max_element(maxima.begin(), maxima.end());
}

template <typename Bits>
auto key_range(const Bits* bits, std::size_t size, int requested) {
  const KernelTable& table = kernels();
  const std::size_t threads = thread_count(requested, size);
  std::vector<decltype(key_range(table, bits, size))> ranges(threads);
  parallel_for(threads, threads, [&](std::size_t task) {
    const Part part = part_of(size, threads, task);
    ranges[task] = key_range(table, bits + part.begin, part.end - part.begin);
  });
  auto whole = ranges.front();
  for (const auto& range : ranges) {
    whole.minimum = std::min(whole.minimum, range.minimum);
    whole.maximum = std::max(whole.maximum, range.maximum);
  }
  return whole;
}

std::uint16_t bits_of_key(std::int16_t key) {
  return static_cast<std::uint16_t>(key < 0 ? key ^ 0x7fff : key);
}

Range range_of_keys(KeyRange<std::int16_t> keys, Element element) {
  const std::int32_t infinity = static_cast<std::int32_t>(infinity_bits(element));
  if (keys.maximum > infinity || keys.minimum < ~infinity) return {kNan, kNan};
  return {widen(bits_of_key(keys.minimum), element), widen(bits_of_key(keys.maximum), element)};
}

Range range_of_keys(KeyRange<std::int32_t> keys, Element) {
  return pyquant::range_of_keys(keys);
}

// A block of channels, over a part of the outer axis.
template <typename Bits>
struct ChannelTask {
  const KernelTable& table;
  const Bits* bits;
  const ChannelShape& shape;
  Part channels;
  Part outer;

  const Bits* row(std::size_t outer_index, std::size_t channel) const {
    return bits + (outer_index * shape.channels + channel) * shape.inner;
  }

  void reduce_rows(Bits* maxima) const {
    for (std::size_t o = outer.begin; o < outer.end; ++o)
      for (std::size_t c = channels.begin; c < channels.end; ++c)
        maxima[c] = std::max(maxima[c], abs_max(table, row(o, c), shape.inner));
  }

  void reduce_columns(Bits* maxima) const {
    const std::size_t width = (channels.end - channels.begin) * shape.inner;
    Bits columns[kColumnsPerTask] = {};
    for (std::size_t o = outer.begin; o < outer.end; ++o)
      raise(table, row(o, channels.begin), width, columns);
    const Bits* column = columns;
    for (std::size_t c = channels.begin; c < channels.end; ++c, column += shape.inner)
      maxima[c] = *std::max_element(column, column + shape.inner);
  }
};

template <typename Bits>
std::vector<Bits> channel_magnitudes(const Bits* bits, const ChannelShape& shape, int requested) {
  const KernelTable& table = kernels();
  const std::size_t threads = thread_count(requested, shape.outer * shape.channels * shape.inner);
  const bool long_rows = shape.inner >= kLongRow;
  // Rows are read in the order of memory: by as few blocks of channels as keep the threads busy.
  const std::size_t wanted_blocks = shape.outer >= threads ? 1 : threads;
  const std::size_t block = long_rows ? (shape.channels + wanted_blocks - 1) / wanted_blocks
                                      : std::max<std::size_t>(1, kColumnsPerTask / shape.inner);
  const std::size_t blocks = (shape.channels + block - 1) / block;
  const std::size_t splits = blocks >= threads ? 1 : std::min(threads, shape.outer);

  std::vector<Bits> maxima(splits * shape.channels);
  parallel_for(splits * blocks, threads, [&](std::size_t index) {
    const std::size_t split = index / blocks;
    const std::size_t first = index % blocks * block;
    const ChannelTask<Bits> task{table,
                                 bits,
                                 shape,
                                 {first, std::min(first + block, shape.channels)},
                                 part_of(shape.outer, splits, split)};
    Bits* target = maxima.data() + split * shape.channels;
    long_rows ? task.reduce_rows(target) : task.reduce_columns(target);
  });
  for (std::size_t i = shape.channels; i < maxima.size(); ++i)
    maxima[i % shape.channels] = std::max(maxima[i % shape.channels], maxima[i]);
  maxima.resize(shape.channels);
  return maxima;
}

}  // namespace

float float_of_magnitude(std::uint32_t magnitude, Element element) {
  if (magnitude > infinity_bits(element)) return kNan;
  if (element == Element::kFloat32) return float_of_bits(magnitude);
  return widen(static_cast<std::uint16_t>(magnitude), element);
}

Range range_of_keys(KeyRange<std::int32_t> keys) {
  const std::int32_t infinity = static_cast<std::int32_t>(infinity_bits(Element::kFloat32));
  if (keys.maximum > infinity || keys.minimum < ~infinity) return {kNan, kNan};
  const auto float_of_key = [](std::int32_t key) {
    return float_of_bits(static_cast<std::uint32_t>(key < 0 ? key ^ 0x7fffffff : key));
  };
  return {float_of_key(keys.minimum), float_of_key(keys.maximum)};
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
    for (const auto magnitude : channel_magnitudes(bits, shape, threads))
      *maxima++ = float_of_magnitude(magnitude, tensor.element);
  });
}

std::size_t count_non_finite(const Tensor& tensor, int requested) {
  const KernelTable& table = kernels();
  const std::size_t threads = thread_count(requested, tensor.size);
  std::vector<std::size_t> counts(threads);
  with_bits(tensor, [&](const auto* bits) {
    parallel_for(threads, threads, [&](std::size_t task) {
      const Part part = part_of(tensor.size, threads, task);
      counts[task] =
          count_non_finite(table, bits + part.begin, part.end - part.begin, tensor.element);
    });
  });
  std::size_t total = 0;
  for (const std::size_t count : counts) total += count;
  return total;
}

}  // namespace pyquant
