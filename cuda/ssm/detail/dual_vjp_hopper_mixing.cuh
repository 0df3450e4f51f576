// SPDX-License-Identifier: Apache-2.0
// dual_vjp_hopper_mixing.cuh: the gradient of Mamba-2's operator on Hopper:
// what the steps of a chunk have with each other, and the gradient of x.
#pragma once

#include "ssm/detail/dual_hopper_slab.cuh"
#include "ssm/detail/dual_vjp_hopper_block.cuh"

namespace ssm::gpu::detail::hopper {

/// For each column of accumulators the sum over the rows of a warp: f(column,
/// its sum), two for each lane. Halves of the columns go to halves of the
/// lanes.
template <class F>
__device__ void sum_warp_rows(float (&own)[32], F const& f) {
  int const lane = lane_row();
#pragma unroll
  for (int i = 0; i < 32; i += 4) own[i] += own[i + 2], own[i + 1] += own[i + 3];
  auto const halve = [&](int columns, int bit) {
    bool const is_upper = lane & bit;
#pragma unroll
    for (int n = 0; n < columns / 2; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& low = own[4 * n + e];
        float const high = own[4 * (n + columns / 2) + e];
        float const there = __shfl_xor_sync(~0u, is_upper ? low : high, 4 * bit);
        low = (is_upper ? high : low) + there;
      }
    }
  };
  halve(8, 4), halve(4, 2), halve(2, 1);
  int const first = 32 * (lane >> 2 & 1) + 16 * (lane >> 1 & 1) + 8 * (lane & 1) + 2 * lane_pair();
  f(first, own[0]), f(first + 1, own[1]);
}

/// A warpgroup, in the notation of chunk_head. Rows of accumulators are the
/// steps j that something comes from, columns the steps i that it goes to, or
/// channels:
///   (B C^T)_ji                                  once for all heads
///   P_ji = x_j·dy_i,  u_j = B_j·g
///   G_ji = P_ji L_ij Δ_j,  T_ji = G_ji C_i·B_j
///   u_j = w_j u_j + Σ_i (C_i·B_j) L_ij dy_i     and meanwhile
///   R_jk = Σ_{i >= k} T_ji                      of which Σ_{j < k} crosses
///   step k.
template <class T>
class mixing {
 public:
  __device__ mixing(vjp_problem<T> const& problem, vjp_memory<T>& memory, vjp_barriers& bar)
      : p{problem.of}, to_x_{problem.to_x}, m{memory}, bar_{bar} {}

  __device__ void run() {
    unsigned parity = 0;
    vjp_work::for_each(p, [&](vjp_work const& w) {
      bar_.projections_here.wait(parity);
      parity ^= 1;
      float products[32], G[32];
      begin_products();
      multiply_all_states(products, rows_of(m.B), rows_of(m.C));
      end_products();
#pragma unroll
      for (float& each : G) each = 0.0f;
      wait_for_products_but<0>();
      hold(products);
      w.for_each_tile([&](int tile) {
        pull_back(w, tile, products, G);
        head_.advance(), sums_.advance();
      });
      store(G);
      bar_.projections_free.arrive_for_warp();
    });
    wait_for_additions();
  }

 private:
  __device__ void multiply_all_states(float (&to)[32], tile_rows a, tile_rows b) const {
#pragma unroll
    for (unsigned n = 0; n < vjp_states / 16; ++n) {
      unsigned const at = n / 4 * sizeof(tile<T>) + n % 4 * 32;
      multiply_rows<T>(to, a + at, b + at, n > 0);
    }
  }

  __device__ void pull_back(vjp_work const& w, int tile_number, float const (&products)[32],
                            float (&G)[32]) {
    vjp_head<T> const& s = m.heads[head_.place];
    chunk_steps const steps{s.steps};
    vjp_sums& sums = m.sums[sums_.place];
    bar_.sums_free[sums_.place].wait(sums_.parity ^ 1);
    bar_.head_here[head_.place].wait(head_.parity);
    float terms[32], u[32];
    begin_products();
#pragma unroll
    for (unsigned k = 0; k < 4; ++k) {
      multiply_rows<T>(terms, rows_of(s.x) + 32 * k, rows_of(s.cotangent) + 32 * k, k > 0);
    }
    end_products();
    multiply_all_states(u, rows_of(m.B), rows_of(s.leaving));
    end_products();
    float decay[32];
    find_decays(steps, decay);
    unsigned mixed[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      mixed[i] = to_word<T>(products[2 * i] * decay[2 * i], products[2 * i + 1] * decay[2 * i + 1]);
    }
    float const step[2] = {steps.step(own_.row), steps.step(own_.row + 8)};
    wait_for_products_but<1>();
    hold(terms);
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      terms[i] *= decay[i] * step[i / 2 % 2];
      G[i] += terms[i];
      terms[i] *= products[i];
    }
    float const leaving[2] = {steps.leaving(own_.row), steps.leaving(own_.row + 8)};
    wait_for_products_but<0>();
    hold(u);
#pragma unroll
    for (int i = 0; i < 32; ++i) u[i] *= leaving[i / 2 % 2];
    hold(u);
    begin_products();
#pragma unroll
    for (unsigned k = 0; k < 4; ++k) {
      multiply_columns<T>(u, &mixed[4 * k], {rows_of(s.cotangent) + k * sixteen_rows, 0});
    }
    end_products();
    // Terms in two parts of 16 bits.
    unsigned high[16], low[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      high[i] = to_word<T>(terms[2 * i], terms[2 * i + 1]);
      float2 const rounded = from_word<T>(high[i]);
      low[i] = to_word<T>(terms[2 * i] - rounded.x, terms[2 * i + 1] - rounded.y);
    }
    float crossing[32];
    begin_products();
#pragma unroll
    for (unsigned k = 0; k < 4; ++k) {
      multiply_rows<T>(crossing, &high[4 * k], rows_of(m.later) + 32 * k, k > 0);
      multiply_rows<T>(crossing, &low[4 * k], rows_of(m.later) + 32 * k, true);
    }
    end_products();
    wait_for_products_but<1>();
    hold(u);
    store_drives(w, tile_number, s, u, sums);
    bar_.head_free[head_.place].arrive_for_warp();
    wait_for_products_but<0>();
    hold(crossing);
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      bool const is_later = 8 * (i / 4) + i % 2 + own_.column > own_.row + i / 2 % 2 * 8;
      crossing[i] = is_later ? crossing[i] : 0.0f;
    }
    sum_warp_rows(crossing, [&](int k, float sum) { sums.crossing[own_.warp][k] = sum; });
    bar_.sums_here[sums_.place].arrive_for_warp();
  }

  /// L_ij, 0 for i < j.
  __device__ void find_decays(chunk_steps const& steps, float (&decay)[32]) const {
    float const high[2] = {steps.high(own_.row), steps.high(own_.row + 8)};
    float const low[2] = {steps.low(own_.row), steps.low(own_.row + 8)};
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      int const first = 8 * n + own_.column;
      float2 const high_i = *reinterpret_cast<float2 const*>(steps.all(step_number::high) + first);
      float2 const low_i = *reinterpret_cast<float2 const*>(steps.all(step_number::low) + first);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float const crossed[2] = {(high_i.x - high[r]) + (low_i.x - low[r]),
                                  (high_i.y - high[r]) + (low_i.y - low[r])};
        int const since = first - own_.row - 8 * r;
        decay[4 * n + 2 * r] = since >= 0 ? exp2(crossed[0]) : 0.0f;
        decay[4 * n + 2 * r + 1] = since >= -1 ? exp2(crossed[1]) : 0.0f;
      }
    }
  }

  /// dx, and x·u, which is the gradient of the step size in the drive. The copy engine adds 16 rows
  /// of 128 bytes at a time: pairs that lanes add by themselves load the way between the halves of
  /// L2 (the whole gradient of 1 x 80 x 65536 3.39 to 3.31 ms).
  __device__ void store_drives(vjp_work const& w, int tile_number, vjp_head<T> const& s,
                               float const (&u)[32], vjp_sums& sums) {
    chunk_steps const steps{s.steps};
    int const slabs = static_cast<int>(p.channel_tiles);
    bool const sends = threadIdx.x % 32 == 0 && p.to_x.data_handle() != nullptr;
    corner to{tile_number % slabs * vjp_channels, tile_number / slabs,
              w.chunk * vjp_steps + 16 * own_.warp, w.b};
    unsigned const first = own_.first_of(s.x);
    constexpr unsigned to_cotangent = sizeof(tile<T>);
    // 16 bytes c of row r are at c ^ (r % 8).
    int const row = own_.row % 8;
    unsigned stored =
        shared_address(&m.to_x[own_.warp][0]) +
        static_cast<unsigned>(row * 128 + (row ^ own_.column / 4) * 16 + own_.column % 4 * 4);
    float const step[2] = {steps.step(own_.row), steps.step(own_.row + 8)};
    float dot[2] = {0.0f, 0.0f};
#pragma unroll
    for (unsigned half = 0; half < 2; ++half) {
      float2 x[8], g[8];
#pragma unroll
      for (unsigned n = 0; n < 8; ++n) {
        x[n] = own_.pair<T>(first, 4 * half + n % 4, n / 4);
        g[n] = own_.pair<T>(first + to_cotangent, 4 * half + n % 4, n / 4);
      }
      if (sends) wait_for_reads_but<1>();
      __syncwarp();
#pragma unroll
      for (unsigned n = 0; n < 4; ++n) {
        float2 const D = *reinterpret_cast<float2 const*>(
            &s.D[32 * half + 8 * n + static_cast<unsigned>(own_.column)]);
#pragma unroll
        for (unsigned r = 0; r < 2; ++r) {
          float const* const two = &u[16 * half + 4 * n + 2 * r];
          float2 const here = x[4 * r + n], cotangent = g[4 * r + n];
          dot[r] = fmaf(here.x, two[0], fmaf(here.y, two[1], dot[r]));
          store_pair((stored ^ 32 * n) + r * 8 * 128, fmaf(D.x, cotangent.x, two[0] * step[r]),
                     fmaf(D.y, cotangent.y, two[1] * step[r]));
        }
      }
      publish_stores();
      __syncwarp();
      if (sends) send_box(to_x_, to, &m.to_x[own_.warp][half], p.accumulates);
      stored += sizeof(vjp_drives), to.column += vjp_drives::columns;
    }
#pragma unroll
    for (int distance = 1; distance < 4; distance *= 2) {
      dot[0] += __shfl_xor_sync(~0u, dot[0], distance);
      dot[1] += __shfl_xor_sync(~0u, dot[1], distance);
    }
    if (own_.column == 0) sums.drive[own_.row] = dot[0], sums.drive[own_.row + 8] = dot[1];
  }

  /// G of all heads, rounded, as rows of products from both sides.
  __device__ void store(float const (&G)[32]) {
    int const lane = static_cast<int>(threadIdx.x) % 32;
    unsigned const from = shared_address(&m.G[0]), to = shared_address(&m.G[1]);
    int const own_row = 16 * own_.warp + lane % 16;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      unsigned words[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) words[k] = to_word<T>(G[8 * i + 2 * k], G[8 * i + 2 * k + 1]);
      int const unit = (2 * i + lane / 16) ^ (own_row % 8);
      store_matrices(words, from + static_cast<unsigned>(own_row * 128 + unit * 16));
      int const turned_row = 16 * i + lane / 16 * 8 + lane % 8;
      int const turned_unit = (2 * own_.warp + lane / 8 % 2) ^ (lane % 8);
      store_transposed(words, to + static_cast<unsigned>(turned_row * 128 + turned_unit * 16));
    }
    publish_stores();
    bar_.G_here.arrive_for_warp();
  }

  dual_vjp_problem<T> const& p;
  CUtensorMap const& to_x_;
  vjp_memory<T>& m;
  vjp_barriers& bar_;
  ring<vjp_stages> head_;
  ring<buffers> sums_;
  own_elements own_;
};

}  // namespace ssm::gpu::detail::hopper
