// SPDX-License-Identifier: Apache-2.0
// linear_brief.cuh: the raw scan of so few steps that the threads of a cluster of blocks hold them
// all.
#pragma once

#include "ssm/detail/cluster.cuh"
#include "ssm/detail/device.cuh"
#include "ssm/detail/early_launch.cuh"
#include "ssm/detail/linear_columns_tile.cuh"
#include "ssm/detail/linear_step.cuh"

namespace ssm::gpu::detail {

inline constexpr int brief_warps = 16, brief_blocks = 8;
/// Of a thread.
template <class T>
inline constexpr int brief_steps = sizeof(T) > 4 ? 64 / static_cast<int>(sizeof(T)) : 16;
/// Of all blocks that a cluster may have.
template <class T>
inline constexpr index_t most_brief_steps = brief_blocks* brief_warps* brief_steps<T>;

/// A cluster of blocks for each band of 32 channels. A warp has consecutive steps of a block's, and
/// a lane those of a channel: they are loaded at once and stay in registers. Each block sends what
/// its steps do to all later ones.
template <class T, class Step>
__global__ void __launch_bounds__(32 * brief_warps, 1)
    brief_kernel(columns_problem<T, Step> const p) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  using number = accumulator_t<T>;
  using map = affine_map<number>;
  constexpr int S = brief_steps<T>;
  constexpr int neighbor = Step::reads_neighbor ? Step::inputs - 1 : -1;
  __shared__ map of_warp[brief_warps][32], of_block[brief_blocks][32];
  __shared__ mailbox maps_are_here;
  int const lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  int const rank = rank_in_cluster(), blocks = blocks_in_cluster();
  index_t const band = blockIdx.x / static_cast<unsigned>(blocks), outer = band / p.across;
  index_t const channel = (band - outer * p.across) * 32 + lane;
  if (threadIdx.x == 0) {
    maps_are_here.init();
    maps_are_here.announce(rank * 32 * static_cast<int>(sizeof(map)));
  }
  arrive_in_cluster();
  wait_for_earlier_kernels();

  int const first = (rank * brief_warps + warp) * S, left = static_cast<int>(p.length) - first;
  int const steps = channel < p.channels ? left : 0;
  bool const is_whole = steps > S;  // nothing has to be asked
  T in[Step::inputs][S];
  auto const load = [&](auto const& is_there) {
#pragma unroll
    for (int k = 0; k < Step::inputs; ++k) {
      int const next = k == neighbor;
      T const* const from = p.in[k].at(outer, first + next, channel);
#pragma unroll
      for (int i = 0; i < S; ++i) in[k][i] = is_there(i + next) ? from[i * p.in[k].time] : T{};
    }
  };
  auto const every = [](int) { return true; };
  auto const those_before_the_end = [&](int i) { return i < steps; };
  is_whole ? load(every) : load(those_before_the_end);
  auto const of_lane = [&](auto const& array) {
    return steps > 0 && array.data != nullptr ? *array.at(outer, 0, channel) : number(0);
  };
  number state = of_lane(p.initial);
  number const edge = of_lane(p.edge);

  map own{};
#pragma unroll
  for (int i = 0; i < S; ++i) {
    number const value[Step::inputs] = {to_number(in[0][i]), to_number(in[1][i])};
    auto const upto = then{}(own, Step::map(value));
    if (is_whole || i < steps) own = upto;
  }
  of_warp[warp][lane] = own;
  __syncthreads();
  map before{};  // of the block's warps before this one
#pragma unroll
  for (int w = 0; w < brief_warps - 1; ++w) {
    auto const earlier = of_warp[w][lane];
    if (w < warp) before = then{}(before, earlier);
  }
  wait_for_cluster();
  if (warp == brief_warps - 1) {
    auto const whole = then{}(before, own);
    for (int b = rank + 1; b < blocks; ++b) maps_are_here.send(whole, &of_block[rank][lane], b);
  }
  maps_are_here.wait(0);
  for (int b = 0; b < rank; ++b) state = of_block[b][lane](state);
  state = before(state);

  T* to[Step::outputs];
#pragma unroll
  for (int k = 0; k < Step::outputs; ++k) to[k] = p.out[k].at(outer, first, channel);
  auto const run = [&](auto const& is_there) {
#pragma unroll
    for (int i = 0; i < S; ++i) {
      if (!is_there(i)) continue;
      number value[Step::inputs], result[Step::outputs];
#pragma unroll
      for (int k = 0; k < Step::inputs; ++k) value[k] = to_number(in[k][i]);
      if (neighbor >= 0 && i == steps - 1) value[Step::inputs - 1] = edge;
      Step::run(value, state, result);
#pragma unroll
      for (int k = 0; k < Step::outputs; ++k) to[k][i * p.out[k].time] = to_stored<T>(result[k]);
    }
  };
  is_whole ? run(every) : run(those_before_the_end);
  bool const is_last = steps > 0 && steps <= S;
  if (is_last && p.final.data != nullptr) *p.final.at(outer, 0, channel) = state;
#endif
}

/// Launch it, before the kernel before it has ended, if the device has clusters and what was
/// compiled uses them.
template <class T, class Step>
bool run_brief(on where, columns_problem<T, Step> p) {
  auto* const kernel = brief_kernel<T, Step>;
  p.across = (p.channels + 31) / 32;
  constexpr int of_block = brief_warps * brief_steps<T>;
  index_t const blocks = (p.length + of_block - 1) / of_block, all = p.outer * p.across * blocks;
  if (all >= index_t{1} << 31 || !is_compiled_for_hopper(kernel)) return false;
  cudaLaunchAttribute attributes[2]{{}, begins_early()};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim.x = static_cast<unsigned>(blocks);
  attributes[0].val.clusterDim.y = attributes[0].val.clusterDim.z = 1;
  cudaLaunchConfig_t launch{};
  launch.gridDim = static_cast<unsigned>(all);
  launch.blockDim = 32 * brief_warps;
  launch.stream = where.stream;
  launch.attrs = attributes;
  launch.numAttrs = 2;
  check(cudaLaunchKernelEx(&launch, kernel, p), "linear_scan: brief_kernel");
  return true;
}

}  // namespace ssm::gpu::detail
