// Prints a digest of every kernel's results over one set of data. Within this processor they must
// agree for every instruction set and number of threads, and for several callers at once, or the
// program fails; between processors the printed lines are compared, as
// tests/instruction_sets/neon.sh does. tests/races.sh runs it over less data.

#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "instruction_sets/dispatch.hpp"
#include "kernels/error_sums.hpp"
#include "kernels/groups.hpp"
#include "kernels/histogram.hpp"
#include "kernels/mean_error.hpp"
#include "kernels/pair_max.hpp"
#include "kernels/quantization.hpp"
#include "kernels/reductions.hpp"
#include "kernels/rounding.hpp"
#include "kernels/rows.hpp"
#include "kernels/scaled_inputs.hpp"
#include "kernels/thresholds.hpp"

namespace pyquant {
namespace {

// FNV-1a.
class Digest {
 public:
  void add_bytes(const void* data, std::size_t size) {
    const auto* bytes = static_cast<const unsigned char*>(data);
    for (std::size_t i = 0; i < size; ++i) state_ = (state_ ^ bytes[i]) * 0x100000001b3u;
  }
  // Only that it is a NaN is promised, not which.
  void add(double value) {
    if (std::isnan(value)) value = std::numeric_limits<double>::quiet_NaN();
    add_bytes(&value, sizeof value);
  }
  template <typename Value>
  void add(const std::vector<Value>& values) {
    if constexpr (std::is_floating_point_v<Value>) {
      for (const Value value : values) add(value);
    } else {
      add_bytes(values.data(), values.size() * sizeof(Value));
    }
  }
  std::uint64_t value() const { return state_; }

 private:
  std::uint64_t state_ = 0xcbf29ce484222325u;
};

// splitmix64.
std::uint64_t random_bits(std::uint64_t& state) {
  std::uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

struct Data {
  std::string name;
  std::vector<std::uint32_t> storage;
  Tensor tensor;
};

constexpr std::size_t kChannels = 48;
constexpr std::size_t kPositions = 9973;  // for threads and for what is left over a vector
std::size_t positions = kPositions;       // of each channel

std::size_t data_size() {
  return kChannels * positions;
}

Data make_data(Element element, bool any_bits) {
  const bool wide = element == Element::kFloat32;
  const char* name = wide ? "float32" : element == Element::kFloat16 ? "float16" : "bfloat16";
  Data data{std::string(name) + (any_bits ? " any" : " finite"), {}, {}};
  data.storage.resize(data_size());
  auto* halves = reinterpret_cast<std::uint16_t*>(data.storage.data());
  std::uint64_t state = 1;
  for (std::size_t i = 0; i < data_size(); ++i) {
    std::uint32_t bits = static_cast<std::uint32_t>(random_bits(state));
    // Exponents of about 2^-13 to 2^2, some zeros.
    if (!any_bits) bits = (bits & 0x87ffffffu) | 0x38000000u;
    if (!any_bits && i % 5 == 0) bits &= 0x80000000u;
    if (wide)
      data.storage[i] = bits;
    else
      halves[i] = static_cast<std::uint16_t>(bits >> 16);
  }
  data.tensor = {data.storage.data(), data_size(), element};
  return data;
}

template <typename Quantized>
void add_quantized(Digest& digest, const Tensor& tensor, const ChannelShape& shape, int bits,
                   int threads) {
  std::vector<float> thresholds(shape.channels);
  for (std::size_t i = 0; i < shape.channels; ++i) thresholds[i] = 0.37f * float(i + 1);
  std::vector<Quantized> quantized(tensor.size);
  quantize(tensor, shape, thresholds.data(), bits, quantized.data(), threads);
  digest.add(quantized);
  std::vector<float> values(tensor.size);
  dequantize(quantized.data(), shape, thresholds.data(), bits, values.data(), threads);
  digest.add(values);
}

std::uint64_t reductions(const Data& data, int threads) {
  Digest digest;
  digest.add(abs_max(data.tensor, threads));
  const Range range = min_max(data.tensor, threads);
  digest.add(range.minimum);
  digest.add(range.maximum);
  digest.add(static_cast<double>(count_non_finite(data.tensor, threads)));
  return digest.value();
}

// Channels first, last and in the middle, few and many, long and short.
std::vector<ChannelShape> channel_shapes() {
  const std::size_t many = positions;
  return {{1, kChannels, many}, {many, kChannels, 1}, {kChannels, many, 1}, {16, 3, many},
          {3, many, 16},        {many, 3, 16},        {1, 1, data_size()},  {1, data_size(), 1}};
}

std::uint64_t channel_maxima(const Data& data, int threads) {
  Digest digest;
  for (const ChannelShape& shape : channel_shapes()) {
    std::vector<float> maxima(shape.channels);
    channel_abs_max(data.tensor, shape, maxima.data(), threads);
    digest.add(maxima);
  }
  return digest.value();
}

// Pairs in front of the channels and behind them, in rows of one value, of few and of many.
std::uint64_t pair_maxima(const Data& data, int threads) {
  Digest digest;
  const std::size_t many = positions;
  for (const std::size_t inner : {std::size_t{1}, std::size_t{3}, std::size_t{16}, many}) {
    const std::size_t rows = data_size() / inner / 3;
    const ChannelShape outside{1, 3, rows * inner}, pairs_inside{3, rows, inner};
    std::vector<float> maxima(3);
    channel_pair_max(data.tensor, outside, pairs_inside, maxima.data(), threads);
    digest.add(maxima);
    const ChannelShape inside{rows, 3, inner}, pairs_outside{1, rows, 3 * inner};
    channel_pair_max(data.tensor, inside, pairs_outside, maxima.data(), threads);
    digest.add(maxima);
  }
  return digest.value();
}

std::uint64_t channel_sums(const Data& data, int threads) {
  Digest digest;
  for (const ChannelShape& shape : channel_shapes()) {
    for (const std::size_t samples : {std::size_t{1}, shape.outer}) {
      const ChannelShape of_sample{shape.outer / samples, shape.channels, shape.inner};
      std::vector<double> sums(samples * shape.channels);
      channel_sums(data.tensor, samples, of_sample, sums.data(), threads);
      digest.add(sums);
    }
  }
  return digest.value();
}

// Samples whose channels lie side by side, all or some, at few positions and many.
std::uint64_t samples(const Data& data, int threads) {
  Digest digest;
  const std::size_t many = positions;
  for (const Samples& some : std::vector<Samples>{{3, 1, many, 16, true},
                                                  {16, 3, many, 1, true},
                                                  {1, 1, many, kChannels, true},
                                                  {kChannels, 1, 1, many, true},
                                                  {1, 3, many, 16, true}}) {
    const Maxima maxima = sample_maxima(data.tensor, some, threads);
    digest.add(maxima.of_samples);
    digest.add(maxima.channels.sums);
    digest.add(maxima.channels.abs_max);
    std::vector<std::uint64_t> counts(4096);
    digest.add(observe(data.tensor, some, -8, {counts.data(), 4096}, threads).channels.sums);
    digest.add(counts);
    std::vector<std::int64_t> whole(some.blocks * some.columns), fraction(whole.size());
    add_exactly(maxima.channels.sums.data(), some.count, whole.size(), whole.data(),
                fraction.data());
    digest.add(whole);
    digest.add(fraction);
    const std::vector<std::size_t> taken{0, some.positions / 2, some.positions - 1};
    std::vector<float> rows(some.count * taken.size() * whole.size());
    std::vector<std::uint64_t> hashes(some.count * taken.size());
    sample_rows(data.tensor, some, taken, rows.data(), hashes.data(), threads);
    digest.add(rows);
    digest.add(hashes);
  }
  return digest.value();
}

std::uint64_t histograms(const Data& data, int threads) {
  Digest digest;
  for (const double width : {0.00390625, 0.0017, 1e-3 / 3}) {
    for (const std::size_t bins : {std::size_t{2048}, std::size_t{300}}) {
      std::vector<std::uint64_t> counts(bins);
      histogram(data.tensor, width, {counts.data(), bins}, threads);
      digest.add(counts);
    }
  }
  std::vector<std::uint64_t> counts(4096);
  const Samples samples{kChannels, 1, positions, 1, false};
  const Observation seen = observe(data.tensor, samples, -8, {counts.data(), 4096}, threads);
  digest.add(counts);
  digest.add(seen.range.minimum);
  digest.add(seen.range.maximum);
  digest.add(seen.sample_abs_max);
  digest.add(static_cast<double>(seen.zeros));
  digest.add(static_cast<double>(seen.non_finite));
  return digest.value();
}

std::uint64_t quantization(const Data& data, int threads) {
  Digest digest;
  for (const ChannelShape& shape : channel_shapes()) {
    add_quantized<std::int8_t>(digest, data.tensor, shape, 8, threads);
    add_quantized<std::int8_t>(digest, data.tensor, shape, 4, threads);
    add_quantized<std::int16_t>(digest, data.tensor, shape, 16, threads);
  }
  return digest.value();
}

std::uint64_t thresholds(const Data& data, int threads) {
  Digest digest;
  for (const std::size_t bins : {std::size_t{100}, std::size_t{2048}}) {
    std::vector<std::uint64_t> counts(bins);
    histogram(data.tensor, 8.0 / static_cast<double>(bins), {counts.data(), bins}, threads);
    counts[0] += 1;
    const ConstCounts histogram{counts.data(), bins};
    for (const int bits : {4, 8}) {
      digest.add(kl_threshold(histogram, 0.37, bits, default_kl_start(bins, bits)));
      digest.add(mse_threshold(histogram, 0.37, bits));
      digest.add(emd_threshold(histogram, 0.37, bits));
    }
    digest.add(percentile_threshold(histogram, 0.37, 0.999));
  }
  return digest.value();
}

// Of finite float32 alone: calibration refuses anything else before it comes here.
std::uint64_t rounding(const Data& data, int threads) {
  Digest digest;
  if (data.name != "float32 finite") return digest.value();
  constexpr std::size_t kInputs = 61, kSamples = 90, kOutputs = 37;
  const auto* values = static_cast<const float*>(data.tensor.data);
  std::vector<double> moments(kInputs * kInputs);
  add_moments(values, kSamples, kInputs, moments.data(), threads);
  digest.add(moments);
  const std::vector<float> steps(kOutputs, 0.011f);
  std::vector<std::int8_t> quantized(kOutputs * kInputs);
  round_by_moments(values + kSamples * kInputs, kOutputs, kInputs, steps.data(), moments.data(), 8,
                   4, quantized.data(), threads);
  digest.add(quantized);
  const RoundedMatrix matrix{values, quantized.data(), kOutputs, kInputs, steps.data(), 1, 0};
  std::vector<double> of_rows(kOutputs), of_columns(kInputs);
  mean_errors_of_rows(matrix, 1, moments.data(), of_rows.data(), threads);
  mean_errors_of_columns(matrix, 1, moments.data(), of_columns.data(), threads);
  digest.add(of_rows);
  digest.add(of_columns);
  constexpr std::size_t kGroups = 3, kRows = 29, kColumns = 1301;
  const Matrices matrices{values, kGroups, kRows, kColumns};
  std::vector<double> sums(kGroups * kColumns);
  scaled_square_sums(matrices, moments.data(), sums.data(), threads);
  digest.add(sums);
  std::vector<float> maxima(kGroups * kColumns);
  scaled_maxima(matrices, values, maxima.data(), threads);
  digest.add(maxima);
  for (const std::size_t size : {std::size_t{7}, data.tensor.size / 2}) {
    const ErrorSums found = error_sums(values, values + size, size, threads);
    for (const double sum : {found.total, found.signal, found.noise, found.other, found.product})
      digest.add(sum);
  }
  return digest.value();
}

std::uint64_t groups(const Data& data, int threads) {
  Digest digest;
  for (const GroupShape shape : {GroupShape{48, 64, 131 * positions / kPositions},
                                 GroupShape{3001 * positions / kPositions, 128, 1}}) {
    for (const int bits : {4, 8}) {
      std::vector<std::int8_t> integers(shape.outer * shape.size * shape.inner);
      std::vector<float> steps(shape.outer * shape.inner);
      for (const bool search : {false, true}) {
        quantize_groups(data.tensor, shape, bits, search, integers.data(), steps.data(), threads);
        digest.add(integers);
        digest.add(steps);
      }
    }
  }
  return digest.value();
}

struct Family {
  const char* name;
  std::uint64_t (*digest)(const Data&, int threads);
};

constexpr Family kFamilies[] = {{"reductions", reductions},     {"channel maxima", channel_maxima},
                                {"pair maxima", pair_maxima},   {"channel sums", channel_sums},
                                {"samples", samples},           {"histograms", histograms},
                                {"quantization", quantization}, {"thresholds", thresholds},
                                {"rounding", rounding},         {"groups", groups}};

bool print_digest(const Family& family, const Data& data) {
  select_instruction_set("portable");
  const std::uint64_t expected = family.digest(data, 1);
  std::printf("%-15s %-16s %016llx\n", family.name, data.name.c_str(),
              static_cast<unsigned long long>(expected));
  std::atomic<bool> same{true};
  for (const std::string& name : available_instruction_sets()) {
    select_instruction_set(name);
    std::vector<std::thread> callers;
    for (const int threads : {1, 2, 5})
      callers.emplace_back([&, threads] {
        if (family.digest(data, threads) == expected) return;
        std::fprintf(stderr, "%s of %s differ: %s, %d threads\n", family.name, data.name.c_str(),
                     name.c_str(), threads);
        same = false;
      });
    for (std::thread& caller : callers) caller.join();
  }
  return same;
}

int print_digests() {
  bool same = true;
  for (const Element element : {Element::kFloat32, Element::kFloat16, Element::kBFloat16})
    for (const bool any_bits : {false, true})
      for (const Family& family : kFamilies)
        same = print_digest(family, make_data(element, any_bits)) && same;
  for (const std::string& name : available_instruction_sets())
    std::fprintf(stderr, "ran %s\n", name.c_str());
  return same ? 0 : 1;
}

}  // namespace
}  // namespace pyquant

// Takes the number of positions, if it is not to be the usual one.
int main(int count, char** arguments) {
  if (count > 1) pyquant::positions = std::strtoul(arguments[1], nullptr, 10);
  return pyquant::print_digests();
}
