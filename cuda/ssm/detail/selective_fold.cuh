// SPDX-License-Identifier: Apache-2.0
// selective_fold.cuh: from what each segment of time adds to the states that enter each.
#pragma once

#include "ssm/detail/selective_problem.cuh"

namespace ssm::gpu::detail {

/// From what each segment adds to the state that enters each: h_s+1 = decay_s h_s + added_s.
template <class T>
__global__ void __launch_bounds__(128) fold_kernel(__grid_constant__ selective_problem<T> const p) {
  constexpr int together = 8;  // loads do not wait for the chain
  index_t const i = blockIdx.x * index_t{blockDim.x} + threadIdx.x;
  index_t const c = i % p.channels, n = i / p.channels % p.states, b = i / p.channels / p.states;
  if (b >= p.batch) return;
  index_t const next = p.states * p.channels;
  float* entering = p.entering + p.segment_state(b, 0, n, c);
  float const* decay = p.decay + p.segment_state(b, 0, n, c);
  float h = p.initial(b, c, n);
  *entering = h;
  for (index_t left = p.segments - 1; left > 0; left -= together) {
    float added[together], factor[together];
#pragma unroll
    for (int k = 0; k < together; ++k) {
      added[k] = k < left ? entering[(k + 1) * next] : 0.0f;
      factor[k] = k < left ? decay[k * next] : 0.0f;
    }
#pragma unroll
    for (int k = 0; k < together; ++k) {
      // A decay of 0 cuts even what is infinite, as a start of a sequence does.
      h = factor[k] == 0.0f ? added[k] : fmaf(factor[k], h, added[k]);
      if (k < left) entering[(k + 1) * next] = h;
    }
    entering += together * next, decay += together * next;
  }
}

}  // namespace ssm::gpu::detail
