// SPDX-License-Identifier: Apache-2.0
// selective_vjp_sums.cuh: from partial sums, in an order that is always the same, to the gradients
// of what channels or steps share.
#pragma once

#include "ssm/detail/early_launch.cuh"
#include "ssm/detail/selective_vjp_problem.cuh"

namespace ssm::gpu::detail {

/// Gradients of B and C: sums over the blocks of channels of a group.
template <class T>
struct shared_gradients {
  trajectory_view<float, memory::device> B, C;
  index_t blocks;  // of a group
};

/// Add element i of (time, B or C, 16 states) of one group of a row.
template <class T>
__device__ void add_shared(selective_vjp_problem<T> const& p, shared_gradients<T> const& to,
                           index_t row, index_t i) {
  index_t const groups = p.channels / p.group_channels;
  constexpr int states = 16;
  index_t const elements = p.length * 2 * states;  // of one block
  if (i >= elements) return;
  index_t const g = row % groups, b = row / groups;
  float sum = 0.0f;
  float const* from = p.shared + row * to.blocks * elements + i;
#pragma unroll 8
  for (index_t block = 0; block < to.blocks; ++block, from += elements) sum += *from;
  index_t const n = p.first_state + i % states, t = i / states / 2;
  auto const& view = i / states % 2 == 0 ? to.B : to.C;
  if (view.data_handle() != nullptr && n < p.states) p.give(view(b, t, g, n), sum);
}

/// The gradients of what has an element for each channel or each of its states, and whose stride 0
/// sums.
struct channel_gradients {
  tensor_view<float, 2, memory::device> eigenvalue;
  tensor_view<float, 1, memory::device> D, step_bias;
  spectrum_scaling<float, memory::device>::gradient scaling;
};

/// Block `index` of `blocks` adds to the index-th elements of one of channel_gradients: a thread to
/// each, or all threads to one that is a sum over channels or states.
template <class T>
class channel_adder {
 public:
  static constexpr int threads = 128;
  static constexpr int kinds = 6;

  __device__ channel_adder(selective_vjp_problem<T> const& problem, channel_gradients const& all,
                           index_t index, index_t blocks)
      : p{problem}, to{all}, index_{index}, blocks_{blocks} {}

  __device__ void run(index_t kind, float (&memory)[threads]) const {
    auto const of_channel = [&](auto const& view) {
      return tensor_view<float, 2, memory::device>(view.data_handle(), {p.channels, 1},
                                                   {view.stride(0), 0});
    };
    switch (kind) {
      case 0:
        return add(to.eigenvalue, memory, [&](index_t c, index_t n) {
          return p.scaling.pull_back(c, n, p.eigenvalue(c, n), sum(n, c), {});
        });
      case 1:
        return add(to.scaling.linear, memory, [&](index_t c, index_t n) {
          float term = 0.0f;
          pull_back(c, n, {.linear = one(term)});
          return term;
        });
      case 2:
        return add(to.scaling.power, memory, [&](index_t c, index_t n) {
          float term = 0.0f;
          pull_back(c, n, {.power = one(term)});
          return term;
        });
      case 3:
        return add(of_channel(to.D), memory,
                   [&](index_t c, index_t) { return sum(p.states + int(channel_sum::D), c); });
      case 4:
        return add(of_channel(to.step_bias), memory, [&](index_t c, index_t) {
          return sum(p.states + int(channel_sum::step_bias), c);
        });
      default:
        return add(of_channel(to.scaling.step), memory, [&](index_t c, index_t) {
          return sum(p.states + int(channel_sum::step_factor), c);
        });
    }
  }

 private:
  using matrix = tensor_view<float, 2, memory::device>;

  __device__ static matrix one(float& number) { return {&number, {1, 1}, {0, 0}}; }
  __device__ void pull_back(
      index_t c, index_t n,
      spectrum_scaling<float, memory::device>::gradient const& gradient) const {
    (void)p.scaling.pull_back(c, n, p.eigenvalue(c, n), sum(n, c), gradient);
  }
  /// Over batch and segments.
  __device__ float sum(index_t row, index_t c) const {
    float const* const first = p.sums + (row * p.channels + c);
    index_t const next = (p.states + channel_sums) * p.channels;
    float sum = 0.0f;
#pragma unroll 8
    for (index_t part = 0; part < p.batch * p.segments; ++part) sum += first[part * next];
    return sum;
  }

  template <class Term>
  __device__ void add(matrix const& view, float (&memory)[threads], Term const& term) const {
    if (view.data_handle() == nullptr) return;
    index_t const channels = view.extent(0), states = view.extent(1);
    bool const over_channels = view.stride(0) == 0 && channels > 1;
    bool const over_states = view.stride(1) == 0 && states > 1;
    index_t const rows = over_channels ? 1 : channels, columns = over_states ? 1 : states;
    int const thread = static_cast<int>(threadIdx.x);
    if (!over_channels && !over_states) {
      index_t const i = index_ * threads + thread;
      // Neighbouring threads have neighbouring channels, as sums have.
      if (i < rows * columns) p.give(view(i % rows, i / rows), term(i % rows, i / rows));
      return;
    }
    index_t const terms_c = over_channels ? channels : 1, terms_n = over_states ? states : 1;
    for (index_t i = index_; i < rows * columns; i += blocks_) {
      float sum = 0.0f;
      for (index_t k = thread; k < terms_c * terms_n; k += threads) {
        sum += term(i % rows + k % terms_c, i / rows + k / terms_c);
      }
      memory[thread] = sum;
      __syncthreads();
      for (int half = threads / 2; half > 0; half /= 2) {
        if (thread < half) memory[thread] += memory[thread + half];
        __syncthreads();
      }
      if (thread == 0) p.give(view(i % rows, i / rows), memory[0]);
      __syncthreads();
    }
  }

  selective_vjp_problem<T> const& p;
  channel_gradients const& to;
  index_t index_, blocks_;
};

/// Blocks (i, row) add to what steps share, for i < shared_blocks; those beyond to what channels
/// share, channel_blocks of them to each kind.
template <class T>
__global__ void __launch_bounds__(128)
    selective_vjp_add_kernel(__grid_constant__ selective_vjp_problem<T> const p,
                             __grid_constant__ shared_gradients<T> const to_shared,
                             __grid_constant__ channel_gradients const to_channels,
                             index_t shared_blocks, index_t channel_blocks) {
  wait_for_earlier_kernels();
  if (blockIdx.x < shared_blocks) {
    index_t const i = blockIdx.x * index_t{blockDim.x} + threadIdx.x;
    return add_shared(p, to_shared, blockIdx.y, i);
  }
  index_t const i = (blockIdx.x - shared_blocks) * gridDim.y + blockIdx.y;
  index_t const kind = i / channel_blocks;
  if (kind >= channel_adder<T>::kinds) return;
  __shared__ float memory[channel_adder<T>::threads];
  channel_adder<T>(p, to_channels, i % channel_blocks, channel_blocks).run(kind, memory);
}

}  // namespace ssm::gpu::detail
