// SPDX-License-Identifier: Apache-2.0
// causal_convolution.hpp: each channel convolved with a kernel of its own, by the sum itself.
#pragma once

#include <algorithm>

#include "ssm/detail/parallel_for.hpp"
#include "ssm/detail/require_writable.hpp"
#include "ssm/detail/sum_into.hpp"
#include "ssm/execution.hpp"
#include "ssm/scalar.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm {
namespace detail {

/// Kernel and inputs agree: kernel (channel, length), x and y (batch, time, channel).
template <class Real>
void require_convolution_shapes(tensor_view<Real const, 2> kernel, sequence_view<Real const> x,
                                sequence_view<Real const> y, char const* kernel_name,
                                char const* y_name) {
  require_shape(kernel, {x.extent(2), kernel.extent(1)}, kernel_name, "channel, length");
  require_shape(y, x.extents(), y_name, "batch, time, channel");
}

}  // namespace detail

/// y_t = Σ_l K_l x_{t-l} over l <= t: the sum itself, the slow twin of fft_convolution.
/// Shapes    kernel (channel, length), shorter or longer than x or empty; x, y (batch, time,
///           channel), y not overlapping x.
/// Accuracy  min(t + 1, length)/2 + 1/2 eps of Σ_l|K_l x_{t-l}|, at most.
/// Throws    shape_error before anything is written.
/// Gradient  causal_convolution_vjp.
template <real_scalar Real, execution_policy Policy>
void causal_convolution(Policy policy, tensor_view<Real const, 2> kernel,
                        sequence_view<Real const> x, sequence_view<Real> y) {
  detail::require_convolution_shapes<Real>(kernel, x, y, "causal_convolution: kernel",
                                           "causal_convolution: y");
  detail::require_writable(y, "causal_convolution: y");
  index_t const channels = x.extent(2), lanes = x.extent(0) * channels;
  int const threads = detail::plan(policy, lanes, x.extent(1)).threads;
  detail::parallel_for(threads, lanes, [&](index_t begin, index_t end) {
    for (index_t lane = begin; lane < end; ++lane) {
      index_t const b = lane / channels, c = lane % channels;
      for (index_t t = 0; t < x.extent(1); ++t) {
        Real sum(0);
        for (index_t l = std::min(t + 1, kernel.extent(1)) - 1; l >= 0; --l)
          sum += kernel(c, l) * x(b, t - l, c);
        y(b, t, c) = sum;
      }
    }
  });
}

/// Gradient of causal_convolution, added to the views given (empty: not wanted):
///   to K_l: Σ_bt g_t x_{t-l},   to x_s: Σ_l K_l g_{s+l}, with g the cotangent of y.
/// Accuracy  half an eps of Σ|terms| for each term.
/// Throws    shape_error before anything is written.
/// Repeats   bit for bit for any number of threads.
template <real_scalar Real, execution_policy Policy>
void causal_convolution_vjp(Policy policy, tensor_view<Real const, 2> kernel,
                            sequence_view<Real const> x, sequence_view<Real const> y_cotangent,
                            tensor_view<Real, 2> kernel_gradient, sequence_view<Real> x_gradient) {
  detail::require_convolution_shapes<Real>(kernel, x, y_cotangent, "causal_convolution_vjp: kernel",
                                           "causal_convolution_vjp: y_cotangent");
  detail::require_gradient_shape(kernel_gradient, kernel.extents(),
                                 "causal_convolution_vjp: kernel_gradient", "channel, length");
  detail::require_gradient_shape(x_gradient, x.extents(), "causal_convolution_vjp: x_gradient",
                                 "batch, time, channel");
  index_t const batch = x.extent(0), length = x.extent(1);
  int const threads = detail::plan(policy, batch * x.extent(2), length).threads;
  detail::sum_into(threads, time_window{0, 1, 1}, kernel_gradient.broadcast(0, 1).broadcast(0, 1),
                   [&](index_t, index_t, index_t c, index_t l) {
                     Real sum(0);
                     for (index_t b = 0; b < batch; ++b)
                       for (index_t t = l; t < length; ++t)
                         sum += y_cotangent(b, t, c) * x(b, t - l, c);
                     return sum;
                   });
  detail::sum_into(threads, time_window{0, length, 1}, x_gradient.broadcast(3, 1),
                   [&](index_t b, index_t s, index_t c, index_t) {
                     Real sum(0);
                     for (index_t l = std::min(length - s, kernel.extent(1)) - 1; l >= 0; --l)
                       sum += kernel(c, l) * y_cotangent(b, s + l, c);
                     return sum;
                   });
}

}  // namespace ssm
