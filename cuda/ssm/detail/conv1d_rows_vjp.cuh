// SPDX-License-Identifier: Apache-2.0
// conv1d_rows_vjp.cuh: the gradient of the causal convolution where neighbouring threads have
// neighbouring steps.
#pragma once

#include <type_traits>

#include "ssm/detail/conv1d_rows.cuh"
#include "ssm/detail/conv1d_vjp_problem.cuh"

namespace ssm::gpu::detail {

/// What the steps of a thread add to the gradients of weight and bias; the oldest tap first.
template <int Taps>
struct conv1d_row_sums {
  float weight[Taps] = {}, bias = 0.0f;

  /// To all of the lanes' sums, pairs of halves, in the first lane of each line.
  __device__ void fold(int lanes, float (&memory)[Taps + 1][conv1d_threads]) {
    int const thread = static_cast<int>(threadIdx.x), lane = thread & (lanes - 1);
#pragma unroll
    for (int k = 0; k <= Taps; ++k) memory[k][thread] = k < Taps ? weight[k] : bias;
    __syncthreads();
    for (int half = lanes / 2; half > 0; half /= 2) {
      if (lane < half) {
#pragma unroll
        for (int k = 0; k <= Taps; ++k) memory[k][thread] += memory[k][thread + half];
      }
      __syncthreads();
    }
  }
};

/// A thread has packets of one channel, as in conv1d_rows_kernel, and computes again what the steps
/// that see the last inputs of a packet are sent.
template <class T, int Taps>
__global__ void __launch_bounds__(conv1d_threads)
    conv1d_rows_vjp_kernel(__grid_constant__ conv1d_vjp_problem<T> const p) {
  conv1d_row<T> const at(p);
  conv1d_parameters<Taps, 1> const with(p, at.c);
  T const* const x = &p.in.x(at.b, 0, at.c);
  float const* const y_cotangent = &p.y_cotangent(at.b, 0, at.c);
  float* const to_x = p.to.x.data_handle() == nullptr ? nullptr : &p.to.x(at.b, 0, at.c);
  bool const is_silu = p.in.activation == activation::silu;
  // Aligned parts beside the packet that have all that its inputs and the steps they reach see.
  constexpr int beside = Taps - 1 < 4 ? 4 : 8;
  constexpr int steps = conv1d_packet + Taps - 1;
  conv1d_row_sums<Taps> sums;
  conv1d_packet_inputs<T, beside, beside> in;
  stored_elements<float, conv1d_packet + beside> ahead;
  auto const ask = [&](index_t first) {
    in.ask(p, x, first);
    if (in.is_inside()) ahead.load(y_cotangent + first);
  };
  index_t first = at.is_there ? at.first : p.length();
  if (first < p.length()) ask(first);
  for (index_t left = p.piece; left > 0 && first < p.length(); --left, first += at.apart) {
    in.receive(p, at, x, first);
    auto const now = in;
    float arriving[conv1d_packet + beside];
    if (now.is_inside()) {
      ahead.numbers(arriving);
    } else {
#pragma unroll
      for (int i = 0; i < conv1d_packet + beside; ++i) {
        arriving[i] = now.is_step(i) ? y_cotangent[first + i] : 0.0f;
      }
    }
    if (left > 1 && first + at.apart < p.length()) ask(first + at.apart);
    float gradient[conv1d_packet] = {};
    auto const run = [&](auto which) {
      constexpr bool is_middle = decltype(which)::value;
      float cotangent[steps];
      if (!is_middle && now.is_cut()) {
        now.template sums<true>(with, cotangent);
      } else {
        now.template sums<false>(with, cotangent);
      }
#pragma unroll
      for (int i = 0; i < steps; ++i) {
        float const slope = is_silu ? silu_slope(cotangent[i]) : 1.0f;
        cotangent[i] = is_middle || now.is_step(i) ? arriving[i] * slope : 0.0f;
      }
#pragma unroll
      for (int lag = 0; lag < Taps; ++lag) {
        int const k = Taps - 1 - lag;
        if (!with.has(k)) continue;
#pragma unroll
        for (int i = 0; i < conv1d_packet; ++i) {
          bool const is_seen = !now.is_cut() || now.is_seen(i, i + lag);
          if (is_middle || (now.is_step(i + lag) && is_seen)) {
            gradient[i] = fmaf(with.weight[k][0], cotangent[i + lag], gradient[i]);
          }
          if (is_middle || now.is_step(i)) {
            float const input = is_middle || !now.is_cut() ? now.template seen<false>(i - lag, i)
                                                           : now.template seen<true>(i - lag, i);
            sums.weight[k] = fmaf(cotangent[i], input, sums.weight[k]);
          }
        }
      }
#pragma unroll
      for (int i = 0; i < conv1d_packet; ++i) sums.bias += cotangent[i];
    };
    now.is_inside() && !now.is_cut() ? run(std::true_type{}) : run(std::false_type{});
    if (first + conv1d_packet > p.length() - (p.width() - 1)) {
#pragma unroll
      for (int i = 0; i < conv1d_packet; ++i) {
        if (now.is_step(i)) gradient[i] += p.from_carry(at.b, first + i, at.c);
      }
    }
    if (to_x == nullptr) continue;
    if (now.is_inside()) {
      add_elements<conv1d_packet>(to_x + first, gradient);
    } else {
#pragma unroll
      for (int i = 0; i < conv1d_packet; ++i) {
        if (now.is_step(i)) to_x[first + i] += gradient[i];
      }
    }
  }
  if (at.is_first && p.initial_gradient != nullptr) {
    for (index_t s = 1 - p.width(); s < 0; ++s) {
      p.initial_gradient_at(at.b, s, at.c) = p.input_gradient(at.b, s, at.c);
    }
  }
  if (p.sums == nullptr) return;
  __shared__ float memory[Taps + 1][conv1d_threads];
  sums.fold(1 << p.grid.log_lanes, memory);
  if (!at.is_there || p.grid.lane() > 0) return;
  index_t const part = at.b * p.grid.blocks_of_line + at.tile;
  p.sum_at(part, p.width(), at.c) = memory[Taps][threadIdx.x];
#pragma unroll
  for (int k = 0; k < Taps; ++k) {
    if (with.has(k)) p.sum_at(part, k - (Taps - p.width()), at.c) = memory[k][threadIdx.x];
  }
}

}  // namespace ssm::gpu::detail
