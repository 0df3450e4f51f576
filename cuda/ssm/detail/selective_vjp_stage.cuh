// SPDX-License-Identifier: Apache-2.0
// selective_vjp_stage.cuh: eight steps of the inputs of Mamba's operator in shared memory, and
// their gradients back.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/selective_vjp_problem.cuh"

namespace ssm::gpu::detail {

/// A block has 16 states of 128 channels, a thread half of the states of two neighbouring channels.
/// Eight steps are staged at a time, a packet for each thread.
struct selective_vjp_tile {
  static constexpr int threads = 128;
  static constexpr int warps = threads / 32;
  static constexpr int channels = 128;
  static constexpr int states = 16;
  static constexpr int own_states = 8;
  static constexpr int steps = 8;
  static constexpr int quads = 2 * steps * states / 4;  // of B and C
  using grid = packet_grid<steps, channels>;
  static_assert(grid::packets == threads && quads <= threads);

  using thread_states = float4[2 * own_states / 4][threads];

  struct shared {
    thread_states passed[steps - 1];   // w of all steps but the last
    thread_states entering[2];         // the states that enter the second and third tile of a block
    float4 pair[steps][channels / 2];  // Δ, x of two channels; then the gradients of x, step_size
    float4 arriving[steps][channels / 2];     // the cotangent past the gate, the slope of Δ
    float gate[steps][channels];              // what y multiplies; then the gradient of the gate
    float4 projection[2][steps][states / 4];  // B and C
    float sums[2][warps][steps][states];      // gradients of B and C of each warp
    float bias[channels];
    unsigned starts;  // bit t: a sequence starts there
  };

  /// Where the pair of channels 2i and 2i + 1 is, so that a warp's packets meet no bank twice.
  __device__ static int swizzled(int i) { return i ^ (i >> 3 & 3); }
};

template <class T, bool Packed>
class selective_vjp_stage {
 protected:
  using tile = selective_vjp_tile;

  selective_vjp_problem<T> const& p;
  tile::shared& s;
  channel_block block;
  index_t begin, end;

  __device__ selective_vjp_stage(selective_vjp_problem<T> const& problem, tile::shared& memory)
      : p{problem},
        s{memory},
        block(problem, blockIdx.x, tile::channels),
        at_{tile::grid::place(static_cast<int>(threadIdx.x), p.along_time)} {
    begin = blockIdx.y * p.segment_length;
    end = begin + p.segment_length < p.length ? begin + p.segment_length : p.length;
    int const thread = static_cast<int>(threadIdx.x);
    s.bias[thread] = thread < block.channels ? p.bias(block.channel + thread) : 0.0f;
    int const there = block.channels - at_.y;
    bool const is_whole = there > 0 && (p.along_time || there > packet_elements);
    channel_count_ = is_whole ? packet_elements : there > 0 ? there : 0;
    is_C_ = thread >= tile::quads / 2;
    quad_ = p.projections_along_time ? int2{thread % 2 * 4, thread / 2 % tile::states}
                                     : int2{thread / 4 % tile::steps, thread % 4 * 4};
    index_t const left = p.states - p.first_state - quad_.y;
    bool const has_quad = thread < tile::quads && left > 0;
    state_count_ = static_cast<int>(!has_quad ? 0 : left < 4 ? left : 4);
    quads_ = (is_C_ ? p.C : p.B).at(block.b, quad_.x, block.group, p.first_state + quad_.y);
    auto const first = [&](auto const& array) {
      return array.at(block.b, at_.x, block.channel + at_.y);
    };
    x_ = first(p.x), step_ = first(p.step_size);
    arriving_ = first(p.y_cotangent), gate_ = first(p.gate);
    __syncthreads();
  }

  /// Where a channel's pair or arriving is in the row of a step.
  __device__ static int place_of(int c) { return 2 * tile::swizzled(c / 2) + c % 2; }
  __device__ float2* pairs(int t) const { return reinterpret_cast<float2*>(s.pair[t]); }
  __device__ float2* arriving(int t) const { return reinterpret_cast<float2*>(s.arriving[t]); }

  /// Ask for eight steps from t0 on; cotangents and gates only with `all`. Nothing outside of the
  /// segment.
  __device__ void request(index_t t0, bool all) {
    int const elements = count(t0);
    auto const load = [&](T const* from, selective_array<T const> const& array, int count) {
      return load_packet<Packed>(from + t0 * array.time, array.stride(p.along_time), count);
    };
    next_x_ = load(x_, p.x, elements);
    next_step_ = load(step_, p.step_size, elements);
    next_arriving_ = load(arriving_, p.y_cotangent, all ? elements : 0);
    next_gate_ = load(gate_, p.gate, all && p.gate.data != nullptr ? elements : 0);
    auto const& of = is_C_ ? p.C : p.B;
    index_t const left = t0 < begin || state_count_ == 0 ? 0 : end - t0 - quad_.x;
    int const quad = left <= 0                   ? 0
                     : !p.projections_along_time ? state_count_
                     : left < 4                  ? static_cast<int>(left)
                                                 : 4;
    next_quad_ =
        load_quad_of<Packed>(quads_ + t0 * of.time, of.stride(p.projections_along_time), quad);
  }

  /// What was asked for to shared memory.
  __device__ void store(index_t t0, bool all) {
    float biased[packet_elements], step[packet_elements], slope[packet_elements];
    if (p.along_time) {
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) biased[i] = next_step_[i] + s.bias[at_.y];
    } else {
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) biased[i] = next_step_[i] + s.bias[at_.y + i];
    }
#pragma unroll
    for (int i = 0; i < packet_elements; ++i) step[i] = biased[i], slope[i] = 1.0f;
    if (p.softplus) {
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) {
        step[i] = softplus(biased[i]), slope[i] = softplus_slope(biased[i]);
      }
    }
    if (p.limited) {
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) {
        if (step[i] < p.smallest_step || step[i] > p.largest_step) slope[i] = 0.0f;
        step[i] = clamp(step[i], p.smallest_step, p.largest_step);
      }
    }
    if (t0 + tile::steps > end) {  // a step that is not there changes nothing
      int const there = count(t0);
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) {
        if (i >= there) step[i] = slope[i] = 0.0f;
      }
    }
    float2 pair[packet_elements];
#pragma unroll
    for (int i = 0; i < packet_elements; ++i) pair[i] = {step[i], next_x_[i]};
    put(s.pair, pair);
    if (all) store_cotangents(slope);
    if (threadIdx.x < tile::quads) {
      float4 const quad = next_quad_.numbers();
      if (p.projections_along_time) {
        auto* const to = &reinterpret_cast<float*>(s.projection[is_C_][quad_.x])[quad_.y];
        to[0] = quad.x, to[tile::states] = quad.y, to[2 * tile::states] = quad.z;
        to[3 * tile::states] = quad.w;
      } else {
        reinterpret_cast<float4*>(s.projection)[threadIdx.x] = quad;
      }
    }
    if (p.sequence.data_handle() != nullptr && threadIdx.x < 32) {
      bool const starts = threadIdx.x < tile::steps && p.starts_sequence(block.b, t0 + threadIdx.x);
      unsigned const bits = __ballot_sync(~0u, starts);
      if (threadIdx.x == 0) s.starts = bits;
    }
  }

  /// Bit t: step t of what is staged starts a sequence.
  __device__ unsigned starts() const {
    return p.sequence.data_handle() == nullptr ? 0 : s.starts;
  }

  /// Add the gradients of the eight steps from t0 on.
  __device__ void add(index_t t0) const {
    float x[packet_elements], step[packet_elements], gate[packet_elements];
    if (p.along_time) {
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) {
        float2 const both = pairs(at_.x + i)[place_of(at_.y)];
        x[i] = both.x, step[i] = both.y, gate[i] = s.gate[at_.x + i][at_.y];
      }
    } else {
#pragma unroll
      for (int i = 0; i < packet_elements; i += 2) {
        float4 const two = s.pair[at_.x][tile::swizzled((at_.y + i) / 2)];
        x[i] = two.x, step[i] = two.y, x[i + 1] = two.z, step[i + 1] = two.w;
      }
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) gate[i] = s.gate[at_.x][at_.y + i];
    }
    int const elements = count(t0);
    auto const add_to = [&](selective_array<float> const& to, auto const& values) {
      if (to.data == nullptr) return;
      add_packet<Packed>(to.at(block.b, t0 + at_.x, block.channel + at_.y), to.stride(p.along_time),
                         elements, values);
    };
    add_to(p.to_x, x), add_to(p.to_step_size, step), add_to(p.to_gate, gate);
  }

 private:
  /// The sigmoid of x, with the exponential that softplus has.
  __device__ static float softplus_slope(float x) {
    float const e = exp2(-fabsf(x) * log2_of_e);
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(1.0f + e));
    return x < 0.0f ? e * inverse : inverse;
  }

  /// How many elements this thread's packet has.
  __device__ int count(index_t t0) const {
    index_t const left = end - t0 - at_.x;
    if (t0 < begin || left <= 0) return 0;
    return p.along_time && left < channel_count_ ? static_cast<int>(left) : channel_count_;
  }

  __device__ void put(float4 (&to)[tile::steps][tile::channels / 2],
                      float2 const (&values)[packet_elements]) const {
    if (p.along_time) {
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) {
        reinterpret_cast<float2*>(to[at_.x + i])[place_of(at_.y)] = values[i];
      }
    } else {
#pragma unroll
      for (int i = 0; i < packet_elements; i += 2) {
        to[at_.x][tile::swizzled((at_.y + i) / 2)] = {values[i].x, values[i].y, values[i + 1].x,
                                                      values[i + 1].y};
      }
    }
  }

  __device__ void store_cotangents(float const (&slope)[packet_elements]) {
    float2 both[packet_elements];
#pragma unroll
    for (int i = 0; i < packet_elements; ++i) both[i] = {next_arriving_[i], slope[i]};
    if (p.gate.data != nullptr) {
      float gate[packet_elements];
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) {
        float const open = sigmoid(next_gate_[i]), opened = both[i].x * open;
        gate[i] = opened * fmaf(next_gate_[i], 1.0f - open, 1.0f);
        both[i].x = opened * next_gate_[i];
      }
      if (p.along_time) {
#pragma unroll
        for (int i = 0; i < packet_elements; ++i) s.gate[at_.x + i][at_.y] = gate[i];
      } else {
#pragma unroll
        for (int i = 0; i < packet_elements; i += 4) {
          reinterpret_cast<float4&>(s.gate[at_.x][at_.y + i]) = {gate[i], gate[i + 1], gate[i + 2],
                                                                 gate[i + 3]};
        }
      }
    }
    put(s.arriving, both);
  }

  int2 at_;  // this thread's packet
  int channel_count_, state_count_;
  int2 quad_;  // the first step and state of this thread's of B or C
  bool is_C_;
  T const *x_, *step_, *arriving_, *gate_, *quads_;  // in step 0
  stored_packet<T> next_x_, next_step_, next_arriving_, next_gate_;
  stored_quad<T> next_quad_;
};

}  // namespace ssm::gpu::detail
