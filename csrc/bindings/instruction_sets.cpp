#include "bindings/arguments.hpp"
#include "bindings/register.hpp"

namespace pyquant {

void register_instruction_sets(py::module_& m) {
  m.def("isa", [] { return kernels().name; });
  m.def("available_isas", &available_instruction_sets);
  m.def("set_isa", &select_instruction_set, py::arg("name"));
}

}  // namespace pyquant
