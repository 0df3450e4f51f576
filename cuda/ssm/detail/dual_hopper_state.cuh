// SPDX-License-Identifier: Apache-2.0
// dual_hopper_state.cuh: the state of Mamba-2's operator on Hopper for 64 channels of a head, in
// the registers of a warpgroup.
#pragma once

#include "ssm/detail/dual_hopper_block.cuh"
#include "ssm/detail/dual_hopper_products.cuh"

namespace ssm::gpu::detail::hopper {

/// What a thread has of 64 rows in accumulators: two rows, `row` and `row + 8`, and of the columns
/// 8 i + column and the next one for each i. Here all products have channels as rows; columns are
/// states or steps. Rounded to 16 bits, the same registers are rows of a product over the columns.
/// A view of the rows in global memory gives element i by visit().
template <class U, int Count>
struct accumulator_rows {
  U* first;
  index_t row_stride, column_stride;

  template <class Visit>
  __device__ void visit(Visit const& visitor) const {
#pragma unroll
    for (int i = 0; i < Count; ++i) {
      visitor(i, first[i / 2 % 2 * 8 * row_stride + (i / 4 * 8 + i % 2) * column_stride]);
    }
  }
};

inline constexpr unsigned sixteen_rows = 16 * 128;  // bytes of a tile

/// The state of a slab, S (channel, state), as accumulators.
template <class T, int States>
class slab_state {
 public:
  static constexpr int count = States / 2;

  __device__ slab_state(dual_problem<T> const& problem, index_t b, index_t head, index_t channel,
                        int column)
      : p{problem}, b_{b}, head_{head}, channel_{channel}, column_{column} {}

  /// What enters a segment, from what the first pass has left.
  __device__ void enter(index_t segment) {
    if (p.segments == 1) return load(p.initial);
    // From the last segment that no state survives, or from the first one.
    auto const decay = [&](index_t of) { return p.decay[p.decay_at(b_, of, head_)]; };
    index_t from = segment;
    while (from > 0 && decay(from - 1) != 0.0f) --from;
#pragma unroll
    for (float& each : sums) each = 0.0f;
    for (float left = 0.0f; from <= segment; left = decay(from++)) {
      float4 const* const added = own_place(from);
#pragma unroll
      for (int i = 0; i < count / 4; ++i) {
        float4 const four = added[128 * i];
        sums[4 * i] = fmaf(left, sums[4 * i], four.x);
        sums[4 * i + 1] = fmaf(left, sums[4 * i + 1], four.y);
        sums[4 * i + 2] = fmaf(left, sums[4 * i + 2], four.z);
        sums[4 * i + 3] = fmaf(left, sums[4 * i + 3], four.w);
      }
    }
  }
  /// Leave it in a place of what enters, as enter() finds it: fours of a thread, thread by thread.
  __device__ void keep(index_t place) const {
    float4* const to = own_place(place);
#pragma unroll
    for (int i = 0; i < count / 4; ++i) {
      to[128 * i] = {sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]};
    }
  }

  /// S = factor · S
  __device__ __forceinline__ void decay(float factor) {
#pragma unroll
    for (float& each : sums) each *= factor;
    hold(sums);
  }
  /// S += X B: x of a chunk in registers, rows of B in shared memory. Nothing is left of S, even of
  /// what is infinite, if it `is_cut`.
  __device__ __forceinline__ void add(unsigned const (&x)[4][4], tile_rows B, bool is_cut) {
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) {
      multiply_columns<T>(sums, x[i], {B + i * sixteen_rows, sizeof(tile<T>)}, i > 0 || !is_cut);
    }
  }

  template <class View>
  __device__ void load(View const& from) {
    rows_of(from).visit([&](int i, float stored) { sums[i] = stored; });
  }
  template <class View>
  __device__ void store(View const& to) const {
    rows_of(to).visit([&](int i, float& stored) { stored = sums[i]; });
  }

  float sums[count];

 private:
  template <class View>
  __device__ accumulator_rows<typename View::element_type, count> rows_of(View const& view) const {
    return {&view(b_, head_, channel_, column_), view.stride(2), view.stride(3)};
  }
  __device__ float4* own_place(index_t place) const {
    index_t const first = channel_ / slab_channels * slab_channels;
    return reinterpret_cast<float4*>(&p.entering_at(place)(b_, head_, first, 0)) +
           threadIdx.x % 128;
  }

  dual_problem<T> const& p;
  index_t b_, head_, channel_;
  int column_;
};

}  // namespace ssm::gpu::detail::hopper
