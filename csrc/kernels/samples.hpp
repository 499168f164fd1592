#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "kernels/parallel.hpp"
#include "kernels/tensor.hpp"

namespace pyquant {

// Samples of a tensor, each of which lies in memory as [blocks, positions, columns]: a block holds
// some of the channels, side by side at each position.
struct Samples {
  std::size_t count;
  std::size_t blocks;
  std::size_t positions;
  std::size_t columns;
  bool sums_channels;  // whether the sums of the channels are asked for
};

// Samples cut into units, of several positions of a block, and these put together into pieces of
// one sample each, enough of them for the threads to share evenly.
class Pieces {
 public:
  Pieces(const Samples&, std::size_t threads);

  std::size_t count() const { return samples_.count * per_sample_; }
  std::size_t per_sample() const { return per_sample_; }
  std::size_t units_per_block() const { return units_per_block_; }

  // The units of a piece, counted through all samples.
  Part operator[](std::size_t piece) const;
  // The values of a unit.
  Part values(std::size_t unit) const;

 private:
  Samples samples_;
  std::size_t unit_positions_;
  std::size_t units_per_block_;
  std::size_t per_sample_;
};

// The sums of channels, taken while something else is done with the values: those of a unit in the
// order of its positions, and then of the units in theirs, as by `channel_sums`.
class UnitSums {
 public:
  UnitSums(const Tensor&, const Samples&, const Pieces&);

  // How many values are best added at a time: they stay in the first cache meanwhile.
  std::size_t chunk() const { return chunk_; }
  void start(std::size_t unit);
  void add(std::size_t unit, Part values);
  // Of each channel of each sample; none if they are not asked for.
  std::vector<double> totals() const;

 private:
  const Tensor& tensor_;
  Samples samples_;
  std::size_t units_per_block_;
  std::size_t chunk_;
  std::unique_ptr<double[]> of_units_;
};

// Calls visit(thread, piece, part) for parts of the tensor that cover all of it.
template <typename Visit>
std::vector<double> for_each_chunk(const Tensor& tensor, const Samples& samples,
                                   const Pieces& pieces, std::size_t threads, const Visit& visit) {
  UnitSums sums(tensor, samples, pieces);
  const auto visit_unit = [&](std::size_t thread, std::size_t piece, std::size_t unit) {
    const Part values = pieces.values(unit);
    if (!samples.sums_channels) return visit(thread, piece, values);
    sums.start(unit);
    for (std::size_t begin = values.begin; begin < values.end; begin += sums.chunk()) {
      const Part chunk{begin, std::min(begin + sums.chunk(), values.end)};
      visit(thread, piece, chunk);
      sums.add(unit, chunk);
    }
  };
  parallel_for(threads, threads, [&](std::size_t thread) {
    const Part mine = part_of(pieces.count(), threads, thread);
    for (std::size_t piece = mine.begin; piece < mine.end; ++piece) {
      const Part units = pieces[piece];
      for (std::size_t unit = units.begin; unit < units.end; ++unit)
        visit_unit(thread, piece, unit);
    }
  });
  return sums.totals();
}

}  // namespace pyquant
