// SPDX-License-Identifier: Apache-2.0
// dual_vjp_kernel.cuh: the gradient of Mamba-2's operator for a chunk of time, from the states that
// enter it and the cotangents that arrive at its end.
#pragma once

#include "ssm/detail/dual_vjp_head.cuh"

namespace ssm::gpu::detail {

/// All heads of a block, one after another, and what they give together.
template <class T, int States>
class chunk_pull_back : chunk_head<T, States> {
  using base = chunk_head<T, States>;
  using base::add_product, base::give_rows, base::band, base::column, base::depth, base::G_,
      base::half, base::is_first_pass, base::m, base::p, base::products_, base::row,
      base::state_tiles, base::step_tiles, base::to_B_, base::to_C_, base::width;
  using typename base::head_stage, typename base::shape;

 public:
  using base::base;

  __device__ void run(int stages) {
    head_tile of(p, this->first_tile);
    this->request(of, 0);
    multiply_projections();
    int which = 0;
    for (; of.tile < this->last_tile; of = of.next(p), which = 1 - which) {
      bool const is_last = of.tile + 1 == this->last_tile;
      wait_for_requests_but<0>();
      __syncthreads();
      if (stages > 1 && !is_last) this->request(of.next(p), 1 - which);
      if (of.tile > this->first_tile) store_sums(of.tile - 1, 1 - which);
      head_stage const s = m.stage(stages > 1 ? which : 0);
      if (this->has_gate) {
        pull_back_gates<shape::threads>(s.cotangent, s.gate);
        __syncthreads();
      }
      this->pull_back(s, of, m.sums(which));
      if (stages > 1 || is_last) continue;
      __syncthreads();
      this->request(of.next(p), 0);
    }
    finish();
    store_sums(this->last_tile - 1, 1 - which);
  }

 private:
  /// C B^T over all states; leaves B and C of this pass.
  __device__ void multiply_projections() {
    index_t const first = is_first_pass ? p.state_tiles - 1 : p.state_tile;
    for (index_t tile = first; tile >= p.state_tile; --tile) {
      this->load_projections(tile);
      if (!is_first_pass || !this->has_past()) continue;
#pragma unroll 2
      for (int k = 0; k < States; k += depth) {
        add_product<false, false>(products_, m.C(), m.B(), k);
      }
    }
  }

  /// The sums of a head, whose gradients come to be after all kernels of chunks.
  __device__ void store_sums(index_t tile, int which) const {
    chunk_sums const& sums = m.sums(which);
    if (this->has_past()) return;
    if (band == 0) {
      store_step_sums(sums, is_first_pass,
                      p.step_sums_of(p.state_tile, this->b, tile, this->chunk));
    } else if (band == 1 && is_first_pass && p.wants_D) {
      int const c = 2 * (static_cast<int>(threadIdx.x) % 32);
      float* const to = p.sums + (this->b * p.chunks + this->chunk) * p.sum_columns() +
                        head_sums * p.heads + tile * vjp_channels + c;
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        to[e] = (sums.D[0][c + e] + sums.D[1][c + e]) + (sums.D[2][c + e] + sums.D[3][c + e]);
      }
    }
  }

  /// What the products of B and C give them, and all that heads have given, to where it is added.
  __device__ void finish() {
    __syncthreads();
#pragma unroll
    for (int n = 0; n < step_tiles; ++n) {
      int const more = width * half ^ 8 * n;
      m.mixing().set_pair(row, column, more, G_[n][0], G_[n][1]);
      m.mixing().set_pair(row + 8, column, more, G_[n][2], G_[n][3]);
    }
    __syncthreads();
#pragma unroll 1
    for (int k = 0; k < 16 * band + 16; k += depth) {
      add_product<false, true>(to_C_, m.mixing(), m.B(), k);
    }
#pragma unroll 1
    for (int k = 16 * band; k < vjp_steps; k += depth) {
      add_product<true, true>(to_B_, m.mixing(), m.C(), k);
    }
    if (p.parts == 1) {
      int const first = static_cast<int>(p.state_tile) * States;
      auto const give = [&](auto const& view, auto const& sums) {
        if (view.data_handle() == nullptr) return;
        give_rows(view, this->group, first, this->states, p.packed_shared, p.accumulates, sums);
      };
      give(p.to_B, to_B_);
      give(p.to_C, to_C_);
      return;
    }
    float* const to = p.shared + p.shared_of(this->part, this->b, this->group, this->chunk, States);
#pragma unroll
    for (int n = 0; n < state_tiles; ++n) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        int const at = (row + 8 * r) * States + States / vjp_halves * half + 8 * n + column;
        *reinterpret_cast<float2*>(to + at) = {to_B_[n][2 * r], to_B_[n][2 * r + 1]};
        *reinterpret_cast<float2*>(to + vjp_steps * States + at) = {to_C_[n][2 * r],
                                                                    to_C_[n][2 * r + 1]};
      }
    }
  }
};

/// Block (chunk, part of a group's heads, (b, group)).
template <class T, int States>
__global__ void __launch_bounds__(256, 1)
    dual_vjp_kernel(__grid_constant__ dual_vjp_problem<T> const p, int stages) {
  extern __shared__ __align__(256) std::byte vjp_memory[];
  chunk_pull_back<T, States>(p, vjp_memory).run(stages);
}

}  // namespace ssm::gpu::detail
