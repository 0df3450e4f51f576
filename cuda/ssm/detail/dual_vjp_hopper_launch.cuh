// SPDX-License-Identifier: Apache-2.0
// dual_vjp_hopper_launch.cuh: which gradients of Mamba-2's operator the kernel for Hopper takes,
// and its launch.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ssm/detail/dual_hopper_launch.cuh"
#include "ssm/detail/dual_vjp_hopper_kernel.cuh"

namespace ssm::gpu::detail {

/// Whether the kernel for Hopper pulls back the chunks of a problem; all others are for the
/// portable one.
template <class T>
bool is_for_hopper(dual_vjp_problem<T> const& p) {
  index_t const items = p.parts * p.chunks * p.batch * p.groups;
  return (p.head_dim == 64 || p.head_dim == 128) && p.states == hopper::vjp_states &&
         p.gate.data_handle() == nullptr && hopper::has_boxes(p.to_x) && p.packed_shared &&
         items < std::numeric_limits<std::int32_t>::max() / 2 && hopper::has_boxes(p.x) &&
         hopper::has_boxes(p.y_cotangent) && hopper::has_boxes(p.B) && hopper::has_boxes(p.C) &&
         hopper::is_compiled_for_this_device(hopper::dual_vjp_hopper_kernel<T>);
}

/// The gradients of all chunks of time, from the states that enter and leave them.
template <class T>
void pull_back_on_hopper(on where, dual_vjp_problem<T> const& p, index_t processors) {
  index_t const tile = vjp_channels * hopper::vjp_states;
  tensor_view<T const, 4, memory::device> const states(
      static_cast<T const*>(p.states_of_chunks),
      {2 * p.batch * p.chunks, p.tiles() * vjp_channels, 1, hopper::vjp_states},
      {p.tiles() * tile, hopper::vjp_states, hopper::vjp_states, 1});
  hopper::vjp_problem<T> const own{p,
                                   hopper::boxes_of(p.x),
                                   hopper::boxes_of(p.y_cotangent),
                                   hopper::boxes_of(p.B),
                                   hopper::boxes_of(p.C),
                                   hopper::boxes_of(states),
                                   hopper::boxes_of(p.to_x, hopper::vjp_drives::rows)};
  auto* const kernel = hopper::dual_vjp_hopper_kernel<T>;
  constexpr int bytes = hopper::vjp_memory<T>::bytes, padded = sizeof(hopper::vjp_memory<T>);
  static_assert(bytes <= padded && bytes > padded - 1024);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "cudaFuncSetAttribute");
  index_t const blocks = std::min(p.parts * p.chunks * p.batch * p.groups, processors);
  launch_early(where, kernel, static_cast<unsigned>(blocks), hopper::vjp_threads, bytes,
               "dual_vjp_hopper_kernel", own);
}

}  // namespace ssm::gpu::detail
