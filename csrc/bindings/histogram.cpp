#include "kernels/histogram.hpp"

#include <algorithm>

#include "bindings/arguments.hpp"
#include "bindings/register.hpp"

namespace pyquant {
namespace {

constexpr int kMaxWidthExponent = 120;

py::array_t<std::uint64_t> histogram_of(const py::array& x, py::ssize_t bins, double bin_width,
                                        const OptionalThreads& num_threads) {
  const Tensor tensor = tensor_from(x);
  const int threads = threads_from(num_threads);
  check_bins(bins);
  check_bin_width(bin_width);
  py::array_t<std::uint64_t> counts(bins);
  std::fill_n(counts.mutable_data(), bins, 0);
  const Counts<std::uint64_t> target{counts.mutable_data(), static_cast<std::size_t>(bins)};
  {
    const py::gil_scoped_release release;
    histogram(tensor, bin_width, target, threads);
  }
  return counts;
}

py::tuple tuple_of(const Observation& observation) {
  return py::make_tuple(
      observation.range.minimum, observation.range.maximum, observation.zeros,
      observation.non_finite, array_of(observation.sample_abs_max), observation.counted,
      sums_by_sample(observation.channels.sums, observation.sample_abs_max.size()),
      array_or_none(observation.channels.abs_max));
}

py::tuple observe_values(const py::array& x, py::array counts, int width_exponent,
                         const OptionalThreads& num_threads) {
  const Tensor tensor = tensor_from(x);
  const Counts<std::uint64_t> target = writable_counts_from(counts);
  const int threads = threads_from(num_threads);
  const Samples samples = samples_from(x);
  require(-kMaxWidthExponent <= width_exponent && width_exponent <= kMaxWidthExponent,
          "width_exponent must be from {} to {}, got {}", -kMaxWidthExponent, kMaxWidthExponent,
          width_exponent);
  const Observation observation = [&] {
    const py::gil_scoped_release release;
    return observe(tensor, samples, width_exponent, target, threads);
  }();
  return tuple_of(observation);
}

}  // namespace

void register_histogram(py::module_& m) {
  m.def("histogram", &histogram_of, py::arg("x"), py::arg("bins"), py::arg("bin_width"),
        py::arg("num_threads"));
  m.def("observe", &observe_values, py::arg("x"), py::arg("counts"), py::arg("width_exponent"),
        py::arg("num_threads"));
}

}  // namespace pyquant
