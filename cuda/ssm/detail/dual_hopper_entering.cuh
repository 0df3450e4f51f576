// SPDX-License-Identifier: Apache-2.0
// dual_hopper_entering.cuh: the first pass of Mamba-2's operator on Hopper, which finds what enters
// each segment of time.
#pragma once

#include "ssm/detail/dual_hopper_block.cuh"
#include "ssm/detail/dual_hopper_slab.cuh"
#include "ssm/detail/dual_hopper_state.cuh"
#include "ssm/detail/early_launch.cuh"

namespace ssm::gpu::detail::hopper {

/// A warpgroup for each slab, and warps that find step sizes for each, and one that loads.
inline constexpr unsigned entering_threads = 128 * block_slabs + 32 * (block_slabs + 1);

/// One thread: ask for x and B of chunk after chunk, from the last one back, until it is known of
/// the chunk before the one before that nothing further back is left.
template <class T, int States>
__device__ void load_tiles_back(problem<T> const& p, block_work const& w,
                                block_memory<T, States>& m, block_barriers& barriers) {
  unsigned const tiles = static_cast<unsigned>(w.slabs) + m.columns;
  int c = 0;
#pragma unroll 1
  for (; c < w.chunks; ++c) {
    if (c >= 2) {
      auto const [f, parity] = buffer_of(c - 2);
      barriers.steps_here[f].wait(parity);
      bool const is_last = is_over(m, f, w.slabs);
      barriers.mixing_free[f].arrive();
      if (is_last) break;
    }
    auto const [s, parity] = stage_of(c);
    int const time = w.time(w.chunks - 1 - c);
    barriers.tiles_free[s].wait(parity ^ 1);
    barriers.tiles_here[s].arrive_expecting(tiles * unsigned{sizeof(tile<T>)});
    for (int n = 0; n < m.columns; ++n) {
      load_box(&m.B[s][n], p.B, {64 * n, w.group, time, w.b}, barriers.tiles_here[s]);
    }
#pragma unroll 1
    for (int k = 0; k < w.slabs; ++k) {
      load_box(&m.x[s][k], p.x, p.corner_of(w.slab + k, time, w.b), barriers.tiles_here[s]);
    }
  }
  // One chunk more may be on its way than is needed: memory is to outlive that.
  auto const [s, parity] = stage_of(c - 1);
  barriers.tiles_here[s].wait(parity);
}

/// One warpgroup: what the chunks of `w` add to the state of slab k that leaves them, from the last
/// one back: weights are up to the end.
template <class T, int States>
__device__ void add_chunks(problem<T> const& problem, block_work const& w,
                           block_memory<T, States>& m, block_barriers& barriers, int k) {
  dual_problem<T> const& p = problem.of;
  slab_lane const lane;
  corner const first = problem.corner_of(w.slab + k, 0, w.b);
  slab_state<T, States> state(p, w.b, first.head, first.column + lane.row, lane.column);
#pragma unroll
  for (float& each : state.sums) each = 0.0f;
  int c = 0;
#pragma unroll 1
  for (bool is_last = false; c < w.chunks && !is_last; ++c) {
    auto const [s, stage_parity] = stage_of(c);
    auto const [f, parity] = buffer_of(c);
    barriers.steps_here[f].wait(parity);
    barriers.tiles_here[s].wait(stage_parity);
    unsigned x[4][4], weighted[4][4];
    lane.load(x, m.x[s][k]);
    is_last = is_over(m, f, w.slabs);
    step_pair const* const pairs = m.pairs[f][k] + lane.column / 2;
    weigh<T>(x, pairs, weighted);
    if (m.is_cut[f][k]) forget<T>(pairs, weighted);
    barriers.mixing_free[f].arrive_for_warp();
    hold(state.sums);
    begin_products();
    state.add(weighted, rows_of(m.B[s]), false);
    end_products();
    wait_for_products_but<0>();
    hold(state.sums);
    barriers.tiles_free[s].arrive_for_warp();
  }
  state.keep(w.segment + 1);
  if (p.visited != nullptr && threadIdx.x % 128 == 0 && first.column == 0) {
    atomicAdd(p.visited, static_cast<unsigned long long>(c * chunk));
  }
}

/// The initial state of slab k, which carry may take the place of, by a warpgroup.
template <class T, int States>
__device__ void keep_initial(problem<T> const& problem, block_work const& w, int k) {
  slab_lane const lane;
  corner const first = problem.corner_of(w.slab + k, 0, w.b);
  slab_state<T, States> state(problem.of, w.b, first.head, first.column + lane.row, lane.column);
  state.load(problem.of.initial);
  state.keep(0);
}

/// Blocks as those of dual_hopper_kernel: those of a segment leave what it adds to a state that
/// leaves it, in the place of the next one; those of the last segment leave the initial state.
template <class T, int States>
__global__ void __launch_bounds__(entering_threads, 1)
    dual_hopper_entering_kernel(__grid_constant__ problem<T> const p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char dynamic[];
  __shared__ block_barriers barriers;
  auto& m = *reinterpret_cast<block_memory<T, States>*>(dynamic);
  block_work const w(p);
  if (threadIdx.x == 0) barriers.init(w.slabs, 1);
  __syncthreads();
  wait_for_earlier_kernels();
  admit_next_kernel();

  int const group = static_cast<int>(threadIdx.x) / 128;
  int const warp = static_cast<int>(threadIdx.x) / 32 - 4 * block_slabs;
  if (w.segment + 1 == p.of.segments) {
    if (group < w.slabs) keep_initial<T, States>(p, w, group);
  } else if (group < block_slabs) {
    if (group < w.slabs) add_chunks(p, w, m, barriers, group);
  } else if (warp < w.slabs) {
    float const left = find_steps<true>(p, w, m, barriers, warp);
    corner const first = p.corner_of(w.slab + warp, 0, w.b);
    if (threadIdx.x % 32 == 0 && first.column == 0) {
      p.of.decay[p.of.decay_at(w.b, w.segment, first.head)] = left;
    }
  } else if (warp == block_slabs && threadIdx.x % 32 == 0) {
    load_tiles_back(p, w, m, barriers);
  }
#endif
}

}  // namespace ssm::gpu::detail::hopper
