#include "kernels/quantization.hpp"

#include <algorithm>
#include <vector>

#include "kernels/parallel.hpp"

namespace pyquant {
namespace {

// At least this many values that share a scale are worth a loop of their own. For shorter runs, the
// scale of every value is laid out in memory.
constexpr std::size_t kLongRun = 64;
constexpr std::size_t kColumnsInCache = 2048;

// Consecutive values, with one scale for all or one for each.
struct ScaleRun {
  std::size_t begin;
  std::size_t size;
  const float* scales;
  bool uniform;
};

// For long runs of one scale.
template <typename Visit>
void for_each_row(const ChannelShape& shape, const float* scales, Part part, const Visit& visit) {
  for (std::size_t begin = part.begin; begin < part.end;) {
    const std::size_t row_end = (begin / shape.inner + 1) * shape.inner;
    const float* scale = scales + begin / shape.inner % shape.channels;
    const std::size_t end = std::min(row_end, part.end);
    for (; begin < end; begin += kTileSize)
      visit(ScaleRun{begin, std::min(kTileSize, end - begin), scale, true});
    begin = end;
  }
}

// For short runs, whose scales are laid out tile by tile.
template <typename Visit>
void for_each_tile(const ChannelShape& shape, const float* scales, Part part, const Visit& visit) {
  constexpr std::size_t kWritten = 16;  // at once; fewer are written past a channel's end
  float laid_out[kTileSize + 2 * kLongRun + kWritten];
  for (std::size_t begin = part.begin; begin < part.end; begin += kTileSize) {
    const std::size_t size = std::min(kTileSize, part.end - begin);
    const std::size_t skipped = begin % shape.inner;
    std::size_t channel = begin / shape.inner % shape.channels;
    for (std::size_t start = 0; start < skipped + size; start += shape.inner) {
      for (std::size_t i = 0; i < shape.inner; i += kWritten)
        std::fill_n(laid_out + start + i, kWritten, scales[channel]);
      channel = channel + 1 == shape.channels ? 0 : channel + 1;
    }
    visit(ScaleRun{begin, size, laid_out + skipped, false});
  }
}

// The scale of every value in a row of at least kTileSize columns, made of several rows of the
// tensor if those are shorter.
std::vector<float> laid_out_row(const ChannelShape& shape, const float* scales) {
  const std::size_t columns = shape.channels * shape.inner;
  const std::size_t repeats = ceil_div(kTileSize, columns);
  std::vector<float> row;
  row.reserve(repeats * columns);
  for (std::size_t i = 0; i < repeats; ++i)
    for (std::size_t channel = 0; channel < shape.channels; ++channel)
      row.insert(row.end(), shape.inner, scales[channel]);
  return row;
}

// For rows that share the scales of their columns. Where these do not fit into the first-level
// cache, two rows far apart are visited together, so that each tile of scales is fetched once for
// both. Neighbouring rows would defeat the prefetcher; three rows halve the speed on an AMD EPYC.
template <typename Visit>
void for_each_column_tile(const std::vector<float>& scales, Part rows, const Visit& visit) {
  const std::size_t columns = scales.size();
  const std::size_t together = columns > kColumnsInCache ? 2 : 1;
  const std::size_t count = (rows.end - rows.begin) / together;
  const auto visit_rows = [&](std::size_t row, std::size_t rows_together) {
    for (std::size_t column = 0; column < columns; column += kTileSize)
      for (std::size_t i = 0; i < rows_together; ++i)
        visit(ScaleRun{(row + i * count) * columns + column, std::min(kTileSize, columns - column),
                       &scales[column], false});
  };
  for (std::size_t i = 0; i < count; ++i) visit_rows(rows.begin + i, together);
  for (std::size_t row = rows.begin + together * count; row < rows.end; ++row) visit_rows(row, 1);
}

// Calls visit(run) for runs that cover the tensor.
template <typename Visit>
void for_each_run(const ChannelShape& shape, const float* scales, int requested,
                  const Visit& visit) {
  constexpr std::size_t kRepeats = 16;  // of a row, before laying out its scales pays off
  const std::size_t size = shape.outer * shape.channels * shape.inner;
  const std::size_t threads = thread_count(requested, size);
  const bool repeated = shape.outer >= kRepeats || shape.inner == 1;
  if (shape.inner < kLongRun && size >= kRepeats * kTileSize && repeated) {
    const std::vector<float> row = laid_out_row(shape, scales);
    const std::size_t rows = size / row.size();
    for_each_part(rows, threads, row.size(),
                  [&](std::size_t, Part part) { for_each_column_tile(row, part, visit); });
    return for_each_tile(shape, scales, {rows * row.size(), size}, visit);
  }
  const auto visit_part = shape.inner < kLongRun ? for_each_tile<Visit> : for_each_row<Visit>;
  for_each_part(size, threads, 1,
                [&](std::size_t, Part part) { visit_part(shape, scales, part, visit); });
}

// Paddle's order of float32 operations, with its guard for a threshold of zero:
// phi/kernels/funcs/fake_quantize_functor.h.
float multiplier_of(float threshold, float levels) {
  const float inverse = threshold <= 1e-30f ? 1.0f / (threshold + 1e-6f) : 1.0f / threshold;
  return levels * inverse;
}

std::vector<float> multipliers_of(const float* thresholds, std::size_t channels, float levels) {
  const DefaultFloatMode mode;
  std::vector<float> multipliers(channels);
  std::transform(thresholds, thresholds + channels, multipliers.begin(),
                 [&](float threshold) { return multiplier_of(threshold, levels); });
  return multipliers;
}

const IntegerKernels<std::int8_t>& kernels_of(const std::int8_t*) {
  return kernels().int8;
}
const IntegerKernels<std::int16_t>& kernels_of(const std::int16_t*) {
  return kernels().int16;
}

}  // namespace

template <typename Quantized>
void quantize(const Tensor& tensor, const ChannelShape& shape, const float* thresholds, int bits,
              Quantized* quantized, int threads) {
  const KernelTable& table = kernels();
  const auto quantize_run = kernels_of(quantized).quantize;
  const float levels = static_cast<float>(levels_of(bits));
  const std::vector<float> multipliers = multipliers_of(thresholds, shape.channels, levels);
  for_each_run(shape, multipliers.data(), threads, [&](const ScaleRun& run) {
    float buffer[kTileSize];
    const float* values = read_floats(table, tensor, run.begin, run.size, buffer);
    quantize_run(values, run.size, run.scales, run.uniform, {-levels - 1.0f, levels},
                 quantized + run.begin);
  });
}

template <typename Quantized>
void dequantize(const Quantized* quantized, const ChannelShape& shape, const float* thresholds,
                int bits, float* values, int threads) {
  const auto dequantize_run = kernels_of(quantized).dequantize;
  const float levels = static_cast<float>(levels_of(bits));
  for_each_run(shape, thresholds, threads, [&](const ScaleRun& run) {
    dequantize_run(quantized + run.begin, run.size, run.scales, run.uniform, levels,
                   values + run.begin);
  });
}

template void quantize(const Tensor&, const ChannelShape&, const float*, int, std::int8_t*, int);
template void quantize(const Tensor&, const ChannelShape&, const float*, int, std::int16_t*, int);
template void dequantize(const std::int8_t*, const ChannelShape&, const float*, int, float*, int);
template void dequantize(const std::int16_t*, const ChannelShape&, const float*, int, float*, int);

}  // namespace pyquant
