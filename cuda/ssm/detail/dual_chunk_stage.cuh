// SPDX-License-Identifier: Apache-2.0
// dual_chunk_stage.cuh: the way of a chunk of steps from memory to shared memory, and what its
// decays are.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/dual_chunk_tile.cuh"
#include "ssm/detail/dual_problem.cuh"
#include "ssm/detail/element.cuh"

namespace ssm::gpu::detail {

/// Copy 16 bytes, or zeros where there are none, to shared memory while the thread goes on.
__device__ inline void request_packet(void* to_shared, void const* from_global, bool is_there) {
  auto const to = static_cast<unsigned>(__cvta_generic_to_shared(to_shared));
  asm volatile(
      "{ .reg .pred nothing; setp.eq.u32 nothing, %2, 0;\n"
      "cp.async.cg.shared.global [%0], [%1], 16, nothing; }" ::"r"(to),
      "l"(__cvta_generic_to_global(from_global)), "r"(static_cast<unsigned>(is_there))
      : "memory");
}

__device__ inline int clamp_count(index_t left, int most) {
  return left <= 0 ? 0 : left < most ? static_cast<int>(left) : most;
}

/// A part of a head: `channels` channels from `channel` on.
struct head_part {
  int head, channel, channels;
};

template <class T>
SSM_HD index_t parts_of_group(dual_problem<T> const& p, dual_shape const& shape) {
  return (p.head_dim + shape.channels() - 1) / shape.channels() * p.group_heads;
}

/// A block's parts of heads, and its loads. Warp `warps - 1 - part` finds the decays of a part.
template <class T, int States>
struct dual_stage {
  using tile = dual_tile<T, States>;
  static constexpr int per_lane = tile::steps / 32;  // steps of a lane
  // 16-bit numbers with few exponents: what is rounded is scaled by a power of 2 before.
  static constexpr bool is_narrow = std::is_same_v<T, float16>;

  dual_problem<T> const& p;
  dual_shape const shape;
  typename tile::shared const s;
  int const warp, lane;
  int part, slice;  // of this warp
  head_part own;    // the part of this warp
  int b, group, first_part;

  // Of the part whose decays this warp finds: its head, or -1, and its numbers.
  int stepped_part;
  int stepped_head = -1;
  float rate = 0.0f, bias = 0.0f, factor = 0.0f;
  T raw[per_lane];  // projected step sizes

  __device__ dual_stage(dual_problem<T> const& problem, dual_shape const& how, std::byte* memory)
      : p{problem},
        shape{how},
        s(memory, how),
        // The same for all lanes, which the compiler does not see by itself.
        warp{__shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0)},
        lane{static_cast<int>(threadIdx.x) % 32} {
    part = warp / shape.slices, slice = warp % shape.slices;
    int const parts = static_cast<int>(parts_of_group(p, shape));
    int const blocks = (parts + shape.parts - 1) / shape.parts;
    int const index = static_cast<int>(blockIdx.x), groups = static_cast<int>(p.groups);
    first_part = index % blocks * shape.parts;
    group = index / blocks % groups, b = index / blocks / groups;
    own = place(part);
    stepped_part = shape.warps() - 1 - warp;
    if (stepped_part < shape.parts && place(stepped_part).channels > 0) {
      stepped_head = place(stepped_part).head;
      rate = p.rate(stepped_head), bias = p.bias(stepped_head);
      factor = p.scaling.step_factor(stepped_head);
    }
  }

  /// No channels where the group has no such part.
  __device__ head_part place(int of) const {
    int const tiles = static_cast<int>((p.head_dim + shape.channels() - 1) / shape.channels());
    int const head = (first_part + of) / tiles;
    int const channel = (first_part + of) % tiles * shape.channels();
    int const channels =
        head < p.group_heads ? clamp_count(p.head_dim - channel, shape.channels()) : 0;
    int const first_head = group * static_cast<int>(p.group_heads);
    return {first_head + (channels > 0 ? head : 0), channels > 0 ? channel : 0, channels};
  }

  __device__ T* B_of(int stage) const { return s.states + stage * tile::states_size(shape); }
  __device__ T* C_of(int stage) const { return B_of(stage) + tile::C_first; }
  __device__ int x_pitch() const { return tile::x_pitch(shape.slices); }
  __device__ int x_size() const { return tile::steps * x_pitch(); }
  __device__ T* x_of(int stage) const { return s.x + (stage * shape.parts + part) * x_size(); }
  __device__ T* gate_of() const { return s.gate + part * x_size(); }
  __device__ T* M_of(int of) const { return s.M + of * tile::steps * tile::M_pitch; }
  __device__ dual_steps<tile::steps>& steps_of(int buffer, int of) const {
    return s.of[buffer * shape.parts + of];
  }
  __device__ int* first_of(int buffer) const { return s.first + buffer * tile::steps; }

  static constexpr int packets_of_states = States / tile::packet;  // of a row of B or C
  static constexpr int rows_of_channels = 2 * tile::packet;  // that a part's warps take at a time
  __device__ int rows_of_states() const { return 32 * shape.warps() / (2 * packets_of_states); }
  __device__ typename tile::cursor& cursor(int of) const {
    return s.at[of * 32 * shape.warps() + static_cast<int>(threadIdx.x)];
  }

  /// Begin to load at step t0. Half of the threads load B, half C; the threads of a part its x.
  __device__ void find_cursors(index_t t0) const {
    int const thread = static_cast<int>(threadIdx.x);
    int const row = thread / (2 * packets_of_states);
    int const n = thread % packets_of_states * tile::packet;
    bool const is_C = thread / packets_of_states % 2 != 0;
    auto const& states = is_C ? p.C : p.B;
    bool const is_idle = row >= rows_of_states() || (is_C && shape.is_first_pass);
    cursor(0) = {states.data_handle() + (b * states.stride(0) + (t0 + row) * states.stride(1) +
                                         group * states.stride(2) + n * states.stride(3)),
                 is_C ? tile::C_first + row * tile::C_pitch + n : row * tile::B_pitch + n,
                 static_cast<short>(is_idle ? tile::steps : row),
                 static_cast<short>(clamp_count(p.states - n, tile::packet))};
    int const packets = 16 / tile::packet * shape.slices, index = slice * 32 + lane;
    int const t = index / packets, c = index % packets * tile::packet;
    for (int k = 1; k < 3; ++k) {
      auto const& of = k == 1 ? p.x : p.gate;
      cursor(k) = {of.data_handle() + (b * of.stride(0) + (t0 + t) * of.stride(1) +
                                       own.head * of.stride(2) + (own.channel + c) * of.stride(3)),
                   t * x_pitch() + c, static_cast<short>(t),
                   static_cast<short>(clamp_count(own.channels - c, tile::packet))};
    }
  }

  /// Ask for the chunk that a cursor is at, of which `left` steps exist, and go on to the next.
  __device__ void request(int which, T* to, int rows, int to_row, index_t time, index_t next,
                          int left) const {
    auto const at = cursor(which);
    T const* from = at.from;
    to += at.to;
    if (p.packed) {
      if (at.count == 0) left = 0;
#pragma unroll 1
      for (int row = at.row; row < tile::steps; row += rows, from += rows * time, to += to_row) {
        request_packet(to, from, row < left);
      }
    } else {
#pragma unroll 1
      for (int row = at.row; row < tile::steps; row += rows, from += rows * time, to += to_row) {
#pragma unroll 1
        for (int i = 0; i < tile::packet; ++i) {
          to[i] = i < at.count && row < left ? from[i * next] : T{};
        }
      }
    }
    cursor(which).from = at.from + tile::steps * time;
  }
  __device__ void request_states(int stage, int left) const {
    bool const is_C = static_cast<int>(threadIdx.x) / packets_of_states % 2 != 0;
    int const rows = rows_of_states();
    request(0, B_of(stage), rows, rows * (is_C ? tile::C_pitch : tile::B_pitch),
            is_C ? p.C.stride(1) : p.B.stride(1), is_C ? p.C.stride(3) : p.B.stride(3), left);
  }
  __device__ void request_x(int stage, int left) const {
    request(1, x_of(stage), rows_of_channels, rows_of_channels * x_pitch(), p.x.stride(1),
            p.x.stride(3), left);
  }
  __device__ void request_gate(int left) const {
    request(2, gate_of(), rows_of_channels, rows_of_channels * x_pitch(), p.gate.stride(1),
            p.gate.stride(3), left);
  }

  /// Ask for the projected step sizes of the chunk at t0, of which `left` exist.
  __device__ void request_steps(index_t t0, int left) {
    if (stepped_head < 0 || left == 0) return;
#pragma unroll
    for (int k = 0; k < per_lane; ++k) {
      int const t = lane * per_lane + k;
      raw[k] = p.step_size(b, t0 + (t < left ? t : 0), stepped_head);
    }
  }

  /// What the steps asked for are, `left` of them in the chunk at t0.
  __device__ void find_steps(int buffer, index_t t0, int left) const {
    if (stepped_part >= shape.parts) return;
    auto& to = steps_of(buffer, stepped_part);
    int first[per_lane];
    int const cut = find_starts(t0, left, first);
    float step[per_lane], largest = 0.0f;
#pragma unroll
    for (int k = 0; k < per_lane; ++k) step[k] = to_number(raw[k]);
    p.find_steps(step, bias, factor);
    double sum[per_lane], total = 0.0;
#pragma unroll
    for (int k = 0; k < per_lane; ++k) {
      bool const is_there = stepped_head >= 0 && lane * per_lane + k < left;
      if (!is_there) step[k] = 0.0f;
      total += is_there ? static_cast<double>(p.log2_decay(rate, step[k])) : 0.0;
      sum[k] = total;
      largest = larger(largest, fabsf(step[k]));
    }
    double before = total;  // of the lanes before and this one
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      double const other = __shfl_up_sync(~0u, before, static_cast<unsigned>(distance));
      if (lane >= distance) before += other;
      if (is_narrow) largest = larger(largest, __shfl_xor_sync(~0u, largest, distance));
    }
    before -= total;
#pragma unroll
    for (double& each : sum) each += before;
    double const whole = __shfl_sync(~0u, sum[per_lane - 1], 31);
    float const unit = unit_of(largest), inverse = 1.0f / unit;
#pragma unroll
    for (int k = 0; k < per_lane; ++k) {
      int const t = lane * per_lane + k;
      auto const rounded = static_cast<float>(sum[k]);
      to.sum[t] = rounded;
      to.sum_low[t] = static_cast<float>(sum[k] - static_cast<double>(rounded));
      to.drive[t] = step[k] * inverse;
      to.weight[t] = t < cut ? 0.0f : exp2(static_cast<float>(whole - sum[k])) * to.drive[t];
      to.growth[t] = first[k] < 0 ? exp2(rounded) : 0.0f;
      if (stepped_part == 0) first_of(buffer)[t] = first[k];
    }
    if (lane == 0) {
      to.through = cut < 0 ? exp2(static_cast<float>(whole)) : 0.0f;
      to.unit = unit;
    }
  }

  /// The power of 2 next to the largest step where products in T would leave its range, else 1.
  __device__ static float unit_of(float largest) {
    if constexpr (is_narrow) {
      bool const is_usual = largest > 0x1p-60f && largest < 0x1p60f;
      return is_usual ? __int_as_float(__float_as_int(largest) & 0x7f800000) : 1.0f;
    } else {
      return 1.0f;
    }
  }

  /// For each step of a lane the last start of a sequence up to it, in the chunk, or -1; returns
  /// that of the chunk's last step.
  __device__ int find_starts(index_t t0, int left, int (&first)[per_lane]) const {
#pragma unroll
    for (int& each : first) each = -1;
    if (p.sequence.data_handle() == nullptr) return -1;
    int last = -1;
#pragma unroll
    for (int k = 0; k < per_lane; ++k) {
      int const t = lane * per_lane + k;
      if (t < left && p.starts_sequence(b, t0 + t)) last = t;
      first[k] = last;
    }
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      int const other = __shfl_up_sync(~0u, last, static_cast<unsigned>(distance));
      if (lane >= distance) last = last > other ? last : other;
    }
    int const before = __shfl_up_sync(~0u, last, 1);
#pragma unroll
    for (int& each : first) each = lane > 0 && before > each ? before : each;
    return __shfl_sync(~0u, last, 31);
  }
};

}  // namespace ssm::gpu::detail
