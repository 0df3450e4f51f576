// SPDX-License-Identifier: Apache-2.0
// dual_entering.cuh: the first pass of state_space_dual, which finds what enters each segment of
// time, and the main pass from there.
#pragma once

#include <cmath>

#include "ssm/detail/dual_chunk_kernel.cuh"

namespace ssm::gpu::detail {

/// Where the first pass begins for the warp's part: going back from `end`, the first of a stretch
/// of steps before which all would be multiplied by less than p.negligible, or belongs to another
/// sequence; not before `begin`. Walks step sizes alone, the stretches of all parts of a block side
/// by side.
template <class T, int States>
__device__ index_t find_begin(dual_block<T, States> const& block, index_t begin, index_t end) {
  constexpr int per_lane = 4;
  auto const& p = block.p;
  dual_shape const& shape = block.shape;
  int const stretch = per_lane * 32 * shape.slices;
  index_t const head = block.own.head;
  float const rate = p.rate(head), bias = p.bias(head), factor = p.scaling.step_factor(head);
  float const least = p.negligible > 0.0f ? log2f(p.negligible) : -INFINITY;
  float walked = 0.0f;
  bool is_done = block.own.channels == 0;
  index_t own_begin = end;
  while (__syncthreads_or(!is_done)) {
    index_t const first = own_begin - stretch;
    float sum = 0.0f;
    bool is_cut = false;
#pragma unroll
    for (int k = 0; k < per_lane; ++k) {
      index_t const t = first + (k * shape.slices + block.slice) * 32 + block.lane;
      if (is_done || t < begin) continue;
      sum += p.log2_decay(rate, p.step(to_number(p.step_size(block.b, t, head)), bias, factor));
      is_cut = is_cut || p.starts_sequence(block.b, t);
    }
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      sum += __shfl_xor_sync(~0u, sum, distance);
    }
    if (__any_sync(~0u, is_cut)) sum = -INFINITY;  // nothing before the start counts
    block.s.walked[block.warp] = sum;
    __syncthreads();
    if (is_done) continue;
    for (int i = 0; i < shape.slices; ++i) {
      walked += block.s.walked[block.part * shape.slices + i];
    }
    own_begin = first < begin ? begin : first;
    is_done = own_begin == begin || walked < least || walked == -INFINITY;
  }
  return own_begin;
}

/// A block of the first pass has a segment but the last, and leaves what that adds to a state that
/// leaves it; the blocks beyond leave the initial state.
template <class T, int States>
__device__ void run_first_pass(dual_block<T, States>& block) {
  auto const& p = block.p;
  index_t const segment = blockIdx.y;
  if (segment + 1 == p.segments) {
    block.add_states(p.initial, 1.0f);
    return block.store_states(p.entering_at(0));
  }
  index_t const begin = segment * p.segment_length, end = begin + p.segment_length;
  index_t const own_begin = find_begin(block, begin, end);
  if (block.lane == 0) block.s.begin[block.warp] = own_begin;
  __syncthreads();
  index_t block_begin = end;  // where the first of its parts does
  for (int i = 0; i < block.shape.warps(); ++i) {
    index_t const other = block.s.begin[i];
    if (other < block_begin) block_begin = other;
  }
  float const passed = block.run(block_begin, own_begin, end, false);
  block.store_states(p.entering_at(segment + 1));
  if (block.lane == 0 && block.slice == 0 && block.own.channels > 0 && block.own.channel == 0) {
    p.decay[p.decay_at(block.b, segment, block.own.head)] = own_begin > begin ? 0.0f : passed;
    if (p.visited != nullptr) {
      atomicAdd(p.visited, static_cast<unsigned long long>(end - own_begin));
    }
  }
}

/// Blocks have parts of heads along x, segments along y.
template <class T, int States>
__global__ void __launch_bounds__(dual_tile<T, States>::most_warps * 32, 1)
    dual_kernel(__grid_constant__ dual_problem<T> const p, dual_shape shape) {
  extern __shared__ __align__(16) std::byte memory[];
  dual_block<T, States> block(p, shape, memory);
  if (shape.is_first_pass) return run_first_pass(block);
  index_t const begin = blockIdx.y * p.segment_length;
  index_t const end = begin + p.segment_length < p.length ? begin + p.segment_length : p.length;
  block.enter(blockIdx.y);
  block.run(begin, begin, end, true);
  if (end == p.length) block.store_states(p.carry);
}

}  // namespace ssm::gpu::detail
