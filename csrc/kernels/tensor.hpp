#pragma once

#include <cstddef>
#include <cstdint>

#include "instruction_sets/dispatch.hpp"

namespace pyquant {

enum class Element { kFloat32, kFloat16, kBFloat16 };

// Contiguous values of one element type.
struct Tensor {
  const void* data;
  std::size_t size;
  Element element;

  const std::uint32_t* words() const { return static_cast<const std::uint32_t*>(data); }
  const std::uint16_t* halves() const { return static_cast<const std::uint16_t*>(data); }
};

// A tensor seen as [outer, channels, inner].
struct ChannelShape {
  std::size_t outer;
  std::size_t channels;
  std::size_t inner;
};

constexpr std::uint32_t infinity_bits(Element element) {
  return element == Element::kFloat32   ? 0x7f800000u
         : element == Element::kFloat16 ? 0x7c00u
                                        : 0x7f80u;
}

inline const std::uint32_t* words_of(const float* values) {
  return reinterpret_cast<const std::uint32_t*>(values);
}

// The most values of a tile. It stays in the first-level cache, with the data derived from it.
constexpr std::size_t kTileSize = 512;

// The values [begin, begin + size) as float32: in place if they are, else converted into `buffer`.
inline const float* read_floats(const KernelTable& table, const Tensor& tensor, std::size_t begin,
                                std::size_t size, float* buffer) {
  switch (tensor.element) {
    case Element::kFloat32:
      return static_cast<const float*>(tensor.data) + begin;
    case Element::kFloat16:
      table.widen_float16(tensor.halves() + begin, size, buffer);
      return buffer;
    case Element::kBFloat16:
      table.widen_bfloat16(tensor.halves() + begin, size, buffer);
      return buffer;
  }
  return nullptr;
}

}  // namespace pyquant
