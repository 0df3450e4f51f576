// SPDX-License-Identifier: Apache-2.0
// conv1d_rows_vjp.cuh: the gradient of the causal convolution where neighbouring threads have
// neighbouring steps.
#pragma once

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
  // Aligned parts beside the packet that have all that its inputs and the steps they reach see.
  constexpr int beside = Taps - 1 < 4 ? 4 : 8;
  constexpr int steps = conv1d_packet + Taps - 1;
  conv1d_row<T, beside> const at(p);
  conv1d_parameters<Taps, 1> const with(p, at.c);
  T const* x = &p.in.x(at.b, 0, at.c) + at.first;
  float const* y_cotangent = &p.y_cotangent(at.b, 0, at.c) + at.first;
  bool const wants_x = p.to.x.data_handle() != nullptr;
  float* to_x = wants_x ? &p.to.x(at.b, 0, at.c) + at.first : nullptr;
  index_t first = at.first;
  bool const is_silu = p.in.activation == activation::silu;
  conv1d_row_sums<Taps> sums;
  // From the inputs and what arrives at the steps to the gradient of the packet.
  auto const run = [&](auto const& in, auto const& arriving, float(&gradient)[conv1d_packet]) {
    constexpr bool is_edge = requires {
      in.is_step(0);
    };
    float cotangent[steps];
    conv1d_sums(with, in, cotangent);
#pragma unroll
    for (int i = 0; i < steps; ++i) {
      cotangent[i] = arriving[i] * (is_silu ? silu_slope(cotangent[i]) : 1.0f);
      if constexpr (is_edge) {
        if (!in.is_step(i)) cotangent[i] = 0.0f;
      }
    }
#pragma unroll
    for (float& each : gradient) each = 0.0f;
#pragma unroll
    for (int lag = 0; lag < Taps; ++lag) {
      int const k = Taps - 1 - lag;
      if (!with.has(k)) continue;
#pragma unroll
      for (int i = 0; i < conv1d_packet; ++i) {
        float input = in[i - lag];
        bool is_sent = true, is_counted = true;
        if constexpr (is_edge) {
          is_sent = in.is_step(i + lag) && in.is_seen(i, i + lag);
          is_counted = in.is_step(i);
          if (!in.is_seen(i - lag, i)) input = 0.0f;
        }
        if (is_sent) gradient[i] = fmaf(with.weight[k][0], cotangent[i + lag], gradient[i]);
        if (is_counted) sums.weight[k] = fmaf(cotangent[i], input, sums.weight[k]);
      }
    }
#pragma unroll
    for (int i = 0; i < conv1d_packet; ++i) sums.bias += cotangent[i];
  };
  conv1d_packet_ahead<T, beside, beside> ahead;
  stored_elements<float, conv1d_packet + beside> arriving_ahead;
  auto const ask = [&](index_t steps_on) {
    ahead.ask(p, at.b, x + steps_on, first + steps_on);
    arriving_ahead.load(y_cotangent + steps_on);
  };
  if (at.is_inside(0)) ask(0);
  for (int packet = 0; packet < at.packets; ++packet) {
    bool const is_middle = at.is_inside(packet) && ahead.is_one_sequence(p);
    auto const in = ahead.take();
    float arriving[conv1d_packet + beside], gradient[conv1d_packet];
    arriving_ahead.numbers(arriving);
    if (at.is_inside(packet + 1)) ask(at.apart);
    if (is_middle) {
      first >= beside ? run(in, arriving, gradient)
                      : run(in.with_beginning(p, at.b, at.c, x, first), arriving, gradient);
      if (wants_x) p.leave(to_x, gradient);
    } else {
      conv1d_packet_edge<T, beside, beside> const edge(p, at.b, at.c, x, first);
#pragma unroll
      for (int i = 0; i < steps; ++i) arriving[i] = edge.is_step(i) ? y_cotangent[i] : 0.0f;
      run(edge, arriving, gradient);
#pragma unroll
      for (int i = 0; i < conv1d_packet; ++i) {
        if (wants_x && edge.is_step(i)) {
          p.leave(to_x[i], gradient[i] + p.from_carry(at.b, first + i, at.c));
        }
      }
    }
    x += at.apart, y_cotangent += at.apart, to_x += at.apart, first += at.apart;
  }
  if (at.is_first && p.initial_gradient != nullptr) {
    for (index_t s = 1 - p.width(); s < 0; ++s) {
      p.initial_gradient_at(at.b, s, at.c) = p.input_gradient(at.b, s, at.c);
    }
  }
  if (p.sums == nullptr) return;
  __shared__ float memory[Taps + 1][conv1d_threads];
  sums.fold(1 << p.grid.log_lanes, memory);
  if (p.grid.line() >= p.grid.lines || p.grid.lane() > 0) return;
  index_t const part = at.b * p.grid.blocks_of_line + at.tile;
  p.sum_at(part, p.width(), at.c) = memory[Taps][threadIdx.x];
#pragma unroll
  for (int k = 0; k < Taps; ++k) {
    if (with.has(k)) p.sum_at(part, k - (Taps - p.width()), at.c) = memory[k][threadIdx.x];
  }
}

}  // namespace ssm::gpu::detail
