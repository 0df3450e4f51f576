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
  using rows::p, rows::s, rows::block, rows::begin, rows::length;

  __device__ selective_vjp_stage(selective_vjp_problem<T> const& problem, shared& memory)
      : rows(problem, memory) {
    unsigned const thread = rows::thread();
    bool const is_there = static_cast<int>(thread) < block.channels;
    s.bias[thread] = is_there ? p.bias(block.channel + thread) : 0.0f;
    s.factor[thread] = is_there ? p.scaling.step_factor(block.channel + thread) : 0.0f;
    is_usual_ =
        p.softplus && !p.limited && p.gate.data != nullptr && p.sequence.data_handle() == nullptr;
    __syncthreads();
  }

  /// Ask for eight steps from t0 on; cotangents and gates only with `all`. Nothing outside of the
  /// segment.
  __device__ void request(int t0, bool all) {
    int2 const in_tile = this->place(), at{t0 + in_tile.x, in_tile.y};
    int const elements = this->count_ahead(in_tile, t0);
    selective_array<T const> const* const arrays[] = {&p.x, &p.step_size, &p.y_cotangent, &p.gate};
    T const* const firsts[] = {s.x, s.step_size, s.y_cotangent, s.gate};
    T const* from[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) from[i] = this->element(firsts[i], *arrays[i], at);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      bool const is_wanted = i < 2 || (all && arrays[i]->data != nullptr);
      s.packet[i].request(from[i], arrays[i]->stride(this->along_time()), is_wanted ? elements : 0);
    }
    unsigned const thread = rows::thread();
    auto const& of = is_C(thread) ? p.C : p.B;
    int2 const quad = quad_place(thread);
    int const steps = this->steps_from(t0) - quad.x;
    int const states = static_cast<int>(p.states - p.first_state) - quad.y;
    bool const is_there = thread < tile::quads && steps > 0 && states > 0;
    int const ahead = p.projections_along_time ? this->length - t0 - quad.x : states;
    s.quad.request(static_cast<int>(thread),
                   s.projections[is_C(thread)] + ((t0 + quad.x) * of.time + quad.y * of.state),
                   of.stride(p.projections_along_time), is_there ? ahead : 0);
  }

  /// What was asked for, as numbers; B and C as those of tile i of a block.
  __device__ void store(int t0, int i, bool all) {
    wait_for_requests();
    __syncwarp();  // no lane reads the last tile any more
    if (is_usual_ && t0 + tile::steps <= length) {
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
  __device__ int2 quad_place(unsigned thread) const {
    int const i = static_cast<int>(thread % (tile::quads / 2));
    return p.projections_along_time ? int2{i % 2 * 4, i / 2} : int2{i / 4, i % 4 * 4};
  }
  __device__ static bool is_C(unsigned thread) {
    return thread >= tile::quads / 2;
  }

  __device__ void store_quad(float4 (&to)[2][tile::steps][tile::states / 4]) const {
    unsigned const thread = rows::thread();
    if (thread >= tile::quads) return;
    float4 const quad = s.quad.get(static_cast<int>(thread)).numbers();
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
  __device__ void store(int t0, int i, bool all) {
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
      this->put(at, s.xs, x), this->put(at, s.slopes, slope);
      store_cotangents<Usual>(at);
    }
    store_quad(s.projection[i % 2]);
    if (Usual || p.sequence.data_handle() == nullptr || threadIdx.x >= 32) return;
    bool const starts =
        threadIdx.x < tile::steps && p.starts_sequence(block.b, begin + t0 + threadIdx.x);
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
      this->put(at, s.gates, gate);
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
