// SPDX-License-Identifier: Apache-2.0
// selective_step_kernel.cuh: Mamba's operator over a few steps: as fast as its states can be moved.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/selective_problem.cuh"

namespace ssm::gpu::detail {

/// Calls of at most this many steps are a step kernel's.
inline constexpr index_t few_steps = 4;

/// `Count` numbers that lie `stride` apart, the first `there` of them, the others 0. Dense: side by
/// side, and there by fours, from a multiple of what four of them take.
template <bool Dense, class T, int Count>
__device__ void load_numbers(T const* from, index_t stride, int there, float (&to)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; i += 4) {
    float4 const four = load_quad_of<Dense>(from + i * stride, stride, there - i).numbers();
    to[i] = four.x, to[i + 1] = four.y, to[i + 2] = four.z, to[i + 3] = four.w;
  }
}

/// A thread has `States` states of one channel, `lanes` of them all its states; sums have the order
/// that the kernel for many steps gives them. Dense: states of the carry, the eigenvalues, B and C
/// are as load_numbers wants them.
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
  load_numbers<Dense>(is_there ? &p.initial(b, c, n0) : nullptr, p.initial.stride(2), count, h);
  load_numbers<Dense>(is_there ? &p.eigenvalue(c, n0) : nullptr, p.eigenvalue.stride(1), count,
                      rate);
#pragma unroll
  for (int i = 0; i < States; ++i) {
    if (i < count) rate[i] = p.scaling.eigenvalue(c, n0 + i, rate[i]) * log2_of_e;
  }
  float const bias[1] = {p.bias(c)}, factor[1] = {p.scaling.step_factor(c)};

  for (index_t t = 0; t < p.length; ++t) {
    float const x = to_number(*p.x.at(b, t, c));
    float const projected[1] = {to_number(*p.step_size.at(b, t, c))};
    float step[1];
    p.steps(projected, bias, factor, step);
    bool const is_cut = p.sequence.data_handle() != nullptr && p.starts_sequence(b, t);
    float B[States], C[States], sum = 0.0f;
    load_numbers<Dense>(p.B.at(b, t, g, n0), p.B.state, count, B);
    load_numbers<Dense>(p.C.at(b, t, g, n0), p.C.state, count, C);
#pragma unroll
    for (int i = 0; i < States; ++i) {
      float const drive = step[0] * x * B[i];
      float const exponent = step[0] * rate[i], before = is_cut ? 0.0f : h[i];
      h[i] = fabsf(exponent) <= small_exponent
                 ? fmaf(small_exp2_minus_1(exponent), before, before + drive)
                 : fmaf(exp2(exponent), before, drive);
      sum = fmaf(C[i], h[i], sum);
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
