// SPDX-License-Identifier: Apache-2.0
// selective_step_kernel.cuh: Mamba's operator over a few steps: as fast as its states can be moved.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/selective_problem.cuh"
#include "ssm/detail/step_states.cuh"

namespace ssm::gpu::detail {

/// Calls of at most this many steps are a step kernel's.
inline constexpr index_t few_steps = 4;

/// An element of a sequence, or of B or C. Near: as element_at.
template <bool Near, class T>
__device__ T* place(selective_array<T> const& of, index_t b, index_t t, index_t c) {
  using offset = std::conditional_t<Near, int, index_t>;
  return of.data + b * of.batch +
         (static_cast<offset>(t) * static_cast<offset>(of.time) +
          static_cast<offset>(c) * static_cast<offset>(of.channel));
}
template <bool Near, class T>
__device__ T const* place(selective_projection<T> const& of, index_t b, index_t t, index_t g,
                          index_t n) {
  using offset = std::conditional_t<Near, int, index_t>;
  return of.data + b * of.batch +
         (static_cast<offset>(t) * static_cast<offset>(of.time) +
          static_cast<offset>(g) * static_cast<offset>(of.group) +
          static_cast<offset>(n) * static_cast<offset>(of.state));
}

/// A scaled eigenvalue's four states n to n + 3 of channel c. Not inlined: few models have factors.
template <class T>
__device__ __noinline__ float4 scaled_quad(selective_problem<T> const& p, index_t c, index_t n,
                                           int count, float4 four) {
  if (count > 0) four.x = p.scaling.eigenvalue(c, n, four.x);
  if (count > 1) four.y = p.scaling.eigenvalue(c, n + 1, four.y);
  if (count > 2) four.z = p.scaling.eigenvalue(c, n + 2, four.z);
  if (count > 3) four.w = p.scaling.eigenvalue(c, n + 3, four.w);
  return four;
}

/// A warp has Rows · 32 / lanes channels of a group in `passes` rows of the batch. `lanes` threads
/// have all states of a channel, each thread `Quads` times four states of `Rows` channels. Dense:
/// fours of the carry, the eigenvalues, B and C are whole and begin at multiples of what they take,
/// and a row of the batch has its elements near each other.
/// Blocks have channels, groups, rows of the batch. All that a step needs is asked for before
/// anything waits, the next states before these are computed.
template <class T, int Rows, int Quads, bool Dense>
__global__ void __launch_bounds__(step_threads)
    selective_step_kernel(__grid_constant__ selective_problem<T> const p, int lane_bits,
                          int passes) {
  using offset = std::conditional_t<Dense, int, index_t>;
  int const lane = static_cast<int>(threadIdx.x % 32);
  int const lanes = 1 << lane_bits, apart = 32 >> lane_bits;  // of a channel; and to the next one
  index_t const warp = (blockIdx.x * blockDim.x + threadIdx.x) / 32, g = blockIdx.y;
  index_t const in_group = warp * Rows * apart + (lane >> lane_bits);  // the first of its channels
  index_t const c0 = g * p.group_channels + in_group, left = p.group_channels - in_group;
  int const n0 = (lane & (lanes - 1)) * 4, states = static_cast<int>(p.states);
  int const own = row_of_lane<Rows>(lane) * apart;
  bool const has_own = own < left;
  index_t const c = has_own ? c0 + own : 0;  // the channel whose y this thread writes
  auto const count = [&](int r, int q) {
    return r * apart < left ? states - n0 - 4 * lanes * q : 0;
  };
  auto const load = [&](index_t b, float4(&h)[Rows][Quads]) {
    float const* const from = element_at<Dense>(p.initial, b, c0, n0);
    offset const row = apart * static_cast<offset>(p.initial.stride(1));
    offset const quad = 4 * lanes * static_cast<offset>(p.initial.stride(2));
    bool const is_there = b < p.batch;
#pragma unroll
    for (int r = 0; r < Rows; ++r) {
#pragma unroll
      for (int q = 0; q < Quads; ++q) {
        h[r][q] = load_states<Dense>(from + (r * row + q * quad), p.initial.stride(2),
                                     is_there ? count(r, q) : 0);
      }
    }
  };

  index_t const b0 = index_t{blockIdx.z} * passes;
  index_t const end = b0 + passes < p.batch ? b0 + passes : p.batch;
  float4 ahead[Rows][Quads], rate[Rows][Quads];
  load(b0, ahead);
  {
    float const* const from = &p.eigenvalue(c0, n0);
    index_t const row = apart * p.eigenvalue.stride(0), quad = 4 * lanes * p.eigenvalue.stride(1);
#pragma unroll
    for (int r = 0; r < Rows; ++r) {
#pragma unroll
      for (int q = 0; q < Quads; ++q) {
        rate[r][q] =
            load_states<Dense>(from + (r * row + q * quad), p.eigenvalue.stride(1), count(r, q));
      }
    }
  }
  float const skip = p.skip(c), bias[1] = {p.bias(c)}, factor[1] = {p.scaling.step_factor(c)};

  for (index_t b = b0; b < end; ++b) {
    float4 h[Rows][Quads];
#pragma unroll
    for (int r = 0; r < Rows; ++r) {
#pragma unroll
      for (int q = 0; q < Quads; ++q) h[r][q] = ahead[r][q];
    }
    if (b + 1 < end) load(b + 1, ahead);
    for (index_t t = 0; t < p.length; ++t) {
      stored_quad<T> B[Quads], C[Quads];
#pragma unroll
      for (int q = 0; q < Quads; ++q) {
        int const n = n0 + 4 * lanes * q;
        B[q] = load_quad_of<Dense>(place<Dense>(p.B, b, t, g, n), p.B.state, states - n);
        C[q] = load_quad_of<Dense>(place<Dense>(p.C, b, t, g, n), p.C.state, states - n);
      }
      bool const has_gate = p.gate.data != nullptr;
      T const stored_x = *place<Dense>(p.x, b, t, c);  // numbers only when all is asked for
      T const stored_step = *place<Dense>(p.step_size, b, t, c);
      T const stored_z = has_gate ? *place<Dense>(p.gate, b, t, c) : T{};
      if (b == b0 && t == 0) {
#pragma unroll
        for (int r = 0; r < Rows; ++r) {
#pragma unroll
          for (int q = 0; q < Quads; ++q) {
            float4& four = rate[r][q];
            if (p.scaling.scales_eigenvalues()) {
              four = scaled_quad(p, c0 + r * apart, n0 + 4 * lanes * q, count(r, q), four);
            }
            four.x *= log2_of_e, four.y *= log2_of_e, four.z *= log2_of_e, four.w *= log2_of_e;
          }
        }
      }
      float const x = to_number(stored_x), z = to_number(stored_z);
      float const projected[1] = {to_number(stored_step)};
      float own_step[1];
      p.steps(projected, bias, factor, own_step);
      if (p.sequence.data_handle() != nullptr && p.starts_sequence(b, t)) {
#pragma unroll
        for (int r = 0; r < Rows; ++r) {
#pragma unroll
          for (int q = 0; q < Quads; ++q) h[r][q] = {};
        }
      }
      float y[Rows] = {};
#pragma unroll
      for (int r = 0; r < Rows; ++r) {
        int const from = lane / 4 * 4 + lane_of_row(r);
        float const step = Rows == 1 ? own_step[0] : __shfl_sync(~0u, own_step[0], from);
        float const drive = Rows == 1 ? own_step[0] * x : __shfl_sync(~0u, own_step[0] * x, from);
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
      if (has_own && n0 < 4 * Rows) {
        *place<Dense>(p.y, b, t, c) = to_stored<T>(has_gate ? ungated * (z * sigmoid(z)) : ungated);
      }
    }

    float* const to = element_at<Dense>(p.carry, b, c0, n0);
    offset const row = apart * static_cast<offset>(p.carry.stride(1));
    offset const quad = 4 * lanes * static_cast<offset>(p.carry.stride(2));
#pragma unroll
    for (int r = 0; r < Rows; ++r) {
#pragma unroll
      for (int q = 0; q < Quads; ++q) {
        store_states<Dense>(to + (r * row + q * quad), p.carry.stride(2), count(r, q), h[r][q]);
      }
    }
  }
}

}  // namespace ssm::gpu::detail
