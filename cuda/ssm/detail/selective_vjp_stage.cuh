// SPDX-License-Identifier: Apache-2.0
// selective_vjp_stage.cuh: the way of eight steps of the inputs of Mamba's operator from memory to
// numbers in shared memory.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/selective_vjp_rows.cuh"

namespace ssm::gpu::detail {

template <class T, packing Packing>
class selective_vjp_stage : protected selective_vjp_rows<T, Packing> {
  using rows = selective_vjp_rows<T, Packing>;

 protected:
  using typename rows::shared;
  using tile = selective_vjp_tile;
  using rows::p, rows::s, rows::block, rows::begin, rows::end;

  __device__ selective_vjp_stage(selective_vjp_problem<T> const& problem, shared& memory)
      : rows(problem, memory) {
    int const thread = rows::thread();
    bool const is_there = thread < block.channels;
    s.bias[thread] = is_there ? p.bias(block.channel + thread) : 0.0f;
    s.factor[thread] = is_there ? p.scaling.step_factor(block.channel + thread) : 0.0f;
    int2 const at = this->place(), quad = quad_place(thread);
    auto const first = [&](auto const& array) {
      return array.at(block.b, at.x, block.channel + at.y);
    };
    s.input[0][thread] = first(p.x), s.input[1][thread] = first(p.step_size);
    s.input[2][thread] = first(p.y_cotangent), s.input[3][thread] = first(p.gate);
    s.input[4][thread] =
        (is_C(thread) ? p.C : p.B).at(block.b, quad.x, block.group, p.first_state + quad.y);
    is_usual_ =
        p.softplus && !p.limited && p.gate.data != nullptr && p.sequence.data_handle() == nullptr;
    __syncthreads();
  }

  /// Ask for eight steps from t0 on; cotangents and gates only with `all`. Nothing outside of the
  /// segment.
  __device__ void request(index_t t0, bool all) {
    int const elements = this->count(this->place(), t0);
    auto const ask = [&](int i, selective_array<T const> const& array) {
      s.packet[i].template request<rows::Packed>(s.input[i][threadIdx.x] + t0 * array.time,
                                                 array.stride(this->along_time()), elements);
    };
    ask(0, p.x), ask(1, p.step_size);
    if (all) {
      ask(2, p.y_cotangent);
      if (p.gate.data != nullptr) ask(3, p.gate);
    }
    int const thread = rows::thread();
    if (thread >= tile::quads) return;
    auto const& of = is_C(thread) ? p.C : p.B;
    int2 const quad = quad_place(thread);
    int const steps = this->steps_from(t0) - quad.x;
    int const states = static_cast<int>(p.states - p.first_state) - quad.y;
    int const count = steps <= 0 || states <= 0 ? 0 : p.projections_along_time ? steps : states;
    s.quad.template request<rows::Packed>(s.input[4][threadIdx.x] + t0 * of.time,
                                          of.stride(p.projections_along_time),
                                          count < 4 ? count : 4);
  }

  /// What was asked for, as numbers; B and C as those of tile i of a block.
  __device__ void store(index_t t0, int i, bool all) {
    wait_for_requests();
    __syncwarp();  // no lane reads the last tile any more
    if (is_usual_ && t0 + tile::steps <= end) {
      store<true>(t0, i, all);
    } else {
      store<false>(t0, i, all);
    }
  }

  /// Bit t: step t of tile i starts a sequence.
  __device__ unsigned starts(int i) const {
    return p.sequence.data_handle() == nullptr ? 0 : s.starts[i % 2];
  }

 private:
  /// The first step and state of a thread's quad of B or C.
  __device__ int2 quad_place(int thread) const {
    return p.projections_along_time ? int2{thread % 2 * 4, thread / 2 % tile::states}
                                    : int2{thread / 4 % tile::steps, thread % 4 * 4};
  }
  __device__ static bool is_C(int thread) { return thread >= tile::quads / 2; }

  __device__ void store_quad(float4 (&to)[2][tile::steps][tile::states / 4]) const {
    int const thread = rows::thread();
    if (thread >= tile::quads) return;
    float4 const quad = s.quad.get().numbers();
    if (p.projections_along_time) {
      int2 const at = quad_place(thread);
      auto* const first = &reinterpret_cast<float*>(to[is_C(thread)][at.x])[at.y];
      first[0] = quad.x, first[tile::states] = quad.y, first[2 * tile::states] = quad.z;
      first[3 * tile::states] = quad.w;
    } else {
      reinterpret_cast<float4*>(to)[thread] = quad;
    }
  }

  /// Usual: softplus without limits, a gate, no sequences, all eight steps. Knowing that spares
  /// branches, each of which waits for its condition.
  template <bool Usual>
  __device__ void store(index_t t0, int i, bool all) {
    int2 const at = this->place();
    float biased[packet_elements], step[packet_elements], slope[packet_elements],
        x[packet_elements], input[packet_elements];
    this->of_channels(at, s.bias, biased);
    auto const steps = s.packet[1].get();
#pragma unroll
    for (int k = 0; k < packet_elements; ++k) {
      biased[k] += steps[k], step[k] = biased[k], slope[k] = 1.0f;
    }
    if (Usual || p.softplus) {
#pragma unroll
      for (float& each : step) each = softplus(each);
      if (all) {
#pragma unroll
        for (int k = 0; k < packet_elements; ++k) slope[k] = softplus_slope(biased[k]);
      }
    }
    if (!Usual && p.limited) {
#pragma unroll
      for (int k = 0; k < packet_elements; ++k) {
        if (step[k] < p.smallest_step || step[k] > p.largest_step) slope[k] = 0.0f;
        step[k] = clamp(step[k], p.smallest_step, p.largest_step);
      }
    }
    if (!Usual) {  // a step that is not there changes nothing
      int const there = this->count(at, t0);
#pragma unroll
      for (int k = 0; k < packet_elements; ++k) {
        if (k >= there) step[k] = slope[k] = 0.0f;
      }
    }
    auto const xs = s.packet[0].get();
    this->of_channels(at, s.factor, input);
#pragma unroll
    for (int k = 0; k < packet_elements; ++k) x[k] = xs[k], input[k] *= step[k] * x[k];
    this->put_pairs(at, step, input);
    if (all) {
      this->put(at, s.x, x), this->put(at, s.slope, slope);
      store_cotangents<Usual>(at);
    }
    store_quad(s.projection[i % 2]);
    if (Usual || p.sequence.data_handle() == nullptr || threadIdx.x >= 32) return;
    bool const starts = threadIdx.x < tile::steps && p.starts_sequence(block.b, t0 + threadIdx.x);
    unsigned const bits = __ballot_sync(~0u, starts);
    if (threadIdx.x == 0) s.starts[i % 2] = bits;
  }

  /// Cotangents past the gate, and what y is multiplied with for the gradient of the gate.
  template <bool Usual>
  __device__ void store_cotangents(int2 const& at) const {
    float arriving[packet_elements];
    auto const arrived = s.packet[2].get();
#pragma unroll
    for (int k = 0; k < packet_elements; ++k) arriving[k] = arrived[k];
    if (Usual || p.gate.data != nullptr) {
      auto const gates = s.packet[3].get();
      float gate[packet_elements];
#pragma unroll
      for (int k = 0; k < packet_elements; ++k) {
        float const open = sigmoid(gates[k]), opened = arriving[k] * open;
        gate[k] = opened * fmaf(gates[k], 1.0f - open, 1.0f);
        arriving[k] = opened * gates[k];
      }
      this->put(at, s.gate, gate);
    }
    this->put(at, s.arriving, arriving);
  }

  /// The sigmoid of x, with the exponential that softplus has.
  __device__ static float softplus_slope(float x) {
    float const e = exp2(-fabsf(x) * log2_of_e);
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(1.0f + e));
    return x < 0.0f ? e * inverse : inverse;
  }

  bool is_usual_;
};

}  // namespace ssm::gpu::detail
