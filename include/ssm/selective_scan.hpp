// SPDX-License-Identifier: Apache-2.0
// selective_scan.hpp: Mamba's operator, and its gradient.
#pragma once

#include <concepts>
#include <type_traits>

#include "ssm/detail/instruction_set.hpp"
#include "ssm/detail/parallel_for.hpp"
#include "ssm/detail/require_writable.hpp"
#include "ssm/detail/selective_scan_inputs.hpp"
#include "ssm/detail/selective_scan_kernel.hpp"
#include "ssm/detail/selective_scan_reference.hpp"
#include "ssm/detail/selective_scan_step.hpp"
#include "ssm/detail/selective_scan_vjp.hpp"
#include "ssm/execution.hpp"

namespace ssm {
namespace detail {

/// The numbers that the vector code computes with.
template <class real>
concept vectorized = std::same_as<real, float> || std::same_as<real, double>;

/// State updates below which threads cost more than they gain: waking one takes as long as about
/// this many.
inline constexpr index_t least_parallel_work = index_t{1} << 14;

template <class T>
void fast_selective_scan(parallel policy, selective_scan_inputs<T> const& in,
                         state_view<accumulator_t<T>> carry, sequence_view<T> y,
                         trajectory_view<accumulator_t<T>> checkpoints) {
  using real = accumulator_t<T>;
  scan_shape const s = checked_shape(in);
  int const threads =
      s.batch * s.length * s.channels * s.states < least_parallel_work ? 1 : policy.threads;
  bool const is_wide =
      sizeof(real) == 4 && chosen_instruction_set(policy.instructions) == instruction_set::avx512;
  channel_partition const partition(
      s, in.B.extent(2), 3 * index_t{threads == 0 ? processors() : threads}, is_wide ? 384 : 256);
  bool const is_short = s.length < selective_scan_short_call && carry.stride(2) == 1 &&
                        in.eigenvalue.stride(1) == 1 && checkpoints.data_handle() == nullptr &&
                        y.data_handle() != nullptr;
  share_out(threads, partition.count(s.batch), [&](auto const& next) {
    dispatch(
        policy.instructions, [&](auto width) __attribute__((always_inline)) {
          constexpr int lanes = decltype(width)::template lanes<real>;
          using kernel = selective_scan_kernel<T, lanes>;
          index_t const row = (partition.block + lanes - 1) / lanes * lanes;
          index_t const padded = kernel::padded_states(s.states);
          index_t const states = is_short ? std::max<index_t>(padded, lanes) : padded;
          bool const in_place = is_short && !in.scaling.scales_eigenvalues();
          selective_scan_workspace<real> w(is_short ? 1 : kernel::tile,
                                           is_short ? row / lanes : kernel::packs_at_once, lanes,
                                           row, states, in_place ? 0 : states);
          auto const run = [&](index_t i) __attribute__((always_inline)) {
            kernel const k{in, w, partition(i)};
            k.load_channels();
            if (is_short) {
              selective_scan_step<T, lanes>{k, carry}.run(s.length, y);
            } else {
              k.load_eigenvalues();
              k.for_each_state([&](index_t c, index_t n, real& h) { h = carry(k.block.b, c, n); });
              k.run(0, s.length, y, checkpoints);
              k.for_each_state([&](index_t c, index_t n, real& h) { carry(k.block.b, c, n) = h; });
            }
          };
          for (auto range = next(); range.first < range.second; range = next()) {
            for (index_t i = range.first; i < range.second; ++i) run(i);
          }
        });
  });
}

/// The states entering each block, and nothing else, from the initial ones.
template <class T>
void leave_checkpoints(parallel policy, selective_scan_inputs<T> const& in,
                       state_view<accumulator_t<T> const> initial,
                       trajectory_view<accumulator_t<T>> checkpoints) {
  tensor<accumulator_t<T>, 3> carry(initial.extents());
  for (index_t b = 0; b < carry.extent(0); ++b)
    for (index_t c = 0; c < carry.extent(1); ++c)
      for (index_t n = 0; n < carry.extent(2); ++n) carry(b, c, n) = initial(b, c, n);
  fast_selective_scan(policy, in, carry.view(), sequence_view<T>{}, checkpoints);
}

}  // namespace detail

/// Run Mamba's operator over all of time:
///   Δ_tc = step factor · rule(step_size_tc + bias_c),   A' = scaled eigenvalue,
///   h_t = exp(Δ_t A') h_{t-1} + Δ_t B_t x_t,   y_t = (C_t·h_t + D x_t) silu(gate_t).
/// `carry` is the state before the first step on entry and after the last one on exit, so that a
/// prompt, its chunks and single tokens are calls of the same function. `parallel` is the fast
/// path: vector instructions chosen at run time, rows of channels shared out among threads, the
/// same bits for any number of them; numbers other than float and double, and the policies
/// `sequential` and `chunked`, run the recurrence of diagonal.hpp by scan.
/// Its `chunk` has no use here: cutting time would cost every exponential twice.
/// `checkpoints`, if not empty, receive the states entering each block of selective_scan_block
/// steps, from which selective_scan_vjp can start again.
/// Shapes    x, step_size, gate, y (batch, time, channel); eigenvalue, scaling (channel, state);
///           B, C (batch, time, group, state); D, step_bias (channel); sequence (batch, time);
///           carry (batch, channel, state);
///           checkpoints (batch, ⌈length / selective_scan_block⌉, state, channel).
/// Accuracy  Δ is off by e = 2.5 + |p|/2 eps of its size (p = step_size + bias; 1 without
///           softplus); a term of y that is m steps old by (m·(|z|·(e + 1.12) + 2) + states + e +
///           2)·eps of its size, z = ΔA' of a step; the gate by 4 eps. A factor of A' adds half an
///           eps to e, a power 1 + 1.5·|power·log|A||.
/// Memory    beyond inputs and outputs less than 64 KiB a thread up to 64 states.
/// Special   length 0 leaves carry as it is; step size 0 holds the state; NaN and infinity follow
///           IEEE rules.
/// Throws    shape_error before anything is written.
/// Gradient  selective_scan_vjp.
/// Source    Gu & Dao 2023, arXiv:2312.00752, algorithm 2.
/// Tested    tests/selective_scan_test.cpp.
template <execution_policy Policy, class T>
void selective_scan(Policy policy, selective_scan_inputs<T> const& in,
                    state_view<accumulator_t<T>> carry, sequence_view<std::type_identity_t<T>> y,
                    trajectory_view<accumulator_t<T>> checkpoints = {}) {
  scan_shape const s = detail::checked_shape(in);
  require_shape(carry, {s.batch, s.channels, s.states}, "selective_scan: carry",
                "batch, channel, state");
  require_shape(y, in.x.extents(), "selective_scan: y", "batch, time, channel");
  detail::require_writable(carry, "selective_scan: carry");
  detail::require_writable(y, "selective_scan: y");
  detail::require_checkpoints(checkpoints, s, "selective_scan: checkpoints");
  detail::require_writable(checkpoints, "selective_scan: checkpoints");
  (void)detail::plan(policy, s.batch * s.channels, s.length);  // refuses bad settings
  if constexpr (std::same_as<Policy, parallel> && detail::vectorized<accumulator_t<T>>) {
    detail::fast_selective_scan(policy, in, carry, y, checkpoints);
  } else {
    detail::reference_selective_scan(policy, in, carry, y, checkpoints);
  }
}

/// Gradient of selective_scan, given the cotangents of y and of the final state.
/// `carry_cotangent` is the cotangent of the final state on entry and the gradient of the initial
/// state on exit; the others are added to `gradients`. States are computed again from `initial`,
/// or from the `checkpoints` of a forward run, which saves that part of the work.
/// Shapes    as selective_scan; every gradient as its input.
/// Memory    beyond inputs and outputs the checkpoints where none are given.
/// Throws    shape_error before anything is written.
/// Repeats   bit for bit for any number of threads.
/// Tested    tests/selective_scan_vjp_test.cpp.
template <execution_policy Policy, class T>
void selective_scan_vjp(Policy policy, selective_scan_inputs<T> const& in,
                        state_view<accumulator_t<T> const> initial,
                        sequence_view<std::type_identity_t<T> const> y_cotangent,
                        state_view<accumulator_t<T>> carry_cotangent,
                        selective_scan_gradients<std::type_identity_t<T>> const& gradients,
                        trajectory_view<accumulator_t<T> const> checkpoints = {}) {
  scan_shape const s = detail::checked_shape(in);
  require_shape(initial, {s.batch, s.channels, s.states}, "selective_scan_vjp: initial",
                "batch, channel, state");
  require_shape(y_cotangent, in.x.extents(), "selective_scan_vjp: y_cotangent",
                "batch, time, channel");
  require_shape(carry_cotangent, {s.batch, s.channels, s.states},
                "selective_scan_vjp: carry_cotangent", "batch, channel, state");
  detail::require_writable(carry_cotangent, "selective_scan_vjp: carry_cotangent");
  detail::require_gradients(in, gradients);
  detail::require_checkpoints(checkpoints, s, "selective_scan_vjp: checkpoints");
  (void)detail::plan(policy, s.batch * s.channels, s.length);
  if constexpr (std::same_as<Policy, parallel> && detail::vectorized<accumulator_t<T>>) {
    using real = accumulator_t<T>;
    if (s.length == 0) return;
    tensor<real, 4> own;
    if (checkpoints.data_handle() == nullptr) {
      own = tensor<real, 4>(
          {s.batch, (s.length - 1) / selective_scan_block + 1, s.states, s.channels});
      detail::leave_checkpoints(policy, in, initial, own.view());
      checkpoints = own.view();
    }
    detail::fast_selective_scan_vjp(policy, in, y_cotangent, carry_cotangent, gradients,
                                    checkpoints);
  } else {
    detail::reference_selective_scan_vjp(policy, in, initial, y_cotangent, carry_cotangent,
                                         gradients);
  }
}

}  // namespace ssm
