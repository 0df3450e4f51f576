// SPDX-License-Identifier: Apache-2.0
// dual_chunk_states.cuh: the states that a block has in registers, from memory and back.
#pragma once

#include <cstdint>

#include "ssm/detail/dual_chunk_stage.cuh"
#include "ssm/detail/dual_square.cuh"

namespace ssm::gpu::detail {

template <class T, int States>
struct dual_states : dual_stage<T, States> {
  using base = dual_stage<T, States>;
  using base::b, base::base, base::lane, base::own, base::p, base::slice;

  static constexpr int squares = States / 16;

  square_sums state[squares];  // H(p, n) of 16 channels p, squares side by side

  /// state += factor · from (batch, head, head_dim, state).
  __device__ void add_states(tensor_view<float const, 4, memory::device> const& from,
                             float factor) {
    each_pair(
        from,
        [&](float const* at, float& low, float& high) {
          float2 const two = *reinterpret_cast<float2 const*>(at);
          low = fmaf(factor, two.x, low), high = fmaf(factor, two.y, high);
        },
        [&](float const* at, float& number) { number = fmaf(factor, *at, number); });
  }
  __device__ void store_states(tensor_view<float, 4, memory::device> const& to) {
    each_pair(
        to,
        [](float* at, float low, float high) {
          *reinterpret_cast<float2*>(at) = {low, high};
        },
        [](float* at, float number) { *at = number; });
  }
  __device__ void clear() {
#pragma unroll
    for (auto& of : state) of = {};
  }

  /// The state that enters segment `segment`: what the one before added to it, and what those
  /// further back did, as far as it has not decayed.
  __device__ void enter(index_t segment) {
    if (p.segments == 1) return add_states(p.initial, 1.0f);
    add_states(p.entering_at(segment), 1.0f);
    float factor = 1.0f;
    while (segment > 0) {
      factor *= p.decay[p.decay_at(b, --segment, own.head)];
      if (factor == 0.0f || factor < p.negligible) break;
      add_states(p.entering_at(segment), factor);
    }
  }

 private:
  /// Visit the states of this lane and where they are in `of`: neighbours two at a time where all
  /// pairs are whole, or one by one.
  template <class U, class VisitPair, class VisitOne>
  __device__ void each_pair(tensor_view<U, 4, memory::device> const& of,
                            VisitPair const& visit_pair, VisitOne const& visit_one) {
    int const c = 16 * slice + lane / 4, n = lane % 4 * 2;
    index_t const channel = of.stride(2), next = of.stride(3);
    U* const first = of.data_handle() + (b * of.stride(0) + own.head * of.stride(1) +
                                         (own.channel + c) * channel + n * next);
    bool const has_pairs = next == 1 && p.states == States && channel % 2 == 0 &&
                           reinterpret_cast<std::uintptr_t>(first) % 8 == 0;
    if (has_pairs) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (c + 8 * half >= own.channels) continue;
        U* const row = first + 8 * half * channel;
#pragma unroll
        for (int k = 0; k < 2 * squares; ++k) {
          float* const z = state[k / 2].z + k % 2 * 4 + 2 * half;
          visit_pair(row + 8 * k, z[0], z[1]);
        }
      }
    } else {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        int left = c + 8 * half < own.channels ? static_cast<int>(p.states) - n : 0;
        U* at = first + 8 * half * channel;
#pragma unroll
        for (int k = 0; k < 2 * squares; ++k, left -= 8, at += 8 * next) {
          float* const z = state[k / 2].z + k % 2 * 4 + 2 * half;
          if (left > 0) visit_one(at, z[0]);
          if (left > 1) visit_one(at + next, z[1]);
        }
      }
    }
  }
};

}  // namespace ssm::gpu::detail
