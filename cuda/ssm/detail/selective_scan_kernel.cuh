// SPDX-License-Identifier: Apache-2.0
// selective_scan_kernel.cuh: Mamba's operator over one segment of time, from the state entering it.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/selective_problem.cuh"

namespace ssm::gpu::detail {

/// What a block does: `steps` steps of `channels` channels at a time. A thread has `States` states
/// of two neighbouring channels, `Lanes` lanes have all states of two channels. Each lane calls the
/// channel that it writes in the end its own, so that partial sums cross lanes without selections.
template <int States, int Lanes>
struct selective_tile {
  static constexpr int threads = 128;
  static constexpr int steps = 16;
  static constexpr int channels = 2 * threads / Lanes;
  static constexpr int states = States * Lanes;
  using grid = packet_grid<steps, channels>;
  static constexpr int packets_per_thread = (grid::packets + threads - 1) / threads;
  static constexpr int quads = 2 * steps * states / 4;  // of B and C
  static constexpr int quads_per_thread = (quads + threads - 1) / threads;

  struct shared {
    float4 pair[steps][channels / 2];  // Δ, Δ·x of two channels
    float y[steps][channels];
    float4 projection[2][steps][states / 4];  // B and C
    float bias[channels], factor[channels], D[channels];
    float largest_rate[threads / 32];
    unsigned starts;
  };

  /// Where the pair of channels 2i and 2i + 1 is, so that a warp's packets meet no bank twice.
  __device__ static int swizzled(int i) { return i ^ (i >> 3 & 3); }
};

template <class T, int States, int Lanes, bool Packed>
struct selective_block {
  using tile = selective_tile<States, Lanes>;
  using shared = typename tile::shared;

  selective_problem<T> const& p;
  shared& s;
  index_t b, group, channel;  // the block's first channel
  int channels;               // how many it has
  index_t begin, end;         // steps
  int lane_states, own, other;
  float rate[2][States], h[2][States];
  float largest_rate;

  __device__ selective_block(selective_problem<T> const& problem, shared& memory)
      : p{problem}, s{memory} {
    index_t const blocks = (p.group_channels + tile::channels - 1) / tile::channels;
    index_t const groups = p.channels / p.group_channels;
    index_t const index = blockIdx.x;
    index_t const block = index % blocks;
    group = index / blocks % groups;
    b = index / blocks / groups;
    channel = group * p.group_channels + block * tile::channels;
    index_t const left = p.group_channels - block * tile::channels;
    channels = static_cast<int>(left < tile::channels ? left : tile::channels);
    begin = blockIdx.y * p.segment_length;
    end = begin + p.segment_length < p.length ? begin + p.segment_length : p.length;
    int const pair = static_cast<int>(threadIdx.x) / Lanes;
    own = 2 * pair + static_cast<int>(threadIdx.x) % 2;
    other = own ^ 1;
    lane_states = static_cast<int>(threadIdx.x) % Lanes * States;
  }

  __device__ bool has(int c, int n) const { return c < channels && n < p.states; }

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

  __device__ void load_channels() {
    for (int c = static_cast<int>(threadIdx.x); c < tile::channels; c += tile::threads) {
      bool const is_there = c < channels;
      s.bias[c] = is_there ? p.bias(channel + c) : 0.0f;
      s.factor[c] = is_there ? p.scaling.step_factor(channel + c) : 0.0f;
      s.D[c] = is_there ? p.skip(channel + c) : 0.0f;
    }
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

  /// Where this thread's k-th packet of a tile is.
  __device__ int2 place(int k) const {
    return tile::grid::place(static_cast<int>(threadIdx.x) + k * tile::threads, p.along_time);
  }
  /// How many elements it has.
  __device__ int count(index_t t0, int k) const {
    int2 const at = place(k);
    if (static_cast<int>(threadIdx.x) + k * tile::threads >= tile::grid::packets) return 0;
    index_t const steps = end - t0 - at.x;
    int const there = channels - at.y;
    if (steps <= 0 || there <= 0) return 0;
    index_t const left = p.along_time ? steps : there;
    return static_cast<int>(left < packet_elements ? left : packet_elements);
  }
  template <class Array>
  __device__ auto* first(Array const& array, index_t t0, int k) const {
    int2 const at = place(k);
    return array.at(b, t0 + at.x, channel + at.y);
  }
  __device__ stored_packet<T> load(selective_array<T const> const& from, index_t t0, int k) const {
    return load_packet<Packed>(first(from, t0, k), from.stride(p.along_time), count(t0, k));
  }

  __device__ stored_packet<T> load_gate(index_t t0, int k) const {
    int const elements = p.gate.data == nullptr ? 0 : count(t0, k);
    return load_packet<Packed>(first(p.gate, t0, k), p.gate.stride(p.along_time), elements);
  }

  /// The pair of Δ and Δ·x of one step and channel.
  __device__ float2& pair(int t, int c) const {
    return reinterpret_cast<float2*>(&s.pair[t][tile::swizzled(c / 2)])[c % 2];
  }

  /// Eight numbers of the block's channels, those of a packet.
  __device__ void of_channels(float const* from, int2 const& at,
                              float (&to)[packet_elements]) const {
    if (p.along_time) {
#pragma unroll
      for (float& number : to) number = from[at.y];
    } else {
#pragma unroll
      for (int i = 0; i < packet_elements; i += 4) {
        float4 const four = *reinterpret_cast<float4 const*>(from + at.y + i);
        to[i] = four.x, to[i + 1] = four.y, to[i + 2] = four.z, to[i + 3] = four.w;
      }
    }
  }

  /// Δ and Δ·x of a packet to shared memory; the largest |Δ|.
  __device__ float discretize(index_t t0, int k, stored_packet<T> const& x,
                              stored_packet<T> const& step_size) {
    if (static_cast<int>(threadIdx.x) + k * tile::threads >= tile::grid::packets) return 0.0f;
    int2 const at = place(k);
    float bias[packet_elements], factor[packet_elements], step[packet_elements];
    of_channels(s.bias, at, bias);
    of_channels(s.factor, at, factor);
    p.steps(step_size, bias, factor, count(t0, k), step);
    float largest = 0.0f;
#pragma unroll
    for (float const each : step) largest = larger(largest, fabsf(each));
    if (p.along_time) {
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) pair(at.x + i, at.y) = {step[i], step[i] * x[i]};
    } else {
#pragma unroll
      for (int i = 0; i < packet_elements; i += 2) {
        s.pair[at.x][tile::swizzled((at.y + i) / 2)] = {step[i], step[i] * x[i], step[i + 1],
                                                        step[i + 1] * x[i + 1]};
      }
    }
    return largest;
  }

  /// y = (C·h + D x) silu(gate) of a packet, from the sums in shared memory.
  __device__ void read_out(index_t t0, int k, stored_packet<T> const& x,
                           stored_packet<T> const& gate) {
    if (static_cast<int>(threadIdx.x) + k * tile::threads >= tile::grid::packets) return;
    int2 const at = place(k);
    float y[packet_elements], D[packet_elements];
    of_channels(s.D, at, D);
    if (p.along_time) {
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) y[i] = s.y[at.x + i][at.y];
    } else {
      of_channels(s.y[at.x], at, y);
    }
#pragma unroll
    for (int i = 0; i < packet_elements; ++i) y[i] = fmaf(D[i], x[i], y[i]);
    if (p.gate.data != nullptr) {
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) y[i] *= gate[i] * sigmoid(gate[i]);
    }
    store_packet<Packed>(first(p.y, t0, k), p.y.stride(p.along_time), count(t0, k), y);
  }

  __device__ stored_states<T> load_quad(index_t t0, int k) const {
    int const i = static_cast<int>(threadIdx.x) + k * tile::threads;
    int const n = i % (tile::states / 4) * 4, t = i / (tile::states / 4) % tile::steps;
    auto const& from = i < tile::quads / 2 ? p.B : p.C;
    bool const is_there = i < tile::quads && t0 + t < end;
    return load_states<Packed>(from.at(b, t0 + t, group, n), from.state,
                               is_there ? static_cast<int>(p.states) - n : 0);
  }
  __device__ void store_quad(int k, stored_states<T> const& quad) {
    int const i = static_cast<int>(threadIdx.x) + k * tile::threads;
    if (i < tile::quads) (&s.projection[0][0][0])[i] = quad.numbers();
  }

  __device__ void leave_checkpoint(index_t t) {
    index_t const block = t / selective_scan_block;
    each_state([&](int c, int n, int k, int j) {
      if (!has(c, n)) return;
      p.checkpoints(b, block, n, channel + c) = h[k][j];
    });
  }

  /// One step of every state, and the sums C·h of it.
  template <bool IsSmall>
  __device__ void step(int t) {
    float2 const mine = pair(t, own), others = pair(t, other);
    constexpr int wide = States < 4 ? States : 4;
    float y = 0.0f, y_other = 0.0f;
    auto const* const B = reinterpret_cast<float const*>(s.projection[0][t]) + lane_states;
    auto const* const C = reinterpret_cast<float const*>(s.projection[1][t]) + lane_states;
#pragma unroll
    for (int j = 0; j < States; j += wide) {
      float of_B[wide], of_C[wide];
      if constexpr (wide == 4) {
        float4 const quad_B = *reinterpret_cast<float4 const*>(B + j);
        float4 const quad_C = *reinterpret_cast<float4 const*>(C + j);
        of_B[0] = quad_B.x, of_B[1] = quad_B.y, of_B[2] = quad_B.z, of_B[3] = quad_B.w;
        of_C[0] = quad_C.x, of_C[1] = quad_C.y, of_C[2] = quad_C.z, of_C[3] = quad_C.w;
      } else {
        float2 const half_B = *reinterpret_cast<float2 const*>(B + j);
        float2 const half_C = *reinterpret_cast<float2 const*>(C + j);
        of_B[0] = half_B.x, of_B[1] = half_B.y, of_C[0] = half_C.x, of_C[1] = half_C.y;
      }
#pragma unroll
      for (int i = 0; i < wide; ++i) {
        h[0][j + i] = next<IsSmall>(h[0][j + i], mine, rate[0][j + i], of_B[i]);
        h[1][j + i] = next<IsSmall>(h[1][j + i], others, rate[1][j + i], of_B[i]);
        y = fmaf(of_C[i], h[0][j + i], y);
        y_other = fmaf(of_C[i], h[1][j + i], y_other);
      }
    }
    y += __shfl_xor_sync(~0u, y_other, 1);
#pragma unroll
    for (int far = 2; far < Lanes; far *= 2) y += __shfl_xor_sync(~0u, y, far);
    s.y[t][own] = y;
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
#pragma unroll 4
    for (int t = 0; t < tile::steps; ++t) step<IsSmall>(t);
  }

  /// Steps with states cut where a sequence starts.
  __device__ void cut_steps(unsigned starts) {
#pragma unroll 1
    for (int t = 0; t < tile::steps; ++t) {
      if (starts >> t & 1) each_state([&](int, int, int k, int j) { h[k][j] = 0.0f; });
      step<false>(t);
    }
  }

  __device__ void run() {
    load_channels();
    constexpr int packets = tile::packets_per_thread, quads = tile::quads_per_thread;
    stored_packet<T> next_x[packets], next_step[packets];
    stored_states<T> next_quad[quads];
    auto const request = [&](index_t t0) {
#pragma unroll
      for (int k = 0; k < packets; ++k) {
        next_x[k] = load(p.x, t0, k);
        next_step[k] = load(p.step_size, t0, k);
      }
#pragma unroll
      for (int k = 0; k < quads; ++k) next_quad[k] = load_quad(t0, k);
    };
    request(begin);
#pragma unroll 1
    for (index_t t0 = begin; t0 < end; t0 += tile::steps) {
      stored_packet<T> x[packets], gate[packets];
      float largest_step = 0.0f;
#pragma unroll
      for (int k = 0; k < packets; ++k) {
        x[k] = next_x[k];
        largest_step = larger(largest_step, discretize(t0, k, x[k], next_step[k]));
      }
#pragma unroll
      for (int k = 0; k < quads; ++k) store_quad(k, next_quad[k]);
      if (p.sequence.data_handle() != nullptr && threadIdx.x < 32) {
        bool const starts = threadIdx.x < tile::steps && p.starts_sequence(b, t0 + threadIdx.x);
        unsigned const all = __ballot_sync(~0u, starts);
        if (threadIdx.x == 0) s.starts = all;
      }
      bool const is_small = largest_step * largest_rate <= small_exponent;
      bool const all_small = __syncthreads_and(is_small);
      request(t0 + tile::steps);  // nothing, after the last
#pragma unroll
      for (int k = 0; k < packets; ++k) gate[k] = load_gate(t0, k);
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
#pragma unroll
      for (int k = 0; k < packets; ++k) read_out(t0, k, x[k], gate[k]);
    }
    if (blockIdx.y + 1 < p.segments) return;
    each_state([&](int c, int n, int k, int j) {
      if (has(c, n)) p.carry(b, channel + c, n) = h[k][j];
    });
  }
};

template <class T, int States, int Lanes, bool Packed>
__global__ void __launch_bounds__(128, sizeof(T) == 2 && Packed ? 4 : 3)
    selective_scan_kernel(__grid_constant__ selective_problem<T> const p) {
  extern __shared__ uint4 selective_scan_memory[];
  using block = selective_block<T, States, Lanes, Packed>;
  block{p, *reinterpret_cast<typename block::shared*>(selective_scan_memory)}.run();
}

}  // namespace ssm::gpu::detail
