#include "kernels/scaled_inputs.hpp"

#include <algorithm>

#include "kernels/parallel.hpp"
#include "kernels/tensor.hpp"

namespace pyquant {
namespace {

// Calls add(factor, values, size, results) for the part of each row that lies in a tile of columns.
// A tile's results stay in the first-level cache.
template <typename Value, typename Add>
void reduce_rows(const Matrices& matrices, const Value* factors, Value* results, int requested,
                 const Add& add) {
  const auto [values, groups, rows, columns] = matrices;
  const std::size_t tiles = ceil_div(columns, kTileSize);
  const std::size_t threads = thread_count(requested, groups * rows * columns);
  std::fill_n(results, groups * columns, Value{0});
  parallel_for(groups * tiles, threads, [=, &add](std::size_t task) {
    const std::size_t group = task / tiles;
    const std::size_t begin = task % tiles * kTileSize;
    const std::size_t size = std::min(kTileSize, columns - begin);
    for (std::size_t row = group * rows; row < (group + 1) * rows; ++row)
      add(factors[row], values + row * columns + begin, size, results + group * columns + begin);
  });
}

}  // namespace

void scaled_square_sums(const Matrices& matrices, const double* factors, double* sums,
                        int threads) {
  reduce_rows(matrices, factors, sums, threads, kernels().add_scaled_squares);
}

void scaled_maxima(const Matrices& matrices, const float* factors, float* maxima, int threads) {
  reduce_rows(matrices, factors, maxima, threads, kernels().raise_scaled_max);
}

}  // namespace pyquant
