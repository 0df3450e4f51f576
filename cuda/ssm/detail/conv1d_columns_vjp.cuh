// SPDX-License-Identifier: Apache-2.0
// conv1d_columns_vjp.cuh: the gradient of the causal convolution where neighbouring threads have
// neighbouring channels.
#pragma once

#include <type_traits>

#include "ssm/detail/conv1d_columns.cuh"
#include "ssm/detail/conv1d_vjp_problem.cuh"

namespace ssm::gpu::detail {

/// A thread has the steps of a piece of time of `Count` neighbouring channels, as in
/// conv1d_columns_kernel. It visits as many steps beyond the piece as see inputs of it: a gradient
/// is complete when its input leaves the window.
template <class T, int Taps, int Count>
__global__ void __launch_bounds__(conv1d_threads)
    conv1d_columns_vjp_kernel(__grid_constant__ conv1d_vjp_problem<T> const p) {
  conv1d_column<T> const at(p, Count);
  if (!at.is_there) return;
  conv1d_parameters<Taps, Count> const with(p, at.c);
  conv1d_window<T, Taps, Count> window;
  window.enter(p, at);
  index_t const length = p.length(), end = at.end;
  int const kept = p.width() - 1;
  bool const wants_x = p.to.x.data_handle() != nullptr;
  bool const is_packed = p.is_packed(), is_silu = p.in.activation == activation::silu;

  // gradient[u + k] is that of the input under tap k of step u.
  float gradient[Taps - 1 + conv1d_steps][Count] = {};
  float weight_sum[Taps][Count] = {}, bias_sum[Count] = {};
  auto const leaves = [&](index_t s, float(&of_input)[Count]) {
    bool const is_own = s >= at.begin && s < end;
    bool const is_initial = s < 0 && s >= -kept && at.begin == 0;
    if (!is_own && !is_initial) return;
    if (s >= length - kept) {
#pragma unroll
      for (int i = 0; i < Count; ++i) of_input[i] += p.from_carry(at.b, s, at.c + i);
    }
    if (is_own && wants_x) {
      p.leave(&p.to.x(at.b, s, at.c), of_input);
    } else if (is_initial && p.initial_gradient != nullptr) {
#pragma unroll
      for (int i = 0; i < Count; ++i) p.initial_gradient_at(at.b, s, at.c + i) = of_input[i];
    }
  };

  index_t const x_stride = p.in.x.stride(1), y_stride = p.y_cotangent.stride(1);
  index_t const to_stride = wants_x ? p.to.x.stride(1) : 0;
  T const* x = &p.in.x(at.b, at.begin, at.c);
  float const* y_cotangent = &p.y_cotangent(at.b, at.begin, at.c);
  float* to_x = wants_x ? &p.to.x(at.b, at.begin - (Taps - 1), at.c) : nullptr;  // what leaves next
  int lags = kept;  // how far back a step sees: to the beginning of its sequence
  if (is_packed) {
    lags = 0;
    while (lags < kept &&
           ssm::detail::same_sequence(p.in.sequence, at.b, at.begin, at.begin - lags - 1)) {
      ++lags;
    }
  }
  // Most steps are of the piece and of one sequence: their loop asks for neither.
  auto const run = [&](auto which, index_t t) {
    constexpr bool is_middle = decltype(which)::value;
    float arriving[conv1d_steps][Count];
#pragma unroll
    for (int u = 0; u < conv1d_steps; ++u) {
      if (!is_middle && t + u >= length) continue;
      load_elements<Count>(x + u * x_stride, window.input[Taps - 1 + u]);
      load_elements<Count>(y_cotangent + u * y_stride, arriving[u]);
    }
#pragma unroll
    for (int u = 0; u < conv1d_steps; ++u) {
      if (is_middle || t + u < length) {
        if (!is_middle && is_packed && t + u > at.begin) {
          if (p.starts_sequence(at.b, t + u)) {
            window.cut(u);
            lags = 0;
          } else if (lags < kept) {
            ++lags;
          }
        }
        float cotangent[Count];
        window.sums(u, with, cotangent);
#pragma unroll
        for (int i = 0; i < Count; ++i) {
          cotangent[i] = arriving[u][i] * (is_silu ? silu_slope(cotangent[i]) : 1.0f);
        }
        if (is_middle || t + u < end) {
#pragma unroll
          for (int i = 0; i < Count; ++i) {
            bias_sum[i] += cotangent[i];
#pragma unroll
            for (int k = 0; k < Taps; ++k) {
              weight_sum[k][i] = fmaf(cotangent[i], window.input[u + k][i], weight_sum[k][i]);
            }
          }
        }
#pragma unroll
        for (int k = 0; k < Taps; ++k) {
          if (is_middle ? !with.has(k) : Taps - 1 - k > lags) continue;
#pragma unroll
          for (int i = 0; i < Count; ++i) {
            gradient[u + k][i] = fmaf(with.weight[k][i], cotangent[i], gradient[u + k][i]);
          }
        }
      }
      if (is_middle) {
        if (wants_x) p.leave(to_x + u * to_stride, gradient[u]);
      } else {
        leaves(t + u - (Taps - 1), gradient[u]);
      }
    }
    x += conv1d_steps * x_stride, y_cotangent += conv1d_steps * y_stride;
    to_x += conv1d_steps * to_stride;
    window.move_on();
#pragma unroll
    for (int k = 0; k < Taps - 1 + conv1d_steps; ++k)
#pragma unroll
      for (int i = 0; i < Count; ++i) {
        gradient[k][i] = k < Taps - 1 ? gradient[k + conv1d_steps][i] : 0.0f;
      }
  };
  for (index_t t = at.begin; t < end + Taps - 1; t += conv1d_steps) {
    bool const is_middle = !is_packed && t >= at.begin + Taps - 1 && t + conv1d_steps <= end;
    is_middle ? run(std::true_type{}, t) : run(std::false_type{}, t);
  }
  if (p.sums == nullptr) return;
  index_t const part = p.grid.line();
#pragma unroll
  for (int i = 0; i < Count; ++i) {
    p.sum_at(part, p.width(), at.c + i) = bias_sum[i];
#pragma unroll
    for (int k = 0; k < Taps; ++k) {
      if (with.has(k)) p.sum_at(part, k - (Taps - p.width()), at.c + i) = weight_sum[k][i];
    }
  }
}

}  // namespace ssm::gpu::detail
