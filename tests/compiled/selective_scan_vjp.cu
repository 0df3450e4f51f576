// SPDX-License-Identifier: Apache-2.0
#include "compiled/selective_scan.cuh"

namespace ssm::gpu {

template std::size_t selective_scan_vjp_workspace(
    selective_scan_inputs<float, memory::device> const&,
    state_view<float const, memory::device> const&,
    sequence_view<float const, memory::device> const&, state_view<float, memory::device> const&,
    selective_scan_gradients<float, memory::device> const&,
    trajectory_view<float const, memory::device> const&, selective_scan_plan const&);
template void selective_scan_vjp(on, selective_scan_inputs<float, memory::device> const&,
                                 state_view<float const, memory::device> const&,
                                 sequence_view<float const, memory::device> const&,
                                 state_view<float, memory::device> const&,
                                 selective_scan_gradients<float, memory::device> const&,
                                 workspace const&,
                                 trajectory_view<float const, memory::device> const&,
                                 selective_scan_plan const&, accumulate);

template std::size_t selective_scan_vjp_workspace(
    selective_scan_inputs<bfloat16, memory::device> const&,
    state_view<float const, memory::device> const&,
    sequence_view<bfloat16 const, memory::device> const&, state_view<float, memory::device> const&,
    selective_scan_gradients<bfloat16, memory::device> const&,
    trajectory_view<float const, memory::device> const&, selective_scan_plan const&);
template void selective_scan_vjp(on, selective_scan_inputs<bfloat16, memory::device> const&,
                                 state_view<float const, memory::device> const&,
                                 sequence_view<bfloat16 const, memory::device> const&,
                                 state_view<float, memory::device> const&,
                                 selective_scan_gradients<bfloat16, memory::device> const&,
                                 workspace const&,
                                 trajectory_view<float const, memory::device> const&,
                                 selective_scan_plan const&, accumulate);

}  // namespace ssm::gpu
