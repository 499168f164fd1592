#include "kernels/reductions.hpp"

#include <stdexcept>

#include "bindings/arguments.hpp"
#include "bindings/register.hpp"

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
  if (tensor.size == 0) throw std::invalid_argument("an empty array has no minimum and maximum");
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

py::array_t<double> channel_sums_of(const py::array& x, int axis,
                                    const OptionalThreads& num_threads) {
  const Tensor tensor = tensor_from(x);
  ChannelShape shape = channel_shape_from(x, axis);
  const int threads = threads_from(num_threads);
  if (x.ndim() < 2 || axis == 0 || axis == -x.ndim())
    throw std::invalid_argument("axis 0 is that of the samples: channels lie along another one");
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

}  // namespace

void register_reductions(py::module_& m) {
  m.def("abs_max", &abs_max_of, py::arg("x"), py::arg("num_threads"));
  m.def("min_max", &min_max_of, py::arg("x"), py::arg("num_threads"));
  m.def("channel_abs_max", &channel_abs_max_of, py::arg("x"), py::arg("axis"),
        py::arg("num_threads"));
  m.def("channel_sums", &channel_sums_of, py::arg("x"), py::arg("axis"), py::arg("num_threads"));
}

}  // namespace pyquant
