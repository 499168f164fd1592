#include "kernels/pair_max.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/parallel.hpp"
#include "kernels/reductions.hpp"

namespace pyquant {
namespace {

// Several shorter rows are read at a time, as one row with pairs at a fixed distance.
constexpr std::size_t kLongRow = 32;
constexpr std::size_t kJoinedValues = 512;

// An odd last row counts as a pair.
std::size_t pairs_of(std::size_t rows) {
  return ceil_div(rows, 2);
}

// The greatest magnitudes seen in rows of `inner` values, where neighbouring rows form pairs.
class ColumnMaxima {
 public:
  // Unless `by_column`, it does not matter which column a value lies in.
  ColumnMaxima(const Tensor& tensor, const ChannelShape& pairs, bool by_column)
      : tensor_(tensor),
        inner_(pairs.inner),
        by_column_(by_column),
        joined_(!by_column && inner_ < kLongRow),
        columns_at_once_(by_column && tensor.element == Element::kFloat32 ? kMaxColumns
                                                                          : kTileSize) {
    if (!joined_) {
      maxima_.resize(by_column ? inner_ : std::min(inner_, kTileSize));
      return;
    }
    const std::size_t whole_lines = 8 * ceil_div(kJoinedValues, 16 * inner_);
    begins_pair_.resize(2 * std::min(whole_lines, pairs_of(pairs.channels)) * inner_);
    for (std::size_t i = 0; i < begins_pair_.size(); ++i)
      begins_pair_[i] = i / inner_ % 2 == 0 ? ~0u : 0u;
  }

  // Adds `rows` rows, beginning with the value `first`. The first row is the first of a pair.
  void add(std::size_t first, std::size_t rows) {
    if (joined_) return add_joined(first, rows);
    for (std::size_t column = 0; column < inner_; column += kMaxColumns) {
      const Part part{column, std::min(column + kMaxColumns, inner_)};
      for (std::size_t row = 0; row + 1 < rows; row += 2) add_pair(first + row * inner_, part);
      if (rows % 2 == 1) add_row(first + (rows - 1) * inner_, part);
    }
  }

  // The greatest magnitude since the last call.
  std::uint32_t greatest() {
    if (joined_) return std::exchange(greatest_, 0u);
    const std::uint32_t maximum = kernels().words.abs_max(maxima_.data(), maxima_.size());
    std::fill(maxima_.begin(), maxima_.end(), 0u);
    return maximum;
  }

  // One maximum for each place in a row.
  const std::vector<std::uint32_t>& by_column() const { return maxima_; }

 private:
  const std::uint32_t* read(std::size_t begin, std::size_t size, float* buffer) const {
    return words_of(read_floats(kernels(), tensor_, begin, size, buffer));
  }

  void add_joined(std::size_t first, std::size_t rows) {
    float buffer[2 * kJoinedValues];
    // The last row begins no pair. If it is the second of a pair, it needs no loop of its own, as
    // long as another row follows it that can be read and ignored.
    const bool followed = rows % 2 == 0 && first + (rows + 1) * inner_ <= tensor_.size;
    const std::size_t paired = (followed ? rows : rows - 1) * inner_;
    const KernelTable& table = kernels();
    for (std::size_t begin = 0; begin < paired; begin += begins_pair_.size()) {
      const std::size_t size = std::min(begins_pair_.size(), paired - begin);
      const std::uint32_t* const bits = read(first + begin, size + inner_, buffer);
      greatest_ =
          std::max(greatest_, table.joined_pair_max(bits, inner_, begins_pair_.data(), size));
    }
    if (followed) return;
    greatest_ =
        std::max(greatest_, table.words.abs_max(read(first + paired, inner_, buffer), inner_));
  }

  void add_pair(std::size_t first, Part columns) {
    float of_one[kTileSize];
    float of_other[kTileSize];
    for (std::size_t column = columns.begin; column < columns.end; column += columns_at_once_) {
      const std::size_t size = std::min(columns_at_once_, columns.end - column);
      const std::uint32_t* const one = read(first + column, size, of_one);
      const std::uint32_t* const other = read(first + inner_ + column, size, of_other);
      kernels().raise_pair_max(one, other, size, maxima_.data() + (by_column_ ? column : 0));
    }
  }

  void add_row(std::size_t first, Part columns) {
    for (std::size_t column = columns.begin; column < columns.end; column += columns_at_once_) {
      const std::size_t size = std::min(columns_at_once_, columns.end - column);
      raise_row(first + column, size, maxima_.data() + (by_column_ ? column : 0));
    }
  }

  void raise_row(std::size_t first, std::size_t size, std::uint32_t* maxima) {
    float buffer[kTileSize];
    kernels().words.raise_abs_max_of_row(read(first, size, buffer), size, maxima);
  }

  const Tensor& tensor_;
  std::size_t inner_;
  bool by_column_;
  bool joined_;
  std::size_t columns_at_once_;
  std::vector<std::uint32_t> maxima_;       // unless joined
  std::uint32_t greatest_ = 0;              // if joined
  std::vector<std::uint32_t> begins_pair_;  // all bits set for a value that is the first of a pair
};

// Raises the channels' maxima to those of their columns; each column lies in one channel.
void raise_channels(const std::vector<std::uint32_t>& columns, const ChannelShape& shape,
                    std::uint32_t* channels) {
  const KernelTable& table = kernels();
  const std::size_t period = shape.channels * shape.inner;
  for (std::size_t begin = 0; begin < columns.size(); begin += period) {
    const std::uint32_t* const of_channels = columns.data() + begin;
    if (shape.inner == 1) {
      table.words.raise_abs_max_of_row(of_channels, shape.channels, channels);
      continue;
    }
    for (std::size_t c = 0; c < shape.channels; ++c)
      channels[c] =
          std::max(channels[c], table.words.abs_max(of_channels + c * shape.inner, shape.inner));
  }
}

// Raises the channels' maxima to those of a part of the pairs of rows.
void raise_to_pairs(const Tensor& tensor, const ChannelShape& shape, const ChannelShape& pairs,
                    Part part, std::uint32_t* channels) {
  const std::size_t run = pairs.channels * pairs.inner;
  const bool by_column = shape.inner < pairs.inner;
  const std::size_t pairs_of_run = pairs_of(pairs.channels);
  ColumnMaxima columns(tensor, pairs, by_column);
  for (std::size_t pair = part.begin, end; pair < part.end; pair = end) {
    const std::size_t outer = pair / pairs_of_run;
    end = std::min((outer + 1) * pairs_of_run, part.end);
    const std::size_t begin_row = 2 * (pair - outer * pairs_of_run);
    const std::size_t end_row = std::min(2 * (end - outer * pairs_of_run), pairs.channels);
    columns.add(outer * run + begin_row * pairs.inner, end_row - begin_row);
    if (by_column) continue;
    std::uint32_t& channel = channels[outer * run / shape.inner % shape.channels];
    channel = std::max(channel, columns.greatest());
  }
  if (by_column) raise_channels(columns.by_column(), shape, channels);
}

}  // namespace

void channel_pair_max(const Tensor& tensor, const ChannelShape& shape, const ChannelShape& pairs,
                      float* maxima, int requested) {
  std::fill_n(maxima, shape.channels, 0.0f);
  if (tensor.size == 0) return;
  const std::size_t total = pairs.outer * pairs_of(pairs.channels);
  const std::size_t threads = std::min(thread_count(requested, tensor.size), total);
  std::vector<std::uint32_t> magnitudes(threads * shape.channels);
  for_each_part(total, threads, 2 * pairs.inner, [&](std::size_t thread, Part part) {
    raise_to_pairs(tensor, shape, pairs, part, magnitudes.data() + thread * shape.channels);
  });
  for (std::size_t i = shape.channels; i < magnitudes.size(); ++i)
    magnitudes[i % shape.channels] = std::max(magnitudes[i % shape.channels], magnitudes[i]);
  std::transform(magnitudes.begin(),
                 magnitudes.begin() + static_cast<std::ptrdiff_t>(shape.channels), maxima,
                 [](std::uint32_t bits) { return float_of_magnitude(bits, Element::kFloat32); });
}

}  // namespace pyquant
