// SPDX-License-Identifier: Apache-2.0
// dual_chunk_coupling.cuh: how much the steps of a chunk have of each other.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/dual_chunk_states.cuh"

namespace ssm::gpu::detail {

template <class T, int States>
struct dual_coupling : dual_states<T, States> {
  using base = dual_states<T, States>;
  using tile = typename base::tile;
  using base::B_of, base::C_of, base::first_of, base::M_of, base::steps_of;
  using base::base;
  using base::lane, base::p, base::shape, base::warp;
  using left_square = square<T, side::left>;
  using right_square = square<T, side::right>;
  static constexpr int squares = tile::squares;  // of a chunk's steps
  static constexpr int columns = base::squares;  // of states

  /// Numbers of the four columns of a square that a lane has.
  struct of_columns {
    float2 left, right;
    __device__ explicit of_columns(float const* from)
        : left{*reinterpret_cast<float2 const*>(from)},
          right{*reinterpret_cast<float2 const*>(from + 8)} {}
    __device__ float operator[](int i) const {
      return i < 4 ? (i % 2 ? left.y : left.x) : (i % 2 ? right.y : right.x);
    }
  };

  /// M of all parts, into shared memory: squares on and below the diagonal, shared out to warps.
  __device__ void couple(int stage, int buffer) {
    bool const is_cut = p.sequence.data_handle() != nullptr;
    // The warps that find decays come last, and have none where the others suffice.
    int const others = shape.warps() - shape.parts;
    int const workers = others > shape.parts ? others : shape.warps();
    int const tasks = warp < workers ? squares * (squares + 1) / 2 : 0;
#pragma unroll 1
    for (int task = warp; task < tasks; task += workers) {
      int across = task, down = 0;
      while (across > down) across -= ++down;
      square_sums product;
      T const* const C = C_of(stage) + 16 * down * tile::C_pitch;
      T const* const B = B_of(stage) + 16 * across * tile::B_pitch;
#pragma unroll
      for (int k = 0; k < columns; ++k) {
        add_product(product, left_square::rows(C + 16 * k, tile::C_pitch),
                    right_square::rows(B + 16 * k, tile::B_pitch), p.exact);
      }
      int const row = 16 * down + lane / 4, column = 16 * across + lane % 4 * 2;
      int const* const first = first_of(buffer);
      int const first_of_row[] = {first[row], first[row + 8]};
#pragma unroll 3
      for (int of = 0; of < shape.parts; ++of) {
        auto const& steps = steps_of(buffer, of);
        of_columns const sum(steps.sum + column), drive(steps.drive + column);
        float const sum_of_row[] = {steps.sum[row], steps.sum[row + 8]};
        square_sums M;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          int const half = i / 2 % 2;
          float log2 = sum_of_row[half] - sum[i];
          if constexpr (std::is_same_v<T, float>) {
            log2 += steps.sum_low[row + 8 * half] - steps.sum_low[column + i % 2 + i / 4 * 8];
          }
          M.z[i] = product.z[i] * exp2(log2) * drive[i];
        }
        if (down == across || is_cut) {
#pragma unroll
          for (int i = 0; i < 8; ++i) {
            int const half = i / 2 % 2, r = row + 8 * half, c = column + i % 2 + i / 4 * 8;
            if (c > r || c < first_of_row[half]) M.z[i] = 0.0f;
          }
        }
        left_square::rounded(M).store_rows(M_of(of) + 16 * down * tile::M_pitch + 16 * across,
                                           tile::M_pitch);
      }
    }
  }
};

}  // namespace ssm::gpu::detail
