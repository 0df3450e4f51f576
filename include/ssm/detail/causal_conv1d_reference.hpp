// SPDX-License-Identifier: Apache-2.0
// causal_conv1d_reference.hpp: the causal convolution of one channel by its definition, and its
// gradient: what every faster way to compute it is tested against.
#pragma once

#include <algorithm>

#include "ssm/detail/causal_conv1d_inputs.hpp"
#include "ssm/numerics.hpp"

namespace ssm::detail {

template <class A>
A activate(activation kind, A const& sum) {
  return kind == activation::silu ? ssm::silu(sum) : sum;
}

template <class A>
A activation_slope(activation kind, A const& sum) {
  return kind == activation::silu ? ssm::silu_slope(sum) : A(1);
}

/// One lane (b, c): `taps` slides over the inputs, oldest first, and holds zeros where there are
/// none.
template <class T>
void causal_conv1d_lane(causal_conv1d_inputs<T> const& in, index_t b, index_t c,
                        state_view<T> carry, sequence_view<T> y) {
  using A = accumulator_t<T>;
  auto const [batch, length, channels, width] = in.extents();
  A taps[largest_conv_width]{};
  if (is_given(carry)) {
    for (index_t j = 0; j + 1 < width; ++j) taps[j] = static_cast<A>(carry(b, c, j));
  }
  for (index_t t = 0; t < length; ++t) {
    if (starts_sequence(in.sequence, b, t)) std::fill_n(taps, width, A(0));
    taps[width - 1] = static_cast<A>(in.x(b, t, c));
    A sum = is_given(in.bias) ? in.bias(c) : A(0);
    for (index_t k = 0; k < width; ++k) sum += in.weight(c, k) * taps[k];
    y(b, t, c) = static_cast<T>(activate(in.activation, sum));
    std::copy(taps + 1, taps + width, taps);
  }
  if (is_given(carry)) {
    for (index_t j = 0; j + 1 < width; ++j) carry(b, c, j) = static_cast<T>(taps[j]);
  }
}

/// The loop of causal_conv1d_lane run backward for all of channel c. arriving[k] is what later
/// steps send to the input under tap k, taps shifting the other way.
template <class T>
void causal_conv1d_channel_vjp(causal_conv1d_inputs<T> const& in, index_t c,
                               state_view<T const> initial,
                               sequence_view<accumulator_t<T> const> y_cotangent,
                               state_view<accumulator_t<T>> carry_cotangent,
                               causal_conv1d_gradients<T> const& to) {
  using A = accumulator_t<T>;
  auto const [batch, length, channels, width] = in.extents();
  A weight_sum[largest_conv_width]{};
  A bias_sum(0);
  for (index_t b = 0; b < batch; ++b) {
    A arriving[largest_conv_width]{};
    if (is_given(carry_cotangent)) {
      for (index_t j = 0; j + 1 < width; ++j) arriving[j] = carry_cotangent(b, c, j);
    }
    for (index_t t = length - 1; t >= 0; --t) {
      std::copy_backward(arriving, arriving + width - 1, arriving + width);
      arriving[0] = A(0);

      A taps[largest_conv_width];
      A sum = is_given(in.bias) ? in.bias(c) : A(0);
      for (index_t k = 0; k < width; ++k) {
        taps[k] = input_at(in, initial, b, t, t - (width - 1) + k, c);
        sum += in.weight(c, k) * taps[k];
      }
      A const g = y_cotangent(b, t, c) * activation_slope(in.activation, sum);
      bias_sum += g;
      for (index_t k = 0; k < width; ++k) {
        weight_sum[k] += g * taps[k];
        arriving[k] += g * in.weight(c, k);
      }
      if (is_given(to.x)) to.x(b, t, c) += arriving[width - 1];
      if (starts_sequence(in.sequence, b, t)) std::fill_n(arriving, width, A(0));
    }
    if (is_given(carry_cotangent)) {
      for (index_t j = 0; j + 1 < width; ++j) carry_cotangent(b, c, j) = arriving[j];
    }
  }
  if (is_given(to.bias)) to.bias(c) += bias_sum;
  if (is_given(to.weight)) {
    for (index_t k = 0; k < width; ++k) to.weight(c, k) += weight_sum[k];
  }
}

}  // namespace ssm::detail
