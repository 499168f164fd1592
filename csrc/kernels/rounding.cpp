#include "kernels/rounding.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "instruction_sets/dispatch.hpp"
#include "kernels/parallel.hpp"
#include "kernels/quantization.hpp"

namespace pyquant {
namespace {

// This many sums stay in the first-level cache while samples pass by.
constexpr std::size_t kColumnsAtOnce = 1024;

// This many rows share each read of the moments, which may be larger than any cache.
constexpr std::size_t kRowsAtOnce = 8;

// The rows of one task: their weights, their current integers, and the gradients of their error.
template <typename Quantized>
class Rows {
 public:
  Rows(const float* weights, std::size_t rows, std::size_t size, const float* steps,
       const double* moments, int bits, Quantized* quantized)
      : weights_(weights),
        rows_(rows),
        size_(size),
        steps_(steps),
        moments_(moments),
        levels_(levels_of(bits)),
        quantized_(quantized),
        gradients_(rows * size) {}

  void round_to_nearest() {
    for (std::size_t column = 0; column < size_; ++column)
      for (std::size_t row = 0; row < rows_; ++row) {
        const double weight = weights_[row * size_ + column];
        Quantized& integer = quantized_[row * size_ + column];
        integer = clipped(weight / steps_[row]);
        add(row, column, integer * static_cast<double>(steps_[row]) - weight);
      }
  }

  // Returns whether any integer moved.
  bool sweep() {
    bool moved = false;
    for (std::size_t column = 0; column < size_; ++column) {
      const double curvature = moments_[column * size_ + column];
      if (!(curvature > 0.0)) continue;
      for (std::size_t row = 0; row < rows_; ++row) {
        const double step = steps_[row];
        if (curvature * step == 0.0) continue;  // too small to divide by
        Quantized& integer = quantized_[row * size_ + column];
        // Further away, an integer would fit chance correlations of few samples.
        const double exact = weights_[row * size_ + column] / step;
        const double best = integer - gradients_[row * size_ + column] / (curvature * step);
        const Quantized next = clipped(std::clamp(best, std::floor(exact), std::ceil(exact)));
        if (next == integer) continue;
        add(row, column, (next - integer) * step);
        integer = next;
        moved = true;
      }
    }
    return moved;
  }

 private:
  Quantized clipped(double value) const {
    return static_cast<Quantized>(std::clamp(std::nearbyint(value), -levels_, levels_));
  }

  void add(std::size_t row, std::size_t column, double error) {
    if (error != 0.0)
      kernels().add_scaled(error, moments_ + column * size_, size_, &gradients_[row * size_]);
  }

  const float* weights_;
  const std::size_t rows_;
  const std::size_t size_;
  const float* steps_;
  const double* moments_;
  const double levels_;
  Quantized* quantized_;
  std::vector<double> gradients_;
};

}  // namespace

void add_moments(const float* samples, std::size_t count, std::size_t size, double* moments,
                 int threads) {
  const std::size_t work = std::max<std::size_t>(1, count) * size * size / 2;
  parallel_for(size, thread_count(threads, work), [&](std::size_t row) {
    for (std::size_t begin = row; begin < size; begin += kColumnsAtOnce) {
      const std::size_t width = std::min(kColumnsAtOnce, size - begin);
      kernels().add_products(samples, size, count, row, begin, width, moments + row * size + begin);
    }
  });
  parallel_for(size, thread_count(threads, size * size), [&](std::size_t row) {
    for (std::size_t column = 0; column < row; ++column)
      moments[row * size + column] = moments[column * size + row];
  });
}

template <typename Quantized>
void round_by_moments(const float* weights, std::size_t rows, std::size_t size, const float* steps,
                      const double* moments, int bits, int sweeps, Quantized* quantized,
                      int threads) {
  const std::size_t tasks = ceil_div(rows, kRowsAtOnce);
  parallel_for(tasks, thread_count(threads, rows * size), [&](std::size_t task) {
    const std::size_t first = task * kRowsAtOnce;
    const std::size_t count = std::min(kRowsAtOnce, rows - first);
    Rows<Quantized> some(weights + first * size, count, size, steps + first, moments, bits,
                         quantized + first * size);
    some.round_to_nearest();
    for (int i = 0; i < sweeps && some.sweep(); ++i) {
    }
  });
}

template void round_by_moments(const float*, std::size_t, std::size_t, const float*, const double*,
                               int, int, std::int8_t*, int);
template void round_by_moments(const float*, std::size_t, std::size_t, const float*, const double*,
                               int, int, std::int16_t*, int);

}  // namespace pyquant
