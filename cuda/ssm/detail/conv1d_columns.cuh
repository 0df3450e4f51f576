// SPDX-License-Identifier: Apache-2.0
// conv1d_columns.cuh: the causal convolution where neighbouring threads have neighbouring channels.
#pragma once

#include <type_traits>

#include "ssm/detail/conv1d_elements.cuh"
#include "ssm/detail/conv1d_problem.cuh"

namespace ssm::gpu::detail {

/// Steps that are loaded before the first of them is computed.
inline constexpr int conv1d_steps = 4;

/// Where a thread of columns works.
template <class T>
struct conv1d_column {
  index_t b, c, begin, end;  // first channel; its steps
  bool is_there;

  __device__ conv1d_column(conv1d_problem<T> const& p, int count) {
    unsigned const line = p.grid.line();
    b = line / p.pieces;
    begin = index_t{line % p.pieces} * p.piece;
    end = begin + p.piece < p.length() ? begin + p.piece : p.length();
    c = p.grid.place() * count;
    is_there = line < p.grid.lines && c < p.in.x.extent(2);
  }
};

/// What `Count` neighbouring channels see: the inputs before a step and those of the steps that are
/// loaded together with it.
template <class T, int Taps, int Count>
struct conv1d_window {
  float input[Taps - 1 + conv1d_steps][Count];

  /// Before the first step of a piece.
  __device__ void enter(conv1d_problem<T> const& p, conv1d_column<T> const& at) {
    bool const is_inside = at.begin >= Taps - 1 && !p.is_packed();
#pragma unroll
    for (int k = 0; k < Taps - 1; ++k) {
      int const lag = Taps - 1 - k;
      if (is_inside) {
        load_elements<Count>(&p.in.x(at.b, at.begin - lag, at.c), input[k]);
        continue;
      }
#pragma unroll
      for (int i = 0; i < Count; ++i) {
        input[k][i] = lag < p.width() ? p.input(at.b, at.begin, at.begin - lag, at.c + i) : 0.0f;
      }
    }
  }
  /// Step u begins a sequence: it sees nothing that was before.
  __device__ void cut(int u) {
#pragma unroll
    for (int k = 0; k < Taps - 1; ++k)
#pragma unroll
      for (int i = 0; i < Count; ++i) input[u + k][i] = 0.0f;
  }
  __device__ void sums(int u, conv1d_parameters<Taps, Count> const& with,
                       float (&sum)[Count]) const {
#pragma unroll
    for (int i = 0; i < Count; ++i) sum[i] = with.bias[i];
#pragma unroll
    for (int k = 0; k < Taps; ++k) {
      if (!with.has(k)) continue;
#pragma unroll
      for (int i = 0; i < Count; ++i) sum[i] = fmaf(with.weight[k][i], input[u + k][i], sum[i]);
    }
  }
  /// On to the steps that are loaded next.
  __device__ void move_on() {
#pragma unroll
    for (int k = 0; k < Taps - 1; ++k)
#pragma unroll
      for (int i = 0; i < Count; ++i) input[k][i] = input[conv1d_steps + k][i];
  }
};

/// A thread has the steps of a piece of time of `Count` neighbouring channels. More than one: they
/// are dense and begin at multiples of their size. The thread of a row's first piece has its carry.
template <class T, int Taps, int Count>
__global__ void __launch_bounds__(conv1d_threads)
    conv1d_columns_kernel(__grid_constant__ conv1d_problem<T> const p) {
  conv1d_column<T> const at(p, Count);
  if (!at.is_there) return;
  conv1d_parameters<Taps, Count> const with(p, at.c);
  conv1d_window<T, Taps, Count> window;
  window.enter(p, at);
  conv1d_next_carry<T, Taps, Count> next;
  bool const has_carry = at.begin == 0 && p.carry.data_handle() != nullptr;
  if (has_carry) next.load(p, at.b, at.c);
  index_t const x_stride = p.in.x.stride(1), y_stride = p.y.stride(1);
  T const* x = &p.in.x(at.b, at.begin, at.c);
  T* y = &p.y(at.b, at.begin, at.c);
  bool const is_packed = p.is_packed(), is_silu = p.in.activation == activation::silu;
  stored_elements<T, Count> ahead[conv1d_steps];
  auto const ask = [&](index_t left) {
#pragma unroll
    for (int u = 0; u < conv1d_steps; ++u) {
      if (u < left) ahead[u].load(x + u * x_stride);
    }
    x += conv1d_steps * x_stride;
  };
  // Most steps are all there and of one sequence: their code asks for neither.
  auto const run = [&](auto which, index_t t) {
    constexpr bool is_middle = decltype(which)::value;
#pragma unroll
    for (int u = 0; u < conv1d_steps; ++u) ahead[u].numbers(window.input[Taps - 1 + u]);
    ask(at.end - t - conv1d_steps);
#pragma unroll
    for (int u = 0; u < conv1d_steps; ++u) {
      if (!is_middle && t + u >= at.end) break;
      if (!is_middle && is_packed && p.starts_sequence(at.b, t + u)) window.cut(u);
      float sum[Count];
      window.sums(u, with, sum);
      if (is_silu) {
#pragma unroll
        for (float& each : sum) each *= sigmoid(each);
      }
      store_elements<Count>(y + u * y_stride, sum);
    }
    y += conv1d_steps * y_stride;
    window.move_on();
  };
  ask(at.end - at.begin);
  for (index_t t = at.begin; t < at.end; t += conv1d_steps) {
    bool const is_middle = !is_packed && t + conv1d_steps <= at.end;
    is_middle ? run(std::true_type{}, t) : run(std::false_type{}, t);
  }
  if (has_carry) next.store(p, at.b, at.c);
}

}  // namespace ssm::gpu::detail
