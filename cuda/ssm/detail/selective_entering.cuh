// SPDX-License-Identifier: Apache-2.0
// selective_entering.cuh: the states that enter the segments of time, so that these can run side by
// side.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/selective_problem.cuh"

namespace ssm::gpu::detail {

/// What a segment adds to the state that leaves it, h = Σ_t exp(A'·Σ_{s>t} Δ_s) Δ_t B_t x_t,
/// walking back from its end. A state is left where all that is further back would be multiplied by
/// less than 2^threshold: what is dropped is at most that part of the state there. A block walks 32
/// channels; its warps share out up to 16 states, each one by one, so that a warp is done when its
/// slowest states have decayed.
struct entering_tile {
  static constexpr int threads = 128;
  static constexpr int warps = threads / 32;
  static constexpr int steps = 32;
  static constexpr int channels = 32;
  static constexpr int states = 16;
  static constexpr int warp_states = states / warps;
  using grid = packet_grid<steps, channels>;

  struct shared {
    float4 pair[steps][channels / 2];  // Σ_{s>t} Δ_s and Δ·x of two channels
    float B[states][steps];
    float sum[warps][channels];
  };
};

template <class T, bool Packed>
class entering_block {
  using tile = entering_tile;

 public:
  __device__ entering_block(selective_problem<T> const& problem, tile::shared& memory)
      : p{problem}, s{memory} {
    index_t const blocks = (p.group_channels + tile::channels - 1) / tile::channels;
    index_t const groups = p.channels / p.group_channels;
    index_t const parts = (p.states + tile::states - 1) / tile::states;
    index_t index = blockIdx.x;
    first_state_ = static_cast<int>(index % parts) * tile::states;
    index /= parts;
    index_t const block = index % blocks;
    group_ = index / blocks % groups;
    b_ = index / blocks / groups;
    channel_ = group_ * p.group_channels + block * tile::channels;
    index_t const left = p.group_channels - block * tile::channels;
    channels_ = static_cast<int>(left < tile::channels ? left : tile::channels);
    begin_ = blockIdx.y * p.segment_length;
    warp_ = static_cast<int>(threadIdx.x) / 32;
    lane_ = static_cast<int>(threadIdx.x) % 32;
  }

  __device__ void run() {
    unsigned alive = 0;
#pragma unroll
    for (int i = 0; i < tile::warp_states; ++i) {
      int const n = state(i);
      rate_[i] = lane_ < channels_ && n < p.states ? p.rate(channel_ + lane_, n) : 0.0f;
      sum_[i] = 0.0f;
      decay_[i] = 1.0f;
      if (n < p.states) alive |= 1u << i;
    }
    bool const has_channel = lane_ < channels_;
    float const bias = has_channel ? p.bias(channel_ + lane_) : 0.0f;
    float const factor = has_channel ? p.scaling.step_factor(channel_ + lane_) : 0.0f;
    float walked = 0.0f, rest = 0.0f;  // Σ Δ so far, and what rounding left out of it
    unsigned long long visited = 0;
    request(begin_ + p.segment_length - tile::steps);
#pragma unroll 1
    for (index_t t0 = begin_ + p.segment_length - tile::steps; t0 >= begin_; t0 -= tile::steps) {
      store();
      __syncthreads();
      request(t0 - tile::steps);  // nothing, before the first
      bool const is_cut = discretize(t0, bias, factor, walked, rest);
#pragma unroll
      for (int i = 0; i < tile::warp_states; ++i) {
        if (alive >> i & 1) {
          add(i);
          visited += tile::steps;
        }
      }
      if (is_cut) {
        for (float& decay : decay_) decay = 0.0f;
        break;
      }
#pragma unroll
      for (int i = 0; i < tile::warp_states; ++i) {
        bool const is_dead = !has_channel || rate_[i] * walked < p.threshold;
        if ((alive >> i & 1) && __all_sync(~0u, is_dead)) {
          alive &= ~(1u << i);
          decay_[i] = 0.0f;
        }
      }
      if (!__syncthreads_or(alive != 0)) break;
    }
#pragma unroll
    for (int i = 0; i < tile::warp_states; ++i) {
      int const n = state(i);
      if (!has_channel || n >= p.states) continue;
      p.entering[p.segment_state(b_, blockIdx.y + 1, n, channel_ + lane_)] = sum_[i];
      p.decay[p.segment_state(b_, blockIdx.y, n, channel_ + lane_)] =
          decay_[i] == 0.0f ? 0.0f : exp2(rate_[i] * walked);
    }
    if (p.visited != nullptr && lane_ == 0) atomicAdd(p.visited, visited * channels_);
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

  /// Ask for a tile's projected step sizes, x and B.
  __device__ void request(index_t t0) {
    int2 const at = tile::grid::place(static_cast<int>(threadIdx.x), p.along_time);
    int const left = channels_ - at.y;
    int const there = left < 0 || t0 < begin_ ? 0 : p.along_time && left > 0 ? 8 : left;
    int const count = there < packet_elements ? there : packet_elements;
    index_t const t = t0 + at.x, c = channel_ + at.y;
    next_x_ = load_packet<Packed>(p.x.at(b_, t, c), p.x.stride(p.along_time), count);
    next_step_ =
        load_packet<Packed>(p.step_size.at(b_, t, c), p.step_size.stride(p.along_time), count);
    // 32 steps of 4 quads.
    int const n = first_state_ + 4 * warp_;
    next_B_ = load_states<Packed>(p.B.at(b_, t0 + lane_, group_, n), p.B.state,
                                  t0 < begin_ ? 0 : static_cast<int>(p.states) - n);
  }

  /// What was asked for to shared memory.
  __device__ void store() {
    int2 const at = tile::grid::place(static_cast<int>(threadIdx.x), p.along_time);
    if (p.along_time) {
#pragma unroll
      for (int k = 0; k < packet_elements; ++k) {
        pair(at.x + k, at.y) = {next_step_[k], next_x_[k]};
      }
    } else {
#pragma unroll
      for (int k = 0; k < packet_elements; k += 2) {
        s.pair[at.x][swizzled((at.y + k) / 2)] = {next_step_[k], next_x_[k], next_step_[k + 1],
                                                  next_x_[k + 1]};
      }
    }
    float4 const quad = next_B_.numbers();
    s.B[4 * warp_][lane_] = quad.x, s.B[4 * warp_ + 1][lane_] = quad.y;
    s.B[4 * warp_ + 2][lane_] = quad.z, s.B[4 * warp_ + 3][lane_] = quad.w;
  }

  /// Turn pairs into Σ_{s>t} Δ_s and Δ_t x_t. Warp w has the steps 8w to 8w + 7 of all channels.
  /// Whether a sequence starts in this tile: then what was before its last start does not count.
  __device__ bool discretize(index_t t0, float bias, float factor, float& walked, float& rest) {
    constexpr int own_steps = tile::steps / tile::warps;
    float projected[own_steps], biases[own_steps], factors[own_steps], x[own_steps];
#pragma unroll
    for (int k = 0; k < own_steps; ++k) {
      float2 const stored = pair(warp_ * own_steps + k, lane_);
      projected[k] = stored.x, x[k] = stored.y;
      biases[k] = bias, factors[k] = factor;
    }
    float step[own_steps];
    p.steps(projected, biases, factors, lane_ < channels_ ? own_steps : 0, step);
    float2 own[own_steps];
    float sum = 0.0f;
#pragma unroll
    for (int k = own_steps - 1; k >= 0; --k) {
      own[k] = {sum, step[k] * x[k]};
      sum += step[k];
    }
    s.sum[warp_][lane_] = sum;
    unsigned starts = 0;
    if (p.sequence.data_handle() != nullptr) {
      starts = __ballot_sync(~0u, p.starts_sequence(b_, t0 + lane_));
    }
    int const first = starts == 0 ? 0 : 31 - __clz(static_cast<int>(starts));
    __syncthreads();
    float after = walked, all = 0.0f;
#pragma unroll
    for (int w = tile::warps - 1; w >= 0; --w) {
      float const there = s.sum[w][lane_];
      if (w > warp_) after += there;
      all += there;
    }
#pragma unroll
    for (int k = 0; k < own_steps; ++k) {
      int const t = warp_ * own_steps + k;
      pair(t, lane_) = {after + own[k].x, t < first ? 0.0f : own[k].y};
    }
    // Kahan: walked has thousands of terms.
    float const more = all - rest;
    float const next = walked + more;
    rest = (next - walked) - more;
    walked = next;
    __syncthreads();
    return starts != 0;
  }

  __device__ void add(int i) {
    float const rate = rate_[i];
    auto const* const B = reinterpret_cast<float4 const*>(s.B[i * tile::warps + warp_]);
    float sum = sum_[i];
#pragma unroll
    for (int q = tile::steps / 4 - 1; q >= 0; --q) {
      float4 const of_B = B[q];
      float const step_B[4] = {of_B.x, of_B.y, of_B.z, of_B.w};
#pragma unroll
      for (int k = 3; k >= 0; --k) {
        float2 const own = pair(4 * q + k, lane_);
        sum = fmaf(exp2(rate * own.x), own.y * step_B[k], sum);
      }
    }
    sum_[i] = sum;
  }

  selective_problem<T> const& p;
  tile::shared& s;
  index_t b_, group_, channel_, begin_;
  int channels_, first_state_, warp_, lane_;
  stored_packet<T> next_x_, next_step_;
  stored_states<T> next_B_;
  float rate_[tile::warp_states], sum_[tile::warp_states], decay_[tile::warp_states];
};

template <class T, bool Packed>
__global__ void __launch_bounds__(128)
    entering_kernel(__grid_constant__ selective_problem<T> const p) {
  __shared__ entering_tile::shared memory;
  entering_block<T, Packed>(p, memory).run();
}

/// From what each segment adds to the state that enters each: h_s+1 = decay_s h_s + added_s.
template <class T>
__global__ void __launch_bounds__(128) fold_kernel(__grid_constant__ selective_problem<T> const p) {
  index_t const i = blockIdx.x * index_t{blockDim.x} + threadIdx.x;
  index_t const c = i % p.channels, n = i / p.channels % p.states, b = i / p.channels / p.states;
  if (b >= p.batch) return;
  float h = p.initial(b, c, n);
  p.entering[p.segment_state(b, 0, n, c)] = h;
#pragma unroll 4
  for (index_t segment = 0; segment + 1 < p.segments; ++segment) {
    float& entering = p.entering[p.segment_state(b, segment + 1, n, c)];
    float const decay = p.decay[p.segment_state(b, segment, n, c)];
    // A decay of 0 cuts even what is infinite, as a start of a sequence does.
    h = decay == 0.0f ? entering : fmaf(decay, h, entering);
    entering = h;
  }
}

}  // namespace ssm::gpu::detail
