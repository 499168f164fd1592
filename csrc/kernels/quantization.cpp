#include "kernels/quantization.hpp"

#include <algorithm>
#include <vector>

#include "kernels/parallel.hpp"

namespace pyquant {
namespace {

// From this many on, values that share a scale, or neighbouring channels, are worth a loop of
// their own; shorter ones get their scales laid out block by block.
constexpr std::size_t kLongRun = 64;

struct ScaleRun {
  std::size_t size;
  const float* scales;
  bool uniform;
};

// The scale of every element, a run at a time from a position on.
class ScaleRuns {
 public:
  ScaleRuns(const ChannelShape& shape, const float* scales) : shape_(shape), scales_(scales) {}

  ScaleRun from(std::size_t begin, std::size_t end) {
    const std::size_t limit = std::min(end - begin, kBlockSize);
    const std::size_t channel = begin / shape_.inner % shape_.channels;
    if (shape_.inner >= kLongRun)
      return {std::min(limit, shape_.inner - begin % shape_.inner), scales_ + channel, true};
    if (shape_.inner == 1 && shape_.channels >= kLongRun)
      return {std::min(limit, shape_.channels - channel), scales_ + channel, false};
    lay_out(channel, begin % shape_.inner, limit);
    return {limit, buffer_, false};
  }

 private:
  void lay_out(std::size_t channel, std::size_t inner, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) {
      buffer_[i] = scales_[channel];
      if (++inner < shape_.inner) continue;
      inner = 0;
      if (++channel == shape_.channels) channel = 0;
    }
  }

  const ChannelShape& shape_;
  const float* scales_;
  alignas(64) float buffer_[kBlockSize];
};

template <typename Visit>
void for_each_run(const ChannelShape& shape, const float* scales, int requested,
                  const Visit& visit) {
  const std::size_t size = shape.outer * shape.channels * shape.inner;
  const std::size_t threads = thread_count(requested, size);
  parallel_for(threads, threads, [&](std::size_t thread) {
    const Part part = part_of(size, threads, thread);
    ScaleRuns runs(shape, scales);
    for (std::size_t begin = part.begin; begin < part.end;) {
      const ScaleRun run = runs.from(begin, part.end);
      visit(begin, run);
      begin += run.size;
    }
  });
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

auto quantize_kernel(std::int8_t) {
  return kernels().quantize_8;
}
auto quantize_kernel(std::int16_t) {
  return kernels().quantize_16;
}
auto dequantize_kernel(std::int8_t) {
  return kernels().dequantize_8;
}
auto dequantize_kernel(std::int16_t) {
  return kernels().dequantize_16;
}

}  // namespace

template <typename Quantized>
void quantize(const Tensor& tensor, const ChannelShape& shape, const float* thresholds, int bits,
              Quantized* quantized, int threads) {
  const KernelTable& table = kernels();
  const auto quantize_run = quantize_kernel(Quantized{});
  const float levels = static_cast<float>(levels_of(bits));
  const std::vector<float> multipliers = multipliers_of(thresholds, shape.channels, levels);
  for_each_run(shape, multipliers.data(), threads, [&](std::size_t begin, const ScaleRun& run) {
    float buffer[kBlockSize];
    const float* values = read_block(table, tensor, begin, run.size, buffer);
    quantize_run(values, run.size, run.scales, run.uniform, {-levels - 1.0f, levels},
                 quantized + begin);
  });
}

template <typename Quantized>
void dequantize(const Quantized* quantized, const ChannelShape& shape, const float* thresholds,
                int bits, float* values, int threads) {
  const auto dequantize_run = dequantize_kernel(Quantized{});
  const float levels = static_cast<float>(levels_of(bits));
  for_each_run(shape, thresholds, threads, [&](std::size_t begin, const ScaleRun& run) {
    dequantize_run(quantized + begin, run.size, run.scales, run.uniform, levels, values + begin);
  });
}

template void quantize(const Tensor&, const ChannelShape&, const float*, int, std::int8_t*, int);
template void quantize(const Tensor&, const ChannelShape&, const float*, int, std::int16_t*, int);
template void dequantize(const std::int8_t*, const ChannelShape&, const float*, int, float*, int);
template void dequantize(const std::int16_t*, const ChannelShape&, const float*, int, float*, int);

}  // namespace pyquant
