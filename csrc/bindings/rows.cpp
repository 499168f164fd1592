#include "kernels/rows.hpp"

#include <algorithm>

#include "bindings/arguments.hpp"
#include "bindings/register.hpp"

namespace pyquant {
namespace {

py::tuple sample_rows_of(const py::array& x, const std::vector<py::ssize_t>& given,
                         const OptionalThreads& num_threads) {
  const Tensor tensor = tensor_from(x);
  require(x.ndim() == 4, "x must be [samples, blocks, positions, channels]");
  const Samples samples = samples_from(x);
  for (const py::ssize_t position : given)
    require(0 <= position && static_cast<std::size_t>(position) < samples.positions,
            "positions must be from 0 to {}, got {}", samples.positions - 1, position);
  const std::vector<std::size_t> positions(given.begin(), given.end());
  const int threads = threads_from(num_threads);
  const auto count = static_cast<py::ssize_t>(samples.count * positions.size());
  py::array_t<float> rows({count, static_cast<py::ssize_t>(samples.blocks * samples.columns)});
  py::array_t<std::uint64_t> hashes(count);
  float* const values = rows.mutable_data();
  std::uint64_t* const of_rows = hashes.mutable_data();
  {
    const py::gil_scoped_release release;
    sample_rows(tensor, samples, positions, values, of_rows, threads);
  }
  return py::make_tuple(rows, hashes);
}

}  // namespace

void register_rows(py::module_& m) {
  m.def("sample_rows", &sample_rows_of, py::arg("x"), py::arg("positions"), py::arg("num_threads"));
}

}  // namespace pyquant
