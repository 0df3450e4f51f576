// SPDX-License-Identifier: Apache-2.0
// selective_vjp_arriving.cuh: the cotangents of the states that leave the segments of time, so that
// these can run side by side.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/selective_vjp_problem.cuh"

namespace ssm::gpu::detail {

/// What a segment gives the cotangent of the state that enters it,
/// e = Σ_t exp(A'·Σ_{s≤t} Δ_s) C_t dy_t, walking from its begin: the mirror of entering_kernel. A
/// state is left where all that comes later would be multiplied by less than 2^threshold: what is
/// dropped is at most that part of the state's cotangent there. A block walks 32 channels; its
/// warps share out up to 16 states, each one by one.
struct arriving_tile {
  static constexpr int threads = 128;
  static constexpr int warps = threads / 32;
  static constexpr int steps = 32;
  static constexpr int channels = 32;
  static constexpr int states = 16;
  static constexpr int warp_states = states / warps;
  using grid = packet_grid<steps, channels>;

  struct shared {
    float4 pair[steps][channels / 2];  // Σ_{s≤t} Δ_s and dy of two channels
    float C[states][steps];
    float sum[warps][channels];
  };
};

template <class T, bool Packed>
class arriving_block {
  using tile = arriving_tile;

 public:
  __device__ arriving_block(selective_vjp_problem<T> const& problem, tile::shared& memory,
                            index_t parts)
      : p{problem},
        s{memory},
        block(problem, blockIdx.x / parts, tile::channels),
        first_state_{static_cast<int>(blockIdx.x % parts) * tile::states},
        warp_{static_cast<int>(threadIdx.x) / 32},
        lane_{static_cast<int>(threadIdx.x) % 32} {
    begin_ = (blockIdx.y + 1) * p.segment_length;
    end_ = begin_ + p.segment_length < p.length ? begin_ + p.segment_length : p.length;
  }

  __device__ void run() {
    bool const has_channel = lane_ < block.channels;
    index_t const c = block.channel + lane_;
    unsigned alive = 0;
    float rate[tile::warp_states], sum[tile::warp_states] = {}, decay[tile::warp_states];
#pragma unroll
    for (int i = 0; i < tile::warp_states; ++i) {
      rate[i] = has_channel && state(i) < p.states ? p.rate(c, state(i)) : 0.0f;
      decay[i] = 1.0f;
      if (state(i) < p.states) alive |= 1u << i;
    }
    float const bias = has_channel ? p.bias(c) : 0.0f;
    float const factor = has_channel ? p.scaling.step_factor(c) : 0.0f;
    float walked = 0.0f, rest = 0.0f;  // Σ Δ so far, and what rounding left out of it
    request(begin_);
#pragma unroll 1
    for (index_t t0 = begin_; t0 < end_; t0 += tile::steps) {
      store();
      __syncthreads();
      request(t0 + tile::steps);  // nothing, after the last
      bool const is_cut = discretize(t0, bias, factor, walked, rest);
#pragma unroll
      for (int i = 0; i < tile::warp_states; ++i) {
        if (alive >> i & 1) sum[i] = added(i, rate[i], sum[i]);
      }
      if (is_cut) {
        for (float& each : decay) each = 0.0f;
        break;
      }
#pragma unroll
      for (int i = 0; i < tile::warp_states; ++i) {
        bool const is_dead = !has_channel || rate[i] * walked < p.threshold;
        if ((alive >> i & 1) && __all_sync(~0u, is_dead)) {
          alive &= ~(1u << i);
          decay[i] = 0.0f;
        }
      }
      if (!__syncthreads_or(alive != 0)) break;
    }
#pragma unroll
    for (int i = 0; i < tile::warp_states; ++i) {
      int const n = state(i);
      if (!has_channel || n >= p.states) continue;
      p.arriving[p.segment_state(block.b, blockIdx.y, n, c)] = sum[i];
      p.decay[p.segment_state(block.b, blockIdx.y + 1, n, c)] =
          decay[i] == 0.0f ? 0.0f : exp2(rate[i] * walked);
    }
  }

 private:
  __device__ int state(int i) const {
    return first_state_ + i * tile::warps + warp_;
  }

  __device__ static int swizzled(int i) {
    return i ^ (i >> 3 & 3);
  }
  __device__ float2& pair(int t, int c) const {
    return reinterpret_cast<float2*>(&s.pair[t][swizzled(c / 2)])[c % 2];
  }
  __device__ int2 place() const {
    return tile::grid::place(static_cast<int>(threadIdx.x), p.along_time);
  }

  /// The step and state of this thread's first of four elements of C.
  __device__ int2 quad_place() const {
    return p.projections_along_time ? int2{lane_ % 8 * 4, 4 * warp_ + lane_ / 8}
                                    : int2{lane_, 4 * warp_};
  }

  /// Ask for a tile's projected step sizes, cotangents, gates and C.
  __device__ void request(index_t t0) {
    int2 const at = place();
    int const channels = block.channels - at.y;
    index_t const steps = end_ - t0 - at.x;
    index_t const left = channels <= 0 || steps <= 0 ? 0 : p.along_time ? steps : channels;
    int const count = static_cast<int>(left < packet_elements ? left : packet_elements);
    index_t const t = t0 + at.x, c = block.channel + at.y;
    auto const load = [&](selective_array<T const> const& from, int elements) {
      return load_packet<Packed>(from.at(block.b, t, c), from.stride(p.along_time), elements);
    };
    next_step_ = load(p.step_size, count);
    next_arriving_ = load(p.y_cotangent, count);
    next_gate_ = load(p.gate, p.gate.data == nullptr ? 0 : count);
    int2 const quad = quad_place();
    index_t const steps_left = end_ - t0 - quad.x, states_left = p.states - first_state_ - quad.y;
    index_t const of_C = p.projections_along_time ? steps_left : states_left;
    int const elements = steps_left <= 0 || states_left <= 0 ? 0 : of_C < 4 ? int(of_C) : 4;
    next_C_ = load_quad_of<Packed>(p.C.at(block.b, t0 + quad.x, block.group, first_state_ + quad.y),
                                   p.C.stride(p.projections_along_time), elements);
  }

  /// What was asked for to shared memory, cotangents past the gate.
  __device__ void store() {
    int2 const at = place();
#pragma unroll
    for (int i = 0; i < packet_elements; ++i) {
      float dy = next_arriving_[i];
      if (p.gate.data != nullptr) dy *= next_gate_[i] * sigmoid(next_gate_[i]);
      int const t = p.along_time ? at.x + i : at.x, c = p.along_time ? at.y : at.y + i;
      pair(t, c) = {next_step_[i], dy};
    }
    float4 const quad = next_C_.numbers();
    int2 const C = quad_place();
    if (p.projections_along_time) {
      reinterpret_cast<float4&>(s.C[C.y][C.x]) = quad;
    } else {
      s.C[C.y][C.x] = quad.x, s.C[C.y + 1][C.x] = quad.y;
      s.C[C.y + 2][C.x] = quad.z, s.C[C.y + 3][C.x] = quad.w;
    }
  }

  /// Turn projected step sizes into Σ_{s≤t} Δ_s. Warp w has the steps 8w to 8w + 7 of all channels.
  /// Whether a sequence starts in this tile: then what is after its first start does not count.
  __device__ bool discretize(index_t t0, float bias, float factor, float& walked, float& rest) {
    constexpr int own_steps = tile::steps / tile::warps;
    float projected[own_steps], dy[own_steps], biases[own_steps], factors[own_steps];
#pragma unroll
    for (int k = 0; k < own_steps; ++k) {
      float2 const stored = pair(warp_ * own_steps + k, lane_);
      projected[k] = stored.x, dy[k] = stored.y;
      biases[k] = bias, factors[k] = factor;
    }
    index_t const left = lane_ < block.channels ? end_ - t0 - warp_ * own_steps : 0;
    int const there = static_cast<int>(left < 0 ? 0 : left < own_steps ? left : own_steps);
    float step[own_steps], upto[own_steps];
    p.steps(projected, biases, factors, step);
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < own_steps; ++k) upto[k] = sum += k < there ? step[k] : 0.0f;
    s.sum[warp_][lane_] = sum;
    unsigned starts = 0;
    if (p.sequence.data_handle() != nullptr) {
      starts = __ballot_sync(~0u, p.starts_sequence(block.b, t0 + lane_));
    }
    int const last = starts == 0 ? tile::steps : __ffs(static_cast<int>(starts)) - 1;
    __syncthreads();
    float before = walked, all = 0.0f;
#pragma unroll
    for (int w = 0; w < tile::warps; ++w) {
      float const there_too = s.sum[w][lane_];
      if (w < warp_) before += there_too;
      all += there_too;
    }
#pragma unroll
    for (int k = 0; k < own_steps; ++k) {
      int const t = warp_ * own_steps + k;
      pair(t, lane_) = {before + upto[k], t < last ? dy[k] : 0.0f};
    }
    // Kahan: walked has thousands of terms.
    float const more = all - rest;
    float const next = walked + more;
    rest = (next - walked) - more;
    walked = next;
    __syncthreads();
    return starts != 0;
  }

  __device__ float added(int i, float rate, float sum) const {
    auto const* const C = reinterpret_cast<float4 const*>(s.C[i * tile::warps + warp_]);
#pragma unroll
    for (int q = 0; q < tile::steps / 4; ++q) {
      float4 const of_C = C[q];
      float const step_C[4] = {of_C.x, of_C.y, of_C.z, of_C.w};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        float2 const own = pair(4 * q + k, lane_);
        sum = fmaf(exp2(rate * own.x), own.y * step_C[k], sum);
      }
    }
    return sum;
  }

  selective_vjp_problem<T> const& p;
  tile::shared& s;
  channel_block block;
  int first_state_, warp_, lane_;
  index_t begin_, end_;
  stored_packet<T> next_step_, next_arriving_, next_gate_;
  stored_quad<T> next_C_;
};

template <class T, bool Packed>
__global__ void __launch_bounds__(128)
    arriving_kernel(__grid_constant__ selective_vjp_problem<T> const p) {
  __shared__ arriving_tile::shared memory;
  index_t const parts = (p.states + arriving_tile::states - 1) / arriving_tile::states;
  arriving_block<T, Packed>(p, memory, parts).run();
}

/// From what each segment gives and the cotangent of the final state to the cotangent of the state
/// that leaves each: e_s-1 = decay_s e_s + given_s.
template <class T>
__global__ void __launch_bounds__(128)
    fold_back_kernel(__grid_constant__ selective_vjp_problem<T> const p) {
  index_t const i = blockIdx.x * index_t{blockDim.x} + threadIdx.x;
  index_t const c = i % p.channels, n = i / p.channels % p.states, b = i / p.channels / p.states;
  if (b >= p.batch) return;
  float e = p.carry_cotangent(b, c, n);
  p.arriving[p.segment_state(b, p.segments - 1, n, c)] = e;
#pragma unroll 4
  for (index_t segment = p.segments - 1; segment > 0; --segment) {
    float& arriving = p.arriving[p.segment_state(b, segment - 1, n, c)];
    float const decay = p.decay[p.segment_state(b, segment, n, c)];
    // A decay of 0 cuts even what is infinite, as a start of a sequence does.
    e = decay == 0.0f ? arriving : fmaf(decay, e, arriving);
    arriving = e;
  }
}

}  // namespace ssm::gpu::detail
