// SPDX-License-Identifier: Apache-2.0
// selective_scan.cuh and its gradient, compiled once for all tests: of each of these tests the
// kernels would take most of its time to compile. A test that includes this is linked to
// compiled_kernels.
#pragma once

#include "ssm/selective_scan_vjp.cuh"

namespace ssm::gpu {

extern template std::size_t selective_scan_workspace(
    selective_scan_inputs<float, memory::device> const&, state_view<float, memory::device> const&,
    sequence_view<float, memory::device> const&, selective_scan_plan const&);
extern template void selective_scan(on, selective_scan_inputs<float, memory::device> const&,
                                    state_view<float, memory::device> const&,
                                    sequence_view<float, memory::device> const&, workspace const&,
                                    trajectory_view<float, memory::device> const&,
                                    selective_scan_plan const&);

extern template std::size_t selective_scan_workspace(
    selective_scan_inputs<bfloat16, memory::device> const&,
    state_view<float, memory::device> const&, sequence_view<bfloat16, memory::device> const&,
    selective_scan_plan const&);
extern template void selective_scan(on, selective_scan_inputs<bfloat16, memory::device> const&,
                                    state_view<float, memory::device> const&,
                                    sequence_view<bfloat16, memory::device> const&,
                                    workspace const&, trajectory_view<float, memory::device> const&,
                                    selective_scan_plan const&);

extern template std::size_t selective_scan_vjp_workspace(
    selective_scan_inputs<float, memory::device> const&,
    state_view<float const, memory::device> const&,
    sequence_view<float const, memory::device> const&, state_view<float, memory::device> const&,
    selective_scan_gradients<float, memory::device> const&,
    trajectory_view<float const, memory::device> const&, selective_scan_plan const&);
extern template void selective_scan_vjp(on, selective_scan_inputs<float, memory::device> const&,
                                        state_view<float const, memory::device> const&,
                                        sequence_view<float const, memory::device> const&,
                                        state_view<float, memory::device> const&,
                                        selective_scan_gradients<float, memory::device> const&,
                                        workspace const&,
                                        trajectory_view<float const, memory::device> const&,
                                        selective_scan_plan const&, accumulate);

extern template std::size_t selective_scan_vjp_workspace(
    selective_scan_inputs<bfloat16, memory::device> const&,
    state_view<float const, memory::device> const&,
    sequence_view<bfloat16 const, memory::device> const&, state_view<float, memory::device> const&,
    selective_scan_gradients<bfloat16, memory::device> const&,
    trajectory_view<float const, memory::device> const&, selective_scan_plan const&);
extern template void selective_scan_vjp(on, selective_scan_inputs<bfloat16, memory::device> const&,
                                        state_view<float const, memory::device> const&,
                                        sequence_view<bfloat16 const, memory::device> const&,
                                        state_view<float, memory::device> const&,
                                        selective_scan_gradients<bfloat16, memory::device> const&,
                                        workspace const&,
                                        trajectory_view<float const, memory::device> const&,
                                        selective_scan_plan const&, accumulate);

}  // namespace ssm::gpu
