// SPDX-License-Identifier: Apache-2.0
// dual_vjp_head.cuh: the gradient of Mamba-2's operator for a chunk of time of one head.
#pragma once

#include "ssm/detail/dual_vjp_block.cuh"

namespace ssm::gpu::detail {

/// A block pulls back 64 steps of some of a group's heads, 64 channels at a time, and up to
/// `States` states. In the notation of ssd_vjp_tile, S_i the sum of log2 of decays to step i,
/// L_ij = 2^(S_i - S_j), e_i = 2^S_i, w_j = L_last,j, dy the cotangent of y before the gate, h what
/// enters and g the cotangent of what leaves:
///   u_j = w_j B_j·g + Σ_{i >= j} (C_i·B_j) L_ij dy_i,   dx_j = D dy_j + Δ_j u_j,
///   dC_i = e_i dy_i·h + Σ_{j <= i} G_ij B_j,            dB_j = w_j Δ_j x_j·g + Σ_{i >= j} G_ij
///   C_i, G_ij = (dy_i·x_j) L_ij Δ_j.
/// G, dB and dC stay in registers through all heads. Of more
/// states a pass has `States`; all but the first only add what goes through the state.
template <class T, int States>
class chunk_head : public chunk_block<T, States> {
  using base = chunk_block<T, States>;

 protected:
  using typename base::head_stage, typename base::products, typename base::shape;
  using factor = typename products::factor;
  using base::add_product, base::give_rows, base::band, base::column, base::depth, base::half,
      base::is_first_pass, base::m, base::p, base::row, base::state_tiles, base::step_tiles,
      base::sum_of_columns, base::sum_rows, base::width;

  using base::base;

  __device__ void pull_back(head_stage const& s, head_tile const& of, chunk_sums& sums) {
    chunk_steps const steps{s.steps};
    mix(s, steps, sums);
    add_through(s, steps, sums);
    add_projections(s, steps, sums);
    float u[step_tiles][4] = {};
#pragma unroll 4
    for (int k = 0; k < States; k += depth) add_product<false, false>(u, m.B(), s.leaving, k);
    scale_drives(u, s, steps, sums);
    __syncthreads();
    if (is_first_pass) {
#pragma unroll 2
      for (int k = 16 * band; k < vjp_steps; k += depth) {
        add_product<true, true>(u, m.mixing(), s.cotangent, k);
      }
    }
    store_drives(u, s, steps, of, sums);
    if (this->has_gate && p.to_gate.data_handle() != nullptr) pull_back_gate(s, steps, of);
  }

 private:
  /// G, and the rest that steps of a chunk have with each other; leaves (C_i·B_j) L_ij in `mixing`.
  __device__ void mix(head_stage const& s, chunk_steps const& steps, chunk_sums& sums) {
    if (!this->has_past()) {
      int const lane = static_cast<int>(threadIdx.x) % 32;
      if (is_first_pass) sums.crossing[band][width * half + lane] = 0.0f;
      return;
    }
    float G[step_tiles][4] = {};
#pragma unroll
    for (int k = 0; k < vjp_channels; k += depth) {
      add_product<false, false>(G, s.cotangent, s.x, k);
    }
    float const high[2] = {steps.high(row), steps.high(row + 8)};
    float const low[2] = {steps.low(row), steps.low(row + 8)};
    int const first = width * half + column;
#pragma unroll
    for (int n = 0; n < step_tiles; ++n) {
      float mixed[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        int const i = row + e / 2 * 8, j = first + 8 * n + e % 2;
        float const crossed = (high[e / 2] - steps.high(j)) + (low[e / 2] - steps.low(j));
        float const decay = exp2(i >= j ? crossed : log2_of_nothing);
        mixed[e] = products_[n][e] * decay;
        G[n][e] *= decay * steps.step(j);
        G_[n][e] += G[n][e];
        G[n][e] = i > j ? G[n][e] * products_[n][e] : 0.0f;
      }
      m.mixing().set_pair(row, column, width * half ^ 8 * n, mixed[0], mixed[1]);
      m.mixing().set_pair(row + 8, column, width * half ^ 8 * n, mixed[2], mixed[3]);
    }
    if (is_first_pass) add_crossing(G, sums);
  }

  /// Of terms (i, j): for each j the sum over later rows i of those from j and before, in a half.
  __device__ void add_crossing(float const (&terms)[step_tiles][4], chunk_sums& sums) const {
    float before[2] = {0.0f, 0.0f}, crossing[step_tiles][2];
    int const lane = lane_pair();
#pragma unroll
    for (int n = 0; n < step_tiles; ++n) {
      int const j = width * half + 8 * n + column;
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float const own = terms[n][2 * r] + terms[n][2 * r + 1];
        float const of1 = __shfl_xor_sync(~0u, own, 1), of2 = __shfl_xor_sync(~0u, own, 2),
                    of3 = __shfl_xor_sync(~0u, own, 3);
        float const left = before[r] + ((lane & 1 ? of1 : 0.0f) + (lane & 2 ? of2 + of3 : 0.0f));
        int const i = row + 8 * r;
        float const first = i > j ? left + terms[n][2 * r] : 0.0f;
        float const second = i > j + 1 ? left + own : 0.0f;
        crossing[n][0] = r == 0 ? first : crossing[n][0] + first;
        crossing[n][1] = r == 0 ? second : crossing[n][1] + second;
        before[r] += (own + of1) + (of2 + of3);
      }
    }
    sum_rows(crossing, [&](int j, float sum) { sums.crossing[band][j] = sum; });
    if (half == 0 && lane == 0) {
      sums.from_first_half[row] = before[0];
      sums.from_first_half[row + 8] = before[1];
    }
  }

  /// From B_j·g to w_j B_j·g.
  __device__ void scale_drives(float (&u)[step_tiles][4], head_stage const& s,
                               chunk_steps const& steps, chunk_sums& sums) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      int const j = row + 8 * r;
      float const weight = steps.leaving(j);
      float dot = 0.0f;
#pragma unroll
      for (int n = 0; n < step_tiles; ++n) {
        float2 const x = s.x.pair(j, column, width * half ^ 8 * n);
        u[n][2 * r] *= weight;
        u[n][2 * r + 1] *= weight;
        dot = fmaf(x.x, u[n][2 * r], fmaf(x.y, u[n][2 * r + 1], dot));
      }
      dot = sum_of_columns(dot);
      if (lane_pair() == 0) sums.into_state[half][j] = dot * steps.step(j);
    }
  }

  /// dx, dD, and x·u, which is the gradient of the step size in the drive.
  __device__ void store_drives(float (&u)[step_tiles][4], head_stage const& s,
                               chunk_steps const& steps, head_tile const& of,
                               chunk_sums& sums) const {
    float const step[2] = {steps.step(row), steps.step(row + 8)};
    bool const skips = is_first_pass && p.D.data_handle() != nullptr;
    float dot[2] = {0.0f, 0.0f}, of_D[step_tiles][2];
#pragma unroll
    for (int n = 0; n < step_tiles; ++n) {
      int const more = width * half ^ 8 * n;
      float2 D{0.0f, 0.0f};
      if (skips) D = *reinterpret_cast<float2 const*>(s.D + more + column);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float2 const x = s.x.pair(row + 8 * r, column, more);
        float2 const g = s.cotangent.pair(row + 8 * r, column, more);
        float(&own)[4] = u[n];
        dot[r] = fmaf(x.x, own[2 * r], fmaf(x.y, own[2 * r + 1], dot[r]));
        of_D[n][0] = r == 0 ? x.x * g.x : fmaf(x.x, g.x, of_D[n][0]);
        of_D[n][1] = r == 0 ? x.y * g.y : fmaf(x.y, g.y, of_D[n][1]);
        own[2 * r] = fmaf(D.x, g.x, own[2 * r] * step[r]);
        own[2 * r + 1] = fmaf(D.y, g.y, own[2 * r + 1] * step[r]);
      }
    }
    if (is_first_pass && p.wants_D) {
      sum_rows(of_D, [&](int c, float sum) { sums.D[band][c] = sum; });
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float const sum = sum_of_columns(dot[r]);
      if (lane_pair() == 0) sums.drive[half][row + 8 * r] = sum;
    }
    if (p.to_x.data_handle() != nullptr) {
      give_rows(p.to_x, of.head, of.first_channel, of.channels, p.packed_x, p.adds(), u);
    }
  }

  /// h·g: the diagonal of h g^T, of which a warp has 16 rows and half of the states.
  __device__ void add_through(head_stage const& s, chunk_steps const& steps,
                              chunk_sums& sums) const {
    float low[4] = {}, high[4] = {};
    int const first = States / vjp_halves * half;
#pragma unroll 4
    for (int k = 0; k < States / vjp_halves; k += depth) {
      factor const h = products::template left<false>(s.entering, 16 * band, first ^ k);
      factor const g = products::template right<false>(s.leaving, 16 * band, first ^ k);
      products::multiply(low, high, h, g, p.exact);
    }
    float through = 0.0f;  // rows r and r + 8, with columns r of the first and of the second eight
    if (lane_row() == column) through = low[0] + high[2];
    if (lane_row() == column + 1) through = low[1] + high[3];
    float const sum = sum_of_warp(through);
    if (threadIdx.x % 32 == 0) {
      sums.through[band + vjp_bands * half] = steps.entered(vjp_steps - 1) * sum;
    }
  }

  /// What goes through the states to dB and dC, and terms that leave the state.
  __device__ void add_projections(head_stage const& s, chunk_steps const& steps, chunk_sums& sums) {
    constexpr int ranks = vjp_channels / depth;
    factor cotangent[ranks], x[ranks];
#pragma unroll
    for (int k = 0; k < ranks; ++k) {
      cotangent[k] = products::template left<false>(s.cotangent, 16 * band, k * depth);
      x[k] = products::template left<false>(s.x, 16 * band, k * depth);
    }
    float const entered[2] = {steps.entered(row), steps.entered(row + 8)};
    float const weight[2] = {steps.driven(row), steps.driven(row + 8)};
    float dot[2] = {0.0f, 0.0f};
#pragma unroll
    for (int n = 0; n < state_tiles; n += 2) {
      int const first = States / vjp_halves * half ^ 8 * n;
      float C[2][4] = {}, B[2][4] = {};
#pragma unroll
      for (int k = 0; k < ranks; ++k) {
        factor const h = products::template right<true>(s.entering, first, k * depth);
        factor const g = products::template right<true>(s.leaving, first, k * depth);
        products::multiply(C[0], C[1], cotangent[k], h, p.exact);
        products::multiply(B[0], B[1], x[k], g, p.exact);
      }
#pragma unroll
      for (int q = 0; q < 2; ++q) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          float2 const own = m.C().pair(row + 8 * r, column, first ^ 8 * q);
          float const c0 = C[q][2 * r], c1 = C[q][2 * r + 1];
          dot[r] = fmaf(c0, own.x, fmaf(c1, own.y, dot[r]));
          float(&to_c)[4] = to_C_[n + q], (&to_b)[4] = to_B_[n + q];
          to_c[2 * r] = fmaf(entered[r], c0, to_c[2 * r]);
          to_c[2 * r + 1] = fmaf(entered[r], c1, to_c[2 * r + 1]);
          to_b[2 * r] = fmaf(weight[r], B[q][2 * r], to_b[2 * r]);
          to_b[2 * r + 1] = fmaf(weight[r], B[q][2 * r + 1], to_b[2 * r + 1]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float const sum = sum_of_columns(dot[r]);
      if (lane_pair() == 0) sums.from_state[half][row + 8 * r] = entered[r] * sum;
    }
  }

  /// y before the gate again, and what it gives the gate.
  __device__ void pull_back_gate(head_stage const& s, chunk_steps const& steps,
                                 head_tile const& of) const {
    float y[step_tiles][4] = {};
#pragma unroll 2
    for (int k = 0; k < States; k += depth) add_product<false, false>(y, m.C(), s.entering, k);
    float const entered[2] = {steps.entered(row), steps.entered(row + 8)};
#pragma unroll
    for (auto& four : y) {
#pragma unroll
      for (int e = 0; e < 4; ++e) four[e] *= entered[e / 2];
    }
    if (is_first_pass) {
      __syncthreads();
      if (this->has_past()) {
#pragma unroll
        for (int n = 0; n < step_tiles; ++n) {
          int const more = width * half ^ 8 * n;
          float2 const step =
              *reinterpret_cast<float2 const*>(steps.all(step_number::step) + more + column);
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            float2 const was = m.mixing().pair(row + 8 * r, column, more);
            m.mixing().set_pair(row + 8 * r, column, more, was.x * step.x, was.y * step.y);
          }
        }
      }
      __syncthreads();
#pragma unroll 2
      for (int k = 0; k < 16 * band + 16; k += depth) {
        add_product<false, true>(y, m.mixing(), s.x, k);
      }
    }
    bool const skips = is_first_pass && p.D.data_handle() != nullptr;
#pragma unroll
    for (int n = 0; n < step_tiles; ++n) {
      int const more = width * half ^ 8 * n;
      float2 D{0.0f, 0.0f};
      if (skips) D = *reinterpret_cast<float2 const*>(s.D + more + column);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float2 const x = s.x.pair(row + 8 * r, column, more);
        float2 const g = s.gate.pair(row + 8 * r, column, more);
        y[n][2 * r] = g.x * fmaf(D.x, x.x, y[n][2 * r]);
        y[n][2 * r + 1] = g.y * fmaf(D.y, x.y, y[n][2 * r + 1]);
      }
    }
    give_rows(p.to_gate, of.head, of.first_channel, of.channels, p.packed_x, p.adds(), y);
  }

 protected:
  float products_[step_tiles][4] = {};  // C_i·B_j
  float G_[step_tiles][4] = {};         // over heads, as are
  float to_B_[state_tiles][4] = {};
  float to_C_[state_tiles][4] = {};
};

}  // namespace ssm::gpu::detail
