// SPDX-License-Identifier: Apache-2.0
// selective_step_kernel.cuh: Mamba's operator over a few steps: as fast as its states can be moved.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/selective_problem.cuh"

namespace ssm::gpu::detail {

/// Calls of at most this many steps are a step kernel's.
inline constexpr index_t few_steps = 4;

/// A thread has `States` states of one channel, `lanes` of them all its states; sums have the order
/// that the kernel for many steps gives them. Dense: states lie side by side, by 16 bytes.
template <class T, int States, bool Dense>
__global__ void __launch_bounds__(256)
    selective_step_kernel(__grid_constant__ selective_problem<T> const p, int lanes) {
  index_t const thread = blockIdx.x * index_t{blockDim.x} + threadIdx.x;
  int const n0 = static_cast<int>(thread % lanes) * States;
  index_t const row = thread / lanes;
  bool const is_there = row < p.batch * p.channels;
  index_t const b = is_there ? row / p.channels : 0, c = is_there ? row % p.channels : 0;
  index_t const g = c / p.group_channels;
  int const count = is_there ? static_cast<int>(p.states) - n0 : 0;

  float h[States], rate[States];
  if constexpr (Dense) {
    auto const* const from = reinterpret_cast<float4 const*>(&p.initial(b, c, 0) + n0);
#pragma unroll
    for (int i = 0; i < States / 4; ++i) {
      float4 const quad = 4 * i < count ? from[i] : float4{};
      h[4 * i] = quad.x, h[4 * i + 1] = quad.y, h[4 * i + 2] = quad.z, h[4 * i + 3] = quad.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < States; ++i) h[i] = i < count ? p.initial(b, c, n0 + i) : 0.0f;
  }
#pragma unroll
  for (int i = 0; i < States; ++i) rate[i] = i < count ? p.rate(c, n0 + i) : 0.0f;
  float const bias[1] = {p.bias(c)}, factor[1] = {p.scaling.step_factor(c)};

  for (index_t t = 0; t < p.length; ++t) {
    float const x = to_number(*p.x.at(b, t, c));
    float const projected[1] = {to_number(*p.step_size.at(b, t, c))};
    float step[1];
    p.steps(projected, bias, factor, step);
    bool const is_cut = p.sequence.data_handle() != nullptr && p.starts_sequence(b, t);
    T const *const B = p.B.at(b, t, g, n0), *const C = p.C.at(b, t, g, n0);
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < States; ++i) {
      if (i >= count) continue;
      float const drive = step[0] * x * to_number(B[i * p.B.state]);
      float const exponent = step[0] * rate[i], before = is_cut ? 0.0f : h[i];
      h[i] = fabsf(exponent) <= small_exponent
                 ? fmaf(small_exp2_minus_1(exponent), before, before + drive)
                 : fmaf(exp2(exponent), before, drive);
      sum = fmaf(to_number(C[i * p.C.state]), h[i], sum);
    }
    for (int far = 1; far < lanes; far *= 2) sum += __shfl_xor_sync(~0u, sum, far);
    if (n0 > 0 || !is_there) continue;
    float y = fmaf(p.skip(c), x, sum);
    if (p.gate.data != nullptr) {
      float const z = to_number(*p.gate.at(b, t, c));
      y *= z * sigmoid(z);
    }
    *p.y.at(b, t, c) = to_stored<T>(y);
  }

  if constexpr (Dense) {
    auto* const to = reinterpret_cast<float4*>(&p.carry(b, c, 0) + n0);
#pragma unroll
    for (int i = 0; i < States / 4; ++i) {
      if (4 * i < count) to[i] = {h[4 * i], h[4 * i + 1], h[4 * i + 2], h[4 * i + 3]};
    }
  } else {
#pragma unroll
    for (int i = 0; i < States; ++i) {
      if (i < count) p.carry(b, c, n0 + i) = h[i];
    }
  }
}

}  // namespace ssm::gpu::detail
