#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/counts.hpp"
#include "kernels/samples.hpp"
#include "kernels/tensor.hpp"

// Checks Python arguments and converts them for the kernels. pyquant/kernels.py has already ensured
// that arrays are C-contiguous and of a supported type.
namespace pyquant {

namespace py = pybind11;

using OptionalThreads = std::optional<int>;

// C-contiguous.
using Floats = py::array_t<float, py::array::c_style>;
using Doubles = py::array_t<double, py::array::c_style>;

// Throws an Error, by default a ValueError, unless `holds`. Only then formats the values into the
// message, as Python's str.format does.
template <typename Error = std::invalid_argument, typename... Values>
void require(bool holds, const char* message, const Values&... values) {
  if (!holds) throw Error(std::string(py::str(message).format(values...)));
}

// A tensor may lie anywhere, but what is written to, and small arrays beside it, are aligned.
void require_aligned(const py::array&, const char* name);

// None becomes zero, which the kernels take as OpenMP's default.
int threads_from(const OptionalThreads&);

// uint16 arrays are bfloat16.
Tensor tensor_from(const py::array&);

// `name` is what the user calls the axis.
ChannelShape channel_shape_from(const py::array&, int axis, const char* name = "axis");

// The array must not be empty. It is [samples, values], or, to sum up its channels,
// [samples, blocks, positions, channels of a block].
Samples samples_from(const py::array&);

// float64[samples, channels], or None if `sums` is empty.
py::object sums_by_sample(const std::vector<double>& sums, std::size_t samples);
py::array_t<float> array_of(const std::vector<float>& values);
py::object array_or_none(const std::vector<float>& values);

Counts<std::uint64_t> writable_counts_from(py::array&);

// A histogram in which at least one value was counted.
Counts<const std::uint64_t> counts_from(const py::array_t<std::uint64_t>&);

void check_bins(py::ssize_t bins);
void check_bin_width(double width);
void check_bits(int bits);

}  // namespace pyquant
