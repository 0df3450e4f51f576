// SPDX-License-Identifier: Apache-2.0
// causal_conv1d_inputs.hpp: the arguments of causal_conv1d, their checks, and which input a tap
// sees. Include ssm/causal_conv1d.hpp.
#pragma once

#include "ssm/detail/half.hpp"
#include "ssm/packed.hpp"
#include "ssm/scalar.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm {

/// The function applied to each sum of a convolution.
enum class activation { none, silu };

namespace detail {

inline constexpr index_t largest_conv_width = 8;

struct causal_conv1d_extents {
  index_t batch, length, channels, width;
};

/// An optional argument is left out as a default-constructed view.
template <class T, int Rank, memory Where>
SSM_HD constexpr bool is_given(tensor_view<T, Rank, Where> const& view) {
  return view.data_handle() != nullptr || !(view.extents() == index_array<Rank>{});
}

}  // namespace detail

/// What causal_conv1d reads. T is how inputs and outputs are stored: float, double, bfloat16,
/// float16, or any other real number; weight and bias are accumulator_t<T>, float for 16 bits.
/// Shapes    x (batch, time, channel); weight (channel, width), the last tap on the present input;
///           bias (channel), empty: 0; sequence (batch, time), as packed.hpp says.
template <class T, memory Where = memory::host>
requires real_scalar<accumulator_t<T>>
struct causal_conv1d_inputs {
  using value_type = T;
  using real = accumulator_t<T>;

  sequence_view<T const, Where> x{};
  tensor_view<real const, 2, Where> weight{};
  tensor_view<real const, 1, Where> bias{};
  sequence_index_view<Where> sequence{};
  ssm::activation activation = ssm::activation::none;

  SSM_HD constexpr detail::causal_conv1d_extents extents() const {
    return {x.extent(0), x.extent(1), x.extent(2), weight.extent(1)};
  }
};

/// Where causal_conv1d_vjp adds the gradient of each input; an empty view: not wanted. A stride of
/// 0 sums over its axis.
template <class T, memory Where = memory::host>
struct causal_conv1d_gradients {
  using real = accumulator_t<T>;

  sequence_view<real, Where> x{};
  tensor_view<real, 2, Where> weight{};
  tensor_view<real, 1, Where> bias{};
};

namespace detail {

/// Whether the step at time t sees the input of time s <= t; what is before the call belongs to
/// the sequence of time 0.
template <memory Where>
SSM_HD constexpr bool same_sequence(sequence_index_view<Where> const& sequence, index_t b,
                                    index_t t, index_t s) {
  return sequence.data_handle() == nullptr || sequence(b, s < 0 ? 0 : s) == sequence(b, t);
}

/// The input of time s <= t as the step at time t sees it: before the call in `initial`, and zero
/// where it is another sequence's.
template <class T, memory Where>
SSM_HD constexpr accumulator_t<T> input_at(causal_conv1d_inputs<T, Where> const& in,
                                           state_view<T const, Where> initial, index_t b, index_t t,
                                           index_t s, index_t c) {
  using A = accumulator_t<T>;
  if (!same_sequence(in.sequence, b, t, s)) return A(0);
  if (s >= 0) return static_cast<A>(in.x(b, s, c));
  return is_given(initial) ? static_cast<A>(initial(b, c, s + in.weight.extent(1) - 1)) : A(0);
}

template <class T, int Rank, memory Where>
void require_shape_if_given(tensor_view<T, Rank, Where> const& view,
                            index_array<Rank> const& expected, char const* name, char const* axes) {
  if (is_given(view)) require_shape(view, expected, name, axes);
}

/// Throws shape_error where the inputs do not fit together.
template <class T, memory Where>
void require_conv1d_inputs(causal_conv1d_inputs<T, Where> const& in) {
  auto const [batch, length, channels, width] = in.extents();
  require<shape_error>(in.weight.extent(0) == channels && 1 <= width && width <= largest_conv_width,
                       "causal_conv1d: weight has shape ", to_string(in.weight.extents()),
                       ", expected (", channels, ", 1 to ", largest_conv_width,
                       ") (channel, width)");
  require_shape_if_given(in.bias, {channels}, "causal_conv1d: bias", "channel");
  if constexpr (Where == memory::host) {
    require_sequence(in.sequence, batch, length, "causal_conv1d: sequence");
  } else {  // the order of numbers on a device cannot be seen from here
    require_shape_if_given(in.sequence, {batch, length}, "causal_conv1d: sequence", "batch, time");
  }
}

/// Whether a gradient is summed over an axis.
template <class T, int Rank, memory Where>
bool sums_over(tensor_view<T, Rank, Where> const& view, int axis) {
  return view.stride(axis) == 0 && view.extent(axis) > 1;
}

}  // namespace detail
}  // namespace ssm
