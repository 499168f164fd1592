#include "kernels/reductions.hpp"

#include "bindings/arguments.hpp"
#include "bindings/register.hpp"
#include "kernels/pair_max.hpp"

namespace pyquant {
namespace {

float abs_max_of(const py::array& x, const OptionalThreads& num_threads) {
  const Tensor tensor = tensor_from(x);
  const int threads = threads_from(num_threads);
  const py::gil_scoped_release release;
  return abs_max(tensor, threads);
}

std::pair<float, float> min_max_of(const py::array& x, const OptionalThreads& num_threads) {
  const Tensor tensor = tensor_from(x);
  const int threads = threads_from(num_threads);
  require(tensor.size != 0, "an empty array has no minimum and maximum");
  const py::gil_scoped_release release;
  const Range range = min_max(tensor, threads);
  return {range.minimum, range.maximum};
}

py::array_t<float> channel_abs_max_of(const py::array& x, int axis,
                                      const OptionalThreads& num_threads) {
  const Tensor tensor = tensor_from(x);
  const ChannelShape shape = channel_shape_from(x, axis);
  const int threads = threads_from(num_threads);
  py::array_t<float> maxima(static_cast<py::ssize_t>(shape.channels));
  float* target = maxima.mutable_data();
  {
    const py::gil_scoped_release release;
    channel_abs_max(tensor, shape, target, threads);
  }
  return maxima;
}

py::array_t<float> channel_pair_max_of(const py::array& x, int axis, int pairs_along,
                                       const OptionalThreads& num_threads) {
  const Tensor tensor = tensor_from(x);
  const ChannelShape shape = channel_shape_from(x, axis);
  const ChannelShape pairs = channel_shape_from(x, pairs_along, "pairs_along");
  const int threads = threads_from(num_threads);
  const auto dimensions = static_cast<int>(x.ndim());
  require((axis - pairs_along) % dimensions != 0,
          "pairs lie along another axis than channels, got {} for both", axis);
  py::array_t<float> maxima(static_cast<py::ssize_t>(shape.channels));
  float* target = maxima.mutable_data();
  {
    const py::gil_scoped_release release;
    channel_pair_max(tensor, shape, pairs, target, threads);
  }
  return maxima;
}

py::array_t<double> channel_sums_of(const py::array& x, int axis,
                                    const OptionalThreads& num_threads) {
  const Tensor tensor = tensor_from(x);
  ChannelShape shape = channel_shape_from(x, axis);
  const int threads = threads_from(num_threads);
  require(x.ndim() >= 2 && axis != 0 && axis != -x.ndim(),
          "axis 0 is that of the samples: channels lie along another one");
  const auto samples = static_cast<std::size_t>(x.shape(0));
  if (samples != 0) shape.outer /= samples;
  py::array_t<double> sums({x.shape(0), static_cast<py::ssize_t>(shape.channels)});
  double* target = sums.mutable_data();
  {
    const py::gil_scoped_release release;
    channel_sums(tensor, samples, shape, target, threads);
  }
  return sums;
}

py::tuple sample_maxima_of(const py::array& x, const OptionalThreads& num_threads) {
  const Tensor tensor = tensor_from(x);
  const Samples samples = samples_from(x);
  const int threads = threads_from(num_threads);
  const Maxima maxima = [&] {
    const py::gil_scoped_release release;
    return sample_maxima(tensor, samples, threads);
  }();
  return py::make_tuple(array_of(maxima.of_samples),
                        sums_by_sample(maxima.channels.sums, samples.count),
                        array_or_none(maxima.channels.abs_max));
}

using Integers = py::array_t<std::int64_t, py::array::c_style>;

void add_sums_exactly(const Doubles& sums, Integers& whole, Integers& fraction) {
  require(sums.ndim() == 2 && whole.ndim() == 1 && fraction.ndim() == 1 &&
              whole.shape(0) == sums.shape(1) && fraction.shape(0) == sums.shape(1),
          "expected sums [samples, channels], and a total's two parts for each channel");
  require_aligned(sums, "sums");
  require_aligned(whole, "whole");
  require_aligned(fraction, "fraction");
  add_exactly(sums.data(), static_cast<std::size_t>(sums.shape(0)),
              static_cast<std::size_t>(sums.shape(1)), whole.mutable_data(),
              fraction.mutable_data());
}

}  // namespace

void register_reductions(py::module_& m) {
  m.def("abs_max", &abs_max_of, py::arg("x"), py::arg("num_threads"));
  m.def("min_max", &min_max_of, py::arg("x"), py::arg("num_threads"));
  m.def("channel_abs_max", &channel_abs_max_of, py::arg("x"), py::arg("axis"),
        py::arg("num_threads"));
  m.def("channel_pair_max", &channel_pair_max_of, py::arg("x"), py::arg("axis"),
        py::arg("pairs_along"), py::arg("num_threads"));
  m.def("sample_maxima", &sample_maxima_of, py::arg("x"), py::arg("num_threads"));
  m.def("add_exactly", &add_sums_exactly, py::arg("sums").noconvert(), py::arg("whole").noconvert(),
        py::arg("fraction").noconvert());
  m.attr("FRACTION_BITS") = kFractionBits;
  m.def("channel_sums", &channel_sums_of, py::arg("x"), py::arg("axis"), py::arg("num_threads"));
}

}  // namespace pyquant
