// SPDX-License-Identifier: Apache-2.0
// dual_vjp_sums.cuh: from partial sums, in an order that is always the same, to the gradients of
// what heads or steps share.
#pragma once

#include "ssm/detail/dual_vjp_steps.cuh"

namespace ssm::gpu::detail {

/// Sums over the parts of a group's heads to the gradients of B and C, for one tile of states.
/// Block (., (b, group)), thread i element i of (chunk, of B | of C, step, state).
template <class T>
__global__ void __launch_bounds__(256)
    dual_vjp_add_shared_kernel(__grid_constant__ dual_vjp_problem<T> const p, int tile_size) {
  wait_for_earlier_kernels();
  admit_next_kernel();
  index_t const elements = p.chunks * 2 * vjp_steps * tile_size;
  index_t const i = blockIdx.x * index_t{blockDim.x} + threadIdx.x;
  if (i >= elements) return;
  index_t const group = blockIdx.y % p.groups, b = blockIdx.y / p.groups;
  index_t const n = p.state_tile * tile_size + i % tile_size;
  index_t const row = i / tile_size, t = row / (2 * vjp_steps) * vjp_steps + row % vjp_steps;
  auto const& view = row / vjp_steps % 2 == 0 ? p.to_B : p.to_C;
  if (view.data_handle() == nullptr || n >= p.states || t >= p.length) return;
  index_t const pitch = p.batch * p.groups * elements;
  float const* from = p.shared + p.shared_of(0, b, group, 0, tile_size) + i;
  float sum = 0.0f;
#pragma unroll 8
  for (index_t part = 0; part < p.parts; ++part, from += pitch) sum += *from;
  p.give(view(b, t, group, n), sum);
}

/// Block (columns / 128, fold): the sums of some of the chunks.
template <class T>
__global__ void __launch_bounds__(128)
    dual_vjp_fold_sums_kernel(__grid_constant__ dual_vjp_problem<T> const p) {
  wait_for_earlier_kernels();
  admit_next_kernel();
  index_t const columns = p.sum_columns();
  index_t const i = blockIdx.x * index_t{blockDim.x} + threadIdx.x;
  if (i >= (p.wants_D ? columns : head_sums * p.heads)) return;
  index_t const rows = p.batch * p.chunks;
  index_t const first = blockIdx.y * rows / p.folds, last = (blockIdx.y + 1) * rows / p.folds;
  float sum = 0.0f;
#pragma unroll 8
  for (index_t row = first; row < last; ++row) sum += p.sums[row * columns + i];
  p.folded[blockIdx.y * columns + i] = sum;
}

/// The gradients of what has an element for each head or channel, and whose stride 0 sums.
struct head_gradients {
  tensor_view<float, 1, memory::device> eigenvalue, step_bias;
  tensor_view<float, 2, memory::device> D;
  spectrum_scaling<float, memory::device>::gradient scaling;
};

/// Row k of the grid gives the k-th of head_gradients: a thread to each element, or a warp, whose
/// lanes share the terms, to one that is a sum over heads or channels.
template <class T>
struct head_adder {
  using matrix = tensor_view<float, 2, memory::device>;
  static constexpr int kinds = 6;
  dual_vjp_problem<T> const& p;
  head_gradients const& to;

  __device__ float sum(index_t column) const {
    float total = 0.0f;
#pragma unroll 8
    for (index_t k = 0; k < p.folds; ++k) total += p.folded[k * p.sum_columns() + column];
    return total;
  }
  __device__ float sum(head_sum kind, index_t head) const {
    return sum(static_cast<int>(kind) * p.heads + head);
  }
  __device__ float pull_back(index_t head,
                             spectrum_scaling<float, memory::device>::gradient const& one) const {
    return p.scaling.pull_back(head, 0, p.eigenvalue(head), sum(head_sum::eigenvalue, head), one);
  }

  template <class Term>
  __device__ void add(matrix const& view, Term const& term) const {
    if (view.data_handle() == nullptr) return;
    bool const over_rows = view.stride(0) == 0, over_columns = view.stride(1) == 0;
    index_t const rows = over_rows ? 1 : view.extent(0),
                  columns = over_columns ? 1 : view.extent(1);
    index_t const terms_in_row = over_columns ? view.extent(1) : 1;
    index_t const terms = (over_rows ? view.extent(0) : 1) * terms_in_row;
    index_t const thread = blockIdx.x * index_t{blockDim.x} + threadIdx.x;
    if (terms == 1) {
      if (thread < rows * columns)
        p.give(view(thread / columns, thread % columns), term(thread / columns, thread % columns));
      return;
    }
    int const lane = static_cast<int>(threadIdx.x) % 32;
    index_t const warps = gridDim.x * (blockDim.x / 32);
    for (index_t i = thread / 32; i < rows * columns; i += warps) {
      float total = 0.0f;
      for (index_t k = lane; k < terms; k += 32) {
        total += term(i / columns + k / terms_in_row, i % columns + k % terms_in_row);
      }
      total = sum_of_warp(total);
      if (lane == 0) p.give(view(i / columns, i % columns), total);
    }
  }

  __device__ void run() const {
    auto const of_heads = [&](tensor_view<float, 1, memory::device> const& view) {
      return matrix(view.data_handle(), {p.heads, 1}, {view.stride(0), 0});
    };
    auto const one = [](float& number) { return matrix(&number, {1, 1}, {0, 0}); };
    switch (blockIdx.y) {
      case 0:
        return add(of_heads(to.eigenvalue), [&](index_t h, index_t) { return pull_back(h, {}); });
      case 1:
        return add(to.scaling.linear, [&](index_t h, index_t) {
          float term = 0.0f;
          (void)pull_back(h, {.linear = one(term)});
          return term;
        });
      case 2:
        return add(to.scaling.power, [&](index_t h, index_t) {
          float term = 0.0f;
          (void)pull_back(h, {.power = one(term)});
          return term;
        });
      case 3:
        return add(of_heads(to.step_bias),
                   [&](index_t h, index_t) { return sum(head_sum::step_bias, h); });
      case 4:
        return add(of_heads(to.scaling.step),
                   [&](index_t h, index_t) { return sum(head_sum::step_factor, h); });
      default:
        return add(to.D, [&](index_t h, index_t c) {
          index_t const tile = h * p.channel_tiles + c / vjp_channels;
          return sum(head_sums * p.heads + tile * vjp_channels + c % vjp_channels);
        });
    }
  }
};

template <class T>
__global__ void __launch_bounds__(256)
    dual_vjp_add_heads_kernel(__grid_constant__ dual_vjp_problem<T> const p,
                              __grid_constant__ head_gradients const to) {
  wait_for_earlier_kernels();
  head_adder<T>{p, to}.run();
}

}  // namespace ssm::gpu::detail
