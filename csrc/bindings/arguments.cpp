#include "bindings/arguments.hpp"

#include <cmath>

#include "kernels/histogram.hpp"
#include "kernels/quantization.hpp"

namespace pyquant {
namespace {

bool is_contiguous(const py::array& array) {
  return (array.flags() & py::array::c_style) != 0;
}

Element element_of(const py::dtype& dtype) {
  if (dtype.kind() == 'f' && dtype.itemsize() == 4) return Element::kFloat32;
  if (dtype.kind() == 'f' && dtype.itemsize() == 2) return Element::kFloat16;
  require<py::type_error>(dtype.kind() == 'u' && dtype.itemsize() == 2,
                          "expected float32, float16 or uint16 for bfloat16");
  return Element::kBFloat16;
}

}  // namespace

void require_aligned(const py::array& array, const char* name) {
  require((array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0, "{} must be aligned",
          name);
}

int threads_from(const OptionalThreads& threads) {
  require(!threads || *threads >= 1, "num_threads must be at least 1, got {}", threads);
  return threads.value_or(0);
}

Tensor tensor_from(const py::array& array) {
  require(is_contiguous(array), "expected a C-contiguous array");
  return {array.data(), static_cast<std::size_t>(array.size()), element_of(array.dtype())};
}

ChannelShape channel_shape_from(const py::array& array, int axis, const char* name) {
  const int dimensions = static_cast<int>(array.ndim());
  require(-dimensions <= axis && axis < dimensions,
          "{} {} is out of range for an array of {} dimensions", name, axis, dimensions);
  const int channel_axis = axis < 0 ? axis + dimensions : axis;
  ChannelShape shape{1, static_cast<std::size_t>(array.shape(channel_axis)), 1};
  for (int i = 0; i < channel_axis; ++i) shape.outer *= array.shape(i);
  for (int i = channel_axis + 1; i < dimensions; ++i) shape.inner *= array.shape(i);
  return shape;
}

Samples samples_from(const py::array& array) {
  require((array.ndim() == 2 || array.ndim() == 4) && array.size() > 0,
          "x must be [samples, values] or [samples, blocks, positions, channels], and not empty");
  const auto size = [&](int axis) { return static_cast<std::size_t>(array.shape(axis)); };
  if (array.ndim() == 2) return {size(0), 1, size(1), 1, false};
  return {size(0), size(1), size(2), size(3), true};
}

py::object sums_by_sample(const std::vector<double>& sums, std::size_t samples) {
  if (sums.empty()) return py::none();
  const auto rows = static_cast<py::ssize_t>(samples);
  return py::array_t<double>({rows, static_cast<py::ssize_t>(sums.size()) / rows}, sums.data());
}

py::array_t<float> array_of(const std::vector<float>& values) {
  return py::array_t<float>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::object array_or_none(const std::vector<float>& values) {
  if (values.empty()) return py::none();
  return array_of(values);
}

Counts<std::uint64_t> writable_counts_from(py::array& array) {
  require<py::type_error>(py::isinstance<py::array_t<std::uint64_t>>(array),
                          "counts must be an array of uint64");
  require(array.ndim() == 1 && is_contiguous(array), "counts must be 1-D and contiguous");
  require(array.writeable(), "counts must be writable");
  require_aligned(array, "counts");
  check_bins(array.size());
  return {static_cast<std::uint64_t*>(array.mutable_data()),
          static_cast<std::size_t>(array.size())};
}

Counts<const std::uint64_t> counts_from(const py::array_t<std::uint64_t>& array) {
  require(array.ndim() == 1 && array.size() > 0 && is_contiguous(array),
          "counts must be 1-D, contiguous and not empty");
  std::uint64_t total = 0;
  bool overflowed = false;
  for (const std::uint64_t *count = array.data(), *end = count + array.size(); count < end; ++count)
    overflowed |= ((*count | (total += *count)) >> 63) != 0;
  require(!overflowed, "counts must add up to less than 2^63");
  require(total != 0, "nothing was counted: every one of the counts is zero");
  return {array.data(), static_cast<std::size_t>(array.size())};
}

void check_bins(py::ssize_t bins) {
  require(1 <= bins && bins <= static_cast<py::ssize_t>(kMaxBins),
          "bins must be from 1 to 2^20, got {}", bins);
}

void check_bin_width(double width) {
  require(std::isfinite(width) && width > 0.0, "bin_width must be finite and positive, got {}",
          width);
}

void check_bits(int bits) {
  require(kMinBits <= bits && bits <= kMaxBits, "bits must be from {} to {}, got {}", kMinBits,
          kMaxBits, bits);
}

}  // namespace pyquant
