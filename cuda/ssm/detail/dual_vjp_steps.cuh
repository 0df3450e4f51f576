// SPDX-License-Identifier: Apache-2.0
// dual_vjp_steps.cuh: step sizes and sums of log-decays before the gradient of Mamba-2's operator,
// and from their gradients to those of the projection after it.
#pragma once

#include "ssm/detail/dual_vjp_problem.cuh"
#include "ssm/detail/early_launch.cuh"

namespace ssm::gpu::detail {

/// A chunk of a few heads: a warp has a head, a lane two of its steps. What is stored in (time,
/// head) is turned on the way; the fewest heads of which gradients are whole sectors of 32 bytes
/// (with 32 heads, four a warp, two times as long).
struct vjp_step_tile {
  static constexpr int heads = 8;
  static constexpr int threads = 32 * heads;
  static constexpr int pitch = heads + 1;

  /// f(step, head) for `count` steps of the heads that there are, from the block's first on.
  template <class F>
  __device__ static void for_each(int count, index_t left, F const& f) {
    for (int i = static_cast<int>(threadIdx.x); i < heads * count; i += threads) {
      if (i % heads < left) f(i / heads, i % heads);
    }
  }
};

/// Sum over the lanes before this one and this one.
template <class T>
__device__ T sum_until(T own) {
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    T const before = __shfl_up_sync(~0u, own, distance);
    if (static_cast<int>(threadIdx.x) % 32 >= distance) own += before;
  }
  return own;
}
/// Sum over this lane and those after it.
__device__ inline float sum_from(float own) {
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    float const after = __shfl_down_sync(~0u, own, distance);
    if (static_cast<int>(threadIdx.x) % 32 + distance < 32) own += after;
  }
  return own;
}
__device__ inline float sum_of_warp(float own) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    own += __shfl_xor_sync(~0u, own, distance);
  }
  return own;
}

/// Block (chunk, heads / 8, b) leaves p.steps. Sums begin at each chunk; they are taken in double
/// and kept as two floats, so that differences of them are right to 2^-40 of the sums. A sequence
/// that starts adds log2_of_a_start, so that nothing crosses.
template <class T>
__global__ void __launch_bounds__(vjp_step_tile::threads)
    dual_vjp_steps_kernel(__grid_constant__ dual_vjp_problem<T> const p) {
  wait_for_earlier_kernels();
  admit_next_kernel();
  using tile = vjp_step_tile;
  __shared__ float projected[vjp_steps][tile::pitch];
  int const lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  index_t const chunk = blockIdx.x, first = index_t{blockIdx.y} * tile::heads, b = blockIdx.z;
  index_t const t0 = chunk * vjp_steps;
  int const count = steps_in(p, chunk);
  tile::for_each(count, p.heads - first, [&](int i, int k) {
    projected[i][k] = to_number(p.step_size(b, t0 + i, first + k));
  });
  __syncthreads();
  if (first + warp >= p.heads) return;
  int const i = 2 * lane;
  double const start[2] = {p.starts_sequence(b, t0 + i) ? log2_of_a_start : 0.0,
                           p.starts_sequence(b, t0 + i + 1) ? log2_of_a_start : 0.0};
  index_t const head = first + warp;
  float const bias = p.bias(head), factor = p.scaling.step_factor(head), rate = p.rate(head);
  float step[2];
  double sum[2];
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    step[e] = i + e < count ? p.step(projected[i + e][warp], bias, factor) : 0.0f;
    sum[e] = i + e < count ? p.log2_decay(rate, step[e]) + start[e] : 0.0;
  }
  double const until = sum_until(sum[0] + sum[1]);
  double const before = __shfl_up_sync(~0u, until, 1);
  sum[0] += lane > 0 ? before : 0.0;
  sum[1] = until;
  double const last = __shfl_sync(~0u, until, 31);
  float* const to = p.steps_of(b, head, chunk) + i;
  auto const store = [&](step_number number, float first, float second) {
    *reinterpret_cast<float2*>(to + static_cast<int>(number) * vjp_steps) = {first, second};
  };
  float const high[2] = {static_cast<float>(sum[0]), static_cast<float>(sum[1])};
  float const leaving[2] = {exp2(static_cast<float>(last - sum[0])),
                            exp2(static_cast<float>(last - sum[1]))};
  store(step_number::step, step[0], step[1]);
  store(step_number::high, high[0], high[1]);
  store(step_number::low, static_cast<float>(sum[0] - high[0]),
        static_cast<float>(sum[1] - high[1]));
  store(step_number::entered, exp2(static_cast<float>(sum[0])), exp2(static_cast<float>(sum[1])));
  store(step_number::leaving, leaving[0], leaving[1]);
  store(step_number::driven, step[0] * leaving[0], step[1] * leaving[1]);
}

/// Block (chunk, heads / 8, b): from the gradients of steps and of the logarithms of decays, which
/// tiles have left, to that of the projection, and what the chunk adds to those of A', the bias and
/// the step factor.
template <class T>
__global__ void __launch_bounds__(vjp_step_tile::threads)
    dual_vjp_pull_back_steps_kernel(__grid_constant__ dual_vjp_problem<T> const p) {
  wait_for_earlier_kernels();
  admit_next_kernel();
  using tile = vjp_step_tile;
  __shared__ float projected[vjp_steps][tile::pitch];
  int const lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  index_t const chunk = blockIdx.x, first = index_t{blockIdx.y} * tile::heads, b = blockIdx.z;
  index_t const t0 = chunk * vjp_steps;
  int const count = steps_in(p, chunk);
  tile::for_each(count, p.heads - first, [&](int i, int k) {
    projected[i][k] = to_number(p.step_size(b, t0 + i, first + k));
  });
  __syncthreads();
  int const i = 2 * lane;
  if (first + warp < p.heads) {
    index_t const head = first + warp;
    float const bias = p.bias(head), factor = p.scaling.step_factor(head);
    float const eigenvalue = p.scaling.eigenvalue(head, 0, p.eigenvalue(head));
    float2 of_step{}, of_decay{};
    for (index_t part = 0; part < p.channel_tiles * p.state_tiles; ++part) {
      index_t const tile_of_head = head * p.channel_tiles + part % p.channel_tiles;
      float const* const from = p.step_sums_of(part / p.channel_tiles, b, tile_of_head, chunk) + i;
      float2 const step = *reinterpret_cast<float2 const*>(from);
      float2 const decay = *reinterpret_cast<float2 const*>(from + vjp_steps);
      of_step.x += step.x, of_step.y += step.y;
      of_decay.x += decay.x, of_decay.y += decay.y;
    }
    float const* const steps = p.steps_of(b, head, chunk) + i;
    float sums[head_sums] = {};
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      if (i + e >= count) continue;
      float const decay = e == 0 ? of_decay.x : of_decay.y, step = e == 0 ? of_step.x : of_step.y;
      float const x = projected[i + e][warp] + bias;
      float rule = x, slope = p.softplus ? sigmoid(x) : 1.0f;
      if (p.limited || p.wants_factor) {
        if (p.softplus) rule = ssm::softplus(x);
        if (p.limited && (rule < p.smallest_step || rule > p.largest_step)) slope = 0.0f;
        if (p.limited) rule = clamp(rule, p.smallest_step, p.largest_step);
      }
      float const arriving = fmaf(decay, eigenvalue, step), raw = arriving * slope * factor;
      sums[int(head_sum::eigenvalue)] += decay * steps[e];
      sums[int(head_sum::step_bias)] += raw;
      sums[int(head_sum::step_factor)] += arriving * rule;
      projected[i + e][warp] = raw;
    }
#pragma unroll
    for (int kind = 0; kind < head_sums; ++kind) {
      float const sum = sum_of_warp(sums[kind]);
      if (lane == 0) {
        p.sums[(b * p.chunks + chunk) * p.sum_columns() + kind * p.heads + head] = sum;
      }
    }
  }
  if (p.to_step_size.data_handle() == nullptr) return;
  __syncthreads();
  tile::for_each(count, p.heads - first, [&](int row, int k) {
    p.give(p.to_step_size(b, t0 + row, first + k), projected[row][k]);
  });
}

}  // namespace ssm::gpu::detail
