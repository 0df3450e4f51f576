// SPDX-License-Identifier: Apache-2.0
// state_space_dual_vjp.cuh: the gradient of Mamba-2's operator on the GPU.
#pragma once

#include <cstddef>
#include <type_traits>

#include "ssm/accumulate.cuh"
#include "ssm/detail/dual_vjp_launch.cuh"
#include "ssm/state_space_dual.cuh"

namespace ssm::gpu {
namespace detail {

/// f(view, name) for all that the gradient writes.
template <class T, class F>
void for_each_gradient(state_space_dual_gradients<T, memory::device> const& to,
                       tensor_view<float, 4, memory::device> const& carry_cotangent, F const& f) {
  f(carry_cotangent, "carry_cotangent");
  f(to.x, "gradients.x");
  f(to.step_size, "gradients.step_size");
  f(to.gate, "gradients.gate");
  f(to.B, "gradients.B");
  f(to.C, "gradients.C");
  f(to.eigenvalue, "gradients.eigenvalue");
  f(to.D, "gradients.D");
  f(to.step_bias, "gradients.step_bias");
  f(to.scaling.linear, "gradients.scaling.linear");
  f(to.scaling.power, "gradients.scaling.power");
  f(to.scaling.step, "gradients.scaling.step");
}

/// Throws shape_error where what is written is also read, or is written twice.
template <class T>
void require_gradients_apart(state_space_dual_inputs<T, memory::device> const& in,
                             tensor_view<float const, 4, memory::device> const& initial,
                             tensor_view<T const, 4, memory::device> const& y_cotangent,
                             tensor_view<float, 4, memory::device> const& carry_cotangent,
                             state_space_dual_gradients<T, memory::device> const& to,
                             tensor_view<float const, 5, memory::device> const& states) {
  int number = 0;
  for_each_gradient(to, carry_cotangent, [&](auto const& out, char const* short_name) {
    std::string const name = std::string("state_space_dual_vjp: ") + short_name;
    auto const apart = [&](auto const& other, char const* other_name) {
      require_apart(out, other, name.c_str(), other_name);
    };
    require_apart_from_inputs(in, out, name.c_str());
    apart(initial, "initial");
    apart(y_cotangent, "y_cotangent");
    apart(states, "saved.states");
    int other_number = 0;
    for_each_gradient(to, carry_cotangent, [&](auto const& other, char const* other_name) {
      if (other_number++ < number) apart(other, other_name);
    });
    ++number;
  });
}

template <class T>
dual_vjp_problem<vjp_stored<T>> vjp_problem(
    state_space_dual_inputs<T, memory::device> const& in,
    tensor_view<float const, 4, memory::device> const& initial,
    tensor_view<T const, 4, memory::device> const& y_cotangent,
    tensor_view<float, 4, memory::device> const& carry_cotangent,
    state_space_dual_gradients<T, memory::device> const& to,
    state_space_dual_saved<T, memory::device> const& saved, state_space_dual_plan const& plan) {
  using stored = vjp_stored<T>;
  dual_vjp_problem<stored> p{};
  give_inputs<stored>(p, retyped_inputs(in), plan, "state_space_dual_vjp");
  if (std::is_same_v<T, float16>) p.exact = false;  // TF32 has its digits
  ssm::detail::ssd_extents const e = ssm::detail::extents_of(in);
  require_shape(initial, e.carry(), "state_space_dual_vjp: initial",
                "batch, head, head_dim, state");
  require_shape(y_cotangent, e.sequences(), "state_space_dual_vjp: y_cotangent",
                "batch, time, head, head_dim");
  require_shape(carry_cotangent, e.carry(), "state_space_dual_vjp: carry_cotangent",
                "batch, head, head_dim, state");
  ssm::detail::require_gradients(to, e);
  ssm::detail::require_saved(saved, e);
  auto const writable = [](auto const& view, char const* name) {
    ssm::detail::require_writable(view, name);
  };
  writable(carry_cotangent, "state_space_dual_vjp: carry_cotangent");
  writable(to.x, "state_space_dual_vjp: gradients.x");
  writable(to.step_size, "state_space_dual_vjp: gradients.step_size");
  writable(to.gate, "state_space_dual_vjp: gradients.gate");
  writable(to.B, "state_space_dual_vjp: gradients.B");
  writable(to.C, "state_space_dual_vjp: gradients.C");
  require_gradients_apart<T>(in, initial, y_cotangent, carry_cotangent, to, saved.states);
  require<shape_error>(e.batch * e.groups <= 65535 && 2 * e.batch <= 65535,
                       "state_space_dual_vjp: B has ", e.batch, " rows of ", e.groups,
                       " groups, expected at most 65535 groups and 32767 rows");
  require<shape_error>(e.heads <= 65535 && e.head_dim <= 65535, "state_space_dual_vjp: x has ",
                       e.heads, " heads of ", e.head_dim, ", expected at most 65535 of each");

  p.initial = initial, p.carry_cotangent = carry_cotangent;
  p.y_cotangent = retyped<stored>(y_cotangent);
  p.block_states = saved.states;
  p.to_x = to.x, p.to_step_size = to.step_size, p.to_B = to.B, p.to_C = to.C;
  if (in.gate.data_handle() != nullptr) p.to_gate = to.gate;
  p.packed_x = has_packed_rows(p.to_x) && has_packed_rows(p.to_gate);
  p.packed_shared = has_packed_rows(p.to_B) && has_packed_rows(p.to_C);
  p.log2_negligible = std::log2(p.negligible);
  return p;
}

/// What has to be copied: numbers that are computed with as others, and rows that packets of 16
/// bytes do not fit.
template <class T>
dual_vjp_copies<T> copies_for(state_space_dual_inputs<T, memory::device> const& in,
                              tensor_view<T const, 4, memory::device> const& y_cotangent) {
  constexpr bool is_other = !std::is_same_v<T, vjp_stored<T>>;
  auto const copy = [&](auto const& view) {
    bool const is_given = view.data_handle() != nullptr;
    return input_copy<T>{view, is_given && (is_other || !has_packed_rows(view))};
  };
  auto const& step = in.step_size;
  tensor_view<T const, 4, memory::device> const steps(
      step.data_handle(), {step.extent(0), step.extent(1), step.extent(2), 1},
      {step.stride(0), step.stride(1), step.stride(2), 1});
  return {copy(in.x), copy(in.gate), copy(y_cotangent), copy(in.B), copy(in.C), {steps, is_other}};
}

/// The gradients that are sums over time.
template <class T>
head_gradients gradients_of_heads(state_space_dual_gradients<T, memory::device> const& to) {
  return {to.eigenvalue, to.step_bias, to.D, to.scaling};
}

}  // namespace detail

/// Bytes of workspace that state_space_dual_vjp needs.
template <class T>
std::size_t state_space_dual_vjp_workspace(
    state_space_dual_inputs<T, memory::device> const& in,
    std::type_identity_t<tensor_view<float const, 4, memory::device>> const& initial,
    std::type_identity_t<tensor_view<T const, 4, memory::device>> const& y_cotangent,
    std::type_identity_t<tensor_view<float, 4, memory::device>> const& carry_cotangent,
    std::type_identity_t<state_space_dual_gradients<T, memory::device>> const& gradients,
    std::type_identity_t<state_space_dual_saved<T, memory::device>> const& saved = {},
    state_space_dual_plan const& plan = {}) {
  auto p =
      detail::vjp_problem<T>(in, initial, y_cotangent, carry_cotangent, gradients, saved, plan);
  if (!detail::has_work(p)) return 0;
  auto copies = detail::copies_for<T>(in, y_cotangent);
  return sizeof(float) *
         static_cast<std::size_t>(detail::plan_dual_vjp(p, copies, plan.segments).end);
}

/// Gradient of state_space_dual, added to `gradients`, or stored there, as state_space_dual_vjp of
/// the CPU does: the same names, shapes and options. `initial` is the carry before the call;
/// `carry_cotangent` is the cotangent of the final carry on entry and the gradient of the initial
/// one on exit. Of what a forward run saved only `states` are of use: they spare the first pass its
/// forward half; y before the gate is computed again faster than it is read. Returns before the
/// work is done, and allocates nothing.
///
/// Time is cut into chunks of 64 steps. A pass forward and one back, in segments that run side by
/// side from what a truncated first pass finds (`plan`), leave the state that enters each chunk and
/// the cotangent of the one that leaves it; then a block a chunk computes all gradients from
/// products of matrices, those of B and C summed over heads as it goes. On Hopper another kernel
/// takes chunks of bfloat16 with 128 states and heads of 64 or 128 that have no gate.
///
/// T is float, bfloat16 or float16; sums are float. Views may have any strides. Rows of x, gate, B,
/// C and y_cotangent that are not dense, or do not begin at multiples of 16 bytes, are copied, and
/// float16 is, as float. Fast are head_dim a multiple of 64 and states of 64 (128 in bfloat16),
/// which others are padded to; float and float16 take 64 states at a time.
/// Shapes    as state_space_dual_vjp of the CPU, y_cotangent in T; at most 256 states.
/// Accuracy  eps·Σ|terms|·k, k = states + head_dim + length + 168 as on the CPU, for float with
///           `plan.exact`. Otherwise what enters a product of matrices is rounded to bfloat16 (for
///           float16 and float to TF32, 11 bits): states, their cotangents, (C·B) L, sums of G over
///           heads, and cotangents of gated y; a term has at most four such factors, 2^-9 of it
///           each (2^-12). Decays are 2^x to 1.5 eps, x being right to 2^-40 of the sum over its
///           chunk. The gradient of a decay is the sum of what crossed its step: no difference is
///           taken.
/// Special   without steps nothing is written, whatever `how` is. A limit that cuts a step size has
/// no gradient there. A NaN or an infinity may reach
///           all steps of its chunk of 64, also those of other sequences. One step's decay is at
///           least 2^-160.
/// Memory    reads x and cotangents two to three times; workspace two states for every 64 steps
///           and head in T (float for float16), about 36 bytes a step and head, partial sums of B
///           and C where chunks are few, and what is copied.
/// Throws    shape_error before any launch; gpu::error where a launch fails, as it does where a
///           block has less than 142 KB of shared memory (108 for bfloat16).
/// Repeats   bit for bit.
/// Tested    tests/state_space_dual_vjp_test.cu.
template <class T>
void state_space_dual_vjp(
    on where, state_space_dual_inputs<T, memory::device> const& in,
    std::type_identity_t<tensor_view<float const, 4, memory::device>> const& initial,
    std::type_identity_t<tensor_view<T const, 4, memory::device>> const& y_cotangent,
    std::type_identity_t<tensor_view<float, 4, memory::device>> const& carry_cotangent,
    std::type_identity_t<state_space_dual_gradients<T, memory::device>> const& gradients,
    workspace const& memory,
    std::type_identity_t<state_space_dual_saved<T, memory::device>> const& saved = {},
    state_space_dual_plan const& plan = {}, accumulate how = accumulate::yes) {
  auto p =
      detail::vjp_problem<T>(in, initial, y_cotangent, carry_cotangent, gradients, saved, plan);
  if (!detail::has_work(p)) return;
  p.accumulates = how == accumulate::yes;
  auto copies = detail::copies_for<T>(in, y_cotangent);
  auto const parts = detail::plan_dual_vjp(p, copies, plan.segments);
  auto* const own = detail::checked(memory, sizeof(float) * static_cast<std::size_t>(parts.end),
                                    "state_space_dual_vjp");
  detail::run_dual_vjp(where, p, copies, parts, reinterpret_cast<float*>(own),
                       detail::gradients_of_heads(gradients));
}

/// state_space_dual_vjp with a workspace that is allocated and freed in stream order.
template <class T>
void state_space_dual_vjp_allocating(
    on where, state_space_dual_inputs<T, memory::device> const& in,
    std::type_identity_t<tensor_view<float const, 4, memory::device>> const& initial,
    std::type_identity_t<tensor_view<T const, 4, memory::device>> const& y_cotangent,
    std::type_identity_t<tensor_view<float, 4, memory::device>> const& carry_cotangent,
    std::type_identity_t<state_space_dual_gradients<T, memory::device>> const& gradients,
    std::type_identity_t<state_space_dual_saved<T, memory::device>> const& saved = {},
    state_space_dual_plan const& plan = {}, accumulate how = accumulate::yes) {
  auto const bytes = static_cast<index_t>(state_space_dual_vjp_workspace(
      in, initial, y_cotangent, carry_cotangent, gradients, saved, plan));
  tensor<std::byte, 1> own(where, {bytes});
  state_space_dual_vjp(where, in, initial, y_cotangent, carry_cotangent, gradients, own.view(),
                       saved, plan, how);
}

}  // namespace ssm::gpu
