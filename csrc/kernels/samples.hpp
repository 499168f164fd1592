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
  bool by_channel;  // whether each channel gets statistics of its own, too
};

// Statistics of the channels of samples; empty unless asked for.
struct Channels {
  std::vector<double> sums;    // of each sample: [samples * channels]
  std::vector<float> abs_max;  // of all samples: [channels]
};

// Cuts samples into units of several positions of a block, and puts these together into pieces. A
// piece lies within one sample, and there are enough pieces for the threads to share evenly.
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

// Collects statistics of channels while the values are read for something else. It sums each unit
// in the order of its positions, and then the units in their order, as `channel_sums` does.
class UnitChannels {
 public:
  UnitChannels(const Tensor&, const Samples&, const Pieces&, std::size_t threads);

  // How many values to add at a time, so that they stay in the first-level cache meanwhile.
  std::size_t chunk() const { return chunk_; }
  void start(std::size_t unit);
  void add(std::size_t thread, std::size_t unit, Part values);
  Channels totals() const;

 private:
  std::vector<double> sums() const;
  std::vector<float> abs_max() const;

  const Tensor& tensor_;
  Samples samples_;
  std::size_t units_per_block_;
  std::size_t chunk_;
  std::size_t joined_;  // this many columns are read as one row where channels are few
  std::unique_ptr<double[]> of_units_;
  std::vector<std::uint32_t> magnitudes_;  // [threads, blocks, joined columns]
};

// Calls visit(thread, piece, part) for parts that cover the tensor.
template <typename Visit>
Channels for_each_chunk(const Tensor& tensor, const Samples& samples, const Pieces& pieces,
                        std::size_t threads, const Visit& visit) {
  UnitChannels channels(tensor, samples, pieces, threads);
  const auto visit_unit = [&](std::size_t thread, std::size_t piece, std::size_t unit) {
    const Part values = pieces.values(unit);
    if (!samples.by_channel) return visit(thread, piece, values);
    channels.start(unit);
    for (std::size_t begin = values.begin; begin < values.end; begin += channels.chunk()) {
      const Part chunk{begin, std::min(begin + channels.chunk(), values.end)};
      visit(thread, piece, chunk);
      channels.add(thread, unit, chunk);
    }
  };
  for_each_task(pieces.count(), threads, [&](std::size_t thread, std::size_t piece) {
    const Part units = pieces[piece];
    for (std::size_t unit = units.begin; unit < units.end; ++unit) visit_unit(thread, piece, unit);
  });
  return channels.totals();
}

}  // namespace pyquant
