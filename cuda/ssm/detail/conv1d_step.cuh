// SPDX-License-Identifier: Apache-2.0
// conv1d_step.cuh: the causal convolution of a single step: as fast as its carry can be moved.
#pragma once

#include "ssm/detail/conv1d_problem.cuh"

namespace ssm::gpu::detail {

/// A thread has a channel; sums have the order that the kernels for many steps give them.
template <class T, int Taps>
__global__ void __launch_bounds__(conv1d_threads)
    conv1d_step_kernel(__grid_constant__ conv1d_problem<T> const p) {
  index_t const b = p.grid.line(), c = p.grid.place();
  if (b >= p.in.x.extent(0) || c >= p.in.x.extent(2)) return;
  int const width = p.width();
  T kept[Taps] = {};  // the oldest first, behind those that are not there; the present one last
  float weight[Taps];
#pragma unroll
  for (int k = 0; k < Taps; ++k) {
    int const tap = k - (Taps - width);
    if (tap < 0) continue;
    weight[k] = p.in.weight(c, tap);
    if (k < Taps - 1 && p.carry.data_handle() != nullptr) kept[k] = p.carry(b, c, tap);
  }
  kept[Taps - 1] = p.in.x(b, 0, c);
  float sum = p.bias(c);
#pragma unroll
  for (int k = 0; k < Taps; ++k) {
    if (k >= Taps - width) sum = fmaf(weight[k], to_number(kept[k]), sum);
  }
  if (p.in.activation == activation::silu) sum *= sigmoid(sum);
  p.y(b, 0, c) = to_stored<T>(sum);
  if (p.carry.data_handle() == nullptr) return;
#pragma unroll
  for (int k = 1; k < Taps; ++k) {
    if (k > Taps - width) p.carry(b, c, k - 1 - (Taps - width)) = kept[k];
  }
}

}  // namespace ssm::gpu::detail
