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
  trajectory_view<float const, memory::device> block_states;  // the checkpoints
  index_t first_state;  // of the up to 16 that a pass is about: gradients of states only add
  bool accumulates;     // to what is there; else gradients are stored over it
  bool states_packed;   // checkpoints of four channels lie at multiples of 16 bytes

  // What arrives is found by so many walks of each segment, side by side.
  index_t walks, walk_length;
  float* arriving;  // (batch, walk, state, channel): the cotangent of the state that leaves a walk;
                    // `decay` likewise
  float* sums;      // (batch, segment, state..., channel_sum, channel): sums over a segment
  float* shared;    // (block of channels, time, B or C, 16): sums over a block's channels

  /// Whether this pass adds to gradients that every state has a part in.
  __device__ bool adds() const { return accumulates || first_state > 0; }
  __device__ void give(float& to, float value) const { to = accumulates ? to + value : value; }

  __device__ index_t walk_state(index_t b, index_t walk, index_t n, index_t c) const {
    return ((b * (this->segments * walks) + walk) * this->states + n) * this->channels + c;
  }
  __device__ index_t sum_row(index_t b, index_t segment, index_t row) const {
    return ((b * this->segments + segment) * (this->states + channel_sums) + row) * this->channels;
  }
};

/// Store four elements at a multiple of 16 bytes where `is_wanted`, or add to them without waiting
/// for them where the device can; no other thread does. A predicate and not a branch, as for loads.
template <bool Adds>
__device__ void leave_four(bool is_wanted, float* to, float4 const& values) {
  float const a = values.x, b = values.y, c = values.z, d = values.w;
  int const wanted = is_wanted;
  if constexpr (!Adds) {
    asm volatile(
        "{ .reg .pred p; setp.ne.s32 p, %5, 0; @p st.global.cs.v4.f32 [%0], {%1, %2, %3, %4}; }" ::
            "l"(to),
        "f"(a), "f"(b), "f"(c), "f"(d), "r"(wanted)
        : "memory");
  } else {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile(
        "{ .reg .pred p; setp.ne.s32 p, %5, 0; @p red.global.add.v4.f32 [%0], {%1, %2, %3, %4}; "
        "}" ::"l"(to),
        "f"(a), "f"(b), "f"(c), "f"(d), "r"(wanted)
        : "memory");
#else
    if (!is_wanted) return;
    float4& four = *reinterpret_cast<float4*>(to);
    float4 const was = four;
    four = {was.x + a, was.y + b, was.z + c, was.w + d};
#endif
  }
}

/// How the packets of all sequences lie in memory: anyhow, or whole at multiples of 16 bytes, along
/// channels or along time.
enum class packing { none, of_channels, of_steps };

}  // namespace ssm::gpu::detail
