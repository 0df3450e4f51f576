// SPDX-License-Identifier: Apache-2.0
// selective_vjp_step.cuh: steps of Mamba's operator forward and back, as a thread takes them.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/selective_vjp_stage.cuh"

namespace ssm::gpu::detail {

/// With h_t = a_t h_{t-1} + Δ_t B_t x_t there, back in time, e being the cotangent of a state
/// before the step and dy that of Σ C h:
///   g = e_{t+1} + C_t dy_t,   dB_t += g Δ_t x_t,   dC_t += dy_t h_t,   e_t = a_t g,
///   dx_t += D dy_t + Δ_t Σ g B_t,   dΔ_t = x_t Σ g B_t + Σ e_t h_{t-1} A',
///   dA' += e_t h_{t-1} Δ_t.
template <class T, packing Packing>
class selective_vjp_steps : protected selective_vjp_stage<T, Packing> {
  using stage = selective_vjp_stage<T, Packing>;

 public:
  __device__ selective_vjp_steps(selective_vjp_problem<T> const& problem,
                                 typename stage::shared& memory)
      : stage(problem, memory) {
    own_ = static_cast<int>(threadIdx.x), other_ = own_ ^ 1;
    own_place_ = stage::place_of(own_), other_place_ = stage::place_of(other_);
    own_quads_ = own_ % 2 * states / 4, swap_ = own_ >> 1 & 1;
    D_ = own_ < block.channels && p.first_state == 0 ? p.skip(block.channel + own_) : 0.0f;
    auto const& A = p.eigenvalue;
    request_states(s.eigenvalues, &A(block.channel, p.first_state), A.stride(0), A.stride(1));
  }

 protected:
  using tile = selective_vjp_tile;
  using stage::p, stage::s, stage::block;
  static constexpr int states = tile::own_states, together = tile::together;
  using numbers = float[2][states];

  /// How many states this pass is about.
  __device__ int states_there() const {
    index_t const left = p.states - p.first_state;
    return left < tile::states ? static_cast<int>(left) : tile::states;
  }

  /// Ask for a number of each state of this lane's own channel; 0 where there is none.
  __device__ void request_states(tile::state_rows& to, float const* from, index_t channel,
                                 index_t state) const {
    int const there = own_ < block.channels ? states_there() : 0;
    from += own_ * channel;
#pragma unroll 4
    for (int n = 0; n < tile::states; ++n, from += state) {
      request_if(n < there, &to[n][own_], from);
    }
  }

  /// Until all that was asked for is there; and rates.
  __device__ void receive() {
    wait_for_requests();
    if (p.scaling.scales_eigenvalues()) {
      each_state([&](int n) {
        float& A = s.eigenvalues[n][own_];
        A = p.scaling.eigenvalue(block.channel + own_, p.first_state + n, A);
      });
    }
    __syncwarp();
    get(rate_, s.eigenvalues);
    float const factor[] = {s.factor[own_], s.factor[other_]};
#pragma unroll
    for (int c = 0; c < 2; ++c)
#pragma unroll
      for (float& rate : rate_[c]) rate = rate * log2_of_e * factor[c];
  }

  /// What is done once for each state of this lane's own channel is a loop, not many instructions,
  /// which come from far; it finds its numbers in shared memory.
  template <class Visit>
  __device__ void each_state(Visit const& visit) const {
    if (own_ >= block.channels) return;
    int const there = states_there();
#pragma unroll 1
    for (int n = 0; n < there; ++n) visit(n);
  }

  /// Which state is this thread's j-th. Every fourth lane has its states in another order, so that
  /// sums over channels cross lanes without selections.
  __device__ int row_of(int j) const {
    return 4 * (own_quads_ + (j / 4 ^ swap_)) + j % 4;
  }
  __device__ void put(tile::state_rows& to, numbers const& from) const {
#pragma unroll
    for (int j = 0; j < states; ++j) {
      auto& row = to[row_of(j)];
      row[own_] = from[0][j], row[other_] = from[1][j];
    }
  }
  __device__ void get(numbers& to, tile::state_rows const& from) const {
#pragma unroll
    for (int j = 0; j < states; ++j) {
      auto const& row = from[row_of(j)];
      to[0][j] = row[own_], to[1][j] = row[other_];
    }
  }

  /// The states after four steps from `first` of tile i.
  __device__ void advance(int i, int first) {
    unsigned const starts = this->starts(i) >> first;
    if (starts == 0) return advance<false>(i, first, 0, [] {});
    advance<true>(i, first, starts, [] {});
  }
  /// Where no sequence starts. What it waits for hides `beside`, unless a branch parts the two.
  template <class Beside>
  __device__ void advance_beside(int i, int first, Beside const& beside) {
    advance<false>(i, first, 0, beside);
  }

  /// Four steps of tile i forward from the states that enter them, then back.
  __device__ void back_and_forth(int i, int first) {
    unsigned const starts = this->starts(i) >> first;
    if (starts == 0) return back_and_forth<false>(i, first, 0);
    back_and_forth<true>(i, first, starts);
  }

  /// The sum over all states of this lane's own channel.
  __device__ static float over_states(float const (&part)[2]) {
    return part[0] + __shfl_xor_sync(~0u, part[1], 1);
  }

  int own_, other_, own_quads_, swap_;
  float rate_[2][states];  // log2(e)·A' with Δ's factor
  float h_[2][states] = {}, e_[2][states] = {}, to_rate_[2][states] = {};
  float to_bias_ = 0.0f, to_input_ = 0.0f, to_D_ = 0.0f;  // to_input_: Σ x Δ Σ g B

 private:
  /// This thread's states of B or C.
  __device__ void read(int i, int which, int t, float (&to)[states]) const {
#pragma unroll
    for (int q = 0; q < states / 4; ++q) {
      float4 const four = s.projection[i % 2][which][t][own_quads_ + (q ^ swap_)];
      to[4 * q] = four.x, to[4 * q + 1] = four.y, to[4 * q + 2] = four.z, to[4 * q + 3] = four.w;
    }
  }
  /// Δ before its factor and Δ x of this thread's channels.
  __device__ void read_pairs(int t, float (&step)[2], float (&input)[2]) const {
    float2 const own = this->pairs(t)[own_place_ ^ tile::apart(t)];
    float2 const other = this->pairs(t)[other_place_ ^ tile::apart(t)];
    step[0] = own.x, step[1] = other.x, input[0] = own.y, input[1] = other.y;
  }
  __device__ void read_arriving(int t, float (&dy)[2]) const {
    dy[0] = s.arriving[t][own_ ^ tile::apart(t)], dy[1] = s.arriving[t][other_ ^ tile::apart(t)];
  }
  /// What a step back needs.
  struct inputs {
    float dy[2], C[states], step[2], input[2], B[states], x, slope, gate;
  };
  __device__ inputs inputs_of(int i, int t) const {
    inputs of;
    int const own = own_ ^ tile::apart(t);
    read_arriving(t, of.dy), read(i, 1, t, of.C);
    read_pairs(t, of.step, of.input), read(i, 0, t, of.B);
    of.x = s.xs[t][own], of.slope = s.slopes[t][own], of.gate = s.gates[t][own];
    return of;
  }
  __device__ static void clear(numbers& all) {
#pragma unroll
    for (auto& row : all)
#pragma unroll
      for (float& each : row) each = 0.0f;
  }

  template <bool Cut, class Beside>
  __device__ void advance(int i, int first, unsigned starts, Beside const& beside) {
    float step[together][2], input[together][2], B[together][states];
#pragma unroll
    for (int k = 0; k < together; ++k) {
      read_pairs(first + k, step[k], input[k]);
      read(i, 0, first + k, B[k]);
    }
    beside();
#pragma unroll
    for (int k = 0; k < together; ++k) {
      if (Cut && (starts >> k & 1)) clear(h_);
#pragma unroll
      for (int j = 0; j < states; ++j)
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          h_[c][j] = fmaf(exp2(step[k][c] * rate_[c][j]), h_[c][j], input[k][c] * B[k][j]);
        }
    }
  }

  template <bool Cut>
  __device__ void back_and_forth(int i, int first, unsigned starts) {
    // What a step multiplies by, and the states before the first step and after each.
    float decay[together][2][states], state[together + 1][2][states];
#pragma unroll
    for (int c = 0; c < 2; ++c)
#pragma unroll
      for (int j = 0; j < states; ++j) state[0][c][j] = h_[c][j];
#pragma unroll
    for (int k = 0; k < together; ++k) {
      if (Cut && (starts >> k & 1)) clear(h_);
      float step[2], input[2], B[states];
      read_pairs(first + k, step, input);
      read(i, 0, first + k, B);
#pragma unroll
      for (int j = 0; j < states; ++j)
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          decay[k][c][j] = exp2(step[c] * rate_[c][j]);
          h_[c][j] = fmaf(decay[k][c][j], h_[c][j], input[c] * B[j]);
          state[k + 1][c][j] = h_[c][j];
        }
    }
    inputs in = inputs_of(i, first + together - 1);
#pragma unroll
    for (int k = together - 1; k >= 0; --k) {
      bool const cut = Cut && (starts >> k & 1);
      inputs next = in;
      reverse(first, k, cut, in, decay[k], state[k], state[k + 1], [&] {
        if (k > 0) next = inputs_of(i, first + k - 1);
      });
      in = next;
    }
    sum_parts(first);
  }

  /// A step back; with `cut`, nothing of the states before it is in it. Loads wait for what was
  /// stored ahead of them, so that `load_ahead` loads for the next step before this one stores.
  template <class LoadAhead>
  __device__ void reverse(int first, int k, bool cut, inputs const& in, numbers const& decay,
                          numbers const& before, numbers const& after,
                          LoadAhead const& load_ahead) {
    auto const& [dy, C, step, input, B, x, slope, gate] = in;
    float part[states], y[2] = {};
#pragma unroll
    for (int j = 0; j < states; ++j) {
#pragma unroll
      for (int c = 0; c < 2; ++c) y[c] = fmaf(C[j], after[c][j], y[c]);
      part[j] = fmaf(dy[0], after[0][j], dy[1] * after[1][j]);
    }
    leave_part(1, k, part);
    float to_input[2] = {}, to_step[2] = {};
#pragma unroll
    for (int j = 0; j < states; ++j) {
      float g[2];
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        g[c] = fmaf(C[j], dy[c], e_[c][j]);
        to_input[c] = fmaf(g[c], B[j], to_input[c]);
        e_[c][j] = cut ? 0.0f : decay[c][j] * g[c];
        float const to_exponent = cut ? 0.0f : e_[c][j] * before[c][j];
        to_step[c] = fmaf(to_exponent, rate_[c][j], to_step[c]);
        to_rate_[c][j] = fmaf(to_exponent, step[c], to_rate_[c][j]);
      }
      part[j] = fmaf(g[0], input[0], g[1] * input[1]);
    }
    load_ahead();
    leave_part(0, k, part);
    float const driven = over_states(to_input), driven_x = driven * x, factor = s.factor[own_];
    float const biased = fmaf(driven_x, factor, over_states(to_step) * (1 / log2_of_e)) * slope;
    int const t = first + k, own = own_ ^ tile::apart(t);
    s.xs[t][own] = fmaf(D_, dy[0], driven * (factor * step[0]));
    s.slopes[t][own] = biased;
    s.gates[t][own] = gate * fmaf(D_, x, over_states(y));
    to_bias_ += biased;
    to_input_ = fmaf(driven_x, step[0], to_input_);
    to_D_ = fmaf(dy[0], x, to_D_);
  }

  /// What this thread's channels add to dB or dC of step k of four; every second lane has four of
  /// the states.
  __device__ void leave_part(int which, int k, float (&part)[states]) const {
#pragma unroll
    for (int j = 0; j < 4; ++j) part[j] += __shfl_xor_sync(~0u, part[j + 4], 2);
    s.part[own_ / 32][k][which][own_ % 32 / 4][own_quads_ + swap_] = {part[0], part[1], part[2],
                                                                      part[3]};
  }

  /// dB and dC of the warp's channels from all lanes' parts of four steps: each lane has four
  /// states of one.
  __device__ void sum_parts(int first) const {
    __syncwarp();
    int const lane = own_ % 32, quad = lane % 4, which = lane / 4 % 2, k = lane / 8;
    float4 part[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) part[i] = s.part[own_ / 32][k][which][i][quad];
#pragma unroll
    for (int half = 4; half > 0; half /= 2)
#pragma unroll
      for (int i = 0; i < half; ++i) {
        part[i].x += part[i + half].x, part[i].y += part[i + half].y;
        part[i].z += part[i + half].z, part[i].w += part[i + half].w;
      }
    s.sums[own_ / 32][first + k][which][quad] = part[0];
    __syncwarp();
  }

  int own_place_, other_place_;
  float D_;
};

}  // namespace ssm::gpu::detail
