// SPDX-License-Identifier: Apache-2.0
// state_space_dual.hpp: Mamba-2's operator, one decay a head, forward and its gradient.
#pragma once

#include <concepts>
#include <type_traits>

#include "ssm/detail/state_space_dual_inputs.hpp"
#include "ssm/detail/state_space_dual_reference.hpp"
#include "ssm/detail/state_space_dual_reference_vjp.hpp"
#include "ssm/detail/state_space_dual_step.hpp"
#include "ssm/detail/state_space_dual_vjp.hpp"
#include "ssm/execution.hpp"

namespace ssm {

/// Mamba-2's operator: for each head, with Δ' = step factor · rule(step_size + step_bias) and A'
/// the scaled eigenvalue,
///   h_t = exp(Δ'_t A') h_{t-1} + Δ'_t x_t ⊗ B_t,   y_t = (h_t C_t + D x_t) silu(gate_t).
/// `carry` is the state before the first step on entry and after the last one on exit, so that one
/// call over a sequence equals a call for each part of it, down to single steps, to rounding.
/// `sequential` and `chunked` run the recurrence as the engine does (scan). `parallel` takes a
/// chunk of steps at once, `chunk` steps or fewer (0: 32; at most 32), in which states are kept
/// divided by the decays since it began, so that a step is products and sums alone, and calls of
/// less than 8 steps step by step. Other number types than float, double, bfloat16 and
/// float16 are run by the engine in every case.
/// Shapes    carry (batch, head, head_dim, state); y (batch, time, head, head_dim); y and carry may
///           not share memory with inputs.
/// Accuracy  before the gate eps·Σ|terms|·k; k = states/2 + chunk + 20, and for a term that is m
///           steps old over decays whose logarithms add up to S, 1.5 m + 8 |S| more, where the
///           step size is off by at most 6 eps. Storage in 16 bits rounds once more.
/// Special   length 0 leaves carry as it is. Exponentials are taken of the steps alone, and a chunk
///           ends before their product is below 2^-64 or above 2^32, or what is divided by it could
///           overflow: no length overflows, and a decay that underflows is 0. Where states grow,
///           nothing overflows before them. NaN and infinity follow IEEE rules, and no output
///           depends on later inputs.
/// Throws    shape_error before anything is written.
/// Repeats   bit for bit for any number of threads and any strides; policies, chunks and
///           instruction sets round differently.
/// Cost      two multiplications and additions for each state of each step, and 50 KB a thread
///           (more above 128 states in float, 64 in double, and for longer chunks). Where the carry
///           has the states of a head side by side, several heads of a group go through time
///           together; their states then lie in it in another order until the call ends.
/// Gradient  state_space_dual_vjp; `saved` is for it.
/// Source    Dao & Gu 2024, arXiv:2405.21060, sections 6 and 7. (On a CPU the products of matrices
///           of their listing 1 save nothing, and need those between the steps of a chunk as well.)
/// Tested    tests/state_space_dual_test.cpp.
template <execution_policy Policy, class T>
void state_space_dual(Policy policy, state_space_dual_inputs<T> const& inputs,
                      tensor_view<accumulator_t<std::type_identity_t<T>>, 4> carry,
                      tensor_view<std::type_identity_t<T>, 4> y,
                      state_space_dual_saved<std::type_identity_t<T>> const& saved = {}) {
  detail::ssd_extents const e = detail::require_inputs(inputs);
  require_shape(carry, e.carry(), "state_space_dual: carry", "batch, head, head_dim, state");
  require_shape(y, e.sequences(), "state_space_dual: y", "batch, time, head, head_dim");
  detail::require_saved(saved, e);
  detail::require_writable(carry, "state_space_dual: carry");
  detail::require_writable(y, "state_space_dual: y");
  detail::require_writable(saved.states, "state_space_dual: saved.states");
  detail::require_writable(saved.ungated, "state_space_dual: saved.ungated");
  detail::plan(policy, 1, e.length);  // checks the policy
  if constexpr (std::same_as<Policy, parallel> && detail::has_fast_ssd<T>) {
    detail::state_space_dual_fast(policy, inputs, carry, y, saved);
  } else {
    detail::state_space_dual_reference(policy, inputs, carry, y, saved);
  }
}

/// Gradient of state_space_dual, added to `gradients`. `initial` is the carry before the call;
/// `carry_cotangent` is the cotangent of the final carry on entry and the gradient of the initial
/// one on exit.
/// `saved` is what state_space_dual saved in the same call; what is missing is computed again (both
/// views: one more forward run).
/// Shapes    initial, carry_cotangent (batch, head, head_dim, state); y_cotangent (batch, time,
///           head, head_dim); gradients and saved as their structs say.
/// Accuracy  eps·Σ|terms|·k; k = states + head_dim + length + 168, where the decays' part of it is
///           8 |S| <= 128 as in state_space_dual. No difference of sums is taken: the gradient of a
///           decay is the sum of what crossed its step.
/// Special   a limit that cuts a step size has no gradient there.
/// Throws    shape_error before anything is written.
/// Memory    under `parallel` the saved states, one for every state_space_dual_block steps, y
///           before the gate, a copy of the carry, a block of gradients of B and C for each of at
///           most 8 parts of the heads of a group, and about 0.3 MB a thread for 64 channels of 128
///           states; never all states.
/// Cost      four products with the states where state_space_dual has two, and its own two where
///           states were not saved; chunks of 32 steps where `chunk` is 0. Shorter ones, and
///           sequences that begin within a block, take one more.
/// Repeats   bit for bit for any number of threads.
/// Source    as products of matrices: Dao & Gu 2024, listing 1; its segment sums are fill_decays.
/// Tested    tests/state_space_dual_vjp_test.cpp, and state_space_dual_oracle_test.cpp against
///           differences in 50 digits.
template <execution_policy Policy, class T>
void state_space_dual_vjp(Policy policy, state_space_dual_inputs<T> const& inputs,
                          tensor_view<accumulator_t<std::type_identity_t<T>> const, 4> initial,
                          tensor_view<accumulator_t<std::type_identity_t<T>> const, 4> y_cotangent,
                          tensor_view<accumulator_t<std::type_identity_t<T>>, 4> carry_cotangent,
                          state_space_dual_gradients<std::type_identity_t<T>> const& gradients,
                          state_space_dual_saved<std::type_identity_t<T>> const& saved = {}) {
  detail::ssd_extents const e = detail::require_inputs(inputs);
  require_shape(initial, e.carry(), "state_space_dual_vjp: initial",
                "batch, head, head_dim, state");
  require_shape(y_cotangent, e.sequences(), "state_space_dual_vjp: y_cotangent",
                "batch, time, head, head_dim");
  require_shape(carry_cotangent, e.carry(), "state_space_dual_vjp: carry_cotangent",
                "batch, head, head_dim, state");
  detail::require_writable(carry_cotangent, "state_space_dual_vjp: carry_cotangent");
  detail::require_gradients(gradients, e);
  detail::require_saved(saved, e);
  detail::plan(policy, 1, e.length);
  if constexpr (std::same_as<Policy, parallel> && detail::has_fast_ssd<T>) {
    detail::state_space_dual_vjp_fast(policy, inputs, initial, y_cotangent, carry_cotangent,
                                      gradients, saved);
  } else {
    detail::state_space_dual_vjp_reference(policy, inputs, initial, y_cotangent, carry_cotangent,
                                           gradients);
  }
}

}  // namespace ssm
