// SPDX-License-Identifier: Apache-2.0
// selective_steps.cuh: the steps of a squad of selective_scan, from what a tile has in shared
// memory.
#pragma once

#include "ssm/detail/selective_states.cuh"

namespace ssm::gpu::detail {

template <class Tile, bool Packed, bool AlongTime>
struct selective_steps : selective_states<Tile, Packed, AlongTime> {
  using states = selective_states<Tile, Packed, AlongTime>;
  using states::p, states::s, states::rate, states::h, states::selective_states;
  using states::States, states::Lanes, states::pair, states::first_channel, states::lane_states;
  using typename states::tile;

  /// The steps of the tile that begins at step t0 and has `left` steps, kept from `first` on.
  __device__ void step_tile(index_t t0, int first, int left, unsigned starts, bool all_small) {
    int const batch = p.checkpoints.data_handle() == nullptr ? tile::steps : checkpoint_steps;
#pragma unroll 1
    for (int t = 0; t < tile::steps; t += batch) {
      if (batch < tile::steps && t < left) this->leave_checkpoint(t0 + t);
      if (starts != 0) {
        cut_steps(first + t, first + t + batch, starts);
      } else if (all_small) {
        all_steps<true>(first + t, first + t + batch);
      } else {
        all_steps<false>(first + t, first + t + batch);
      }
    }
  }

  static constexpr int checkpoint_steps = static_cast<int>(selective_scan_checkpoint_steps);
  static_assert(tile::steps % checkpoint_steps == 0 && tile::steps > checkpoint_steps);

  /// `Count` steps of every state from step t on, and the sums C·h of each, of two lanes. The sums
  /// are stored last, over what all lanes have read.
  template <bool IsSmall, int Count>
  __device__ void steps(int t) {
    constexpr int wide = States < 4 ? States : 4;
    float sum[Count][2];
#pragma unroll
    for (int k = 0; k < Count; ++k) {
      float4 const two = pair(t + k, first_channel);
      sum[k][0] = sum[k][1] = 0.0f;
      auto const* const B = &s.projection[0][t + k][lane_states / 4];
      auto const* const C = &s.projection[1][t + k][lane_states / 4];
#pragma unroll
      for (int j = 0; j < States; j += wide) {
        float4 const B_quad = B[j / 4], C_quad = C[j / 4];
        float const of_B[] = {B_quad.x, B_quad.y, B_quad.z, B_quad.w};
        float const of_C[] = {C_quad.x, C_quad.y, C_quad.z, C_quad.w};
#pragma unroll
        for (int i = 0; i < wide; ++i) {
          h[0][j + i] = next<IsSmall>(h[0][j + i], {two.x, two.z}, rate[0][j + i], of_B[i]);
          h[1][j + i] = next<IsSmall>(h[1][j + i], {two.y, two.w}, rate[1][j + i], of_B[i]);
          sum[k][0] = fmaf(of_C[i], h[0][j + i], sum[k][0]);
          sum[k][1] = fmaf(of_C[i], h[1][j + i], sum[k][1]);
        }
      }
    }
#pragma unroll
    for (int far = 2; far < Lanes; far *= 2) {
#pragma unroll
      for (int k = 0; k < Count; ++k) {
        sum[k][0] += __shfl_xor_sync(~0u, sum[k][0], far);
        sum[k][1] += __shfl_xor_sync(~0u, sum[k][1], far);
      }
    }
    __syncwarp();
#pragma unroll
    for (int k = 0; k < Count; ++k) {
      auto* const halves = reinterpret_cast<float2*>(&pair(t + k, first_channel));
      halves[threadIdx.x % 2] = {sum[k][0], sum[k][1]};
    }
  }

  template <bool IsSmall>
  __device__ static float next(float h, float2 pair, float rate, float B) {
    float const exponent = pair.x * rate;
    if constexpr (IsSmall) {
      return fmaf(small_exp2_minus_1(exponent), h, fmaf(pair.y, B, h));
    } else {
      return fmaf(exp2(exponent), h, pair.y * B);
    }
  }

  template <bool IsSmall>
  __device__ void all_steps(int first, int after) {
    constexpr int together = tile::states == 16 && Lanes > 2 ? 8 : 4;  // few blocks: see shape_for
#pragma unroll 1
    for (int t = first; t < after; t += together) steps<IsSmall, together>(t);
  }

  /// Steps with states cut where a sequence starts.
  __device__ void cut_steps(int first, int after, unsigned starts) {
#pragma unroll 1
    for (int t = first; t < after; ++t) {
      if (starts >> t % tile::steps & 1) this->clear_states();
      steps<false, 1>(t);
    }
  }
};

}  // namespace ssm::gpu::detail
