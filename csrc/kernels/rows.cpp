#include "kernels/rows.hpp"

#include <algorithm>

#include "instruction_sets/float_bits.hpp"
#include "kernels/parallel.hpp"

namespace pyquant {
namespace {

// Odd, and with no pattern in its bits: 2^64 divided by the golden ratio.
constexpr std::uint64_t kMultiplier = 0x9e3779b97f4a7c15u;

// Weights the words of a row, of two values each, by multiples of an odd number.
std::uint64_t hash_of(const float* row, std::size_t channels) {
  std::uint64_t hash = 0, weight = 0;
  std::size_t i = 0;
  for (; i + 1 < channels; i += 2)
    hash += (bits_of(row[i]) | std::uint64_t{bits_of(row[i + 1])} << 32) * (weight += kMultiplier);
  if (i < channels) hash += bits_of(row[i]) * (weight + kMultiplier);
  // The low bits of a product depend little on the high bits of its factors.
  hash ^= hash >> 32;
  hash *= kMultiplier;
  return hash ^ hash >> 32;
}

}  // namespace

void sample_rows(const Tensor& tensor, const Samples& samples,
                 const std::vector<std::size_t>& positions, float* rows, std::uint64_t* hashes,
                 int requested) {
  const KernelTable& table = kernels();
  const std::size_t columns = samples.columns, channels = samples.blocks * columns;
  const std::size_t of_sample = positions.size();
  const std::size_t threads = thread_count(requested, samples.count * of_sample * channels);
  parallel_for(samples.count, threads, [&](std::size_t sample) {
    float* const first = rows + sample * of_sample * channels;
    for (std::size_t block = 0; block < samples.blocks; ++block) {
      const std::size_t begin = (sample * samples.blocks + block) * samples.positions;
      for (std::size_t i = 0; i < of_sample; ++i) {
        float* const target = first + i * channels + block * columns;
        const float* const read =
            read_floats(table, tensor, (begin + positions[i]) * columns, columns, target);
        if (read != target) std::copy_n(read, columns, target);
      }
    }
    for (std::size_t i = 0; i < of_sample; ++i)
      hashes[sample * of_sample + i] = hash_of(first + i * channels, channels);
  });
}

}  // namespace pyquant
