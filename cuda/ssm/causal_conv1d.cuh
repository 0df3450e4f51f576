// SPDX-License-Identifier: Apache-2.0
// causal_conv1d.cuh: the short causal convolution of each channel on the GPU, and its gradient.
#pragma once

#include <cstddef>
#include <tuple>
#include <type_traits>

#include "ssm/accumulate.cuh"
#include "ssm/detail/conv1d_launch.cuh"
#include "ssm/detail/conv1d_vjp_launch.cuh"
#include "ssm/detail/require_apart.cuh"
#include "ssm/detail/require_writable.hpp"
#include "ssm/tensor.cuh"
#include "ssm/workspace.cuh"

namespace ssm::gpu {
namespace detail {

template <class T>
conv1d_problem<T> causal_conv1d_problem(causal_conv1d_inputs<T, memory::device> const& in,
                                        state_view<T, memory::device> const& carry,
                                        sequence_view<T, memory::device> const& y) {
  static_assert(std::is_same_v<accumulator_t<T>, float>,
                "gpu::causal_conv1d computes in float: T is float, bfloat16 or float16");
  ssm::detail::require_conv1d_inputs(in);
  auto const e = in.extents();
  ssm::detail::require_shape_if_given(carry, {e.batch, e.channels, e.width - 1},
                                      "causal_conv1d: carry", "batch, channel, width - 1");
  require_shape(y, in.x.extents(), "causal_conv1d: y", "batch, time, channel");
  ssm::detail::require_writable(carry, "causal_conv1d: carry");
  ssm::detail::require_writable(y, "causal_conv1d: y");
  require_all_apart("causal_conv1d", std::tuple(named_view{y, "y"}, named_view{carry, "carry"}),
                    std::tuple(named_view{in.x, "x"}, named_view{in.weight, "weight"},
                               named_view{in.bias, "bias"}, named_view{in.sequence, "sequence"}));
  conv1d_problem<T> p{};
  p.in = in, p.initial = carry, p.carry = carry, p.y = y;
  return p;
}

template <class T>
conv1d_vjp_problem<T> causal_conv1d_vjp_problem(
    causal_conv1d_inputs<T, memory::device> const& in,
    state_view<T const, memory::device> const& initial,
    sequence_view<float const, memory::device> const& y_cotangent,
    state_view<float, memory::device> const& carry_cotangent,
    causal_conv1d_gradients<T, memory::device> const& to) {
  static_assert(std::is_same_v<accumulator_t<T>, float>,
                "gpu::causal_conv1d_vjp computes in float: T is float, bfloat16 or float16");
  using ssm::detail::require_shape_if_given;
  ssm::detail::require_conv1d_inputs(in);
  auto const e = in.extents();
  index_array<3> const carry_shape{e.batch, e.channels, e.width - 1};
  char const *const axes = "batch, time, channel", *const carry_axes = "batch, channel, width - 1";
  require_shape_if_given(initial, carry_shape, "causal_conv1d_vjp: initial", carry_axes);
  require_shape(y_cotangent, in.x.extents(), "causal_conv1d_vjp: y_cotangent", axes);
  require_shape_if_given(carry_cotangent, carry_shape, "causal_conv1d_vjp: carry_cotangent",
                         carry_axes);
  require_shape_if_given(to.x, in.x.extents(), "causal_conv1d_vjp: gradients.x", axes);
  require_shape_if_given(to.weight, in.weight.extents(), "causal_conv1d_vjp: gradients.weight",
                         "channel, width");
  require_shape_if_given(to.bias, {e.channels}, "causal_conv1d_vjp: gradients.bias", "channel");
  ssm::detail::require_writable(carry_cotangent, "causal_conv1d_vjp: carry_cotangent");
  ssm::detail::require_writable(to.x, "causal_conv1d_vjp: gradients.x");
  require_all_apart(
      "causal_conv1d_vjp",
      std::tuple(named_view{carry_cotangent, "carry_cotangent"}, named_view{to.x, "gradients.x"},
                 named_view{to.weight, "gradients.weight"}, named_view{to.bias, "gradients.bias"}),
      std::tuple(named_view{in.x, "x"}, named_view{in.weight, "weight"},
                 named_view{in.bias, "bias"}, named_view{in.sequence, "sequence"},
                 named_view{initial, "initial"}, named_view{y_cotangent, "y_cotangent"}));
  conv1d_vjp_problem<T> p{};
  p.in = in, p.initial = initial;
  p.y_cotangent = y_cotangent, p.carry_cotangent = carry_cotangent, p.to = to;
  return p;
}

}  // namespace detail

/// The causal convolution of every channel, as causal_conv1d of the CPU: the same names, shapes,
/// options and meaning, whole sequences and single tokens alike. Returns before the work is done,
/// allocates nothing, and may be captured in a graph.
///
/// T is float, bfloat16 or float16; all is computed in float. Views may have any strides. Fast are
/// x and y with channels innermost, best where groups of four begin at multiples of their size, or
/// with time innermost and rows that begin at the same multiple of 16 bytes, or as far from one; up
/// to 4 taps.
/// Shapes    as causal_conv1d of the CPU: carry (batch, channel, width - 1); width 1 to 8. Fewer
///           than 2^31 rows (batch, channel).
/// Accuracy  before the activation (width + 1)/2 · eps·Σ|terms|; SiLU adds (4 + |sum|) eps of y and
///           is 0 for sums below -88; storage in 16 bits rounds once more.
/// Special   length 0 leaves carry as it is; NaN and infinity follow IEEE rules, and a weight that
///           is not finite makes NaN of the zeros before a sequence.
/// Repeats   bit for bit, for any layout, and cut anywhere into parts.
/// Throws    shape_error before any launch; gpu::error where the launch fails.
/// Tested    tests/causal_conv1d_test.cu, causal_conv1d_large_test.cu.
template <class T>
void causal_conv1d(on where, causal_conv1d_inputs<T, memory::device> const& in,
                   std::type_identity_t<state_view<T, memory::device>> const& carry,
                   std::type_identity_t<sequence_view<T, memory::device>> const& y) {
  auto p = detail::causal_conv1d_problem(in, carry, y);
  if (!y.empty()) detail::run_conv1d(where, p);
}

/// Bytes of workspace that causal_conv1d_vjp needs.
template <class T>
std::size_t causal_conv1d_vjp_workspace(
    causal_conv1d_inputs<T, memory::device> const& in,
    std::type_identity_t<state_view<T const, memory::device>> const& initial,
    sequence_view<float const, memory::device> const& y_cotangent,
    state_view<float, memory::device> const& carry_cotangent,
    std::type_identity_t<causal_conv1d_gradients<T, memory::device>> const& gradients) {
  auto p =
      detail::causal_conv1d_vjp_problem<T>(in, initial, y_cotangent, carry_cotangent, gradients);
  if (in.x.empty()) return 0;
  return sizeof(float) * static_cast<std::size_t>(detail::plan_conv1d_vjp(p).floats());
}

/// Gradient of causal_conv1d, as the CPU's. `initial` is the carry before the call;
/// `carry_cotangent` is the cotangent of the final carry on entry and the gradient of the initial
/// one on exit; either may be empty. The others are added to the views of `gradients`, or stored
/// (`how`), which for x is less to move; weight and bias may have a stride of 0, which sums.
/// Returns before the work is done, allocates nothing, and may be captured in a graph. Shapes    as
/// causal_conv1d_vjp of the CPU; what is fast is what is fast in causal_conv1d, with
///           groups of two channels.
/// Accuracy  the slope of SiLU to 13 eps, at a sum that is off by (width + 1)/2 · eps·Σ|terms|;
/// then
///           (n + 1)/2 · eps·Σ|terms| for a sum of n terms: width + 1 for x and the carry, batch ·
///           length for weight and bias.
/// Repeats   bit for bit on devices of one kind: sums have an order of their own.
/// Memory    workspace width + 1 floats for each channel and piece of time, of which there are as
///           many as keep the device busy.
/// Throws    shape_error before any launch; gpu::error where a launch fails.
/// Tested    tests/causal_conv1d_vjp_test.cu.
template <class T>
void causal_conv1d_vjp(
    on where, causal_conv1d_inputs<T, memory::device> const& in,
    std::type_identity_t<state_view<T const, memory::device>> const& initial,
    sequence_view<float const, memory::device> const& y_cotangent,
    state_view<float, memory::device> const& carry_cotangent,
    std::type_identity_t<causal_conv1d_gradients<T, memory::device>> const& gradients,
    workspace const& memory, accumulate how = accumulate::yes) {
  auto p =
      detail::causal_conv1d_vjp_problem<T>(in, initial, y_cotangent, carry_cotangent, gradients);
  p.accumulates = how == accumulate::yes;
  if (in.x.empty()) return;
  auto const plan = detail::plan_conv1d_vjp(p);
  auto* const own = detail::checked(memory, sizeof(float) * static_cast<std::size_t>(plan.floats()),
                                    "causal_conv1d_vjp");
  detail::run_conv1d_vjp(where, p, plan, reinterpret_cast<float*>(own));
}

/// causal_conv1d_vjp with a workspace that is allocated and freed in stream order.
template <class T>
void causal_conv1d_vjp_allocating(
    on where, causal_conv1d_inputs<T, memory::device> const& in,
    std::type_identity_t<state_view<T const, memory::device>> const& initial,
    sequence_view<float const, memory::device> const& y_cotangent,
    state_view<float, memory::device> const& carry_cotangent,
    std::type_identity_t<causal_conv1d_gradients<T, memory::device>> const& gradients,
    accumulate how = accumulate::yes) {
  auto const bytes =
      causal_conv1d_vjp_workspace(in, initial, y_cotangent, carry_cotangent, gradients);
  tensor<std::byte, 1> own(where, {static_cast<index_t>(bytes)});
  causal_conv1d_vjp(where, in, initial, y_cotangent, carry_cotangent, gradients, own.view(), how);
}

}  // namespace ssm::gpu
