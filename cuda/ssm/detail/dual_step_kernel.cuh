// SPDX-License-Identifier: Apache-2.0
// dual_step_kernel.cuh: Mamba-2's operator over a few steps: as fast as its states can be moved.
#pragma once

#include <limits>
#include <type_traits>

#include "ssm/detail/dual_problem.cuh"
#include "ssm/detail/early_launch.cuh"
#include "ssm/detail/selective_packets.cuh"
#include "ssm/detail/step_states.cuh"
#include "ssm/error.hpp"
#include "ssm/execution.cuh"

namespace ssm::gpu::detail {

/// Calls of at most this many steps are the step kernel's, where nothing is saved.
inline constexpr index_t few_dual_steps = 8;

/// What the kernel knows of a call (step_array).
template <class T, class Offset>
struct dual_step_call {
  template <class U>
  using array = step_array<U, Offset>;
  using parameter = step_parameter<Offset>;

  array<float> carry;
  array<T const> B, C, x, step_size, gate;
  parameter bias, eigenvalue, D;
  array<T> y;
  int batch, length, head_dim, states, groups, group_heads;
  step_rule rule;
  bool is_scaled;
  array<std::int32_t const> sequence;
  spectrum_scaling<float, memory::device> scaling;

  explicit dual_step_call(dual_problem<T> const& p)
      : carry{p.carry},
        B{p.B},
        C{p.C},
        x{p.x},
        step_size{p.step_size},
        gate{p.gate},
        bias{p.step_bias},
        eigenvalue{p.eigenvalue},
        D{p.D},
        y{p.y},
        batch{static_cast<int>(p.batch)},
        length{static_cast<int>(p.length)},
        head_dim{static_cast<int>(p.head_dim)},
        states{static_cast<int>(p.states)},
        groups{static_cast<int>(p.groups)},
        group_heads{static_cast<int>(p.group_heads)},
        rule{p.softplus, p.limited, p.smallest_step, p.largest_step},
        is_scaled{p.scaling.scales_eigenvalues() || p.scaling.step.data_handle() != nullptr},
        sequence{p.sequence},
        scaling{p.scaling} {}

  /// The eigenvalue of a head and what its steps are multiplied by. Not inlined: few models have
  /// factors.
  __device__ __noinline__ float2 scaled(int head, float given) const {
    return {scaling.eigenvalue(head, 0, given), scaling.step_factor(head)};
  }
  __device__ bool starts_sequence(index_t b, int t) const {
    return sequence.data != nullptr && t > 0 && *sequence.at(b, t) != *sequence.at(b, t - 1);
  }
};

/// A warp has some channels of a head: `passes` times 4 · 32 / lanes of them. `lanes` threads
/// have all states of a channel, each thread `Quads` times four states of four channels. Dense:
/// fours of the carry, of B and of C are whole and begin at multiples of what they take, and a row
/// of the batch has its elements near each other. Blocks have channels, heads, rows of the batch.
/// All that a step needs is asked for before anything waits, the next states before these are
/// computed.
template <class T, int Quads, bool Dense, class Offset = std::conditional_t<Dense, int, index_t>>
__global__ void __launch_bounds__(step_threads)
    dual_step_kernel(__grid_constant__ dual_step_call<T, Offset> const p, int lane_bits,
                     int passes) {
  int const lane = static_cast<int>(threadIdx.x % 32);
  int const lanes = 1 << lane_bits, apart = 32 >> lane_bits;  // of a channel; and to the next one
  int const at_once = step_rows * apart, head = static_cast<int>(blockIdx.y);
  int const warp = static_cast<int>((blockIdx.x * blockDim.x + threadIdx.x) / 32);
  int const n0 = (lane & (lanes - 1)) * 4;
  int const first = warp * passes * at_once + (lane >> lane_bits), own = row_of_lane(lane) * apart;
  auto const count = [&](int c0, int r, int q) {
    return c0 + r * apart < p.head_dim ? p.states - n0 - 4 * lanes * q : 0;
  };

  wait_for_earlier_kernels();
  for (int b = static_cast<int>(blockIdx.z); b < p.batch; b += static_cast<int>(gridDim.z)) {
    float step_of_lane = 0, exponent_of_lane = 0;
    Offset const row = apart * p.carry.third, quad = 4 * lanes * p.carry.fourth;
    auto const load = [&](int c0, float4(&h)[step_rows][Quads]) {
      float const* const from = p.carry.at(b, head, c0, n0);
#pragma unroll
      for (int r = 0; r < step_rows; ++r) {
#pragma unroll
        for (int q = 0; q < Quads; ++q) {
          h[r][q] =
              load_states<Dense>(from + (r * row + q * quad), p.carry.fourth, count(c0, r, q));
        }
      }
    };
    float4 ahead[step_rows][Quads];
    load(first, ahead);
    int const g =
        p.groups == 1
            ? 0
            : static_cast<int>(static_cast<unsigned>(head) / static_cast<unsigned>(p.group_heads));
    for (int pass = 0, c0 = first; pass < passes; ++pass, c0 += at_once) {
      float4 h[step_rows][Quads];
#pragma unroll
      for (int r = 0; r < step_rows; ++r) {
#pragma unroll
        for (int q = 0; q < Quads; ++q) h[r][q] = ahead[r][q];
      }
      if (pass + 1 < passes) load(c0 + at_once, ahead);
      bool const has_own = c0 + own < p.head_dim;
      int const c = has_own ? c0 + own : 0;  // the channel whose y this thread writes
      float const skip = p.D.at(head, c);

      for (int t = 0; t < p.length; ++t) {
        stored_quad<T> B[Quads], C[Quads];
#pragma unroll
        for (int q = 0; q < Quads; ++q) {
          int const n = n0 + 4 * lanes * q;
          B[q] = load_quad_of<Dense>(p.B.at(b, t, g, n), p.B.fourth, p.states - n);
          C[q] = load_quad_of<Dense>(p.C.at(b, t, g, n), p.C.fourth, p.states - n);
        }
        bool const has_gate = p.gate.data != nullptr;
        T const stored_x = *p.x.at(b, t, head, c);  // a number only when all is asked for
        T const stored_z = has_gate ? *p.gate.at(b, t, head, c) : T{};
        if (pass == 0 && t == 0) {  // of all steps, a lane for each
          T const projected = *p.step_size.at(b, lane < p.length ? lane : 0, head);
          float const bias = p.bias.at(head), eigenvalue = p.eigenvalue.at(head);
          float2 const scaled = p.is_scaled ? p.scaled(head, eigenvalue) : float2{eigenvalue, 1.0f};
          float step = to_number(projected) + bias;
          if (p.rule.softplus) step = ssm::softplus(step);
          if (p.rule.limited) step = clamp(step, p.rule.smallest, p.rule.largest);
          step_of_lane = step * scaled.y;
          exponent_of_lane = dual_problem<T>::log2_decay(scaled.x * log2_of_e, step_of_lane);
        }
        float const x = to_number(stored_x), z = to_number(stored_z);
        float const step = __shfl_sync(~0u, step_of_lane, t);
        float const exponent = __shfl_sync(~0u, exponent_of_lane, t);
        if (p.starts_sequence(b, t)) {
#pragma unroll
          for (int r = 0; r < step_rows; ++r) {
#pragma unroll
            for (int q = 0; q < Quads; ++q) h[r][q] = {};
          }
        }
        float drive[step_rows], y[step_rows] = {};
#pragma unroll
        for (int r = 0; r < step_rows; ++r) {
          drive[r] = __shfl_sync(~0u, step * x, lane / 4 * 4 + lane_of_row(r));
        }
        auto const take = [&](auto const& next) {
#pragma unroll
          for (int q = 0; q < Quads; ++q) {
            float4 const in = B[q].numbers(), out = C[q].numbers();
#pragma unroll
            for (int r = 0; r < step_rows; ++r) {
              float4& state = h[r][q];
              state.x = next(state.x, drive[r], in.x), y[r] = fmaf(out.x, state.x, y[r]);
              state.y = next(state.y, drive[r], in.y), y[r] = fmaf(out.y, state.y, y[r]);
              state.z = next(state.z, drive[r], in.z), y[r] = fmaf(out.z, state.z, y[r]);
              state.w = next(state.w, drive[r], in.w), y[r] = fmaf(out.w, state.w, y[r]);
            }
          }
        };
        if (fabsf(exponent) <= small_exponent) {  // next to 1: what is missing is exact
          float const less = small_exp2_minus_1(exponent);
          take([&](float h, float drive, float in) { return fmaf(less, h, fmaf(drive, in, h)); });
        } else {
          float const decay = exp2(exponent);
          take([&](float h, float drive, float in) { return fmaf(decay, h, drive * in); });
        }
        float const ungated = fmaf(skip, x, sum_of_row(y, lane, lanes));
        if (has_own && n0 < 4 * step_rows) {
          *p.y.at(b, t, head, c) = to_stored<T>(has_gate ? ungated * (z * sigmoid(z)) : ungated);
        }
      }

      float* const to = p.carry.at(b, head, c0, n0);
#pragma unroll
      for (int r = 0; r < step_rows; ++r) {
#pragma unroll
        for (int q = 0; q < Quads; ++q) {
          store_states<Dense>(to + (r * row + q * quad), p.carry.fourth, count(c0, r, q), h[r][q]);
        }
      }
    }
  }
}

/// Whether a call is a few steps, for which nothing is cut.
template <class T>
bool is_few_steps(dual_problem<T> const& p) {
  return p.length <= few_dual_steps && p.saved_states.data_handle() == nullptr &&
         p.saved_ungated.data_handle() == nullptr;
}

/// Run the steps of a problem with at most 256 states, from its carry; what is said of segments is
/// not read.
template <class T>
void run_dual_steps(on where, dual_problem<T> const& p) {
  constexpr index_t most = 65535;
  require<shape_error>(p.heads <= most && p.head_dim <= most, "state_space_dual: x has ", p.heads,
                       " heads of ", p.head_dim, " channels, expected at most 65535 of each");
  require<shape_error>(p.batch < std::numeric_limits<std::int32_t>::max(),
                       "state_space_dual: x has ", p.batch, " rows, expected less than 2^31");
  int const lane_bits = step_lane_bits(p.states);
  auto const are_near = [](auto const&... views) { return (has_near_elements(views) && ...); };
  bool const dense = has_dense_states(p.carry) && has_dense_states(p.B) && has_dense_states(p.C) &&
                     are_near(p.carry, p.B, p.C, p.x, p.gate, p.y, p.step_size, p.sequence) &&
                     has_near_elements(p.eigenvalue, 0) && has_near_elements(p.step_bias, 0) &&
                     has_near_elements(p.D, 0);
  index_t const at_once = step_rows * (32 >> lane_bits);
  index_t const groups = (p.head_dim + at_once - 1) / at_once;
  index_t const passes = step_passes(p.batch * p.heads * groups, std::min<index_t>(groups, 2));
  index_t const warps = (groups + passes - 1) / passes;
  index_t const in_block = std::min<index_t>(warps, step_threads / 32);
  dim3 const blocks(static_cast<unsigned>((warps + in_block - 1) / in_block),
                    static_cast<unsigned>(p.heads), static_cast<unsigned>(std::min(p.batch, most)));
  auto const launch = [&](auto* kernel, auto const& call) {
    launch_early(where, kernel, blocks, static_cast<unsigned>(32 * in_block), 0, "dual_step_kernel",
                 call, lane_bits, static_cast<int>(passes));
  };
  if (!dense) return launch(dual_step_kernel<T, 2, false>, dual_step_call<T, index_t>(p));
  launch(p.states > 128 ? dual_step_kernel<T, 2, true> : dual_step_kernel<T, 1, true>,
         dual_step_call<T, int>(p));
}

}  // namespace ssm::gpu::detail
