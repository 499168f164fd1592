#include <cstdint>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/register.hpp"
#include "kernels/mapped_files.hpp"

namespace pyquant {
namespace {

// A read-only array over memory that `owner` keeps alive; strides count values.
py::array view_memory(const py::object& owner, std::uintptr_t address, const py::dtype& dtype,
                      const std::vector<py::ssize_t>& shape, std::vector<py::ssize_t> strides) {
  for (py::ssize_t& stride : strides) stride *= dtype.itemsize();
  py::array array(dtype, shape, strides, reinterpret_cast<const void*>(address), owner);
  py::detail::array_proxy(array.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  return array;
}

int watch(std::uintptr_t address, std::size_t size) {
  return watch_mapping(reinterpret_cast<const void*>(address), size);
}

}  // namespace

void register_memory(py::module_& m) {
  m.def("watch_mapping", &watch, py::arg("address"), py::arg("size"));
  m.def("is_mapping_cut", &is_mapping_cut, py::arg("number"));
  m.def("forget_mapping", &forget_mapping, py::arg("number"));
  m.def("view_memory", &view_memory, py::arg("owner"), py::arg("address"), py::arg("dtype"),
        py::arg("shape"), py::arg("strides"));
}

}  // namespace pyquant
