#include "kernels/thresholds.hpp"

#include "bindings/arguments.hpp"
#include "bindings/register.hpp"

namespace pyquant {
namespace {

using CountArray = py::array_t<std::uint64_t>;

double find_kl_threshold(const CountArray& counts, double bin_width, int bits,
                         const std::optional<py::ssize_t>& start) {
  const ConstCounts histogram = counts_from(counts);
  check_bin_width(bin_width);
  check_bits(bits);
  require(!start || (0 <= *start && *start < counts.size()),
          "start must be from 0 to the number of bins - 1, got {}", start);
  const std::size_t first = start ? *start : default_kl_start(histogram.bins, bits);
  const py::gil_scoped_release release;
  return kl_threshold(histogram, bin_width, bits, first);
}

template <double (*kThreshold)(ConstCounts, double, int)>
double find_error_threshold(const CountArray& counts, double bin_width, int bits) {
  const ConstCounts histogram = counts_from(counts);
  check_bin_width(bin_width);
  check_bits(bits);
  const py::gil_scoped_release release;
  return kThreshold(histogram, bin_width, bits);
}

double find_percentile_threshold(const CountArray& counts, double bin_width, double percent) {
  const ConstCounts histogram = counts_from(counts);
  check_bin_width(bin_width);
  require(percent > 0.0 && percent <= 1.0,
          "percent must be in (0, 1], 0.9999 meaning 99.99 %, got {}", percent);
  const py::gil_scoped_release release;
  return percentile_threshold(histogram, bin_width, percent);
}

}  // namespace

void register_thresholds(py::module_& m) {
  m.def("kl_threshold", &find_kl_threshold, py::arg("counts"), py::arg("bin_width"),
        py::arg("bits"), py::arg("start"));
  m.def("mse_threshold", &find_error_threshold<mse_threshold>, py::arg("counts"),
        py::arg("bin_width"), py::arg("bits"));
  m.def("emd_threshold", &find_error_threshold<emd_threshold>, py::arg("counts"),
        py::arg("bin_width"), py::arg("bits"));
  m.def("percentile_threshold", &find_percentile_threshold, py::arg("counts"), py::arg("bin_width"),
        py::arg("percent"));
}

}  // namespace pyquant
