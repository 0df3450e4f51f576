// SPDX-License-Identifier: Apache-2.0
// selective_scan.hpp, compiled once for all tests: its vector code takes ten times as long to
// compile as what most tests say of it. A test that includes this is linked to compiled_operators.
#pragma once

#include "ssm/selective_scan.hpp"

namespace ssm {

extern template void selective_scan(parallel, selective_scan_inputs<float> const&,
                                    state_view<float>, sequence_view<float>,
                                    trajectory_view<float>);
extern template void selective_scan(parallel, selective_scan_inputs<double> const&,
                                    state_view<double>, sequence_view<double>,
                                    trajectory_view<double>);

extern template void selective_scan_vjp(parallel, selective_scan_inputs<float> const&,
                                        state_view<float const>, sequence_view<float const>,
                                        state_view<float>, selective_scan_gradients<float> const&,
                                        trajectory_view<float const>);
extern template void selective_scan_vjp(parallel, selective_scan_inputs<double> const&,
                                        state_view<double const>, sequence_view<double const>,
                                        state_view<double>, selective_scan_gradients<double> const&,
                                        trajectory_view<double const>);

}  // namespace ssm
