#include "kernels/samples.hpp"

#include <algorithm>

#include "kernels/reductions.hpp"

namespace pyquant {
namespace {

constexpr std::size_t kMinValuesPerPiece = 8192;
constexpr std::size_t kPiecesPerThread = 16;  // a thread that loses its core holds up only one
constexpr std::size_t kValuesPerChunk = 4096;
constexpr std::size_t kJoinedColumns = 256;  // fewer columns are joined to rows of at most this

// A multiple of kSummedAtOnce, so that the float32 sums begin where they would without chunks.
std::size_t positions_of_chunk(std::size_t columns) {
  return std::max<std::size_t>(kValuesPerChunk / columns / kSummedAtOnce, 1) * kSummedAtOnce;
}

}  // namespace

Pieces::Pieces(const Samples& samples, std::size_t threads)
    : samples_(samples),
      unit_positions_(samples.by_channel
                          ? kSummedPositions
                          : std::max<std::size_t>(kMinValuesPerPiece / samples.columns, 1)),
      units_per_block_(ceil_div(samples.positions, unit_positions_)) {
  const std::size_t values = samples.blocks * samples.positions * samples.columns;
  const std::size_t wanted = threads == 1 ? 1 : kPiecesPerThread * threads / samples.count + 1;
  const std::size_t most = std::min(values / kMinValuesPerPiece, samples.blocks * units_per_block_);
  per_sample_ = std::clamp<std::size_t>(most, 1, wanted);
}

Part Pieces::operator[](std::size_t piece) const {
  const std::size_t units = samples_.blocks * units_per_block_;
  const Part part = part_of(units, per_sample_, piece % per_sample_);
  const std::size_t first = piece / per_sample_ * units;
  return {first + part.begin, first + part.end};
}

Part Pieces::values(std::size_t unit) const {
  const std::size_t block = unit / units_per_block_;  // counted through all samples
  const std::size_t begin = unit % units_per_block_ * unit_positions_;
  const std::size_t end = std::min(begin + unit_positions_, samples_.positions);
  const std::size_t first = block * samples_.positions;
  return {(first + begin) * samples_.columns, (first + end) * samples_.columns};
}

UnitChannels::UnitChannels(const Tensor& tensor, const Samples& samples, const Pieces& pieces,
                           std::size_t threads)
    : tensor_(tensor),
      samples_(samples),
      units_per_block_(pieces.units_per_block()),
      chunk_(positions_of_chunk(samples.columns) * samples.columns),
      joined_(std::max<std::size_t>(kJoinedColumns / samples.columns, 1) * samples.columns) {
  if (!samples.by_channel) return;
  const std::size_t units = samples.count * samples.blocks * units_per_block_;
  of_units_.reset(new double[units * samples.columns]);
  magnitudes_.resize(threads * samples.blocks * joined_);
}

void UnitChannels::start(std::size_t unit) {
  std::fill_n(of_units_.get() + unit * samples_.columns, samples_.columns, 0.0);
}

void UnitChannels::add(std::size_t thread, std::size_t unit, Part values) {
  const KernelTable& table = kernels();
  const std::size_t columns = samples_.columns, size = values.end - values.begin;
  const std::size_t block = unit / units_per_block_ % samples_.blocks;
  double* const sums = of_units_.get() + unit * columns;
  std::uint32_t* const greatest = &magnitudes_[(thread * samples_.blocks + block) * joined_];
  if (tensor_.element == Element::kFloat32) {
    const float* const read = static_cast<const float*>(tensor_.data) + values.begin;
    table.add_columns(read, size / columns, columns, columns, sums);
    for (std::size_t begin = 0; begin < size; begin += joined_)
      table.words.raise_abs_max_of_row(words_of(read + begin), std::min(joined_, size - begin),
                                       greatest);
    return;
  }
  float buffer[kSummedAtOnce * kTileSize];
  for (std::size_t begin = values.begin; begin < values.end; begin += kSummedAtOnce * columns) {
    const std::size_t rows = std::min(kSummedAtOnce, (values.end - begin) / columns);
    for (std::size_t column = 0; column < columns; column += kTileSize) {
      const std::size_t width = std::min(kTileSize, columns - column);
      for (std::size_t row = 0; row < rows; ++row) {
        float* const target = buffer + row * width;
        read_floats(table, tensor_, begin + row * columns + column, width, target);
        table.words.raise_abs_max_of_row(words_of(target), width, greatest + column);
      }
      table.add_columns(buffer, rows, width, width, sums + column);
    }
  }
}

Channels UnitChannels::totals() const {
  if (!samples_.by_channel) return {};
  return {sums(), abs_max()};
}

std::vector<double> UnitChannels::sums() const {
  const std::size_t columns = samples_.columns, blocks = samples_.count * samples_.blocks;
  std::vector<double> totals(blocks * columns);
  for (std::size_t unit = 0; unit < blocks * units_per_block_; ++unit) {
    const double* const sums = of_units_.get() + unit * columns;
    double* const of_block = totals.data() + unit / units_per_block_ * columns;
    for (std::size_t column = 0; column < columns; ++column) of_block[column] += sums[column];
  }
  make_nan_the_same(totals.data(), totals.size());
  return totals;
}

std::vector<float> UnitChannels::abs_max() const {
  const std::size_t columns = samples_.columns;
  std::vector<std::uint32_t> greatest(samples_.blocks * columns);
  for (std::size_t begin = 0; begin < magnitudes_.size(); begin += columns) {
    const std::size_t block = begin / joined_ % samples_.blocks;
    for (std::size_t column = 0; column < columns; ++column) {
      std::uint32_t& maximum = greatest[block * columns + column];
      maximum = std::max(maximum, magnitudes_[begin + column]);
    }
  }
  std::vector<float> maxima(greatest.size());
  std::transform(greatest.begin(), greatest.end(), maxima.begin(), [](std::uint32_t magnitude) {
    return float_of_magnitude(magnitude, Element::kFloat32);
  });
  return maxima;
}

}  // namespace pyquant
