// SPDX-License-Identifier: Apache-2.0
// selective_vjp_fold.cuh: from what each segment gives to what arrives at each.
#pragma once

#include "ssm/detail/early_launch.cuh"
#include "ssm/detail/selective_vjp_problem.cuh"

namespace ssm::gpu::detail {

/// From what each segment gives and the cotangent of the final state to the cotangent of the state
/// that leaves each walk: e_w-1 = decay_w e_w + given_w.
template <class T>
__global__ void __launch_bounds__(128)
    fold_back_kernel(__grid_constant__ selective_vjp_problem<T> const p) {
  wait_for_earlier_kernels();
  admit_next_kernel();
  index_t const i = blockIdx.x * index_t{blockDim.x} + threadIdx.x;
  index_t const c = i % p.channels, n = i / p.channels % p.states, b = i / p.channels / p.states;
  if (b >= p.batch) return;
  constexpr int together = 8;  // loads do not wait for the chain
  index_t const next = p.states * p.channels;
  float e = p.carry_cotangent(b, c, n);
  index_t const last = p.segments * p.walks - 1;
  float* arriving = p.arriving + p.walk_state(b, last, n, c);
  float const* decay = p.decay + p.walk_state(b, last, n, c);
  *arriving = e;
  for (index_t left = last + 1 - p.walks; left > 0; left -= together) {
    float given[together], factor[together];
#pragma unroll
    for (int k = 0; k < together; ++k) {
      given[k] = k < left ? arriving[-(k + 1) * next] : 0.0f;
      factor[k] = k < left ? decay[-k * next] : 0.0f;
    }
#pragma unroll
    for (int k = 0; k < together; ++k) {
      // A decay of 0 cuts even what is infinite, as a start of a sequence does.
      e = factor[k] == 0.0f ? given[k] : fmaf(factor[k], e, given[k]);
      if (k < left) arriving[-(k + 1) * next] = e;
    }
    arriving -= together * next, decay -= together * next;
  }
}

}  // namespace ssm::gpu::detail
