// SPDX-License-Identifier: Apache-2.0
// state_space_dual.hpp, compiled once for all tests: its vector code takes ten times as long to
// compile as what most tests say of it. A test that includes this is linked to compiled_operators.
#pragma once

#include "ssm/state_space_dual.hpp"

namespace ssm {

extern template void state_space_dual(parallel, state_space_dual_inputs<float> const&,
                                      tensor_view<float, 4>, tensor_view<float, 4>,
                                      state_space_dual_saved<float> const&);
extern template void state_space_dual(parallel, state_space_dual_inputs<double> const&,
                                      tensor_view<double, 4>, tensor_view<double, 4>,
                                      state_space_dual_saved<double> const&);

extern template void state_space_dual_vjp(parallel, state_space_dual_inputs<float> const&,
                                          tensor_view<float const, 4>, tensor_view<float const, 4>,
                                          tensor_view<float, 4>,
                                          state_space_dual_gradients<float> const&,
                                          state_space_dual_saved<float> const&);
extern template void state_space_dual_vjp(parallel, state_space_dual_inputs<double> const&,
                                          tensor_view<double const, 4>,
                                          tensor_view<double const, 4>, tensor_view<double, 4>,
                                          state_space_dual_gradients<double> const&,
                                          state_space_dual_saved<double> const&);

}  // namespace ssm
