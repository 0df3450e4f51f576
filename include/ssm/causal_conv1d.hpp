// SPDX-License-Identifier: Apache-2.0
// causal_conv1d.hpp: the short causal convolution of each channel, the other half of a Mamba
// block, and its gradient.
#pragma once

#include <type_traits>

#include "ssm/detail/causal_conv1d_fast.hpp"
#include "ssm/detail/causal_conv1d_fast_vjp.hpp"
#include "ssm/detail/causal_conv1d_inputs.hpp"
#include "ssm/detail/causal_conv1d_reference.hpp"
#include "ssm/detail/parallel_for.hpp"
#include "ssm/detail/require_writable.hpp"
#include "ssm/execution.hpp"

namespace ssm {

/// y_tc = activation(bias_c + Σ_k weight_ck x_{t-width+1+k, c}), k = 0 ... width - 1, for every
/// batch.
/// `carry` holds the width - 1 inputs before the first step on entry and before the step after the
/// last one on exit, oldest first, so that one call over a sequence equals a call for each part of
/// it, down to single steps, bit for bit. Empty: zeros, and not wanted.
/// Packed sequences: taps see zeros across a change of `sequence`; `carry` belongs to the first
/// sequence on entry and to the last one on exit. Where the next call begins another sequence, its
/// carry must be zeros.
/// Shapes    carry (batch, channel, width - 1); y (batch, time, channel), which may not share
///           memory with x. Width 1 to 8.
/// Accuracy  before the activation (width + 1)/2 · eps·Σ|terms|; SiLU adds 4 ulp, except that in
///           vectors it stays at -3e-36 for sums below -86 (double: -8e-304 below -704); storage in
///           16 bits rounds once more.
/// Special   length 0 leaves carry as it is; NaN and infinity follow IEEE rules, and a weight that
///           is not finite makes NaN of the zeros before a sequence.
/// Throws    shape_error before anything is written.
/// Repeats   bit for bit for any number of threads and any strides; `sequential`, and `parallel`
///           on each instruction set, round differently.
/// Gradient  causal_conv1d_vjp.
/// Source    Gu & Dao 2023, arXiv:2312.00752, figure 3; Dao & Gu 2024, arXiv:2405.21060, section 7.
/// Tested    tests/causal_conv1d_test.cpp.
template <execution_policy Policy, class T>
void causal_conv1d(Policy policy, causal_conv1d_inputs<T> const& inputs,
                   state_view<std::type_identity_t<T>> carry,
                   sequence_view<std::type_identity_t<T>> y) {
  detail::require_conv1d_inputs(inputs);
  auto const e = inputs.extents();
  detail::require_shape_if_given(carry, {e.batch, e.channels, e.width - 1}, "causal_conv1d: carry",
                                 "batch, channel, width - 1");
  require_shape(y, inputs.x.extents(), "causal_conv1d: y", "batch, time, channel");
  detail::require_writable(carry, "causal_conv1d: carry");
  detail::require_writable(y, "causal_conv1d: y");
  if constexpr (detail::has_fast_conv<T> && !std::same_as<Policy, sequential>) {
    index_t const blocks = detail::conv_partition<T>::block_count(e);
    return detail::causal_conv1d_fast(detail::plan(policy, e.batch * blocks, e.length),
                                      detail::instructions_of(policy), inputs, carry, y);
  } else {
    index_t const lanes = e.batch * e.channels;
    int const threads = detail::plan(policy, lanes, e.length).threads;
    detail::parallel_for(threads, lanes, [&](index_t begin, index_t end) {
      for (index_t lane = begin; lane < end; ++lane) {
        detail::causal_conv1d_lane(inputs, lane / e.channels, lane % e.channels, carry, y);
      }
    });
  }
}

/// Gradient of causal_conv1d. `initial` is the carry before the call; `carry_cotangent` is the
/// cotangent of the final carry on entry and the gradient of the initial one on exit; either may
/// be empty (zeros; zeros and not wanted). Other gradients are added to the views of `gradients`.
/// Shapes    initial, carry_cotangent (batch, channel, width - 1); y_cotangent (batch, time,
///           channel); gradients as inputs.
/// Accuracy  the slope of SiLU is taken at a sum that is off by (width + 1)/2 · eps·Σ|terms|; then
///           (n + 1)/2 · eps·Σ|terms| for a sum of n terms: width + 1 for x and the carry, batch ·
///           length for weight and bias.
/// Throws    shape_error before anything is written.
/// Repeats   bit for bit for any number of threads.
/// Tested    tests/causal_conv1d_vjp_test.cpp, against differences in 50 digits.
template <execution_policy Policy, class T>
void causal_conv1d_vjp(Policy policy, causal_conv1d_inputs<T> const& inputs,
                       state_view<std::type_identity_t<T> const> initial,
                       sequence_view<accumulator_t<std::type_identity_t<T>> const> y_cotangent,
                       state_view<accumulator_t<std::type_identity_t<T>>> carry_cotangent,
                       causal_conv1d_gradients<std::type_identity_t<T>> const& gradients) {
  detail::require_conv1d_inputs(inputs);
  auto const e = inputs.extents();
  index_array<3> const carry_shape{e.batch, e.channels, e.width - 1};
  detail::require_shape_if_given(initial, carry_shape, "causal_conv1d_vjp: initial",
                                 "batch, channel, width - 1");
  require_shape(y_cotangent, inputs.x.extents(), "causal_conv1d_vjp: y_cotangent",
                "batch, time, channel");
  detail::require_shape_if_given(carry_cotangent, carry_shape, "causal_conv1d_vjp: carry_cotangent",
                                 "batch, channel, width - 1");
  detail::require_writable(carry_cotangent, "causal_conv1d_vjp: carry_cotangent");
  detail::require_shape_if_given(gradients.x, inputs.x.extents(), "causal_conv1d_vjp: gradients.x",
                                 "batch, time, channel");
  detail::require_shape_if_given(gradients.weight, inputs.weight.extents(),
                                 "causal_conv1d_vjp: gradients.weight", "channel, width");
  detail::require_shape_if_given(gradients.bias, {e.channels}, "causal_conv1d_vjp: gradients.bias",
                                 "channel");
  if constexpr (detail::has_fast_conv<T> && !std::same_as<Policy, sequential>) {
    if (!detail::sums_over(gradients.x, 0) && !detail::sums_over(gradients.x, 1) &&
        !detail::sums_over(gradients.x, 2)) {
      index_t const blocks = detail::conv_partition<T>::block_count(e);
      return detail::causal_conv1d_vjp_fast(
          detail::plan(policy, e.batch * blocks, e.length), detail::instructions_of(policy),
          {inputs, initial, y_cotangent, carry_cotangent, gradients.x, {}}, carry_cotangent,
          gradients);
    }
  }
  auto const plan = detail::plan(policy, e.channels, e.length);

  // A thread has whole channels, so no sum depends on how many there are; one thread has them all
  // where a gradient is summed over channels.
  bool const shared = detail::sums_over(gradients.x, 2) || detail::sums_over(gradients.weight, 0) ||
                      detail::sums_over(gradients.bias, 0);
  detail::parallel_for(shared ? 1 : plan.threads, e.channels, [&](index_t begin, index_t end) {
    for (index_t c = begin; c < end; ++c) {
      detail::causal_conv1d_channel_vjp(inputs, c, initial, y_cotangent, carry_cotangent,
                                        gradients);
    }
  });
}

}  // namespace ssm
