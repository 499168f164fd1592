#include "kernels/mean_error.hpp"

#include "bindings/arguments.hpp"
#include "bindings/register.hpp"

namespace pyquant {
namespace {

using Integers = py::array_t<std::int8_t, py::array::c_style>;

RoundedMatrix matrix_from(const Floats& values, const Integers& integers, const Floats& steps) {
  require(values.ndim() == 2, "values must have two dimensions");
  const py::ssize_t rows = values.shape(0), columns = values.shape(1);
  require(integers.ndim() == 2 && integers.shape(0) == rows && integers.shape(1) == columns,
          "integers must have the shape of the values");
  require(steps.ndim() == 2 && (steps.shape(0) == rows || steps.shape(0) == 1) &&
              (steps.shape(1) == columns || steps.shape(1) == 1),
          "steps must broadcast to the shape of the values");
  const std::size_t step_of_column = steps.shape(1) == 1 ? 0 : 1;
  const std::size_t step_of_row =
      steps.shape(0) == 1 ? 0 : static_cast<std::size_t>(steps.shape(1));
  return {values.data(),
          integers.data(),
          static_cast<std::size_t>(rows),
          static_cast<std::size_t>(columns),
          steps.data(),
          step_of_row,
          step_of_column};
}

py::array_t<double> mean_errors(const Floats& values, const Integers& integers, const Floats& steps,
                                const Doubles& inputs, int axis, py::ssize_t groups,
                                const OptionalThreads& num_threads) {
  require_aligned(steps, "steps");
  require_aligned(inputs, "inputs");
  const RoundedMatrix matrix = matrix_from(values, integers, steps);
  const int threads = threads_from(num_threads);
  const py::ssize_t rows = values.shape(0), columns = values.shape(1);
  require(axis == 0 || axis == 1, "axis must be 0 or 1, got {}", axis);
  require(groups >= 1 && rows % groups == 0, "groups must divide the rows");
  const py::ssize_t wanted = axis == 0 ? groups * columns : rows;
  require(inputs.ndim() == 1 && inputs.shape(0) == wanted, "expected {} inputs", wanted);
  py::array_t<double> outputs(axis == 0 ? rows : groups * columns);
  double* const target = outputs.mutable_data();
  const double* const means = inputs.data();
  const auto count = static_cast<std::size_t>(groups);
  {
    const py::gil_scoped_release release;
    if (axis == 0)
      mean_errors_of_rows(matrix, count, means, target, threads);
    else
      mean_errors_of_columns(matrix, count, means, target, threads);
  }
  return outputs;
}

}  // namespace

void register_mean_error(py::module_& m) {
  m.def("mean_errors", &mean_errors, py::arg("values").noconvert(), py::arg("integers").noconvert(),
        py::arg("steps").noconvert(), py::arg("inputs").noconvert(), py::arg("axis"),
        py::arg("groups"), py::arg("num_threads"));
}

}  // namespace pyquant
