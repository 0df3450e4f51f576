// SPDX-License-Identifier: Apache-2.0
#include "compiled/state_space_dual.hpp"

namespace ssm {

template void state_space_dual_vjp(parallel, state_space_dual_inputs<float> const&,
                                   tensor_view<float const, 4>, tensor_view<float const, 4>,
                                   tensor_view<float, 4>, state_space_dual_gradients<float> const&,
                                   state_space_dual_saved<float> const&);
template void state_space_dual_vjp(parallel, state_space_dual_inputs<double> const&,
                                   tensor_view<double const, 4>, tensor_view<double const, 4>,
                                   tensor_view<double, 4>,
                                   state_space_dual_gradients<double> const&,
                                   state_space_dual_saved<double> const&);

}  // namespace ssm
