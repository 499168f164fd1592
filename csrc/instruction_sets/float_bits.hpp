// Floats and their bits. In an unnamed namespace, as everything that loops.hpp includes must be.
#pragma once

#include <stdint.h>
#include <string.h>

namespace pyquant {
namespace {

// A value of a tensor, which need not be aligned: those in a mapped parameter file lie anywhere.
template <typename Value>
inline Value loaded(const Value* at) {
  Value value;
  memcpy(&value, at, sizeof value);
  return value;
}

inline uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// Maps bits to the keys of KeyRange, and keys back to bits: the mapping is its own inverse.
inline int32_t key_of(uint32_t bits) {
  const int32_t value = static_cast<int32_t>(bits);
  return value ^ ((value >> 31) & 0x7fffffff);
}

inline int16_t key_of(uint16_t bits) {
  const int16_t value = static_cast<int16_t>(bits);
  return static_cast<int16_t>(value ^ ((value >> 15) & 0x7fff));
}

inline uint32_t bits_of_key(int32_t key) {
  return static_cast<uint32_t>(key_of(static_cast<uint32_t>(key)));
}

inline uint16_t bits_of_key(int16_t key) {
  return static_cast<uint16_t>(key_of(static_cast<uint16_t>(key)));
}

}  // namespace
}  // namespace pyquant
