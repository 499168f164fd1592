#include "kernels/groups.hpp"

#include <algorithm>
#include <vector>

#include "instruction_sets/dispatch.hpp"
#include "kernels/parallel.hpp"
#include "kernels/quantization.hpp"

namespace pyquant {
namespace {

// Up to kGroupsAtOnce groups, one in each column.
class Tile {
 public:
  Tile(std::size_t size, std::size_t columns)
      : size_(size), columns_(columns), values_(size * columns), integers_(size * columns) {}

  // Reads columns that lie beside one another; the rows begin `stride` values apart.
  void read_columns(const Tensor& tensor, std::size_t begin, std::size_t stride) {
    for (std::size_t row = 0; row < size_; ++row) {
      float* target = &values_[row * columns_];
      const float* source = read_floats(kernels(), tensor, begin + row * stride, columns_, target);
      if (source != target) std::copy_n(source, columns_, target);
    }
  }

  // Reads columns that lie one behind the other.
  void read_rows(const Tensor& tensor, std::size_t begin) {
    float buffer[kMaxGroupSize];
    for (std::size_t column = 0; column < columns_; ++column) {
      const float* source = read_floats(kernels(), tensor, begin + column * size_, size_, buffer);
      for (std::size_t row = 0; row < size_; ++row) values_[row * columns_ + column] = source[row];
    }
  }

  void quantize(float levels, bool search, float* steps) {
    const KernelTable& table = kernels();
    table.find_steps(values_.data(), size_, columns_, levels, search, steps);
    float multipliers[kGroupsAtOnce];
    for (std::size_t column = 0; column < columns_; ++column)
      multipliers[column] = 1.0f / steps[column];
    for (std::size_t row = 0; row < size_; ++row)
      table.int8.quantize(&values_[row * columns_], columns_, multipliers, false,
                          {-levels - 1.0f, levels}, &integers_[row * columns_]);
  }

  // Puts two integers into each byte: half as many rows are left.
  void pack() {
    const std::size_t half = size_ / 2 * columns_;
    for (std::size_t i = 0; i < half; ++i)
      integers_[i] = static_cast<std::int8_t>(16 * integers_[half + i] + integers_[i] + 8);
  }

  void write_columns(std::int8_t* target, std::size_t rows, std::size_t stride) const {
    for (std::size_t row = 0; row < rows; ++row)
      std::copy_n(&integers_[row * columns_], columns_, target + row * stride);
  }

  void write_rows(std::int8_t* target, std::size_t rows) const {
    for (std::size_t column = 0; column < columns_; ++column)
      for (std::size_t row = 0; row < rows; ++row)
        target[column * rows + row] = integers_[row * columns_ + column];
  }

 private:
  const std::size_t size_;
  const std::size_t columns_;
  std::vector<float> values_;
  std::vector<std::int8_t> integers_;
};

}  // namespace

void quantize_groups(const Tensor& tensor, const GroupShape& shape, int bits, bool search,
                     std::int8_t* integers, float* steps, int threads) {
  const bool lies_in_rows = shape.inner == 1;
  const std::size_t length = lies_in_rows ? shape.outer : shape.inner;
  const std::size_t blocks = ceil_div(length, kGroupsAtOnce);
  const std::size_t tasks = blocks * (lies_in_rows ? 1 : shape.outer);
  const std::size_t values = shape.outer * shape.size * shape.inner;
  const std::size_t stored = bits == kPackedBits ? shape.size / 2 : shape.size;
  const auto levels = static_cast<float>(levels_of(bits));
  parallel_for(tasks, thread_count(threads, values), [&](std::size_t task) {
    const std::size_t outer = task / blocks;
    const std::size_t first = task % blocks * kGroupsAtOnce;
    Tile tile(shape.size, std::min(kGroupsAtOnce, length - first));
    if (lies_in_rows)
      tile.read_rows(tensor, first * shape.size);
    else
      tile.read_columns(tensor, outer * shape.size * shape.inner + first, shape.inner);
    tile.quantize(levels, search, steps + outer * shape.inner + first);
    if (bits == kPackedBits) tile.pack();
    if (lies_in_rows)
      tile.write_rows(integers + first * stored, stored);
    else
      tile.write_columns(integers + outer * stored * shape.inner + first, stored, shape.inner);
  });
}

}  // namespace pyquant
