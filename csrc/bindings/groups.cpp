#include "kernels/groups.hpp"

#include "bindings/arguments.hpp"
#include "bindings/register.hpp"

namespace pyquant {
namespace {

py::tuple quantize(const py::array& x, int bits, bool search, const OptionalThreads& num_threads) {
  require(x.ndim() == 3, "x must be [outer, size of a group, inner]");
  require(bits == 8 || bits == kPackedBits, "bits must be 4 or 8, got {}", bits);
  const GroupShape shape{static_cast<std::size_t>(x.shape(0)), static_cast<std::size_t>(x.shape(1)),
                         static_cast<std::size_t>(x.shape(2))};
  require(1 <= shape.size && shape.size <= kMaxGroupSize,
          "a group must have 1 to {} values, got {}", kMaxGroupSize, shape.size);
  const py::ssize_t in_a_byte = bits == kPackedBits ? 2 : 1;
  require(x.shape(1) % in_a_byte == 0, "a group must have an even number of values, got {}",
          shape.size);
  const int threads = threads_from(num_threads);
  const Tensor tensor = tensor_from(x);
  py::array_t<std::int8_t> integers({x.shape(0), x.shape(1) / in_a_byte, x.shape(2)});
  py::array_t<float> steps({x.shape(0), py::ssize_t{1}, x.shape(2)});
  std::int8_t* const target = integers.mutable_data();
  float* const of_groups = steps.mutable_data();
  {
    const py::gil_scoped_release release;
    quantize_groups(tensor, shape, bits, search, target, of_groups, threads);
  }
  return py::make_tuple(integers, steps);
}

}  // namespace

void register_groups(py::module_& m) {
  m.def("quantize_groups", &quantize, py::arg("x"), py::arg("bits"), py::arg("search"),
        py::arg("num_threads"));
}

}  // namespace pyquant
