#include "kernels/quantization.hpp"

#include <cmath>

#include "bindings/arguments.hpp"
#include "bindings/register.hpp"

namespace pyquant {
namespace {

ChannelShape shape_of(const py::array& x, const std::optional<int>& axis) {
  if (axis) return channel_shape_from(x, *axis);
  return {1, 1, static_cast<std::size_t>(x.size())};
}

void check_thresholds(const Floats& thresholds, std::size_t channels) {
  require_aligned(thresholds, "thresholds");
  require(thresholds.ndim() == 1 && static_cast<std::size_t>(thresholds.size()) == channels,
          "expected {} thresholds, one for each channel, got {}", channels, thresholds.size());
  for (py::ssize_t channel = 0; channel < thresholds.size(); ++channel) {
    const float threshold = thresholds.data()[channel];
    require(std::isfinite(threshold) && threshold >= 0.0f,
            "the threshold of channel {} must be finite and not negative, got {}", channel,
            threshold);
  }
}

std::vector<py::ssize_t> dimensions_of(const py::array& x) {
  return {x.shape(), x.shape() + x.ndim()};
}

// Checks and returns `out`, or returns a new array of the shape of `x`.
template <typename Value>
py::array_t<Value> results_for(const py::array& x, const std::optional<py::array>& out) {
  if (!out) return py::array_t<Value>(dimensions_of(x));
  require<py::type_error>(py::isinstance<py::array_t<Value, py::array::c_style>>(*out),
                          "out must be a C-contiguous array of {}", py::dtype::of<Value>());
  require(dimensions_of(*out) == dimensions_of(x), "out must have the shape of the values");
  require(out->writeable(), "out must be writable");
  require_aligned(*out, "out");
  return *out;
}

template <typename Quantized>
py::array quantize_to(const py::array& x, const Floats& thresholds, const ChannelShape& shape,
                      int bits, int threads, const std::optional<py::array>& out) {
  const Tensor tensor = tensor_from(x);
  py::array_t<Quantized> quantized = results_for<Quantized>(x, out);
  Quantized* target = quantized.mutable_data();
  const float* source = thresholds.data();
  {
    const py::gil_scoped_release release;
    quantize(tensor, shape, source, bits, target, threads);
  }
  return quantized;
}

py::array quantize_values(const py::array& x, const Floats& thresholds,
                          const std::optional<int>& axis, int bits,
                          const OptionalThreads& num_threads, const std::optional<py::array>& out) {
  const ChannelShape shape = shape_of(x, axis);
  const int threads = threads_from(num_threads);
  check_bits(bits);
  check_thresholds(thresholds, shape.channels);
  return bits <= kMaxBitsOfInt8
             ? quantize_to<std::int8_t>(x, thresholds, shape, bits, threads, out)
             : quantize_to<std::int16_t>(x, thresholds, shape, bits, threads, out);
}

template <typename Quantized>
py::array_t<float> dequantize_values(const py::array_t<Quantized, py::array::c_style>& quantized,
                                     const Floats& thresholds, const std::optional<int>& axis,
                                     int bits, const OptionalThreads& num_threads,
                                     const std::optional<py::array>& out) {
  const ChannelShape shape = shape_of(quantized, axis);
  const int threads = threads_from(num_threads);
  check_bits(bits);
  check_thresholds(thresholds, shape.channels);
  py::array_t<float> values = results_for<float>(quantized, out);
  float* target = values.mutable_data();
  const Quantized* source = quantized.data();
  const float* scales = thresholds.data();
  {
    const py::gil_scoped_release release;
    dequantize(source, shape, scales, bits, target, threads);
  }
  return values;
}

template <typename Quantized>
void define_dequantize(py::module_& m) {
  m.def("dequantize", &dequantize_values<Quantized>, py::arg("quantized").noconvert(),
        py::arg("thresholds"), py::arg("axis"), py::arg("bits"), py::arg("num_threads"),
        py::arg("out"));
}

}  // namespace

void register_quantization(py::module_& m) {
  m.def("quantize", &quantize_values, py::arg("x"), py::arg("thresholds"), py::arg("axis"),
        py::arg("bits"), py::arg("num_threads"), py::arg("out"));
  define_dequantize<std::int8_t>(m);
  define_dequantize<std::int16_t>(m);
}

}  // namespace pyquant
