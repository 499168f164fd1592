#include "kernels/team.hpp"

#include "bindings/register.hpp"

namespace pyquant {

void register_team(pybind11::module_& m) {
  m.def("join_openmp", &Team::join, pybind11::arg("path"));
  m.def("leave_openmp", &Team::leave);
}

}  // namespace pyquant
