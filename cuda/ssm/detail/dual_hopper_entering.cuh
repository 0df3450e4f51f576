// SPDX-License-Identifier: Apache-2.0
// dual_hopper_entering.cuh: the first pass of Mamba-2's operator on Hopper, which finds what enters
// each segment of time.
#pragma once

#include "ssm/detail/dual_hopper_block.cuh"
#include "ssm/detail/dual_hopper_slab.cuh"

namespace ssm::gpu::detail::hopper {

/// A warpgroup for each slab, warps for step sizes, two for each slab, and one that loads.
inline constexpr int entering_threads = 128 * block_slabs + 32 * (2 * block_slabs + 1);

/// Chunks of this segment that must be run: going back from its end, until all that is further back
/// would be multiplied by less than p.negligible, or belongs to another sequence, for all slabs.
/// Each warp walks the step sizes of two chunks at a time.
template <class T>
__device__ int find_chunks(problem<T> const& problem, block_work const& w) {
  constexpr int warps = 6 * block_slabs, ahead = 4, span = warps / block_slabs * ahead;
  __shared__ float sums[block_slabs][span];
  dual_problem<T> const& p = problem.of;
  int const lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  int const k = warp % block_slabs, head = (w.slab + (k < w.slabs ? k : 0)) / problem.slabs;
  float const rate = p.rate(head), bias = p.bias(head), factor = p.scaling.step_factor(head);
  float const least = p.negligible > 0.0f ? log2f(p.negligible) : -INFINITY;
  float walked[block_slabs] = {};
  int needed[block_slabs] = {};
  for (int done = 0; done < w.chunks; done += span) {
    float raw[ahead][2];
#pragma unroll
    for (int i = 0; i < ahead; ++i)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        int const c = w.chunks - 1 - done - i * (warps / block_slabs) - warp / block_slabs;
        int const t = w.time(c) + lane + 32 * j;
        raw[i][j] = c >= 0 && warp < warps ? to_number(p.step_size(w.b, t, head)) : 0.0f;
      }
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      int const place = i * (warps / block_slabs) + warp / block_slabs;
      int const t = w.time(w.chunks - 1 - done - place) + lane;
      float sum = p.log2_decay(rate, p.step(raw[i][0], bias, factor)) +
                  p.log2_decay(rate, p.step(raw[i][1], bias, factor));
#pragma unroll
      for (int distance = 1; distance < 32; distance *= 2) {
        sum += __shfl_xor_sync(~0u, sum, distance);
      }
      bool const is_cut = p.starts_sequence(w.b, t) || p.starts_sequence(w.b, t + 32);
      if (__any_sync(~0u, is_cut)) sum = -INFINITY;  // nothing before the start counts
      if (lane == 0 && warp < warps) sums[k][place] = sum;
    }
    __syncthreads();
    bool is_over = true;
#pragma unroll
    for (int of = 0; of < block_slabs; ++of) {
      for (int i = 0; i < span && of < w.slabs; ++i) {
        if (walked[of] < least || walked[of] == -INFINITY || needed[of] == w.chunks) break;
        walked[of] += sums[of][i], ++needed[of];
      }
      bool const is_done =
          of >= w.slabs || needed[of] == w.chunks || walked[of] < least || walked[of] == -INFINITY;
      is_over = is_over && is_done;
    }
    if (is_over) break;
    __syncthreads();
  }
  return needed[0] > needed[1] ? needed[0] : needed[1];
}

/// One warpgroup: what the chunks of `w` add to the state of slab k that leaves them, and what the
/// segment multiplies it with: nothing is left where there are `more` chunks.
template <class T, int States>
__device__ void add_chunks(problem<T> const& problem, block_work const& w,
                           block_memory<T, States>& m, block_barriers& barriers, int k, bool more) {
  dual_problem<T> const& p = problem.of;
  int const thread = static_cast<int>(threadIdx.x) % 128;
  slab_lane const lane;
  corner const first = problem.corner_of(w.slab + k, 0, w.b);
  slab_state<T, States> state(p, w.b, first.head, first.column + lane.row, lane.column);
#pragma unroll
  for (float& each : state.sums) each = 0.0f;
  float passed = 1.0f;
#pragma unroll 1
  for (int c = 0; c < w.chunks; ++c) {
    auto const [s, stage_parity] = stage_of(c);
    auto const [f, parity] = buffer_of(c);
    barriers.steps_here[f].wait(parity);
    barriers.tiles_here[s].wait(stage_parity);
    unsigned x[4][4], weighted[4][4];
    lane.load(x, m.x[s][k]);
    bool const is_cut = m.is_cut[f][k];
    step_pair const* const pairs = m.pairs[f][k] + lane.column / 2;
    weigh<T>(x, pairs, weighted);
    if (is_cut) forget<T>(pairs, weighted);
    float const left_last = m.pairs[f][k][chunk / 2 - 1].left.y;
    barriers.mixing_free[f].arrive_for_warp();
    passed *= left_last;
    state.decay(left_last, is_cut);
    begin_products();
    state.add(weighted, rows_of(m.B[s]));
    end_products();
    wait_for_products_but<0>();
    hold(state.sums);
    barriers.tiles_free[s].arrive_for_warp();
  }
  state.store(p.entering_at(w.segment + 1));
  if (thread != 0 || first.column != 0) return;
  p.decay[p.decay_at(w.b, w.segment, first.head)] = more ? 0.0f : passed;
  if (p.visited != nullptr) {
    atomicAdd(p.visited, static_cast<unsigned long long>(w.chunks * chunk));
  }
}

template <class T>
__device__ void copy_initial(problem<T> const& p, block_work const& w, int states) {
  auto const to = p.of.entering_at(0);
  for (int k = 0; k < w.slabs; ++k) {
    corner const first = p.corner_of(w.slab + k, 0, w.b);
    for (int i = static_cast<int>(threadIdx.x); i < slab_channels * states; i += entering_threads) {
      int const channel = first.column + i / states, n = i % states;
      to(w.b, first.head, channel, n) = p.of.initial(w.b, first.head, channel, n);
    }
  }
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
  block_work w(p);
  if (w.segment + 1 == p.of.segments) return copy_initial(p, w, States);
  int const chunks = w.chunks;
  // The chunks at the end of the segment.
  w.chunks = find_chunks(p, w);
  w.first_step += (chunks - w.chunks) * chunk;
  if (threadIdx.x == 0) barriers.init(w.slabs);
  __syncthreads();

  int const group = static_cast<int>(threadIdx.x) / 128;
  int const warp = static_cast<int>(threadIdx.x) / 32 - 4 * block_slabs;
  if (group < block_slabs) {
    if (group < w.slabs) add_chunks(p, w, m, barriers, group, w.chunks < chunks);
  } else if (warp < 2 * block_slabs) {
    int const k = warp % block_slabs;
    if (k < w.slabs) find_steps(p, w, m, barriers, k, warp / block_slabs, 2);
  } else if (threadIdx.x % 32 == 0) {
    load_tiles(p, w, m, barriers, true);
  }
#endif
}

}  // namespace ssm::gpu::detail::hopper
