// SPDX-License-Identifier: Apache-2.0
// conv1d_vjp_launch.cuh: the kernels of the gradient of the causal convolution, one after another.
#pragma once

#include <algorithm>

#include "ssm/detail/conv1d_columns_vjp.cuh"
#include "ssm/detail/conv1d_launch.cuh"
#include "ssm/detail/conv1d_rows_vjp.cuh"
#include "ssm/detail/conv1d_sums.cuh"

namespace ssm::gpu::detail {

/// Neighbouring channels of a thread, where elements come together: as many as its registers hold.
template <int Taps>
inline constexpr int conv1d_vjp_channels = Taps <= 4 ? 4 : 2;

/// The kernel of a gradient, and the floats of workspace that it needs.
template <class T>
struct conv1d_vjp_plan {
  void (*kernel)(conv1d_vjp_problem<T>) = nullptr;
  index_t sums = 0, initial = 0;

  index_t floats() const { return sums + initial; }
};

template <class T>
bool wants_sums(causal_conv1d_gradients<T, memory::device> const& to) {
  return to.weight.data_handle() != nullptr || to.bias.data_handle() != nullptr;
}

template <class T, int Taps>
conv1d_vjp_plan<T> plan_conv1d_vjp(conv1d_vjp_problem<T>& p) {
  char const* const name = "causal_conv1d_vjp";
  constexpr int together = conv1d_vjp_channels<Taps>;
  auto const& x = p.in.x;
  bool const wants_x = p.to.x.data_handle() != nullptr;
  conv1d_vjp_plan<T> plan;
  auto const cut = [&](int channels) {
    cut_columns(p, channels, threads_at_a_time(plan.kernel), 16, name);
    p.parts = p.grid.lines;
  };
  auto const [batch, length, channels, width] = p.in.extents();
  if (has_whole_columns<T const>(x, together) &&
      has_whole_columns<float const>(p.y_cotangent, together) &&
      (!wants_x || has_whole_columns<float>(p.to.x, together))) {
    plan.kernel = conv1d_columns_vjp_kernel<T, Taps, together>;
    cut(together);
  } else if (x.stride(2) != 1 && has_rows_alike<T const, float const>(x, p.y_cotangent) &&
             (!wants_x || has_rows_alike<T const, float>(x, p.to.x))) {
    plan.kernel = conv1d_rows_vjp_kernel<T, Taps>;
    cut_rows(p, 8, name);
    p.parts = batch * p.grid.blocks_of_line;
  } else {
    plan.kernel = conv1d_columns_vjp_kernel<T, Taps, 1>;
    cut(1);
  }
  if (wants_sums(p.to)) plan.sums = p.parts * (width + 1) * channels;
  if (p.carry_cotangent.data_handle() != nullptr) plan.initial = batch * channels * (width - 1);
  return plan;
}

/// Kernels have up to 4 taps or up to 8.
template <class T>
conv1d_vjp_plan<T> plan_conv1d_vjp(conv1d_vjp_problem<T>& p) {
  return p.in.weight.extent(1) <= 4 ? plan_conv1d_vjp<T, 4>(p) : plan_conv1d_vjp<T, 8>(p);
}

template <class T>
void run_conv1d_vjp(on where, conv1d_vjp_problem<T>& p, conv1d_vjp_plan<T> const& plan,
                    float* workspace) {
  if (plan.sums > 0) p.sums = workspace;
  if (plan.initial > 0) p.initial_gradient = workspace + plan.sums;
  auto const [batch, length, channels, width] = p.in.extents();
  plan.kernel<<<p.grid.blocks, conv1d_threads, 0, where.stream>>>(p);
  check(cudaGetLastError(), "conv1d_vjp_kernel");
  if (plan.initial > 0) {
    auto const blocks = static_cast<unsigned>((plan.initial + 127) / 128);
    conv1d_initial_kernel<<<blocks, 128, 0, where.stream>>>(p);
    check(cudaGetLastError(), "conv1d_initial_kernel");
  }
  if (plan.sums == 0) return;
  bool const is_weight_shared =
      ssm::detail::sums_over(p.to.weight, 0) || ssm::detail::sums_over(p.to.weight, 1);
  bool const is_bias_shared = ssm::detail::sums_over(p.to.bias, 0);
  dim3 const rows(static_cast<unsigned>((channels + 31) / 32), static_cast<unsigned>(width + 1));
  conv1d_sums_kernel<<<rows, 32 * conv1d_sum_warps, 0, where.stream>>>(p, is_weight_shared,
                                                                       is_bias_shared);
  check(cudaGetLastError(), "conv1d_sums_kernel");
  if (!is_weight_shared && !is_bias_shared) return;
  conv1d_shared_kernel<<<1, 128, 0, where.stream>>>(p, is_weight_shared, is_bias_shared);
  check(cudaGetLastError(), "conv1d_shared_kernel");
}

}  // namespace ssm::gpu::detail
