// SPDX-License-Identifier: Apache-2.0
// selective_vjp_stage.cuh: eight steps of the inputs of Mamba's operator in shared memory, and
// their gradients back.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/selective_vjp_problem.cuh"

namespace ssm::gpu::detail {

/// A block has 16 states of 128 channels, a warp 32 of the channels, a thread half of the states of
/// two neighbouring ones. Eight steps are staged at a time, a packet for each thread, by each warp
/// for its own channels; four of them are differentiated at a time, with what they need again in
/// registers.
struct selective_vjp_tile {
  static constexpr int threads = 128;
  static constexpr int warps = threads / 32;
  static constexpr int channels = 128;
  static constexpr int warp_channels = channels / warps;
  static constexpr int states = 16;
  static constexpr int own_states = 8;
  static constexpr int steps = 8;
  static constexpr int together = 4;
  static constexpr int most = selective_scan_block / steps;  // tiles in a block of time
  using grid = packet_grid<steps, warp_channels>;
  static constexpr int quads = 2 * steps * states / 4;  // of B and C
  static_assert(grid::packets == 32 && quads <= threads);

  using thread_states = float4[2 * own_states / 4][threads];
  using row = float[channels];

  template <class T>
  struct shared {
    thread_states entering[2 * most - 2];     // every four steps of a block but the first and last
    float4 part[warps][2][2][8][4];           // of B and C in two steps, of four channels
    float4 pair[steps][channels / 2];         // Δ before its factor and Δ x, of two channels
    row arriving[steps];                      // the cotangent past the gate
    row x[steps], slope[steps], gate[steps];  // slope of Δ, of y's factor; then the gradients of
                                              // x, step_size and gate
    float4 projection[2][2][steps][states / 4];  // B and C, of this tile and the next
    float4 sums[warps][steps][2][states / 4];    // gradients of B and C of each warp
    packet_slots<T, threads> packet[4];          // as stored: x, step_size, y_cotangent, gate
    quad_slots<T, quads> quad;
    row bias, factor;
    T const* input[5][threads];  // where packets of each array, and quads, are in step 0
    float* output[3][threads];   // registers are for the states
    unsigned starts[2];          // bit t: a sequence starts there
  };

  /// Where the pair of channels 2i and 2i + 1 is in an even row, so that a warp's packets meet no
  /// bank twice; in odd rows it is `apart` channels away.
  __device__ static int swizzled(int i) { return i ^ (i >> 3 & 1); }
  __device__ static int apart(int t) { return 4 * (t & 1); }
};

template <class T, packing Packing>
class selective_vjp_stage {
 protected:
  using tile = selective_vjp_tile;
  using shared = tile::shared<T>;
  static constexpr bool Packed = Packing != packing::none;

  selective_vjp_problem<T> const& p;
  shared& s;
  channel_block block;
  index_t begin, end;

  __device__ selective_vjp_stage(selective_vjp_problem<T> const& problem, shared& memory)
      : p{problem}, s{memory}, block(problem, blockIdx.x, tile::channels) {
    begin = blockIdx.y * p.segment_length;
    end = begin + p.segment_length < p.length ? begin + p.segment_length : p.length;
    int const thread = static_cast<int>(threadIdx.x);
    bool const is_there = thread < block.channels;
    s.bias[thread] = is_there ? p.bias(block.channel + thread) : 0.0f;
    s.factor[thread] = is_there ? p.scaling.step_factor(block.channel + thread) : 0.0f;
    at_ = tile::grid::place(thread % 32, along_time());
    at_.y += thread / 32 * tile::warp_channels;
    int const there = block.channels - at_.y;
    bool const is_whole = there > 0 && (along_time() || there > packet_elements);
    channel_count_ = is_whole ? packet_elements : there > 0 ? there : 0;
    is_C_ = thread >= tile::quads / 2;
    quad_ = p.projections_along_time ? int2{thread % 2 * 4, thread / 2 % tile::states}
                                     : int2{thread / 4 % tile::steps, thread % 4 * 4};
    index_t const left = p.states - p.first_state - quad_.y;
    bool const has_quad = thread < tile::quads && left > 0;
    state_count_ = static_cast<int>(!has_quad ? 0 : left < 4 ? left : 4);
    s.input[4][thread] =
        (is_C_ ? p.C : p.B).at(block.b, quad_.x, block.group, p.first_state + quad_.y);
    auto const first = [&](auto const& array) {
      return array.at(block.b, at_.x, block.channel + at_.y);
    };
    s.input[0][thread] = first(p.x), s.input[1][thread] = first(p.step_size);
    s.input[2][thread] = first(p.y_cotangent), s.input[3][thread] = first(p.gate);
    // Neighbouring lanes leave neighbouring quads.
    out_ = Packing == packing::of_channels
               ? int2{thread % 32 / 8, thread / 32 * 32 + thread % 8 * 4}
               : at_;
    auto const out = [&](selective_array<float> const& array) {
      return array.at(block.b, out_.x, block.channel + out_.y);
    };
    s.output[0][thread] = out(p.to_x), s.output[1][thread] = out(p.to_step_size);
    s.output[2][thread] = out(p.to_gate);
    __syncthreads();
  }

  __device__ bool along_time() const {
    return Packed ? Packing == packing::of_steps : p.along_time;
  }

  /// Where a channel's pair is in an even row.
  __device__ static int place_of(int c) { return 2 * tile::swizzled(c / 2) + c % 2; }
  __device__ float2* pairs(int t) const { return reinterpret_cast<float2*>(s.pair[t]); }

  /// Ask for eight steps from t0 on; cotangents and gates only with `all`. Nothing outside of the
  /// segment.
  __device__ void request(index_t t0, bool all) {
    int const elements = count(t0);
    auto const ask = [&](int i, selective_array<T const> const& array) {
      s.packet[i].template request<Packed>(s.input[i][threadIdx.x] + t0 * array.time,
                                           array.stride(along_time()), elements);
    };
    ask(0, p.x), ask(1, p.step_size);
    if (all) {
      ask(2, p.y_cotangent);
      if (p.gate.data != nullptr) ask(3, p.gate);
    }
    if (threadIdx.x >= tile::quads) return;
    auto const& of = is_C_ ? p.C : p.B;
    int const left = steps_from(t0) - quad_.x;
    int const quad = left <= 0                                      ? 0
                     : p.projections_along_time && state_count_ > 0 ? (left < 4 ? left : 4)
                                                                    : state_count_;
    s.quad.template request<Packed>(s.input[4][threadIdx.x] + t0 * of.time,
                                    of.stride(p.projections_along_time), quad);
  }

  /// What was asked for, as numbers; B and C as those of tile i of a block.
  __device__ void store(index_t t0, int i, bool all) {
    wait_for_requests();
    __syncwarp();  // no lane reads the last tile any more
    float biased[packet_elements], step[packet_elements], slope[packet_elements],
        x[packet_elements], factor[packet_elements];
    {
      auto const steps = s.packet[1].get();
      of_channels(s.bias, biased);
#pragma unroll
      for (int k = 0; k < packet_elements; ++k) biased[k] += steps[k];
    }
#pragma unroll
    for (int k = 0; k < packet_elements; ++k) step[k] = biased[k], slope[k] = 1.0f;
    if (p.softplus) {
#pragma unroll
      for (int k = 0; k < packet_elements; ++k) step[k] = softplus(biased[k]);
      if (all) {
#pragma unroll
        for (int k = 0; k < packet_elements; ++k) slope[k] = softplus_slope(biased[k]);
      }
    }
    if (p.limited) {
#pragma unroll
      for (int k = 0; k < packet_elements; ++k) {
        if (step[k] < p.smallest_step || step[k] > p.largest_step) slope[k] = 0.0f;
        step[k] = clamp(step[k], p.smallest_step, p.largest_step);
      }
    }
    if (t0 + tile::steps > end) {  // a step that is not there changes nothing
      int const there = count(t0);
#pragma unroll
      for (int k = 0; k < packet_elements; ++k) {
        if (k >= there) step[k] = slope[k] = 0.0f;
      }
    }
    {
      auto const xs = s.packet[0].get();
#pragma unroll
      for (int k = 0; k < packet_elements; ++k) x[k] = xs[k];
    }
    of_channels(s.factor, factor);
#pragma unroll
    for (int k = 0; k < packet_elements; ++k) factor[k] *= step[k] * x[k];
    put_pairs(step, factor);
    if (all) {
      put(s.x, x), put(s.slope, slope);
      store_cotangents();
    }
    if (threadIdx.x < tile::quads) {
      float4 const quad = s.quad.get().numbers();
      auto& projection = s.projection[i % 2];
      if (p.projections_along_time) {
        auto* const to = &reinterpret_cast<float*>(projection[is_C_][quad_.x])[quad_.y];
        to[0] = quad.x, to[tile::states] = quad.y, to[2 * tile::states] = quad.z;
        to[3 * tile::states] = quad.w;
      } else {
        reinterpret_cast<float4*>(projection)[threadIdx.x] = quad;
      }
    }
    if (p.sequence.data_handle() != nullptr && threadIdx.x < 32) {
      bool const starts = threadIdx.x < tile::steps && p.starts_sequence(block.b, t0 + threadIdx.x);
      unsigned const bits = __ballot_sync(~0u, starts);
      if (threadIdx.x == 0) s.starts[i % 2] = bits;
    }
  }

  /// Bit t: step t of tile i starts a sequence.
  __device__ unsigned starts(int i) const {
    return p.sequence.data_handle() == nullptr ? 0 : s.starts[i % 2];
  }

  /// How many of the eight steps from t0 on are the segment's.
  __device__ int steps_from(index_t t0) const {
    index_t const left = end - t0;
    return t0 < begin ? 0 : left < tile::steps ? static_cast<int>(left) : tile::steps;
  }

  /// Leave the gradients of the eight steps from t0 on.
  __device__ void leave(index_t t0) const {
    if (p.adds()) {
      leave_all<true>(t0);
    } else {
      leave_all<false>(t0);
    }
  }

 private:
  /// The sigmoid of x, with the exponential that softplus has.
  __device__ static float softplus_slope(float x) {
    float const e = exp2(-fabsf(x) * log2_of_e);
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(1.0f + e));
    return x < 0.0f ? e * inverse : inverse;
  }

  /// All loads come before what is stored.
  template <bool Adds>
  __device__ void leave_all(index_t t0) const {
    tile::row const* const rows[] = {s.x, s.slope, s.gate};
    selective_array<float> const* const arrays[] = {&p.to_x, &p.to_step_size, &p.to_gate};
    alignas(16) float values[3][packet_elements];
    float* first[3];
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      first[i] = s.output[i][threadIdx.x] + t0 * arrays[i]->time;
      get_leaving(rows[i], values[i]);
    }
    int const steps = out_.y < block.channels ? steps_from(t0) - out_.x : 0, elements = count(t0);
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      bool const is_wanted = arrays[i]->data != nullptr;
      auto const* const four = reinterpret_cast<float4 const*>(values[i]);
      if constexpr (Packing == packing::of_channels) {
        leave_four<Adds>(is_wanted && steps > 0, first[i], four[0]);
        leave_four<Adds>(is_wanted && steps > 4, first[i] + 4 * arrays[i]->time, four[1]);
      } else if constexpr (Packed) {
        leave_four<Adds>(is_wanted && elements > 0, first[i], four[0]);
        leave_four<Adds>(is_wanted && elements > 0, first[i] + 4, four[1]);
      } else {
        index_t const stride = arrays[i]->stride(along_time());
#pragma unroll
        for (int k = 0; k < packet_elements; ++k) {
          if (!is_wanted || k >= elements) continue;
          float& to = first[i][k * stride];
          to = Adds ? to + values[i][k] : values[i][k];
        }
      }
    }
  }

  /// What this thread leaves: a packet, or a quad of one step and that of four steps later, which
  /// lie beside those of neighbouring lanes.
  __device__ void get_leaving(tile::row const* from, float (&values)[packet_elements]) const {
    if constexpr (Packing == packing::of_channels) {
      int const c = out_.y ^ tile::apart(out_.x);
      auto* const four = reinterpret_cast<float4*>(values);
      four[0] = reinterpret_cast<float4 const&>(from[out_.x][c]);
      four[1] = reinterpret_cast<float4 const&>(from[out_.x + 4][c]);
    } else {
      get(from, values);
    }
  }

  /// How many elements this thread's packet has.
  __device__ int count(index_t t0) const {
    int const left = steps_from(t0) - at_.x;
    if (left <= 0) return 0;
    return along_time() && left < channel_count_ ? left : channel_count_;
  }

  /// Eight numbers of the block's channels, those of this thread's packet.
  __device__ void of_channels(tile::row const& from, float (&to)[packet_elements]) const {
    if (along_time()) {
#pragma unroll
      for (float& number : to) number = from[at_.y];
    } else {
#pragma unroll
      for (int i = 0; i < packet_elements; i += 4) {
        float4 const four = reinterpret_cast<float4 const&>(from[at_.y + i]);
        to[i] = four.x, to[i + 1] = four.y, to[i + 2] = four.z, to[i + 3] = four.w;
      }
    }
  }

  __device__ void put_pairs(float const (&first)[packet_elements],
                            float const (&second)[packet_elements]) const {
    if (along_time()) {
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) {
        pairs(i)[place_of(at_.y) ^ tile::apart(i)] = {first[i], second[i]};
      }
    } else {
#pragma unroll
      for (int i = 0; i < packet_elements; i += 2) {
        s.pair[at_.x][tile::swizzled((at_.y + i) / 2) ^ tile::apart(at_.x) / 2] = {
            first[i], second[i], first[i + 1], second[i + 1]};
      }
    }
  }
  __device__ void put(tile::row* to, float const (&values)[packet_elements]) const {
    if (along_time()) {
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) to[i][at_.y ^ tile::apart(i)] = values[i];
    } else {
#pragma unroll
      for (int i = 0; i < packet_elements; i += 4) {
        reinterpret_cast<float4&>(to[at_.x][(at_.y + i) ^ tile::apart(at_.x)]) = {
            values[i], values[i + 1], values[i + 2], values[i + 3]};
      }
    }
  }
  __device__ void get(tile::row const* from, float (&values)[packet_elements]) const {
    if (along_time()) {
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) values[i] = from[i][at_.y ^ tile::apart(i)];
    } else {
#pragma unroll
      for (int i = 0; i < packet_elements; i += 4) {
        auto const& at = from[at_.x][(at_.y + i) ^ tile::apart(at_.x)];
        float4 const four = reinterpret_cast<float4 const&>(at);
        values[i] = four.x, values[i + 1] = four.y;
        values[i + 2] = four.z, values[i + 3] = four.w;
      }
    }
  }

  __device__ void store_cotangents() const {
    float arriving[packet_elements];
    auto const arrived = s.packet[2].get();
#pragma unroll
    for (int k = 0; k < packet_elements; ++k) arriving[k] = arrived[k];
    if (p.gate.data != nullptr) {
      auto const gates = s.packet[3].get();
      float gate[packet_elements];
#pragma unroll
      for (int k = 0; k < packet_elements; ++k) {
        float const open = sigmoid(gates[k]), opened = arriving[k] * open;
        gate[k] = opened * fmaf(gates[k], 1.0f - open, 1.0f);
        arriving[k] = opened * gates[k];
      }
      put(s.gate, gate);
    }
    put(s.arriving, arriving);
  }

  int2 at_, out_;  // this thread's packet, and what it leaves
  int channel_count_, state_count_;
  int2 quad_;  // the first step and state of this thread's of B or C
  bool is_C_;
};

}  // namespace ssm::gpu::detail
