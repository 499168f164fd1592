#include "kernels/scaled_inputs.hpp"

#include "bindings/arguments.hpp"
#include "bindings/register.hpp"

namespace pyquant {
namespace {

template <typename Value>
using Reduce = void (*)(const Matrices&, const Value* factors, Value* results, int threads);

template <typename Value, Reduce<Value> reduce>
py::array_t<Value> reduced(const Floats& values,
                           const py::array_t<Value, py::array::c_style>& factors,
                           const OptionalThreads& num_threads) {
  require_aligned(factors, "factors");
  require(values.ndim() == 3, "values must have three dimensions");
  const py::ssize_t groups = values.shape(0), rows = values.shape(1), columns = values.shape(2);
  require(factors.ndim() == 2 && factors.shape(0) == groups && factors.shape(1) == rows,
          "factors must be [groups, rows] of the values");
  const int threads = threads_from(num_threads);
  const Matrices matrices{values.data(), static_cast<std::size_t>(groups),
                          static_cast<std::size_t>(rows), static_cast<std::size_t>(columns)};
  py::array_t<Value> results({groups, columns});
  Value* const target = results.mutable_data();
  const Value* const read = factors.data();
  {
    const py::gil_scoped_release release;
    reduce(matrices, read, target, threads);
  }
  return results;
}

}  // namespace

void register_scaled_inputs(py::module_& m) {
  m.def("scaled_square_sums", &reduced<double, scaled_square_sums>, py::arg("values").noconvert(),
        py::arg("factors").noconvert(), py::arg("num_threads"));
  m.def("scaled_maxima", &reduced<float, scaled_maxima>, py::arg("values").noconvert(),
        py::arg("factors").noconvert(), py::arg("num_threads"));
}

}  // namespace pyquant
