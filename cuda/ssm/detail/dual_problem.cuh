// SPDX-License-Identifier: Apache-2.0
// dual_problem.cuh: Mamba-2's operator as its kernels see it: views, options, how time is cut.
#pragma once

#include <cstdint>

#include "ssm/config.hpp"
#include "ssm/detail/device_math.cuh"
#include "ssm/detail/element.cuh"
#include "ssm/numerics.hpp"
#include "ssm/packed.hpp"
#include "ssm/spectrum_scaling.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm::gpu::detail {

/// log2 of a decay that is 0: below it 2^x is 0 in float, and sums of such steps lose nothing.
inline constexpr float log2_of_nothing = -160.0f;

/// All that the kernels of state_space_dual need to know, passed by value. An optional view is
/// empty where it is left out. Time is cut into `segments` of `segment_length` steps, a multiple of
/// state_space_dual_device_block, that run side by side.
template <class T>
struct dual_problem {
  template <class U, int Rank>
  using view = tensor_view<U, Rank, memory::device>;

  view<T const, 4> x, gate;                    // (batch, time, head, head_dim)
  view<T const, 4> B, C;                       // (batch, time, group, state)
  view<T const, 3> step_size;                  // (batch, time, head)
  view<float const, 1> eigenvalue, step_bias;  // (head)
  view<float const, 2> D;                      // (head, head_dim), stride 0 for one number a head
  spectrum_scaling<float, memory::device> scaling;
  float smallest_step, largest_step;
  bool softplus, limited;
  sequence_index_view<memory::device> sequence;

  view<float const, 4> initial;  // (batch, head, head_dim, state), the same memory as carry
  view<float, 4> carry;
  view<T, 4> y;
  view<float, 5> saved_states;   // (batch, block, head, head_dim, state)
  view<float, 4> saved_ungated;  // (batch, time, head, head_dim)

  index_t batch, length, heads, head_dim, groups, states;
  index_t group_heads;  // heads that share B and C

  bool packed;  // rows of x, gate, y, B and C are whole packets at multiples of 16 bytes
  bool exact;   // float: three products of halves of numbers for each, not one of rounded ones

  index_t segments, segment_length;
  // entering (batch, segment, head, head_dim, state), dense: the initial state, then what each
  // segment but the last adds to the state that leaves it; decay (batch, segment, head): what a
  // segment multiplies a state with.
  float *entering, *decay;
  float negligible;             // what is multiplied by less is not followed further back
  unsigned long long* visited;  // steps of heads that the first pass has visited, or null

  __device__ index_t group_of(index_t head) const { return head / group_heads; }

  /// (batch, head, head_dim, state) of one segment.
  __device__ view<float, 4> entering_at(index_t segment) const {
    index_t const head_states = head_dim * states;
    return {entering + segment * heads * head_states,
            {batch, heads, head_dim, states},
            {segments * heads * head_states, head_states, states, 1}};
  }
  __device__ index_t decay_at(index_t b, index_t segment, index_t head) const {
    return (b * segments + segment) * heads + head;
  }

  /// log2(e)·A' of a head, A' with all factors.
  __device__ float rate(index_t head) const {
    return scaling.eigenvalue(head, 0, eigenvalue(head)) * log2_of_e;
  }
  __device__ float bias(index_t head) const {
    return step_bias.data_handle() == nullptr ? 0.0f : step_bias(head);
  }
  __device__ float skip(index_t head, index_t channel) const {
    return D.data_handle() == nullptr ? 0.0f : D(head, channel);
  }

  /// Δ of projected step sizes: softplus to 2 ulp, limits, factor. One branch for all of them, so
  /// that they are computed side by side.
  template <int Count>
  __device__ void find_steps(float (&step)[Count], float bias, float factor) const {
#pragma unroll
    for (float& each : step) each += bias;
    if (softplus) {
#pragma unroll
      for (float& each : step) each = ssm::softplus(each);
    }
    if (limited) {
#pragma unroll
      for (float& each : step) each = clamp(each, smallest_step, largest_step);
    }
#pragma unroll
    for (float& each : step) each *= factor;
  }
  __device__ float step(float projected, float bias, float factor) const {
    float step[] = {projected};
    find_steps(step, bias, factor);
    return step[0];
  }

  /// log2 of a step's decay, at least log2_of_nothing. A NaN stays one.
  __device__ static float log2_decay(float rate, float step) {
    return larger(rate * step, log2_of_nothing);
  }

  __device__ bool starts_sequence(index_t b, index_t t) const {
    return sequence.data_handle() != nullptr && t > 0 && t < length &&
           sequence(b, t) != sequence(b, t - 1);
  }
};

}  // namespace ssm::gpu::detail
