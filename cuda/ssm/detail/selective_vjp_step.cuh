// SPDX-License-Identifier: Apache-2.0
// selective_vjp_step.cuh: steps of Mamba's operator forward and back, as a thread takes them.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/selective_vjp_stage.cuh"

namespace ssm::gpu::detail {

/// With w_t = a_t h_{t-1} and h_t = w_t + Δ_t B_t x_t there, back in time, e being the cotangent of
/// a state before the step and dy that of Σ C h:
///   g = e_{t+1} + C_t dy_t,   dB_t += g Δ_t x_t,   dC_t += dy_t h_t,   e_t = a_t g,
///   dx_t += D dy_t + Δ_t Σ g B_t,   dΔ_t = x_t Σ g B_t + Σ g w_t A',   dA' += g w_t Δ_t.
template <class T, bool Packed>
class selective_vjp_steps : protected selective_vjp_stage<T, Packed> {
  using stage = selective_vjp_stage<T, Packed>;

 public:
  __device__ selective_vjp_steps(selective_vjp_problem<T> const& problem,
                                 selective_vjp_tile::shared& memory)
      : stage(problem, memory) {
    own_ = static_cast<int>(threadIdx.x), other_ = own_ ^ 1;
    own_place_ = stage::place_of(own_), other_place_ = stage::place_of(other_);
    own_quads_ = own_ % 2 * states / 4, swap_ = own_ >> 1 & 1;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      int const c = k == 0 ? own_ : other_;
      factor_[k] = c < block.channels ? p.scaling.step_factor(block.channel + c) : 0.0f;
    }
    D_ = own_ < block.channels && p.first_state == 0 ? p.skip(block.channel + own_) : 0.0f;
    each_state([&](int c, index_t n, int k, int j) {
      rate_[k][j] = has(c, n) ? p.rate(block.channel + c, n) : 0.0f;
    });
  }

 protected:
  using tile = selective_vjp_tile;
  using stage::p, stage::s, stage::block;
  static constexpr int states = tile::own_states;

  __device__ bool has(int c, index_t n) const {
    return c < block.channels && n < p.states;
  }

  /// Every fourth lane has its states in another order, so that sums over channels cross lanes
  /// with fewer selections.
  template <class Visit>
  __device__ void each_state(Visit const& visit) {
#pragma unroll
    for (int k = 0; k < 2; ++k)
#pragma unroll
      for (int j = 0; j < states; ++j) {
        index_t const n = p.first_state + 4 * own_quads_ + (j ^ 4 * swap_);
        visit(k == 0 ? own_ : other_, n, k, j);
      }
  }

  using numbers = float[2][states];

  __device__ static void put(tile::thread_states& to, numbers const& from) {
#pragma unroll
    for (int q = 0; q < 2 * states / 4; ++q) {
      auto const* const four = &from[q / (states / 4)][q % (states / 4) * 4];
      to[q][threadIdx.x] = {four[0], four[1], four[2], four[3]};
    }
  }
  __device__ static void get(numbers& to, tile::thread_states const& from) {
#pragma unroll
    for (int q = 0; q < 2 * states / 4; ++q) {
      float4 const four = from[q][threadIdx.x];
      auto* const first = &to[q / (states / 4)][q % (states / 4) * 4];
      first[0] = four.x, first[1] = four.y, first[2] = four.z, first[3] = four.w;
    }
  }

  /// This thread's states of B or C.
  __device__ void read(int which, int t, float (&to)[states]) const {
#pragma unroll
    for (int q = 0; q < states / 4; ++q) {
      float4 const four = s.projection[which][t][own_quads_ + (q ^ swap_)];
      to[4 * q] = four.x, to[4 * q + 1] = four.y, to[4 * q + 2] = four.z, to[4 * q + 3] = four.w;
    }
  }
  __device__ static void clear(numbers& all) {
#pragma unroll
    for (auto& row : all)
#pragma unroll
      for (float& each : row) each = 0.0f;
  }

  /// Δ and Δ x of this thread's two channels, from pairs of Δ before its factor and x.
  struct drives {
    float step[2], input[2];
  };
  __device__ drives drives_of(float2 own, float2 other) const {
    float const step = own.x * factor_[0], step_other = other.x * factor_[1];
    return {{step, step_other}, {step * own.y, step_other * other.y}};
  }

  /// The states after what is staged.
  __device__ void advance() {
    unsigned const starts = this->starts();
    if (starts == 0) {
      advance<false>(0);
    } else {
      advance<true>(starts);
    }
  }
  template <bool Cut>
  __device__ void advance(unsigned starts) {
#pragma unroll 4
    for (int t = 0; t < tile::steps; ++t) {
      if (Cut && (starts >> t & 1)) clear(h_);
      drives const d = drives_of(this->pairs(t)[own_place_], this->pairs(t)[other_place_]);
      float B[states];
      read(0, t, B);
#pragma unroll
      for (int j = 0; j < states; ++j)
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          h_[k][j] = fmaf(exp2(d.step[k] * rate_[k][j]), h_[k][j], d.input[k] * B[j]);
        }
    }
  }

  /// Forward, then back; between them `load_next` may ask for other states.
  template <bool Cut, class LoadNext>
  __device__ void differentiate_tile(LoadNext const& load_next) {
    float w[2][states];
    inputs now = inputs_of(0);
#pragma unroll 2
    for (int t = 0; t < tile::steps; ++t) {
      // Before this step stores anything, which the loads might have to wait for.
      inputs const next = inputs_of(t < tile::steps - 1 ? t + 1 : t);
      if (Cut && (s.starts >> t & 1)) clear(h_);
      repeat(t, now, w);
      if (t < tile::steps - 1) put(s.passed[t], w);
      now = next;
    }
    load_next();
#pragma unroll 2
    for (int t = tile::steps - 1; t >= 0; --t) {
      int const before = t > 0 ? t - 1 : 0;
      inputs const next = inputs_of(before);
      float next_w[2][states];
      get(next_w, s.passed[before]);
      reverse(t, now, w);
      if (Cut && (s.starts >> t & 1)) clear(e_);
      now = next;
#pragma unroll
      for (int k = 0; k < 2; ++k)
#pragma unroll
        for (int j = 0; j < states; ++j) w[k][j] = next_w[k][j];
    }
  }

  int own_, other_, own_quads_, swap_;
  float h_[2][states] = {}, e_[2][states] = {}, to_rate_[2][states] = {};
  float to_bias_ = 0.0f, to_factor_ = 0.0f, to_D_ = 0.0f;

 private:
  /// What a step needs of what is staged.
  struct inputs {
    float2 own, other;  // Δ before its factor, x
    float2 arriving;    // of the channel that is this lane's own: dy, the slope of Δ
    float other_dy;
    float B[states], C[states];
  };
  __device__ inputs inputs_of(int t) const {
    inputs result;
    result.own = this->pairs(t)[own_place_], result.other = this->pairs(t)[other_place_];
    result.arriving = this->arriving(t)[own_place_];
    result.other_dy = this->arriving(t)[other_place_].x;
    read(0, t, result.B);
    read(1, t, result.C);
    return result;
  }

  /// A step forward: w and h, what C·h gives the gate, dC.
  __device__ void repeat(int t, inputs const& in, numbers& w) {
    drives const d = drives_of(in.own, in.other);
    float const dy[2] = {in.arriving.x, in.other_dy};
    float to_C[states], y[2] = {};
#pragma unroll
    for (int j = 0; j < states; ++j) {
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        w[k][j] = exp2(d.step[k] * rate_[k][j]) * h_[k][j];
        h_[k][j] = fmaf(d.input[k], in.B[j], w[k][j]);
        y[k] = fmaf(in.C[j], h_[k][j], y[k]);
      }
      to_C[j] = fmaf(dy[0], h_[0][j], dy[1] * h_[1][j]);
    }
    sum_over_channels(to_C, s.sums[1][own_ / 32][t]);
    s.gate[t][own_] *= fmaf(D_, in.own.y, over_states(y));
  }

  /// A step back.
  __device__ void reverse(int t, inputs const& in, numbers const& w) {
    drives const d = drives_of(in.own, in.other);
    float const dy[2] = {in.arriving.x, in.other_dy};
    float to_B[states], to_input[2] = {}, to_step[2] = {};
#pragma unroll
    for (int j = 0; j < states; ++j) {
      float g[2];
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        g[k] = fmaf(in.C[j], dy[k], e_[k][j]);
        to_input[k] = fmaf(g[k], in.B[j], to_input[k]);
        float const to_exponent = g[k] * w[k][j];
        to_step[k] = fmaf(to_exponent, rate_[k][j], to_step[k]);
        to_rate_[k][j] = fmaf(to_exponent, d.step[k], to_rate_[k][j]);
        e_[k][j] = g[k] * exp2(d.step[k] * rate_[k][j]);
      }
      to_B[j] = fmaf(g[0], d.input[0], g[1] * d.input[1]);
    }
    sum_over_channels(to_B, s.sums[0][own_ / 32][t]);
    float const input = over_states(to_input);
    float const step = fmaf(input, in.own.y, over_states(to_step) * (1 / log2_of_e));
    float const biased = step * factor_[0] * in.arriving.y;
    to_bias_ += biased;
    to_factor_ = fmaf(step, in.own.x, to_factor_);
    to_D_ = fmaf(dy[0], in.own.y, to_D_);
    __syncwarp();  // both lanes of a pair have read what is overwritten
    this->pairs(t)[own_place_] = {fmaf(D_, dy[0], input * d.step[0]), biased};
  }

  /// Of the channel that is this lane's own, the sum over all states.
  __device__ static float over_states(float const (&part)[2]) {
    return part[0] + __shfl_xor_sync(~0u, part[1], 1);
  }

  /// Sums over the channels of a warp, to a row of all states: three exchanges leave a lane with
  /// one of its states.
  __device__ void sum_over_channels(float (&part)[states], float* row) const {
#pragma unroll
    for (int j = 0; j < 4; ++j) part[j] += __shfl_xor_sync(~0u, part[j + 4], 2);
    bool const second = own_ & 4, third = own_ & 8;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      float const kept = second ? part[j + 2] : part[j], sent = second ? part[j] : part[j + 2];
      part[j] = kept + __shfl_xor_sync(~0u, sent, 4);
    }
    float const kept = third ? part[1] : part[0], sent = third ? part[0] : part[1];
    float sum = kept + __shfl_xor_sync(~0u, sent, 8);
    sum += __shfl_xor_sync(~0u, sum, 16);
    if ((own_ & 16) == 0) row[4 * (own_quads_ + swap_) + (second ? 2 : 0) + (third ? 1 : 0)] = sum;
  }

  int own_place_, other_place_;
  float factor_[2], D_;
  float rate_[2][states];
};

}  // namespace ssm::gpu::detail
