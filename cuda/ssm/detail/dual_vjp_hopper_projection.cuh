// SPDX-License-Identifier: Apache-2.0
// dual_vjp_hopper_projection.cuh: the gradient of Mamba-2's operator on Hopper: that of B or C.
#pragma once

#include "ssm/detail/dual_hopper_slab.cuh"
#include "ssm/detail/dual_vjp_hopper_block.cuh"

namespace ssm::gpu::detail::hopper {

/// A warpgroup, in the notation of chunk_head; rows are steps, columns states:
///   dC_i = Σ_heads e_i dy_i·h   + Σ_j G_ij B_j,  C_i·(e_i dy_i·h) of each head;
///   dB_j = Σ_heads Δ_j w_j x_j·g + Σ_i G_ij C_i,  B_j·(Δ_j w_j x_j·g) of each head.
/// That of C also finds h·g, that of B the gradient of D.
template <class T>
class projection {
 public:
  __device__ projection(dual_vjp_problem<T> const& problem, vjp_memory<T>& memory,
                        vjp_barriers& bar, bool is_C)
      : p{problem}, m{memory}, bar_{bar}, is_C_{is_C} {}

  __device__ void run() {
    unsigned parity = 0;
    vjp_work::for_each(p, [&](vjp_work const& w) {
      bar_.projections_here.wait(parity);
      float total[2][32] = {};
      w.for_each_tile([&](int) {
        pull_back(total);
        head_.advance(), sums_.advance();
      });
      bar_.G_here.wait(parity);
      parity ^= 1;
      tile_rows const G = rows_of(m.G[is_C_ ? 1 : 0]), other = rows_of(is_C_ ? m.B : m.C);
      hold(total[0]), hold(total[1]);
      begin_products();
#pragma unroll
      for (unsigned n = 0; n < 2; ++n) multiply(total[n], G, other + n * sizeof(tile<T>), true);
      wait_for_products_but<0>();
      hold(total[0]), hold(total[1]);
      bar_.projections_free.arrive_for_warp();
      store(w, total);
    });
  }

 private:
  /// Rows of `a` by 64 columns of `b`.
  __device__ static void multiply(float (&to)[32], tile_rows a, tile_rows b, bool adds) {
#pragma unroll
    for (unsigned k = 0; k < 4; ++k) {
      multiply_columns<T>(to, a + 32 * k, {b + k * sixteen_rows, 0}, adds || k > 0);
    }
    end_products();
  }

  __device__ void pull_back(float (&total)[2][32]) {
    vjp_head<T> const& s = m.heads[head_.place];
    bar_.head_here[head_.place].wait(head_.parity);
    tile_rows const side = rows_of(is_C_ ? s.cotangent : s.x);
    tile_rows const states = rows_of(is_C_ ? s.entering : s.leaving);
    chunk_steps const steps{s.steps};
    float const* const weights = steps.all(is_C_ ? step_number::entered : step_number::driven);
    unsigned const own = not_ahead(own_.first_of(is_C_ ? m.C[0] : m.B[0]));
    vjp_sums& sums = m.sums[sums_.place];
    float weight[2], dot[2] = {0.0f, 0.0f};
#pragma unroll
    for (unsigned half = 0; half < 2; ++half) {
      float part[32];
      begin_products();
      multiply(part, side, states + half * sizeof(tile<T>), false);
      if (half == 0) {
        bar_.sums_free[sums_.place].wait(sums_.parity ^ 1);
        if (is_C_) {
          find_through(s, steps);
        } else if (p.wants_D) {
          find_D(s, sums);
        }
        weight[0] = weights[own_.row], weight[1] = weights[own_.row + 8];
      }
      wait_for_products_but<0>();
      hold(part);
      if (half == 1) bar_.head_free[head_.place].arrive_for_warp();
      add(part, weight, own + half * sizeof(tile<T>), total[half], dot);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float sum = weight[r] * dot[r];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      if (own_.column == 0) (is_C_ ? sums.from_state : sums.into_state)[own_.row + 8 * r] = sum;
    }
    bar_.sums_here[sums_.place].arrive_for_warp();
  }

  /// A part of 64 states to the total, and its product with those of B or C.
  __device__ void add(float const (&part)[32], float const (&weight)[2], unsigned own,
                      float (&total)[32], float (&dot)[2]) const {
#pragma unroll
    for (unsigned n = 0; n < 8; ++n) {
#pragma unroll
      for (unsigned r = 0; r < 2; ++r) {
        unsigned const at = 4 * n + 2 * r;
        float2 const here = own_.pair<T>(own, n, r);
        dot[r] = fmaf(part[at], here.x, fmaf(part[at + 1], here.y, dot[r]));
        total[at] = fmaf(weight[r], part[at], total[at]);
        total[at + 1] = fmaf(weight[r], part[at + 1], total[at + 1]);
      }
    }
  }

  /// Of a product of 16 rows by 16 columns the diagonal, of which eight lanes have two elements.
  struct diagonal {
    float low[4] = {}, high[4] = {};
    __device__ bool is_here() const { return lane_row() / 2 == lane_pair(); }
    __device__ float first() const { return lane_row() % 2 ? low[1] : low[0]; }
    __device__ float second() const { return lane_row() % 2 ? high[3] : high[2]; }
  };
  /// Where a lane finds its row of four matrices, 8 x 8 ones of the 16 x 16 at (row, column).
  __device__ static unsigned place(tile<T> const& from, int row, int column, bool rows_first) {
    int2 const at = lane_place(rows_first);
    int const r = row + at.x, sixteen_bytes = (column / 8 + at.y) ^ (r % 8);
    return not_ahead(shared_address(&from)) + static_cast<unsigned>(r * 128 + sixteen_bytes * 16);
  }

  /// 2^S_last h·g: the diagonal of h g^T.
  __device__ void find_through(vjp_head<T> const& s, chunk_steps const& steps) {
    diagonal d;
    unsigned const h_place = place(s.entering[0], 16 * own_.warp, 0, true);
    unsigned const g_place = place(s.leaving[0], 16 * own_.warp, 0, false);
#pragma unroll
    for (unsigned n = 0; n < 8; ++n) {
      bfloat16_products::factor h, g;
      unsigned const half = n / 4 * sizeof(tile<T>);
      load_matrices(h.word, (h_place ^ n % 4 * 32) + half);
      load_matrices(g.word, (g_place ^ n % 4 * 32) + half);
      bfloat16_products::multiply(d.low, d.high, h, g, false);
    }
    float const sum = sum_of_warp(d.is_here() ? d.first() + d.second() : 0.0f);
    if (threadIdx.x % 32 == 0)
      bar_.through[sums_.place][own_.warp] = steps.entered(vjp_steps - 1) * sum;
  }
  /// Σ_j x_j dy_j for each channel: the diagonal of x^T dy.
  __device__ void find_D(vjp_head<T> const& s, vjp_sums& sums) const {
    diagonal d;
    unsigned const x_place = place(s.x, 0, 16 * own_.warp, false);
    unsigned const g_place = place(s.cotangent, 0, 16 * own_.warp, true);
#pragma unroll
    for (unsigned k = 0; k < 4; ++k) {
      bfloat16_products::factor x, g;
      load_transposed(x.word, x_place + k * sixteen_rows);
      load_transposed(g.word, g_place + k * sixteen_rows);
      bfloat16_products::multiply(d.low, d.high, x, g, false);
    }
    if (!d.is_here()) return;
    sums.D[own_.row] = d.first();
    sums.D[own_.row + 8] = d.second();
  }

  __device__ void store(vjp_work const& w, float const (&total)[2][32]) const {
    auto const& view = is_C_ ? p.to_C : p.to_B;
    if (view.data_handle() == nullptr) return;
    index_t stride = vjp_states;
    float* line = nullptr;
    if (p.parts == 1) {
      line = &view(w.b, index_t{w.chunk} * vjp_steps + own_.row, w.group, own_.column);
      stride = view.stride(1);
    } else {
      line = p.shared + p.shared_of(w.part, w.b, w.group, w.chunk, vjp_states) +
             ((is_C_ ? vjp_steps : 0) + own_.row) * vjp_states + own_.column;
    }
    int const left = static_cast<int>(p.length) - w.chunk * vjp_steps - own_.row;
    bool const adds = p.parts == 1 && p.accumulates;
#pragma unroll
    for (int r = 0; r < 2; ++r, line += 8 * stride) {
#pragma unroll
      for (int n = 0; n < 16; ++n) {
        float const* const two = &total[n / 8][n % 8 * 4 + 2 * r];
        give_pair_if(p.parts > 1 || 8 * r < left, line + 8 * n, two[0], two[1], adds);
      }
    }
  }

  dual_vjp_problem<T> const& p;
  vjp_memory<T>& m;
  vjp_barriers& bar_;
  ring<vjp_stages> head_;
  ring<buffers> sums_;
  bool is_C_;
  own_elements own_;
};

}  // namespace ssm::gpu::detail::hopper
