// SPDX-License-Identifier: Apache-2.0
// selective_step_kernel.cuh: Mamba's operator over a few steps: as fast as its states can be moved.
#pragma once

#include <type_traits>

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/selective_problem.cuh"
#include "ssm/detail/step_states.cuh"

namespace ssm::gpu::detail {

/// Calls of at most this many steps are a step kernel's.
inline constexpr index_t few_steps = 4;

/// What the kernel knows of a call (step_array).
template <class T, class Offset>
struct selective_step_call {
  template <class U>
  using array = step_array<U, Offset>;
  using parameter = step_parameter<Offset>;

  array<float> carry;
  parameter eigenvalue, D, bias;
  array<T const> B, C, x, step_size, gate;
  array<T> y;
  int batch, length, states, group_channels;
  step_rule rule;
  bool is_scaled;
  array<std::int32_t const> sequence;
  spectrum_scaling<float, memory::device> scaling;

  explicit selective_step_call(selective_problem<T> const& p)
      : carry{p.carry},
        eigenvalue{p.eigenvalue},
        D{p.D},
        bias{p.step_bias},
        B{of(p.B)},
        C{of(p.C)},
        x{of(p.x)},
        step_size{of(p.step_size)},
        gate{of(p.gate)},
        y{of(p.y)},
        batch{static_cast<int>(p.batch)},
        length{static_cast<int>(p.length)},
        states{static_cast<int>(p.states)},
        group_channels{static_cast<int>(p.group_channels)},
        rule{p.softplus, p.limited, p.smallest_step, p.largest_step},
        is_scaled{p.scaling.scales_eigenvalues() || p.scaling.step.data_handle() != nullptr},
        sequence{p.sequence},
        scaling{p.scaling} {}

  /// Four eigenvalues, states n to n + 3 of channel c. Not inlined: few models have factors.
  __device__ __noinline__ float4 scaled(int c, int n, int count, float4 four) const {
    if (count > 0) four.x = scaling.eigenvalue(c, n, four.x);
    if (count > 1) four.y = scaling.eigenvalue(c, n + 1, four.y);
    if (count > 2) four.z = scaling.eigenvalue(c, n + 2, four.z);
    if (count > 3) four.w = scaling.eigenvalue(c, n + 3, four.w);
    return four;
  }
  __device__ float step(float projected, float bias_of_channel, float factor) const {
    float step = projected + bias_of_channel;
    if (rule.softplus) step = softplus(step);
    if (rule.limited) step = clamp(step, rule.smallest, rule.largest);
    return step * factor;
  }
  __device__ bool starts_sequence(index_t b, int t) const {
    return sequence.data != nullptr && t > 0 && *sequence.at(b, t) != *sequence.at(b, t - 1);
  }

 private:
  template <class U>
  static array<U> of(selective_array<U> const& a) {
    return {a.data, a.batch, a.time, a.channel, 0};
  }
  static array<T const> of(selective_projection<T> const& a) {
    return {a.data, a.batch, a.time, a.group, a.state};
  }
};

/// A warp has 4 · 32 / lanes channels of a group in `passes` rows of the batch. `lanes` threads
/// have all states of a channel, each thread `Quads` times four states of four channels. Dense:
/// fours of the carry, the eigenvalues, B and C are whole and begin at multiples of what they take,
/// and a row of the batch has its elements near each other.
/// Blocks have channels, groups, rows of the batch. All that a step needs is asked for before
/// anything waits, the next states before these are computed.
template <class T, int Quads, bool Dense, class Offset = std::conditional_t<Dense, int, index_t>>
__global__ void __launch_bounds__(step_threads)
    selective_step_kernel(__grid_constant__ selective_step_call<T, Offset> const p, int lane_bits,
                          int passes) {
  int const lane = static_cast<int>(threadIdx.x % 32), g = static_cast<int>(blockIdx.y);
  int const lanes = 1 << lane_bits, apart = 32 >> lane_bits;  // of a channel; and to the next one
  int const warp = static_cast<int>((blockIdx.x * blockDim.x + threadIdx.x) / 32);
  int const in_group = warp * step_rows * apart + (lane >> lane_bits);  // the first of its channels
  int const c0 = g * p.group_channels + in_group, left = p.group_channels - in_group;
  int const n0 = (lane & (lanes - 1)) * 4;
  bool const has_own = row_of_lane(lane) * apart < left;
  int const c = has_own ? c0 + row_of_lane(lane) * apart : 0;  // whose y this thread writes
  auto const count = [&](int r, int q) {
    return r * apart < left ? p.states - n0 - 4 * lanes * q : 0;
  };
  Offset const row = apart * p.carry.second, quad = 4 * lanes * p.carry.third;
  auto const load = [&](int b, float4(&h)[step_rows][Quads]) {
    float const* const from = p.carry.at(b, c0, n0);
#pragma unroll
    for (int r = 0; r < step_rows; ++r) {
#pragma unroll
      for (int q = 0; q < Quads; ++q) {
        h[r][q] = load_states<Dense>(from + (r * row + q * quad), p.carry.third,
                                     b < p.batch ? count(r, q) : 0);
      }
    }
  };

  int const b0 = static_cast<int>(blockIdx.z) * passes;
  int const end = b0 + passes < p.batch ? b0 + passes : p.batch;
  float4 ahead[step_rows][Quads], rate[step_rows][Quads];
  load(b0, ahead);
#pragma unroll
  for (int r = 0; r < step_rows; ++r) {
#pragma unroll
    for (int q = 0; q < Quads; ++q) {
      Offset const at =
          (c0 + r * apart) * p.eigenvalue.first + (n0 + 4 * lanes * q) * p.eigenvalue.second;
      rate[r][q] = load_states<Dense>(p.eigenvalue.data + at, p.eigenvalue.second, count(r, q));
    }
  }
  float const skip = p.D.at(c), bias = p.bias.at(c);
  float factor = 1.0f;

  for (int b = b0; b < end; ++b) {
    float4 h[step_rows][Quads];
#pragma unroll
    for (int r = 0; r < step_rows; ++r) {
#pragma unroll
      for (int q = 0; q < Quads; ++q) h[r][q] = ahead[r][q];
    }
    if (b + 1 < end) load(b + 1, ahead);
    for (int t = 0; t < p.length; ++t) {
      stored_quad<T> B[Quads], C[Quads];
#pragma unroll
      for (int q = 0; q < Quads; ++q) {
        int const n = n0 + 4 * lanes * q;
        B[q] = load_quad_of<Dense>(p.B.at(b, t, g, n), p.B.fourth, p.states - n);
        C[q] = load_quad_of<Dense>(p.C.at(b, t, g, n), p.C.fourth, p.states - n);
      }
      bool const has_gate = p.gate.data != nullptr;
      T const stored_x = *p.x.at(b, t, c);  // numbers only when all is asked for
      T const stored_step = *p.step_size.at(b, t, c);
      T const stored_z = has_gate ? *p.gate.at(b, t, c) : T{};
      if (b == b0 && t == 0) {
        if (p.is_scaled) factor = p.scaling.step_factor(c);
#pragma unroll
        for (int r = 0; r < step_rows; ++r) {
#pragma unroll
          for (int q = 0; q < Quads; ++q) {
            float4& four = rate[r][q];
            if (p.is_scaled) {
              four = p.scaled(c0 + r * apart, n0 + 4 * lanes * q, count(r, q), four);
            }
            four.x *= log2_of_e, four.y *= log2_of_e, four.z *= log2_of_e, four.w *= log2_of_e;
          }
        }
      }
      float const x = to_number(stored_x), z = to_number(stored_z);
      float const own_step = p.step(to_number(stored_step), bias, factor);
      if (p.starts_sequence(b, t)) {
#pragma unroll
        for (int r = 0; r < step_rows; ++r) {
#pragma unroll
          for (int q = 0; q < Quads; ++q) h[r][q] = {};
        }
      }
      float y[step_rows] = {};
#pragma unroll
      for (int r = 0; r < step_rows; ++r) {
        int const from = lane / 4 * 4 + lane_of_row(r);
        float const step = __shfl_sync(~0u, own_step, from);
        float const drive = __shfl_sync(~0u, own_step * x, from);
#pragma unroll
        for (int q = 0; q < Quads; ++q) {
          float4 const in = B[q].numbers(), out = C[q].numbers();
          auto const next = [&](float& state, float rate, float in, float out) {
            float const exponent = step * rate;
            state = fabsf(exponent) <= small_exponent
                        ? fmaf(small_exp2_minus_1(exponent), state, fmaf(drive, in, state))
                        : fmaf(exp2(exponent), state, drive * in);
            y[r] = fmaf(out, state, y[r]);
          };
          next(h[r][q].x, rate[r][q].x, in.x, out.x);
          next(h[r][q].y, rate[r][q].y, in.y, out.y);
          next(h[r][q].z, rate[r][q].z, in.z, out.z);
          next(h[r][q].w, rate[r][q].w, in.w, out.w);
        }
      }
      float const ungated = fmaf(skip, x, sum_of_row(y, lane, lanes));
      if (has_own && n0 < 4 * step_rows) {
        *p.y.at(b, t, c) = to_stored<T>(has_gate ? ungated * (z * sigmoid(z)) : ungated);
      }
    }

    float* const to = p.carry.at(b, c0, n0);
#pragma unroll
    for (int r = 0; r < step_rows; ++r) {
#pragma unroll
      for (int q = 0; q < Quads; ++q) {
        store_states<Dense>(to + (r * row + q * quad), p.carry.third, count(r, q), h[r][q]);
      }
    }
  }
}

}  // namespace ssm::gpu::detail
