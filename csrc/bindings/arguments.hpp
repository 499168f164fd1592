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

// Python arguments checked and turned into what the kernels take. pyquant/kernels.py has already
// seen to it that arrays are C-contiguous and of a supported type.
namespace pyquant {

namespace py = pybind11;

using OptionalThreads = std::optional<int>;

// C-contiguous.
using Floats = py::array_t<float, py::array::c_style>;
using Doubles = py::array_t<double, py::array::c_style>;

// Throws an Error, by default a ValueError, unless it holds. Only then are the values formatted, as
// by Python's str.format.
template <typename Error = std::invalid_argument, typename... Values>
void require(bool holds, const char* message, const Values&... values) {
  if (!holds) throw Error(std::string(py::str(message).format(values...)));
}

// Zero, the kernels' word for OpenMP's default, if None.
int threads_from(const OptionalThreads&);

// uint16 arrays are bfloat16.
Tensor tensor_from(const py::array&);

// `name` is what the user calls the axis.
ChannelShape channel_shape_from(const py::array&, int axis, const char* name = "axis");

// [samples, values], or [samples, blocks, positions, channels of a block], whose channels are to be
// summed up; not empty.
Samples samples_from(const py::array&);

// float64[samples, channels], or None if there are none.
py::object sums_by_sample(const std::vector<double>& sums, std::size_t samples);
py::array_t<float> array_of(const std::vector<float>& values);
py::object array_or_none(const std::vector<float>& values);

Counts<std::uint64_t> writable_counts_from(py::array&);

// A histogram with something counted.
Counts<const std::uint64_t> counts_from(const py::array_t<std::uint64_t>&);

void check_bins(py::ssize_t bins);
void check_bin_width(double width);
void check_bits(int bits);

}  // namespace pyquant
