// SPDX-License-Identifier: Apache-2.0
// dual_vjp_entering.cuh: what enters each segment of time and the cotangent of what leaves it, from
// what the first pass of dual_vjp_states_kernel leaves.
#pragma once

#include "ssm/detail/dual_vjp_problem.cuh"
#include "ssm/detail/early_launch.cuh"

namespace ssm::gpu::detail {

/// For more than one segment, from what each adds to what enters each, h_s+1 = decay_s h_s +
/// added_s, and to the cotangent of what leaves each, which goes back from that of the final state.
/// Block (channels and states / 128, head, (b, direction)).
template <class T>
__global__ void __launch_bounds__(128)
    dual_vjp_fold_kernel(__grid_constant__ dual_vjp_problem<T> const p) {
  wait_for_earlier_kernels();
  admit_next_kernel();
  int const i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  int const row = static_cast<int>(p.states), c = i / row, n = i % row;
  index_t const head = blockIdx.y, b = blockIdx.z / 2;
  bool const backward = blockIdx.z % 2 == 1;
  if (c >= p.head_dim) return;
  auto const& from = backward ? p.carry_cotangent : p.initial;
  float state = from(b, head, c, n);
  float* const states = backward ? p.arriving : p.entering;
  float const* const decays = backward ? p.arriving_decay : p.decay;
  auto const place = [&](index_t segment) {
    return p.segment_states(b, segment, head) + c * p.states + n;
  };
  index_t const first = backward ? p.segments - 1 : 0, way = backward ? -1 : 1;
  states[place(first)] = state;
  if (!backward && p.block_states.data_handle() != nullptr) {
    index_t const blocks = p.segment_length / state_space_dual_device_block;
    for (index_t k = 1; k < p.segments; ++k) {
      states[place(k)] = p.block_states(b, k * blocks, head, c, n);
    }
    return;
  }
#pragma unroll 4
  for (index_t k = 1; k < p.segments; ++k) {
    index_t const segment = first + way * k;
    float const added = states[place(segment)];
    float const decay = decays[p.segment_head(b, segment - way, head)];
    // A decay of 0 cuts even what is infinite, as a start of a sequence does.
    state = decay == 0.0f ? added : fmaf(decay, state, added);
    states[place(segment)] = state;
  }
}

}  // namespace ssm::gpu::detail
