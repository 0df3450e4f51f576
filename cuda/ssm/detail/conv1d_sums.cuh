// SPDX-License-Identifier: Apache-2.0
// conv1d_sums.cuh: from the sums of parts of time, in an order that is always the same, to the
// gradients of weight and bias.
#pragma once

#include "ssm/detail/conv1d_vjp_problem.cuh"

namespace ssm::gpu::detail {

/// A block sums a row of 32 channels over all parts, of which each of its warps has some.
inline constexpr int conv1d_sum_warps = 8;

/// Thread (c, row) adds a gradient of its own; sums that channels or taps share are left to
/// conv1d_shared_kernel, in those of the first part.
template <class T>
__global__ void __launch_bounds__(32 * conv1d_sum_warps)
    conv1d_sums_kernel(__grid_constant__ conv1d_vjp_problem<T> const p, bool is_weight_shared,
                       bool is_bias_shared) {
  __shared__ float memory[conv1d_sum_warps][32];
  int const lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  int const row = static_cast<int>(blockIdx.y);
  index_t const c = blockIdx.x * index_t{32} + lane;
  bool const is_there = c < p.in.x.extent(2);
  float sum = 0.0f;
  if (is_there) {
#pragma unroll 8
    for (index_t part = warp; part < p.parts; part += conv1d_sum_warps) {
      sum += p.sum_at(part, row, c);
    }
  }
  memory[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || !is_there) return;
  for (int other = 1; other < conv1d_sum_warps; ++other) sum += memory[other][lane];
  bool const is_bias = row == p.width();
  if (is_bias ? is_bias_shared : is_weight_shared) {
    p.sum_at(0, row, c) = sum;
  } else if (is_bias) {
    if (p.to.bias.data_handle() != nullptr) p.leave(p.to.bias(c), sum);
  } else if (p.to.weight.data_handle() != nullptr) {
    p.leave(p.to.weight(c, row), sum);
  }
}

/// One block adds the sums that channels or taps share, a thread to each element that there is.
template <class T>
__global__ void __launch_bounds__(128)
    conv1d_shared_kernel(__grid_constant__ conv1d_vjp_problem<T> const p, bool is_weight_shared,
                         bool is_bias_shared) {
  index_t const channels = p.in.x.extent(2);
  int const width = p.width();
  if (is_weight_shared) {
    index_t const rows = p.to.weight.stride(0) == 0 ? 1 : channels;
    int const columns = p.to.weight.stride(1) == 0 ? 1 : width;
    for (index_t i = threadIdx.x; i < rows * columns; i += blockDim.x) {
      float sum = 0.0f;
      for (index_t c = i / columns; c < channels; c += rows) {
        for (int k = static_cast<int>(i % columns); k < width; k += columns) {
          sum += p.sum_at(0, k, c);
        }
      }
      p.leave(p.to.weight(i / columns, i % columns), sum);
    }
  }
  if (is_bias_shared && threadIdx.x == 0) {
    float sum = 0.0f;
    for (index_t c = 0; c < channels; ++c) sum += p.sum_at(0, width, c);
    p.leave(p.to.bias(0), sum);
  }
}

/// The gradient of the initial carry takes the place of the cotangent of the final one.
template <class T>
__global__ void __launch_bounds__(128)
    conv1d_initial_kernel(__grid_constant__ conv1d_vjp_problem<T> const p) {
  int const kept = p.width() - 1;
  index_t const i = blockIdx.x * index_t{blockDim.x} + threadIdx.x, channels = p.in.x.extent(2);
  if (i >= p.in.x.extent(0) * channels * kept) return;
  p.carry_cotangent(i / kept / channels, i / kept % channels, i % kept) = p.initial_gradient[i];
}

}  // namespace ssm::gpu::detail
