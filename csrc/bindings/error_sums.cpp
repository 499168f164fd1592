#include "kernels/error_sums.hpp"

#include "bindings/arguments.hpp"
#include "bindings/register.hpp"

namespace pyquant {
namespace {

template <typename Value>
py::tuple error_sums_of(const py::array_t<Value, py::array::c_style>& reference,
                        const py::array_t<Value, py::array::c_style>& other,
                        const OptionalThreads& num_threads) {
  require(reference.size() == other.size(), "both must have as many values, got {} and {}",
          reference.size(), other.size());
  const int threads = threads_from(num_threads);
  const Value* const first = reference.data();
  const Value* const second = other.data();
  const auto size = static_cast<std::size_t>(reference.size());
  const ErrorSums sums = [&] {
    const py::gil_scoped_release release;
    return error_sums(first, second, size, threads);
  }();
  return py::make_tuple(sums.total, sums.signal, sums.noise, sums.other, sums.product);
}

template <typename Value>
void register_for(py::module_& m) {
  m.def("error_sums", &error_sums_of<Value>, py::arg("reference").noconvert(),
        py::arg("other").noconvert(), py::arg("num_threads"));
}

}  // namespace

void register_error_sums(py::module_& m) {
  register_for<float>(m);
  register_for<double>(m);
}

}  // namespace pyquant
