#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "instruction_sets/loops.hpp"

namespace pyquant {
namespace {

// Like the plain loop, except that `vpcompressd` leaves the zeros out of the bins.
TileSummary find_nonzero_bins_of_tile(const float* values, size_t size, const Binning<float>& by,
                                      uint32_t* bins) {
  constexpr size_t lanes = 16;
  const __m512 inverse_width = _mm512_set1_ps(by.inverse_width);
  const __m512 most = _mm512_set1_ps(static_cast<float>(by.bins));
  const __m512i magnitude_mask = _mm512_set1_epi32(0x7fffffff);
  __m512i least = _mm512_set1_epi32(-1);
  __m512i greatest = _mm512_setzero_si512();
  __m512i any_bits = _mm512_setzero_si512();
  uint32_t* end = bins;
  const auto add = [&](__m512i bits, __mmask16 present) {
    const __m512i magnitudes = _mm512_and_si512(bits, magnitude_mask);
    least = _mm512_mask_min_epu32(least, present, least, magnitudes);
    greatest = _mm512_max_epu32(greatest, magnitudes);
    any_bits = _mm512_or_si512(any_bits, bits);
    // For a NaN, the minimum is its second operand.
    const __m512 quotients =
        _mm512_min_ps(_mm512_mul_ps(_mm512_castsi512_ps(magnitudes), inverse_width), most);
    const __m512i all = _mm512_cvttps_epi32(quotients);
    const __mmask16 nonzero = _mm512_test_epi32_mask(magnitudes, magnitudes);
    if (nonzero == 0xffff) {
      _mm512_storeu_si512(end, all);
      end += lanes;
    } else {
      _mm512_storeu_si512(end, _mm512_maskz_compress_epi32(nonzero, all));
      end += __builtin_popcount(nonzero);
    }
  };
  size_t i = 0;
  for (; i + lanes <= size; i += lanes) add(_mm512_loadu_si512(values + i), 0xffff);
  const __mmask16 rest = static_cast<__mmask16>((1u << (size - i)) - 1);
  if (rest != 0) add(_mm512_maskz_loadu_epi32(rest, values + i), rest);
  const uint32_t found = static_cast<uint32_t>(end - bins);
  return {_mm512_reduce_min_epu32(least), _mm512_reduce_max_epu32(greatest),
          static_cast<uint32_t>(_mm512_reduce_or_epi32(any_bits)),
          static_cast<uint32_t>(size) - found, found};
}

constexpr KernelTable avx512_table() {
  KernelTable table = kernel_table("avx512");
  table.find_bins_of_tile = find_nonzero_bins_of_tile;
  return table;
}

}  // namespace

const KernelTable& avx512_kernels() {
  static constexpr KernelTable table = avx512_table();
  return table;
}

}  // namespace pyquant
