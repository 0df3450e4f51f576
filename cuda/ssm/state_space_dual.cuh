// SPDX-License-Identifier: Apache-2.0
// state_space_dual.cuh: Mamba-2's operator on the GPU.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>

#include "ssm/detail/dual_launch.cuh"
#include "ssm/detail/require_apart.cuh"
#include "ssm/detail/require_writable.hpp"
#include "ssm/detail/state_space_dual_inputs.hpp"
#include "ssm/tensor.cuh"
#include "ssm/workspace.cuh"

namespace ssm::gpu {

/// How a state_space_dual on the GPU is run; the defaults are right for speed.
struct state_space_dual_plan {
  /// Segments of time that run side by side, each from the state that a first pass finds; 0: as
  /// many as keep the device busy. What a state has is the same for any number, but for rounding.
  index_t segments = 0;
  /// The first pass follows a state back until all that is further back would be multiplied by less
  /// than this; what it leaves out is at most that part of the state there. 0 follows everything.
  /// Unless given 2^-32, or 2^-20 where inputs have 16 bits.
  std::optional<float> negligible = std::nullopt;
  /// For float: products of numbers of 22 bits by three products on the matrix units; otherwise by
  /// one, of numbers rounded to 11 bits, in 0.6 of the time on an H200.
  bool exact = true;
  /// If not null: steps of heads that the first pass visits are added here, in device memory. All
  /// of them are batch · heads · (length - last segment).
  unsigned long long* visited = nullptr;
};

namespace detail {

/// Whether rows of an array are dense and whole packets of 16 bytes at multiples of 16.
template <class T, int Rank>
bool has_whole_rows(tensor_view<T, Rank, memory::device> const& of) {
  auto const is_whole = [](index_t elements) {
    return elements * static_cast<index_t>(sizeof(T)) % 16 == 0;
  };
  int const row = Rank - 1;
  bool result = reinterpret_cast<std::uintptr_t>(of.data_handle()) % 16 == 0 &&
                is_whole(of.extent(row)) && (of.stride(row) == 1 || of.extent(row) == 1);
  for (int axis = 0; axis < row; ++axis) {
    result = result && (of.extent(axis) == 1 || is_whole(of.stride(axis)));
  }
  return of.data_handle() == nullptr || result;
}

/// What kernels know of the inputs and the plan, forward and gradient alike.
template <class T>
void give_inputs(dual_problem<T>& p, state_space_dual_inputs<T, memory::device> const& in,
                 state_space_dual_plan const& plan, char const* call) {
  static_assert(std::is_same_v<accumulator_t<T>, float>,
                "gpu::state_space_dual computes in float: T is float, bfloat16 or float16");
  ssm::detail::ssd_extents const e = ssm::detail::require_inputs(in);
  require<shape_error>(e.states <= 256, call, ": B has ", e.states,
                       " states, expected at most 256");
  require<shape_error>(plan.segments >= 0 && plan.segments <= 65535, call, ": plan.segments is ",
                       plan.segments, ", expected 0 to 65535");
  float const negligible = plan.negligible.value_or(sizeof(T) == 2 ? 0x1p-20f : 0x1p-32f);
  require<shape_error>(negligible >= 0.0f && negligible < 1.0f, call, ": plan.negligible is ",
                       negligible, ", expected at least 0 and less than 1");
  p.x = in.x, p.gate = in.gate, p.B = in.B, p.C = in.C, p.step_size = in.step_size;
  p.eigenvalue = in.eigenvalue, p.step_bias = in.step_bias, p.D = in.D, p.scaling = in.scaling;
  p.softplus = in.step_rule.softplus, p.limited = in.step_rule.limits.has_value();
  p.smallest_step = p.limited ? in.step_rule.limits->smallest : -INFINITY;
  p.largest_step = p.limited ? in.step_rule.limits->largest : INFINITY;
  p.sequence = in.sequence;
  p.batch = e.batch, p.length = e.length, p.heads = e.heads, p.head_dim = e.head_dim;
  p.groups = e.groups, p.states = e.states, p.group_heads = e.heads_per_group();
  p.exact = plan.exact;
  // With negative steps states grow again: then nothing may be left out.
  bool const never_negative = p.softplus || p.smallest_step >= 0.0f;
  p.negligible = never_negative ? negligible : 0.0f;
  p.visited = plan.visited;
}

/// Throws shape_error where `out`, which is written, shares memory with an input.
template <class T, class View>
void require_apart_from_inputs(state_space_dual_inputs<T, memory::device> const& in,
                               View const& out, char const* name) {
  require_apart(out, in.x, name, "x");
  require_apart(out, in.step_size, name, "step_size");
  require_apart(out, in.eigenvalue, name, "eigenvalue");
  require_apart(out, in.B, name, "B");
  require_apart(out, in.C, name, "C");
  require_apart(out, in.D, name, "D");
  require_apart(out, in.gate, name, "gate");
  require_apart(out, in.step_bias, name, "step_bias");
  require_apart(out, in.scaling.linear, name, "scaling.linear");
  require_apart(out, in.scaling.power, name, "scaling.power");
  require_apart(out, in.scaling.step, name, "scaling.step");
  require_apart(out, in.sequence, name, "sequence");
}

template <class T>
dual_problem<T> state_space_dual_problem(state_space_dual_inputs<T, memory::device> const& in,
                                         tensor_view<float, 4, memory::device> const& carry,
                                         tensor_view<T, 4, memory::device> const& y,
                                         state_space_dual_saved<T, memory::device> const& saved,
                                         state_space_dual_plan const& plan) {
  dual_problem<T> p{};
  give_inputs(p, in, plan, "state_space_dual");
  ssm::detail::ssd_extents const e = ssm::detail::extents_of(in);
  require_shape(carry, e.carry(), "state_space_dual: carry", "batch, head, head_dim, state");
  require_shape(y, e.sequences(), "state_space_dual: y", "batch, time, head, head_dim");
  ssm::detail::require_saved(saved, e);
  auto const writable = [&](auto const& out, char const* name) {
    ssm::detail::require_writable(out, name);
    require_apart_from_inputs(in, out, name);
  };
  writable(carry, "state_space_dual: carry");
  writable(y, "state_space_dual: y");
  writable(saved.states, "state_space_dual: saved.states");
  writable(saved.ungated, "state_space_dual: saved.ungated");
  require_apart(y, carry, "state_space_dual: y", "carry");
  require_apart(saved.states, carry, "state_space_dual: saved.states", "carry");
  require_apart(saved.states, y, "state_space_dual: saved.states", "y");
  require_apart(saved.ungated, carry, "state_space_dual: saved.ungated", "carry");
  require_apart(saved.ungated, y, "state_space_dual: saved.ungated", "y");
  require_apart(saved.ungated, saved.states, "state_space_dual: saved.ungated", "saved.states");
  p.initial = carry, p.carry = carry, p.y = y;
  p.saved_states = saved.states, p.saved_ungated = saved.ungated;
  p.packed = has_whole_rows(p.x) && has_whole_rows(p.gate) && has_whole_rows(p.y) &&
             has_whole_rows(p.B) && has_whole_rows(p.C);
  return p;
}

template <class T>
bool has_work(dual_problem<T> const& p) {
  return p.batch > 0 && p.length > 0 && p.heads > 0 && p.head_dim > 0;
}

}  // namespace detail

/// Bytes of workspace that state_space_dual needs for these arguments; 0 where time is not cut.
template <class T>
std::size_t state_space_dual_workspace(
    state_space_dual_inputs<T, memory::device> const& in,
    std::type_identity_t<tensor_view<float, 4, memory::device>> const& carry,
    std::type_identity_t<tensor_view<T, 4, memory::device>> const& y,
    std::type_identity_t<state_space_dual_saved<T, memory::device>> const& saved = {},
    state_space_dual_plan const& plan = {}) {
  auto p = detail::state_space_dual_problem(in, carry, y, saved, plan);
  if (!detail::has_work(p)) return 0;
  return sizeof(float) * static_cast<std::size_t>(detail::plan_dual(p, plan.segments));
}

/// Run Mamba-2's operator over all of time, as state_space_dual of the CPU does: the same names,
/// shapes, options and meaning, prompts and chunks and single tokens alike. Returns before the work
/// is done, and allocates nothing.
///
/// Time is cut into segments that run side by side. What enters each is found by a first pass that
/// reads no C and writes no y, and that begins where a head's states have decayed by the end of the
/// segment (`plan`); how much of it was left is in `plan.visited`. A chunk of 64 steps (32 of
/// float) is a few products of matrices; states stay in registers, in float, from chunk to chunk.
///
/// T is float, bfloat16 or float16; sums are float. 16-bit numbers are multiplied as they are, and
/// what is between two products, a state, a decayed C·B, a decayed x, is rounded to T once. float
/// is multiplied exactly to 22 bits, or rounded to 11 (`plan.exact`). Views may have any strides.
/// Fast are rows of x, gate, y, B and C that are whole packets of 16 bytes at multiples of 16, with
/// 64, 128 or 256 states and a head_dim of 32 or a multiple of 64; fastest, on sm_90a, bfloat16
/// with 128 states and a head_dim of 64 or 128. At most 8 steps that save nothing go one by one.
///
/// Shapes    as state_space_dual of the CPU; at most 256 states.
/// Accuracy  a term is off by what the rounding of three factors to T makes of it (to 22 bits for
///           float), and by eps·k as on the CPU, where a decay is 2^(a difference of sums, which is
///           right to 2 eps of it), right to 1.5 eps. Step sizes are right to 3 eps, the gate to 8.
///           What the first pass leaves out is at most plan.negligible times the size the state
///           had.
/// Repeats   bit for bit, whatever else the device does.
/// Special   length 0 leaves carry as it is. A NaN or an infinity in x reaches no earlier chunk;
///           within its chunk it may reach all steps, those of other sequences too. One step's
///           decay is at least 2^-160. In float16, C·B beyond 32000 of two steps of a chunk may be
///           infinite.
/// Memory    reads x, step_size and B twice where time is cut, as far as the first pass goes, all
///           else once; workspace a state a segment and head.
/// Throws    shape_error before any launch; gpu::error where a launch fails.
/// Source    Dao & Gu 2024, arXiv:2405.21060, section 6.
/// Tested    tests/state_space_dual_test.cu.
template <class T>
void state_space_dual(
    on where, state_space_dual_inputs<T, memory::device> const& in,
    std::type_identity_t<tensor_view<float, 4, memory::device>> const& carry,
    std::type_identity_t<tensor_view<T, 4, memory::device>> const& y, workspace const& memory,
    std::type_identity_t<state_space_dual_saved<T, memory::device>> const& saved = {},
    state_space_dual_plan const& plan = {}) {
  auto p = detail::state_space_dual_problem(in, carry, y, saved, plan);
  if (!detail::has_work(p)) return;
  auto const floats = static_cast<std::size_t>(detail::plan_dual(p, plan.segments));
  auto* const own = detail::checked(memory, sizeof(float) * floats, "state_space_dual");
  detail::run_dual(where, p, reinterpret_cast<float*>(own));
}

/// state_space_dual with a workspace that is allocated and freed in stream order.
template <class T>
void state_space_dual_allocating(
    on where, state_space_dual_inputs<T, memory::device> const& in,
    std::type_identity_t<tensor_view<float, 4, memory::device>> const& carry,
    std::type_identity_t<tensor_view<T, 4, memory::device>> const& y,
    std::type_identity_t<state_space_dual_saved<T, memory::device>> const& saved = {},
    state_space_dual_plan const& plan = {}) {
  auto const bytes = static_cast<index_t>(state_space_dual_workspace(in, carry, y, saved, plan));
  tensor<std::byte, 1> own(where, {bytes});
  state_space_dual(where, in, carry, y, own.view(), saved, plan);
}

}  // namespace ssm::gpu
