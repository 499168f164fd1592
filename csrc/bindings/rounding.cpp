#include "kernels/rounding.hpp"

#include <algorithm>
#include <cmath>

#include "bindings/arguments.hpp"
#include "bindings/register.hpp"
#include "kernels/quantization.hpp"

namespace pyquant {
namespace {

void check_moments(const Doubles& moments, py::ssize_t size) {
  require_aligned(moments, "moments");
  require(moments.ndim() == 2 && moments.shape(0) == size && moments.shape(1) == size,
          "moments must be [{}, {}]", size, size);
}

void add_sample_moments(const Floats& samples, Doubles& moments,
                        const OptionalThreads& num_threads) {
  require(samples.ndim() == 2, "samples must have two dimensions");
  require_aligned(samples, "samples");
  check_moments(moments, samples.shape(1));
  double* sums = moments.mutable_data();
  const int threads = threads_from(num_threads);
  const auto count = static_cast<std::size_t>(samples.shape(0));
  const auto size = static_cast<std::size_t>(samples.shape(1));
  const float* values = samples.data();
  const py::gil_scoped_release release;
  add_moments(values, count, size, sums, threads);
}

template <typename Quantized>
py::array round_to(const Floats& weights, const Floats& steps, const Doubles& moments, int bits,
                   int sweeps, int threads) {
  py::array_t<Quantized> quantized({weights.shape(0), weights.shape(1)});
  Quantized* target = quantized.mutable_data();
  const auto rows = static_cast<std::size_t>(weights.shape(0));
  const auto size = static_cast<std::size_t>(weights.shape(1));
  const float* values = weights.data();
  const float* row_steps = steps.data();
  const double* sums = moments.data();
  {
    const py::gil_scoped_release release;
    round_by_moments(values, rows, size, row_steps, sums, bits, sweeps, target, threads);
  }
  return quantized;
}

py::array round_weights(const Floats& weights, const Floats& steps, const Doubles& moments,
                        int bits, int sweeps, const OptionalThreads& num_threads) {
  require(weights.ndim() == 2, "weights must have two dimensions");
  require_aligned(weights, "weights");
  require_aligned(steps, "steps");
  check_moments(moments, weights.shape(1));
  check_bits(bits);
  const double* const sums = moments.data();
  require(std::all_of(sums, sums + moments.size(), [](double sum) { return std::isfinite(sum); }),
          "moments must be finite");
  require(steps.ndim() == 1 && steps.shape(0) == weights.shape(0),
          "expected one step for each row");
  for (py::ssize_t row = 0; row < steps.size(); ++row) {
    const float step = steps.data()[row];
    require(std::isfinite(step) && step > 0.0f, "steps must be finite and positive, got {}", step);
  }
  require(sweeps >= 0, "sweeps must not be negative, got {}", sweeps);
  const int threads = threads_from(num_threads);
  return bits <= kMaxBitsOfInt8
             ? round_to<std::int8_t>(weights, steps, moments, bits, sweeps, threads)
             : round_to<std::int16_t>(weights, steps, moments, bits, sweeps, threads);
}

}  // namespace

void register_rounding(py::module_& m) {
  m.def("add_moments", &add_sample_moments, py::arg("samples").noconvert(),
        py::arg("moments").noconvert(), py::arg("num_threads"));
  m.def("round_by_moments", &round_weights, py::arg("weights").noconvert(),
        py::arg("steps").noconvert(), py::arg("moments").noconvert(), py::arg("bits"),
        py::arg("sweeps"), py::arg("num_threads"));
}

}  // namespace pyquant
