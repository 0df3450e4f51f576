// SPDX-License-Identifier: Apache-2.0
// dual_step_kernel.cuh: Mamba-2's operator over a few steps: as fast as its states can be moved.
#pragma once

#include <limits>

#include "ssm/detail/dual_problem.cuh"
#include "ssm/detail/selective_packets.cuh"
#include "ssm/detail/step_states.cuh"
#include "ssm/error.hpp"
#include "ssm/execution.cuh"

namespace ssm::gpu::detail {

/// Calls of at most this many steps are the step kernel's, where nothing is saved.
inline constexpr index_t few_dual_steps = 8;

/// A warp has some channels of a head: `passes` times Rows · 32 / lanes of them. `lanes` threads
/// have all states of a channel, each thread `Quads` times four states of `Rows` channels. Dense:
/// fours of the carry, of B and of C are whole and begin at multiples of what they take, and a row
/// of the batch has its elements near each other. Blocks have channels, heads, rows of the batch.
/// All that a step needs is asked for before anything waits, the next states before these are
/// computed.
template <class T, int Rows, int Quads, bool Dense>
__global__ void __launch_bounds__(step_threads)
    dual_step_kernel(__grid_constant__ dual_problem<T> const p, int lane_bits, int passes) {
  using offset = std::conditional_t<Dense, int, index_t>;
  int const lane = static_cast<int>(threadIdx.x % 32);
  int const lanes = 1 << lane_bits, apart = 32 >> lane_bits;  // of a channel; and to the next one
  int const at_once = Rows * apart, head_dim = static_cast<int>(p.head_dim);
  int const warp = static_cast<int>((blockIdx.x * blockDim.x + threadIdx.x) / 32);
  index_t const head = blockIdx.y;
  index_t const g = p.groups == 1 ? 0 : head / static_cast<unsigned>(p.group_heads);
  int const n0 = (lane & (lanes - 1)) * 4, states = static_cast<int>(p.states);
  int const first = warp * passes * at_once + (lane >> lane_bits),
            own = row_of_lane<Rows>(lane) * apart;
  int const lane_step = lane < p.length ? lane : 0;
  auto const count = [&](int c0, int r, int q) {
    return c0 + r * apart < head_dim ? states - n0 - 4 * lanes * q : 0;
  };

  for (index_t b = blockIdx.z; b < p.batch; b += gridDim.z) {
    float step_of_lane = 0, exponent_of_lane = 0;

    auto const load = [&](int c0, float4(&h)[Rows][Quads]) {
      float const* const from = element_at<Dense>(p.initial, b, head, c0, n0);
      offset const row = apart * static_cast<offset>(p.initial.stride(2));
      offset const quad = 4 * lanes * static_cast<offset>(p.initial.stride(3));
#pragma unroll
      for (int r = 0; r < Rows; ++r) {
#pragma unroll
        for (int q = 0; q < Quads; ++q) {
          h[r][q] =
              load_states<Dense>(from + (r * row + q * quad), p.initial.stride(3), count(c0, r, q));
        }
      }
    };
    float4 ahead[Rows][Quads];
    load(first, ahead);
    for (int pass = 0, c0 = first; pass < passes; ++pass, c0 += at_once) {
      float4 h[Rows][Quads];
#pragma unroll
      for (int r = 0; r < Rows; ++r) {
#pragma unroll
        for (int q = 0; q < Quads; ++q) h[r][q] = ahead[r][q];
      }
      if (pass + 1 < passes) load(c0 + at_once, ahead);
      bool const has_own = c0 + own < head_dim;
      int const c = has_own ? c0 + own : 0;  // the channel whose y this thread writes
      float const skip = p.skip(head, c);

      for (int t = 0; t < p.length; ++t) {
        stored_quad<T> B[Quads], C[Quads];
#pragma unroll
        for (int q = 0; q < Quads; ++q) {
          int const n = n0 + 4 * lanes * q;
          B[q] = load_quad_of<Dense>(element_at<Dense>(p.B, b, t, g, n), p.B.stride(3), states - n);
          C[q] = load_quad_of<Dense>(element_at<Dense>(p.C, b, t, g, n), p.C.stride(3), states - n);
        }
        float const x = to_number(*element_at<Dense>(p.x, b, t, head, c));
        bool const has_gate = p.gate.data_handle() != nullptr;
        float const z = has_gate ? to_number(*element_at<Dense>(p.gate, b, t, head, c)) : 0.0f;
        if (pass == 0 && t == 0) {  // of all steps, a lane for each
          T const projected = *element_at<Dense>(p.step_size, b, lane_step, head);
          float const bias = p.bias(head), factor = p.scaling.step_factor(head);
          float const rate = p.rate(head);
          step_of_lane = p.step(to_number(projected), bias, factor);
          exponent_of_lane = p.log2_decay(rate, step_of_lane);
        }
        float const step = __shfl_sync(~0u, step_of_lane, t);
        float const exponent = __shfl_sync(~0u, exponent_of_lane, t);
        if (p.starts_sequence(b, t)) {
#pragma unroll
          for (int r = 0; r < Rows; ++r) {
#pragma unroll
            for (int q = 0; q < Quads; ++q) h[r][q] = {};
          }
        }
        float drive[Rows], y[Rows] = {};
#pragma unroll
        for (int r = 0; r < Rows; ++r) {
          drive[r] =
              Rows == 1 ? step * x : __shfl_sync(~0u, step * x, lane / 4 * 4 + lane_of_row(r));
        }
        auto const take = [&](auto const& next) {
#pragma unroll
          for (int q = 0; q < Quads; ++q) {
            float4 const in = B[q].numbers(), out = C[q].numbers();
#pragma unroll
            for (int r = 0; r < Rows; ++r) {
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
        if (has_own && n0 < 4 * Rows) {
          *element_at<Dense>(p.y, b, t, head, c) =
              to_stored<T>(has_gate ? ungated * (z * sigmoid(z)) : ungated);
        }
      }

      float* const to = element_at<Dense>(p.carry, b, head, c0, n0);
      offset const row = apart * static_cast<offset>(p.carry.stride(2));
      offset const quad = 4 * lanes * static_cast<offset>(p.carry.stride(3));
#pragma unroll
      for (int r = 0; r < Rows; ++r) {
#pragma unroll
        for (int q = 0; q < Quads; ++q) {
          store_states<Dense>(to + (r * row + q * quad), p.carry.stride(3), count(c0, r, q),
                              h[r][q]);
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

/// Run the steps of a problem with at most 256 states; what is said of segments is not read.
template <class T>
void run_dual_steps(on where, dual_problem<T> const& p) {
  constexpr index_t most = 65535;
  require<shape_error>(p.heads <= most && p.head_dim <= most, "state_space_dual: x has ", p.heads,
                       " heads of ", p.head_dim, " channels, expected at most 65535 of each");
  int const lane_bits = step_lane_bits(p.states);
  auto const are_near = [](auto const&... views) { return (has_near_elements(views) && ...); };
  bool const dense = has_dense_states(p.carry) && has_dense_states(p.B) && has_dense_states(p.C) &&
                     are_near(p.carry, p.B, p.C, p.x, p.gate, p.y, p.step_size);
  bool const one_row =
      dense && p.states <= 128 && are_few_rows(p.batch * p.heads * p.head_dim, lane_bits);
  index_t const at_once = (one_row ? 1 : 4) * (32 >> lane_bits);
  index_t const groups = (p.head_dim + at_once - 1) / at_once;
  index_t const passes = step_passes(p.batch * p.heads * groups, std::min<index_t>(groups, 4));
  index_t const warps = (groups + passes - 1) / passes;
  index_t const in_block = std::min<index_t>(warps, step_threads / 32);
  auto* const kernel = one_row          ? dual_step_kernel<T, 1, 1, true>
                       : !dense         ? dual_step_kernel<T, 4, 2, false>
                       : p.states > 128 ? dual_step_kernel<T, 4, 2, true>
                                        : dual_step_kernel<T, 4, 1, true>;
  dim3 const blocks(static_cast<unsigned>((warps + in_block - 1) / in_block),
                    static_cast<unsigned>(p.heads), static_cast<unsigned>(std::min(p.batch, most)));
  kernel<<<blocks, static_cast<unsigned>(32 * in_block), 0, where.stream>>>(
      p, lane_bits, static_cast<int>(passes));
  check(cudaGetLastError(), "dual_step_kernel");
}

}  // namespace ssm::gpu::detail
