// SPDX-License-Identifier: Apache-2.0
// selective_states.cuh: the states of a squad of selective_scan: how they come to its threads, and
// leave them.
#pragma once

#include <cstddef>

#include "ssm/detail/selective_scan_inputs.hpp"
#include "ssm/detail/selective_stage.cuh"

namespace ssm::gpu::detail {

/// x; but nothing that depends on it is computed ahead of a loop, to be kept in a register.
__device__ inline int not_ahead(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

/// States and rates of two neighbouring channels in each thread.
template <class Tile, bool Packed, bool AlongTime>
struct selective_states : selective_stage<Tile, Packed, AlongTime> {
  using stage = selective_stage<Tile, Packed, AlongTime>;
  using stage::p, stage::s, stage::b, stage::channel, stage::channels, stage::segment;
  using typename stage::shared, typename stage::tile, typename stage::T;
  static constexpr int States = tile::states_of_lane, Lanes = tile::lanes;

  int lane_states, first_channel;
  float rate[2][States], h[2][States];
  float largest_rate;

  __device__ selective_states(selective_problem<T> const& problem, shared& memory, index_t index)
      : stage(problem, memory, index) {
    first_channel = static_cast<int>(threadIdx.x) / Lanes * 2;
    lane_states = static_cast<int>(threadIdx.x) % Lanes * States;
  }

  __device__ bool has(int c, int n) const { return c < channels && n < static_cast<int>(p.states); }

  /// Which state a thread reads k-th, when all of the block are read along what is dense.
  __device__ static int2 state_read(bool along_channels, int k) {
    int const i = static_cast<int>(threadIdx.x) + k * tile::threads;
    if (along_channels) return {i % tile::channels, i / tile::channels};
    return {i / tile::states, i % tile::states};
  }
  template <class Number>
  __device__ void read_states(bool along_channels, Number const& number,
                              float (&found)[2 * States]) const {
#pragma unroll
    for (int k = 0; k < 2 * States; ++k) {
      int2 const at = state_read(along_channels, k);
      bool const is_there = has(at.x, at.y);
      // No branch: loads would wait for it.
      float const there = number(is_there ? at.x : 0, is_there ? at.y : 0);
      found[k] = is_there ? there : 0.0f;
    }
  }
  /// From the states that each thread has read to those that it steps.
  __device__ void share_states(bool along_channels, float const (&found)[2 * States],
                               float (&own)[2][States]) {
    constexpr int pitch = tile::states + 1;
    static_assert(sizeof(float) * tile::channels * pitch <= offsetof(shared, bias));
    auto* const all = reinterpret_cast<float*>(&s);
    meet_squad();
#pragma unroll
    for (int k = 0; k < 2 * States; ++k) {
      int2 const at = state_read(along_channels, k);
      all[at.x * pitch + at.y] = found[k];
    }
    meet_squad();
#pragma unroll
    for (int k = 0; k < 2; ++k)
#pragma unroll
      for (int j = 0; j < States; ++j) {
        own[k][j] = all[(first_channel + k) * pitch + lane_states + j];
      }
  }

  /// Rates and the states that enter the segment. No other shared memory is touched than what the
  /// first tile is discretized to, and what load_channels fills.
  __device__ void load_states() {
    float found[2 * States], entering[2 * States];
    read_states(
        false, [&](int c, int n) { return p.eigenvalue(channel + c, n); }, found);
    bool const is_cut = p.segments > 1;
    if (is_cut) {
      float const* const from = p.entering + p.segment_state(b, segment, 0, channel);
      read_states(
          true, [&](int c, int n) { return from[n * p.channels + c]; }, entering);
    } else {
      read_states(
          false, [&](int c, int n) { return p.initial(b, channel + c, n); }, entering);
    }
    this->load_channels();
    share_states(false, found, rate);
    share_states(is_cut, entering, h);
    if (p.scaling.scales_eigenvalues()) scale_rates();
    float largest = 0.0f;
#pragma unroll
    for (auto& of_channel : rate)
#pragma unroll
      for (float& each : of_channel) {
        each *= log2_of_e;
        largest = larger(largest, fabsf(each));
      }
    meet_squad();
    for (int far = 16; far > 0; far /= 2) {
      largest = larger(largest, __shfl_xor_sync(~0u, largest, far));
    }
    if (threadIdx.x % 32 == 0) s.largest_rate[threadIdx.x / 32] = largest;
    meet_squad();
    largest_rate = 0.0f;
    for (float const there : s.largest_rate) largest_rate = larger(largest_rate, there);
  }

  /// In a loop, for a power is long; so rates go through shared memory.
  __device__ void scale_rates() {
    auto* const own = reinterpret_cast<float*>(&s) + threadIdx.x;
    meet_squad();
#pragma unroll
    for (int i = 0; i < 2 * States; ++i) own[i * tile::threads] = rate[i / States][i % States];
#pragma unroll 1
    for (int i = 0; i < 2 * States; ++i) {
      int const c = first_channel + i / States, n = lane_states + i % States;
      float& A = own[i * tile::threads];
      if (has(c, n)) A = p.scaling.eigenvalue(channel + c, n, A);
    }
#pragma unroll
    for (int i = 0; i < 2 * States; ++i) rate[i / States][i % States] = own[i * tile::threads];
  }

  __device__ void leave_checkpoint(index_t t) {
    index_t const block = t / selective_scan_checkpoint_steps;
    store_states(&p.checkpoints(b, block, 0, channel), p.checkpoints.stride(3),
                 p.checkpoints.stride(2));
  }

  /// States to an array that has state 0 of the block's first channel at `first`.
  __device__ void store_states(float* first, index_t channel_stride, index_t state_stride) const {
    int const c0 = not_ahead(first_channel), n0 = not_ahead(lane_states);
    int const states_left = static_cast<int>(p.states) - n0;
    float* at = first + (c0 * channel_stride + n0 * state_stride);
#pragma unroll
    for (int j = 0; j < States; ++j, at += state_stride) {
      if (j >= states_left) break;
      if (c0 < channels) at[0] = h[0][j];
      if (c0 + 1 < channels) at[channel_stride] = h[1][j];
    }
  }

  __device__ void clear_states() {
#pragma unroll
    for (auto& of_channel : h)
#pragma unroll
      for (float& state : of_channel) state = 0.0f;
  }
};

}  // namespace ssm::gpu::detail
