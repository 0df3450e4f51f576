// SPDX-License-Identifier: Apache-2.0
#include "compiled/selective_scan.hpp"

namespace ssm {

template void selective_scan_vjp(parallel, selective_scan_inputs<float> const&,
                                 state_view<float const>, sequence_view<float const>,
                                 state_view<float>, selective_scan_gradients<float> const&,
                                 trajectory_view<float const>);
template void selective_scan_vjp(parallel, selective_scan_inputs<double> const&,
                                 state_view<double const>, sequence_view<double const>,
                                 state_view<double>, selective_scan_gradients<double> const&,
                                 trajectory_view<double const>);

}  // namespace ssm
