#pragma once

#include "kernels/tensor.hpp"

namespace pyquant {

constexpr int kMinBits = 2;
constexpr int kMaxBits = 16;
constexpr int kMaxBitsOfInt8 = 8;

// The greatest quantized value of `bits` bits.
constexpr int levels_of(int bits) {
  return (1 << (bits - 1)) - 1;
}

// One threshold for each of shape.channels. Bit for bit Paddle's quantize_linear with round_type 0,
// except that NaN becomes 0, and Paddle's dequantize_linear.
template <typename Quantized>
void quantize(const Tensor&, const ChannelShape&, const float* thresholds, int bits,
              Quantized* quantized, int threads);
template <typename Quantized>
void dequantize(const Quantized* quantized, const ChannelShape&, const float* thresholds, int bits,
                float* values, int threads);

}  // namespace pyquant
