#include "kernels/mean_error.hpp"

#include <algorithm>

#include "kernels/parallel.hpp"
#include "kernels/tensor.hpp"

namespace pyquant {
namespace {

// The rounding errors of [begin, begin + size) of a row, at most kTileSize values.
void subtract(const KernelTable& table, const RoundedMatrix& matrix, std::size_t row,
              std::size_t begin, std::size_t size, float* lacking) {
  const std::size_t first = row * matrix.columns + begin;
  const float* steps = matrix.steps + row * matrix.step_of_row + begin * matrix.step_of_column;
  table.subtract_integers(matrix.values + first, matrix.integers + first, size, steps,
                          matrix.step_of_column == 0, lacking);
}

double mean_error_of_row(const KernelTable& table, const RoundedMatrix& matrix, std::size_t row,
                         const double* inputs) {
  alignas(64) float lacking[kTileSize];
  double sums[kWeightedSums] = {};
  for (std::size_t begin = 0; begin < matrix.columns; begin += kTileSize) {
    const std::size_t size = std::min(kTileSize, matrix.columns - begin);
    subtract(table, matrix, row, begin, size, lacking);
    table.add_weighted(lacking, inputs + begin, size, sums);
  }
  double total = 0.0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace

void mean_errors_of_rows(const RoundedMatrix& matrix, std::size_t groups, const double* inputs,
                         double* outputs, int requested) {
  const KernelTable& table = kernels();
  const std::size_t threads = thread_count(requested, matrix.rows * matrix.columns);
  const std::size_t of_group = matrix.rows / std::max<std::size_t>(groups, 1);
  for_each_part(matrix.rows, threads, matrix.columns, [&](std::size_t, Part rows) {
    for (std::size_t row = rows.begin; row < rows.end; ++row)
      outputs[row] =
          mean_error_of_row(table, matrix, row, inputs + row / of_group * matrix.columns);
  });
}

void mean_errors_of_columns(const RoundedMatrix& matrix, std::size_t groups, const double* inputs,
                            double* outputs, int requested) {
  const KernelTable& table = kernels();
  const std::size_t tiles = ceil_div(matrix.columns, kTileSize);
  const std::size_t threads = thread_count(requested, matrix.rows * matrix.columns);
  std::fill_n(outputs, groups * matrix.columns, 0.0);
  parallel_for(groups * tiles, threads, [&](std::size_t task) {
    const std::size_t group = task / tiles;
    const std::size_t begin = task % tiles * kTileSize;
    const std::size_t size = std::min(kTileSize, matrix.columns - begin);
    const Part rows = part_of(matrix.rows, groups, group);
    double* const sums = outputs + group * matrix.columns + begin;
    alignas(64) float lacking[kTileSize];
    for (std::size_t row = rows.begin; row < rows.end; ++row) {
      subtract(table, matrix, row, begin, size, lacking);
      table.add_scaled_floats(inputs[row], lacking, size, sums);
    }
  });
}

}  // namespace pyquant
