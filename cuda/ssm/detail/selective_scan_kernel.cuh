// SPDX-License-Identifier: Apache-2.0
// selective_scan_kernel.cuh: Mamba's operator over one segment of time, from the state entering it.
#pragma once

#include "ssm/detail/selective_scan_inputs.hpp"
#include "ssm/detail/selective_stage.cuh"

namespace ssm::gpu::detail {

template <class T, int States, int Lanes, bool Packed>
class selective_block : selective_stage<T, States, Lanes, Packed> {
  using stage = selective_stage<T, States, Lanes, Packed>;
  using tile = typename stage::tile;
  using stage::has_gate, stage::pair;
  using stage::p, stage::s, stage::b, stage::channel, stage::channels, stage::begin, stage::end;

 public:
  using typename stage::shared;

  __device__ selective_block(selective_problem<T> const& problem, shared& memory)
      : stage(problem, memory) {
    int const pair = static_cast<int>(threadIdx.x) / Lanes;
    own = 2 * pair + static_cast<int>(threadIdx.x) % 2;
    other = own ^ 1;
    lane_states = static_cast<int>(threadIdx.x) % Lanes * States;
  }

  __device__ void run() {
    this->load_channels();
    load_states();
    auto x_at = this->cursor_of(p.x), step_at = this->cursor_of(p.step_size),
         gate_at = this->cursor_of(p.gate);
    auto y_at = this->cursor_of(p.y);

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
      for (int k = 0; k < quads; ++k) this->request_quad(t0, k, left);
      x_at.advance(), step_at.advance();
    };
    request_tile(begin, 0);
    int stage = 0;
#pragma unroll 1
    for (index_t t0 = begin; t0 < end; t0 += tile::steps, stage ^= 1) {
      int const left = steps_from(t0);
      float largest_step = 0.0f;
      wait_for_requests();
#pragma unroll
      for (int k = 0; k < packets; ++k) {
        largest_step =
            larger(largest_step, this->discretize(k, left, s.x[stage][k].get(), s.step[k].get()));
      }
#pragma unroll
      for (int k = 0; k < quads; ++k) this->store_quad(k);
      if (p.sequence.data_handle() != nullptr && threadIdx.x < 32) {
        bool const starts = threadIdx.x < tile::steps && p.starts_sequence(b, t0 + threadIdx.x);
        unsigned const all = __ballot_sync(~0u, starts);
        if (threadIdx.x == 0) s.starts = all;
      }
      bool const all_small = __syncthreads_and(largest_step * largest_rate <= small_exponent);
      request_tile(t0 + tile::steps, stage ^ 1);  // nothing, after the last
#pragma unroll
      for (int k = 0; k < packets; ++k) this->request(s.gate[k], gate_at, k, has_gate ? left : 0);
      if (p.checkpoints.data_handle() != nullptr && t0 % selective_scan_block == 0) {
        leave_checkpoint(t0);
      }
      unsigned const starts = p.sequence.data_handle() != nullptr ? s.starts : 0;
      if (starts != 0) {
        cut_steps(starts);
      } else if (all_small) {
        all_steps<true>();
      } else {
        all_steps<false>();
      }
      __syncthreads();
      wait_for_requests();
#pragma unroll
      for (int k = 0; k < packets; ++k) {
        this->read_out(y_at, k, left, s.x[stage][k].get(), s.gate[k].get());
      }
      gate_at.advance(), y_at.advance();
    }
    if (blockIdx.y + 1 < p.segments) return;
    each_state([&](int c, int n, int k, int j) {
      if (has(c, n)) p.carry(b, channel + c, n) = h[k][j];
    });
  }

 private:
  __device__ bool has(int c, int n) const {
    return c < channels && n < p.states;
  }

  template <class Visit>
  __device__ void each_state(Visit const& visit) {
#pragma unroll
    for (int k = 0; k < 2; ++k)
#pragma unroll
      for (int j = 0; j < States; ++j) {
        int const c = k == 0 ? own : other, n = lane_states + j;
        visit(c, n, k, j);
      }
  }

  /// Rates and the states that enter the segment.
  __device__ void load_states() {
    float largest = 0.0f;
    each_state([&](int c, int n, int k, int j) {
      rate[k][j] = has(c, n) ? p.rate(channel + c, n) : 0.0f;
      h[k][j] = 0.0f;
      if (has(c, n)) {
        h[k][j] = p.segments > 1 ? p.entering[p.segment_state(b, blockIdx.y, n, channel + c)]
                                 : p.initial(b, channel + c, n);
      }
      largest = larger(largest, fabsf(rate[k][j]));
    });
    for (int far = 16; far > 0; far /= 2) {
      largest = larger(largest, __shfl_xor_sync(~0u, largest, far));
    }
    if (threadIdx.x % 32 == 0) s.largest_rate[threadIdx.x / 32] = largest;
    __syncthreads();
    largest_rate = 0.0f;
    for (float const there : s.largest_rate) largest_rate = larger(largest_rate, there);
  }

  __device__ void leave_checkpoint(index_t t) {
    index_t const block = t / selective_scan_block;
    each_state([&](int c, int n, int k, int j) {
      if (!has(c, n)) return;
      p.checkpoints(b, block, n, channel + c) = h[k][j];
    });
  }

  /// `Count` steps of every state from step t on, and the sums C·h of each. The sums are stored
  /// last: what comes after a store to shared memory is not loaded before it.
  template <bool IsSmall, int Count>
  __device__ void steps(int t) {
    constexpr int wide = States < 4 ? States : 4;
    float y[Count];
#pragma unroll
    for (int k = 0; k < Count; ++k) {
      float2 const mine = pair(t + k, own), others = pair(t + k, other);
      float sum = 0.0f, other_sum = 0.0f;
      auto const* const B = &s.projection[0][t + k][lane_states / 4];
      auto const* const C = &s.projection[1][t + k][lane_states / 4];
#pragma unroll
      for (int j = 0; j < States; j += wide) {
        float4 const B_quad = B[j / 4], C_quad = C[j / 4];
        float const of_B[] = {B_quad.x, B_quad.y, B_quad.z, B_quad.w};
        float const of_C[] = {C_quad.x, C_quad.y, C_quad.z, C_quad.w};
#pragma unroll
        for (int i = 0; i < wide; ++i) {
          h[0][j + i] = next<IsSmall>(h[0][j + i], mine, rate[0][j + i], of_B[i]);
          h[1][j + i] = next<IsSmall>(h[1][j + i], others, rate[1][j + i], of_B[i]);
          sum = fmaf(of_C[i], h[0][j + i], sum);
          other_sum = fmaf(of_C[i], h[1][j + i], other_sum);
        }
      }
      y[k] = sum + __shfl_xor_sync(~0u, other_sum, 1);
    }
#pragma unroll
    for (int k = 0; k < Count; ++k) {
#pragma unroll
      for (int far = 2; far < Lanes; far *= 2) y[k] += __shfl_xor_sync(~0u, y[k], far);
      s.y[t + k][own] = y[k];
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
  __device__ void all_steps() {
    constexpr int together = 4;
#pragma unroll 1
    for (int t = 0; t < tile::steps; t += together) steps<IsSmall, together>(t);
  }

  /// Steps with states cut where a sequence starts.
  __device__ void cut_steps(unsigned starts) {
#pragma unroll 1
    for (int t = 0; t < tile::steps; ++t) {
      if (starts >> t & 1) each_state([&](int, int, int k, int j) { h[k][j] = 0.0f; });
      steps<false, 1>(t);
    }
  }

  int lane_states, own, other;
  float rate[2][States], h[2][States];
  float largest_rate;
};

/// Blocks that a multiprocessor has at a time: as many as keep all they have in registers, for a
/// step that waits for what was spilled takes twice as long.
template <class T, int Lanes, bool Packed>
inline constexpr int selective_blocks = Lanes > 8 || !Packed         ? 2
                                        : Lanes > 2 || sizeof(T) > 2 ? 3
                                                                     : 4;

template <class T, int States, int Lanes, bool Packed>
__global__ void __launch_bounds__(128, selective_blocks<T, Lanes, Packed>)
    selective_scan_kernel(__grid_constant__ selective_problem<T> const p) {
  extern __shared__ uint4 selective_scan_memory[];
  using block = selective_block<T, States, Lanes, Packed>;
  block{p, *reinterpret_cast<typename block::shared*>(selective_scan_memory)}.run();
}

}  // namespace ssm::gpu::detail
