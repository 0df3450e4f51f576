// SPDX-License-Identifier: Apache-2.0
// selective_scan_kernel.cuh: Mamba's operator over one segment of time, from the state entering it.
#pragma once

#include "ssm/detail/selective_states.cuh"

namespace ssm::gpu::detail {

template <class T, int States, int Lanes, bool Packed, bool AlongTime>
class selective_squad : selective_states<T, States, Lanes, Packed, AlongTime> {
  using states = selective_states<T, States, Lanes, Packed, AlongTime>;
  using states::has_gate, states::pair, states::first_channel, states::lane_states;
  using states::p, states::s, states::b, states::channel, states::begin, states::end;
  using states::rate, states::h, states::largest_rate;
  using typename states::tile;

 public:
  using states::selective_states;
  using typename states::shared;

  __device__ void run() {
    auto x_at = this->cursor_of(p.x), step_at = this->cursor_of(p.step_size),
         gate_at = this->cursor_of(p.gate);
    auto y_at = this->cursor_of(p.y);
    T const* quad_at[tile::quads_per_thread];
#pragma unroll
    for (int k = 0; k < tile::quads_per_thread; ++k) quad_at[k] = this->first_quad(k);

    constexpr int packets = tile::packets_per_thread, quads = tile::quads_per_thread;
    auto const steps_from = [&](index_t t0) {
      index_t const left = end - t0;
      return static_cast<int>(left < tile::steps ? left : tile::steps);
    };
    auto const request_tile = [&](index_t t0, int stage) {
      int const left = steps_from(t0);
#pragma unroll
      for (int k = 0; k < packets; ++k) {
        this->request(s.x[stage][k], x_at, k, left);
        this->request(s.step[k], step_at, k, left);
      }
#pragma unroll
      for (int k = 0; k < quads; ++k) this->request_quad(quad_at[k], k, left);
      x_at.advance(), step_at.advance();
    };
    int const batch = p.checkpoints.data_handle() == nullptr ? tile::steps : checkpoint_steps;
    request_tile(begin, 0);
    this->load_states();
    int stage = 0;
#pragma unroll 1
    for (index_t t0 = begin; t0 < end; t0 += tile::steps, stage ^= 1) {
      int const left = steps_from(t0);
      float largest_step = 0.0f;
      wait_for_requests();
      float of_channel[packet_elements];  // bias, then D
      this->of_channels(s.bias, of_channel);
#pragma unroll
      for (int k = 0; k < packets; ++k) {
        largest_step = larger(largest_step, this->discretize(k, left, of_channel,
                                                             s.x[stage][k].get(), s.step[k].get()));
      }
#pragma unroll
      for (int k = 0; k < quads; ++k) this->store_quad(k);
      if (p.sequence.data_handle() != nullptr && threadIdx.x < 32) {
        bool const starts = threadIdx.x < tile::steps && p.starts_sequence(b, t0 + threadIdx.x);
        unsigned const all = __ballot_sync(~0u, starts);
        if (threadIdx.x == 0) s.starts = all;
      }
      bool const all_small = meet_if_all(largest_step * largest_rate <= small_exponent);
      request_tile(t0 + tile::steps, stage ^ 1);  // nothing, after the last
#pragma unroll
      for (int k = 0; k < packets; ++k) this->request(s.gate[k], gate_at, k, has_gate ? left : 0);
      unsigned const starts = p.sequence.data_handle() != nullptr ? s.starts : 0;
#pragma unroll 1
      for (int first = 0; first < tile::steps; first += batch) {
        if (batch < tile::steps && first < left) this->leave_checkpoint(t0 + first);
        if (starts != 0) {
          cut_steps(first, first + batch, starts);
        } else if (all_small) {
          all_steps<true>(first, first + batch);
        } else {
          all_steps<false>(first, first + batch);
        }
      }
      meet_squad();
      wait_for_requests();
      this->of_channels(s.D, of_channel);
#pragma unroll
      for (int k = 0; k < packets; ++k) {
        this->read_out(y_at, k, left, of_channel, s.x[stage][k].get(), s.gate[k].get());
      }
      gate_at.advance(), y_at.advance();
    }
    if (end < p.length) return;
    this->store_states(&p.carry(b, channel, 0), p.carry.stride(1), p.carry.stride(2));
  }

 private:
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
      if (starts >> t & 1) this->clear_states();
      steps<false, 1>(t);
    }
  }
};

/// Squads that a multiprocessor has at a time: as many as keep all they have in registers, for a
/// step that waits for what was spilled takes twice as long.
template <int States, int Lanes, bool Packed>
inline constexpr int selective_squads = Lanes > 8 || !Packed      ? 2
                                        : Lanes > 2 && States > 4 ? 3
                                                                  : 4;

/// Squads wait for nobody else, but in one block their warps take turns evenly: of blocks the
/// oldest goes first, and the last ones end alone.
template <class T, int States, int Lanes, bool Packed, bool AlongTime>
__global__ void __launch_bounds__(128 * selective_squads<States, Lanes, Packed>)
    selective_scan_kernel(__grid_constant__ selective_problem<T> const p, int squads) {
  extern __shared__ uint4 selective_scan_memory[];
  int const here = squad_in_block();
  using tile = selective_tile<T, States, Lanes>;
  auto& memory = reinterpret_cast<typename tile::shared*>(selective_scan_memory)[here];
  int const index = static_cast<int>(blockIdx.x * blockDim.y) + here;
  if (index < squads) selective_squad<T, States, Lanes, Packed, AlongTime>{p, memory, index}.run();
}

}  // namespace ssm::gpu::detail
