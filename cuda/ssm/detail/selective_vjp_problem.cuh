// SPDX-License-Identifier: Apache-2.0
// selective_vjp_problem.cuh: the gradient of Mamba's operator as its kernels see it.
#pragma once

#include "ssm/detail/selective_problem.cuh"

namespace ssm::gpu::detail {

/// What one thread adds up for a channel, beside a sum for each of its states.
enum class channel_sum { D, step_bias, step_factor };
inline constexpr int channel_sums = 3;

/// The forward problem, the cotangents that arrive and the gradients that leave; null: not wanted.
template <class T>
struct selective_vjp_problem : selective_problem<T> {
  selective_array<T const> y_cotangent;
  selective_array<float> to_x, to_step_size, to_gate;
  state_view<float, memory::device> carry_cotangent;
  trajectory_view<float const, memory::device> block_states;  // entering blocks of 32 steps
  index_t first_state;  // of the up to 16 that a pass is about: gradients of states only add

  float* arriving;  // as `entering`: the cotangent of the state that leaves a segment
  float* sums;      // (batch, segment, state..., channel_sum, channel): sums over a segment
  float* shared;    // (block of channels, time, B or C, 16): sums over a block's channels

  __device__ index_t sum_row(index_t b, index_t segment, index_t row) const {
    return ((b * this->segments + segment) * (this->states + channel_sums) + row) * this->channels;
  }
};

/// Add to four elements at a multiple of 16 bytes that no other thread adds to, without waiting for
/// them where the device can.
__device__ inline void add_four(float* to, float a, float b, float c, float d) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(a), "f"(b), "f"(c),
               "f"(d)
               : "memory");
#else
  float4& four = *reinterpret_cast<float4*>(to);
  float4 const was = four;
  four = {was.x + a, was.y + b, was.z + c, was.w + d};
#endif
}

/// Add to the first `count` elements of a packet that begins at `first`.
template <bool Packed>
__device__ void add_packet(float* first, index_t stride, int count,
                           float const (&values)[packet_elements]) {
  if constexpr (Packed) {
    if (count == 0) return;
    add_four(first, values[0], values[1], values[2], values[3]);
    add_four(first + 4, values[4], values[5], values[6], values[7]);
  } else {
#pragma unroll
    for (int i = 0; i < packet_elements; ++i) {
      if (i < count) first[i * stride] += values[i];
    }
  }
}

}  // namespace ssm::gpu::detail
