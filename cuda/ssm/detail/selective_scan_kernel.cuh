// SPDX-License-Identifier: Apache-2.0
// selective_scan_kernel.cuh: Mamba's operator over one segment of time, from the state entering it.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/selective_problem.cuh"

namespace ssm::gpu::detail {

/// What a block does: `steps` steps of `channels` channels at a time. A thread has `States` states
/// of two neighbouring channels, `Lanes` lanes have all states of two channels. Each lane calls the
/// channel that it writes in the end its own, so that partial sums cross lanes without selections.
template <class T, int States, int Lanes>
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
    // As they are stored; x is read again when its tile is done, and the next one has come by then.
    packet_slots<T, threads> x[2][packets_per_thread];
    packet_slots<T, threads> step[packets_per_thread], gate[packets_per_thread];
    quad_slots<T, threads> quad[quads_per_thread];
  };

  /// Where the pair of channels 2i and 2i + 1 is, so that a warp's packets meet no bank twice.
  __device__ static int swizzled(int i) { return i ^ (i >> 3 & 3); }
};

template <class T, int States, int Lanes, bool Packed>
struct selective_block {
  using tile = selective_tile<T, States, Lanes>;
  using shared = typename tile::shared;

  selective_problem<T> const& p;
  shared& s;
  index_t b, group, channel;  // the block's first channel
  int channels;               // how many it has
  index_t begin, end;         // steps
  int lane_states, own, other;
  float rate[2][States], h[2][States];
  float largest_rate;
  bool has_gate;
  int2 place;  // step and channel of this thread's first packet in a tile
  int count;   // and how many of its elements are channels of the block

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
    has_gate = p.gate.data != nullptr;
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

  /// One array's packets: the k-th of a tile is 8k steps after `at`.
  template <class U>
  struct cursor {
    U* at;
    index_t time, stride;
    __device__ U* packet(int k) const { return at + packet_elements * k * time; }
    __device__ void advance() { at += tile::steps * time; }
  };
  template <class U>
  __device__ cursor<U> cursor_of(selective_array<U> const& array) const {
    return {array.at(b, begin + place.x, channel + place.y), array.time,
            array.stride(p.along_time)};
  }
  /// How many elements the k-th packet has where `left` steps are left.
  __device__ int elements(int k, int left) const {
    int const steps = left - place.x - packet_elements * k;
    if (steps <= 0) return 0;
    return p.along_time && steps < count ? steps : count;
  }
  template <class U>
  __device__ void request(packet_slots<T, tile::threads>& to, cursor<U> const& from, int k,
                          int left) {
    to.template request<Packed>(from.packet(k), from.stride, elements(k, left));
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
  __device__ float discretize(int k, int left, stored_packet<T> const& x,
                              stored_packet<T> const& step_size) {
    if (tile::grid::packets < tile::threads && threadIdx.x >= tile::grid::packets) return 0.0f;
    int2 const at{place.x + packet_elements * k, place.y};
    float bias[packet_elements], factor[packet_elements], step[packet_elements];
    of_channels(s.bias, at, bias);
    of_channels(s.factor, at, factor);
    p.steps(step_size, bias, factor, step);
    if (!Packed || left < tile::steps) {
      int const there = elements(k, left);
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) step[i] = i < there ? step[i] : 0.0f;
    }
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
  __device__ void read_out(cursor<T> const& to, int k, int left, stored_packet<T> const& x,
                           stored_packet<T> const& gate) {
    if (tile::grid::packets < tile::threads && threadIdx.x >= tile::grid::packets) return;
    int2 const at{place.x + packet_elements * k, place.y};
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
    if (has_gate) {
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) y[i] *= gate[i] * sigmoid(gate[i]);
    }
    store_packet<Packed>(to.packet(k), to.stride, elements(k, left), y);
  }

  /// The step and state where this thread's k-th quad of B or C begins.
  __device__ static int2 quad_place(int k, bool along_time) {
    int const i = (static_cast<int>(threadIdx.x) + k * tile::threads) % (tile::quads / 2);
    constexpr int across = tile::states / 4, along = tile::steps / 4;
    if (along_time) return {i % along * 4, i / along};
    return {i / across, i % across * 4};
  }
  __device__ static int quad(int k) {
    return static_cast<int>(threadIdx.x) + k * tile::threads;
  }

  __device__ void request_quad(index_t t0, int k, int left) {
    int2 const at = quad_place(k, p.projections_along_time);
    auto const& from = quad(k) < tile::quads / 2 ? p.B : p.C;
    bool const is_there = quad(k) < tile::quads && at.x < left && at.y < p.states;
    int const size = p.projections_along_time ? left - at.x : static_cast<int>(p.states) - at.y;
    s.quad[k].template request<Packed>(from.at(b, t0 + at.x, group, at.y),
                                       from.stride(p.projections_along_time), is_there ? size : 0);
  }
  __device__ void store_quad(int k) {
    if (quad(k) >= tile::quads) return;
    int2 const at = quad_place(k, p.projections_along_time);
    auto& to = s.projection[quad(k) < tile::quads / 2 ? 0 : 1];
    float4 const numbers = s.quad[k].get().numbers();
    if (p.projections_along_time) {
      auto const element = [&](int t) -> float& {
        return reinterpret_cast<float*>(to[at.x + t])[at.y];
      };
      element(0) = numbers.x, element(1) = numbers.y;
      element(2) = numbers.z, element(3) = numbers.w;
    } else {
      to[at.x][at.y / 4] = numbers;
    }
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

  __device__ void run() {
    load_channels();
    place = tile::grid::place(static_cast<int>(threadIdx.x), p.along_time);
    int const there = threadIdx.x < tile::grid::packets ? channels - place.y : 0;
    bool const is_whole = there > 0 && (p.along_time || there > packet_elements);
    count = is_whole ? packet_elements : there > 0 ? there : 0;
    auto x_at = cursor_of(p.x), step_at = cursor_of(p.step_size), gate_at = cursor_of(p.gate);
    auto y_at = cursor_of(p.y);

    constexpr int packets = tile::packets_per_thread, quads = tile::quads_per_thread;
    auto const steps_from = [&](index_t t0) {
      index_t const left = end - t0;
      return static_cast<int>(left < tile::steps ? left : tile::steps);
    };
    auto const request_tile = [&](index_t t0, int stage) {
      int const left = steps_from(t0);
#pragma unroll
      for (int k = 0; k < packets; ++k) {
        request(s.x[stage][k], x_at, k, left);
        request(s.step[k], step_at, k, left);
      }
#pragma unroll
      for (int k = 0; k < quads; ++k) request_quad(t0, k, left);
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
            larger(largest_step, discretize(k, left, s.x[stage][k].get(), s.step[k].get()));
      }
#pragma unroll
      for (int k = 0; k < quads; ++k) store_quad(k);
      if (p.sequence.data_handle() != nullptr && threadIdx.x < 32) {
        bool const starts = threadIdx.x < tile::steps && p.starts_sequence(b, t0 + threadIdx.x);
        unsigned const all = __ballot_sync(~0u, starts);
        if (threadIdx.x == 0) s.starts = all;
      }
      bool const all_small = __syncthreads_and(largest_step * largest_rate <= small_exponent);
      request_tile(t0 + tile::steps, stage ^ 1);  // nothing, after the last
#pragma unroll
      for (int k = 0; k < packets; ++k) request(s.gate[k], gate_at, k, has_gate ? left : 0);
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
        read_out(y_at, k, left, s.x[stage][k].get(), s.gate[k].get());
      }
      gate_at.advance(), y_at.advance();
    }
    if (blockIdx.y + 1 < p.segments) return;
    each_state([&](int c, int n, int k, int j) {
      if (has(c, n)) p.carry(b, channel + c, n) = h[k][j];
    });
  }
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
