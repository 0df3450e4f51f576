// SPDX-License-Identifier: Apache-2.0
// dual_vjp_hopper_kernel.cuh: the gradient of Mamba-2's operator for chunks of time on Hopper: the
// warpgroups of a block and their work. The twin of dual_vjp_kernel.
#pragma once

#include "ssm/detail/dual_vjp_hopper_mixing.cuh"
#include "ssm/detail/dual_vjp_hopper_projection.cuh"
#include "ssm/detail/early_launch.cuh"

namespace ssm::gpu::detail::hopper {

inline constexpr int vjp_threads = 512;

/// Four warpgroups: one brings tiles and stores sums, one has what steps have with
/// each other and x, one has C and one B. Compiled for sm_90a alone, as dual_hopper_kernel.
template <class T>
__global__ void __launch_bounds__(vjp_threads, 1)
    dual_vjp_hopper_kernel(__grid_constant__ vjp_problem<T> const p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char dynamic[];
  __shared__ vjp_barriers barriers;
  auto& m = *reinterpret_cast<vjp_memory<T>*>(dynamic);
  if (threadIdx.x == 0) barriers.init();
  for (int i = static_cast<int>(threadIdx.x); i < 64 * 64; i += vjp_threads) {
    int const row = i / 64, column = i % 64;
    int const at = row * 64 + ((column / 8) ^ (row % 8)) * 8 + column % 8;
    m.later.element[at] = to_stored<T>(column >= row ? 1.0f : 0.0f);
  }
  publish_stores();
  wait_for_earlier_kernels();
  __syncthreads();
  admit_next_kernel();

  int const group = static_cast<int>(threadIdx.x) / 128, warp = static_cast<int>(threadIdx.x) / 32;
  if (group == 0) {
    give_registers<32>();
    if (threadIdx.x == 0) load_heads(p, m, barriers);
    if (threadIdx.x == 32) load_projections(p, m, barriers);
    if (warp == 2) load_skips(p.of, m, barriers);
    if (warp == 3) store_sums(p.of, m, barriers);
  } else if (group == 1) {
    take_registers<208>();
    mixing<T>(p, m, barriers).run();
  } else {
    take_registers<136>();
    projection<T>(p.of, m, barriers, group == 2).run();
  }
#endif
}

}  // namespace ssm::gpu::detail::hopper
