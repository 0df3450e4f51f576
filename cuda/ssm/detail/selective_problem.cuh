// SPDX-License-Identifier: Apache-2.0
// selective_problem.cuh: Mamba's operator as its kernels see it: pointers, strides, who does what.
#pragma once

#include <cstdint>

#include "ssm/config.hpp"
#include "ssm/detail/device_math.cuh"
#include "ssm/detail/selective_packets.cuh"
#include "ssm/packed.hpp"
#include "ssm/spectrum_scaling.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm::gpu {

/// selective_scan leaves a state for its gradient at the begin of every so many steps.
inline constexpr index_t selective_scan_checkpoint_steps = 8;

}  // namespace ssm::gpu

namespace ssm::gpu::detail {

/// An array (batch, time, channel).
template <class T>
struct selective_array {
  T* data = nullptr;
  index_t batch = 0, time = 0, channel = 0;

  selective_array() = default;
  selective_array(sequence_view<T, memory::device> const& view)
      : data{view.data_handle()},
        batch{view.stride(0)},
        time{view.stride(1)},
        channel{view.stride(2)} {}

  __device__ T* at(index_t b, index_t t, index_t c) const {
    return data + (b * batch + t * time + c * channel);
  }
  __device__ index_t stride(bool along_time) const { return along_time ? time : channel; }
};

/// B or C: (batch, time, group, state).
template <class T>
struct selective_projection {
  T const* data = nullptr;
  index_t batch = 0, time = 0, group = 0, state = 0;

  selective_projection() = default;
  selective_projection(trajectory_view<T const, memory::device> const& view)
      : data{view.data_handle()},
        batch{view.stride(0)},
        time{view.stride(1)},
        group{view.stride(2)},
        state{view.stride(3)} {}

  __device__ T const* at(index_t b, index_t t, index_t g, index_t n) const {
    return data + (b * batch + t * time + g * group + n * state);
  }
  __device__ index_t stride(bool along_time) const { return along_time ? time : state; }
};

/// All that the kernels of selective_scan need to know. Time is cut into `segments` of
/// `segment_length` steps, a multiple of selective_scan_block, that run side by side.
template <class T>
struct selective_problem {
  selective_array<T const> x, step_size, gate;
  selective_array<T> y;
  selective_projection<T> B, C;
  tensor_view<float const, 2, memory::device> eigenvalue;
  spectrum_scaling<float, memory::device> scaling;
  tensor_view<float const, 1, memory::device> D, step_bias;
  float smallest_step, largest_step;
  bool softplus, limited, scales_steps;
  bool along_time;  // packets are eight steps of a channel, not eight channels of a step
  bool projections_along_time;  // quads of B and C are four steps of a state
  bool packed;  // all packets are whole and begin at multiples of 16 bytes, as do quads at theirs
  sequence_index_view<memory::device> sequence;
  state_view<float const, memory::device> initial;
  state_view<float, memory::device> carry;
  trajectory_view<float, memory::device> checkpoints;

  index_t batch, length, channels, states, group_channels;

  index_t segments, segment_length;
  // (batch, segment, state, channel), dense: the state that enters a segment, and what a segment
  // multiplies it with; the first pass leaves in `entering` what the segment before adds to it.
  float *entering, *decay;
  float threshold;              // log2 of what is too small to be followed further back
  float brevity[3];             // of tiles that moments up to 5, 3, 2 sum: see moments_tile
  unsigned long long* visited;  // steps of states that the first pass has visited, or null

  __device__ index_t segment_state(index_t b, index_t segment, index_t n, index_t c) const {
    return ((b * segments + segment) * states + n) * channels + c;
  }

  /// log2(e)·A' of one state, A' with all factors.
  __device__ float rate(index_t c, index_t n) const {
    return scaling.eigenvalue(c, n, eigenvalue(c, n)) * log2_of_e;
  }
  __device__ float bias(index_t c) const {
    return step_bias.data_handle() == nullptr ? 0.0f : step_bias(c);
  }
  __device__ float skip(index_t c) const { return D.data_handle() == nullptr ? 0.0f : D(c); }

  /// Δ of what was projected, before its factor. One branch for all of them, so that they are
  /// computed side by side.
  template <int Count, class Projected>
  __device__ void steps(Projected const& projected, float const (&bias)[Count],
                        float (&step)[Count]) const {
#pragma unroll
    for (int i = 0; i < Count; ++i) step[i] = projected[i] + bias[i];
    if (softplus) {
#pragma unroll
      for (float& each : step) each = detail::softplus(each);
    }
    limit(step);
  }
  /// The same in fewer instructions if numbers have 16 bits and none of the warp's Δ is large,
  /// which all of its lanes ask together.
  template <int Count, class Projected>
  __device__ bool small_steps(Projected const& projected, float const (&bias)[Count],
                              float (&step)[Count]) const {
    if (sizeof(T) > 2 || !softplus) return false;
    unsigned signs = ~0u;
#pragma unroll
    for (int i = 0; i < Count; ++i) {
      step[i] = fmaf(projected[i] + bias[i], log2_of_e, 1.0f);
      signs &= __float_as_uint(step[i]);
    }
    if (!__all_sync(~0u, static_cast<int>(signs) < 0)) return false;
#pragma unroll
    for (float& each : step) each = small_softplus(each);
    limit(step);
    return true;
  }
  template <int Count>
  __device__ void limit(float (&step)[Count]) const {
    if (!limited) return;
#pragma unroll
    for (float& each : step) each = clamp(each, smallest_step, largest_step);
  }
  template <int Count, class Projected>
  __device__ void steps(Projected const& projected, float const (&bias)[Count],
                        float const (&factor)[Count], float (&step)[Count]) const {
    steps(projected, bias, step);
#pragma unroll
    for (int i = 0; i < Count; ++i) step[i] *= factor[i];
  }

  __device__ bool starts_sequence(index_t b, index_t t) const {
    return t > 0 && t < length && sequence(b, t) != sequence(b, t - 1);
  }
};

/// Whether packets of eight elements along the dense axis of an array begin at multiples of 16
/// bytes.
template <class T>
bool has_packets(selective_array<T> const& array, bool along_time) {
  if (array.data == nullptr) return true;
  auto const whole = [](index_t stride) { return stride % packet_elements == 0; };
  return reinterpret_cast<std::uintptr_t>(array.data) % 16 == 0 && whole(array.batch) &&
         (along_time ? array.time == 1 && whole(array.channel)
                     : array.channel == 1 && whole(array.time));
}

template <class T>
bool has_quads(selective_projection<T> const& of, bool along_time) {
  auto const whole = [](index_t stride) { return stride % 4 == 0; };
  return whole(of.batch) && whole(of.group) && (along_time ? of.time : of.state) == 1 &&
         whole(along_time ? of.state : of.time) &&
         reinterpret_cast<std::uintptr_t>(of.data) % (4 * sizeof(T)) == 0;
}

/// threadIdx.y, so that the compiler knows it to be one number for all of a warp, and keeps what
/// follows from it once a warp.
__device__ inline int squad_in_block() {
  return __shfl_sync(~0u, static_cast<int>(threadIdx.y), 0);
}

/// Which channels block `index` has, at most `most` of one group.
struct channel_block {
  index_t b, group, channel;  // its first channel
  int channels;

  template <class T>
  __device__ channel_block(selective_problem<T> const& p, index_t index, int most) {
    index_t const blocks = (p.group_channels + most - 1) / most;
    index_t const groups = p.channels / p.group_channels;
    index_t const block = index % blocks;
    group = index / blocks % groups;
    b = index / blocks / groups;
    channel = group * p.group_channels + block * most;
    index_t const left = p.group_channels - block * most;
    channels = static_cast<int>(left < most ? left : most);
  }
};

}  // namespace ssm::gpu::detail
