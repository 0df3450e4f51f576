// SPDX-License-Identifier: Apache-2.0
// selective_scan_vjp.cuh: the gradient of Mamba's operator on the GPU.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <tuple>
#include <type_traits>

#include "ssm/accumulate.cuh"
#include "ssm/detail/selective_vjp_launch.cuh"
#include "ssm/selective_scan.cuh"

namespace ssm::gpu {

namespace detail {

/// Throws shape_error where several threads would add to one element.
template <class T>
void require_unshared(selective_scan_gradients<T, memory::device> const& to) {
  ssm::detail::require_writable(to.x, "selective_scan_vjp: gradients.x");
  ssm::detail::require_writable(to.step_size, "selective_scan_vjp: gradients.step_size");
  ssm::detail::require_writable(to.gate, "selective_scan_vjp: gradients.gate");
  ssm::detail::require_writable(to.B, "selective_scan_vjp: gradients.B");
  ssm::detail::require_writable(to.C, "selective_scan_vjp: gradients.C");
}

/// Throws shape_error where an output shares memory with anything else.
template <class T>
void require_vjp_apart(selective_scan_inputs<T, memory::device> const& in,
                       state_view<float const, memory::device> const& initial,
                       sequence_view<T const, memory::device> const& y_cotangent,
                       state_view<float, memory::device> const& carry_cotangent,
                       selective_scan_gradients<T, memory::device> const& to,
                       trajectory_view<float const, memory::device> const& checkpoints) {
  require_all_apart(
      "selective_scan_vjp",
      std::tuple(named_view{carry_cotangent, "carry_cotangent"}, named_view{to.x, "gradients.x"},
                 named_view{to.step_size, "gradients.step_size"},
                 named_view{to.gate, "gradients.gate"}, named_view{to.B, "gradients.B"},
                 named_view{to.C, "gradients.C"}, named_view{to.eigenvalue, "gradients.eigenvalue"},
                 named_view{to.D, "gradients.D"}, named_view{to.step_bias, "gradients.step_bias"},
                 named_view{to.scaling.linear, "gradients.scaling.linear"},
                 named_view{to.scaling.power, "gradients.scaling.power"},
                 named_view{to.scaling.step, "gradients.scaling.step"}),
      std::tuple(named_view{in.x, "x"}, named_view{in.step_size, "step_size"},
                 named_view{in.gate, "gate"}, named_view{in.B, "B"}, named_view{in.C, "C"},
                 named_view{in.eigenvalue, "eigenvalue"}, named_view{in.D, "D"},
                 named_view{in.step_bias, "step_bias"},
                 named_view{in.scaling.linear, "scaling.linear"},
                 named_view{in.scaling.power, "scaling.power"},
                 named_view{in.scaling.step, "scaling.step"}, named_view{in.sequence, "sequence"},
                 named_view{initial, "initial"}, named_view{y_cotangent, "y_cotangent"},
                 named_view{checkpoints, "checkpoints"}));
}

/// Whether strides in bytes are 32-bit numbers, as kernels multiply them.
template <class... Arrays>
bool have_short_strides(Arrays const&... arrays) {
  auto const is_short = [](index_t stride) { return std::abs(stride) < index_t{1} << 28; };
  return ((is_short(arrays.time) && is_short(arrays.channel)) && ...);
}

template <class T>
selective_vjp_problem<T> vjp_problem(
    selective_scan_inputs<T, memory::device> const& in,
    state_view<float const, memory::device> const& initial,
    sequence_view<T const, memory::device> const& y_cotangent,
    state_view<float, memory::device> const& carry_cotangent,
    selective_scan_gradients<T, memory::device> const& to,
    trajectory_view<float const, memory::device> const& checkpoints,
    selective_scan_plan const& plan) {
  scan_shape const s = ssm::detail::checked_shape(in);
  index_array<3> const states{s.batch, s.channels, s.states};
  require_shape(initial, states, "selective_scan_vjp: initial", "batch, channel, state");
  require_shape(y_cotangent, in.x.extents(), "selective_scan_vjp: y_cotangent",
                "batch, time, channel");
  require_shape(carry_cotangent, states, "selective_scan_vjp: carry_cotangent",
                "batch, channel, state");
  ssm::detail::require_writable(carry_cotangent, "selective_scan_vjp: carry_cotangent");
  ssm::detail::require_gradients(in, to);
  require_unshared(to);
  ssm::detail::require_checkpoints(checkpoints, s, "selective_scan_vjp: checkpoints",
                                   selective_scan_checkpoint_steps);
  require_vjp_apart(in, initial, y_cotangent, carry_cotangent, to, checkpoints);
  selective_vjp_problem<T> p{};
  give_inputs<T>(p, in, plan, "selective_scan_vjp");
  p.y_cotangent = y_cotangent;
  p.to_x = to.x, p.to_step_size = to.step_size;
  if (in.gate.data_handle() != nullptr) p.to_gate = to.gate;
  p.along_time = p.x.time == 1 && p.x.channel != 1;
  p.packed = are_packed<T>(p, p.y_cotangent, p.to_x, p.to_step_size, p.to_gate) &&
             have_short_strides(p.x, p.step_size, p.gate, p.y_cotangent, p.to_x, p.to_step_size,
                                p.to_gate);
  p.initial = initial, p.carry_cotangent = carry_cotangent;
  return p;
}

template <class T>
bool wants_shared(selective_scan_gradients<T, memory::device> const& to) {
  return to.B.data_handle() != nullptr || to.C.data_handle() != nullptr;
}

}  // namespace detail

/// Bytes of workspace that selective_scan_vjp needs.
template <class T>
std::size_t selective_scan_vjp_workspace(
    selective_scan_inputs<T, memory::device> const& in,
    std::type_identity_t<state_view<float const, memory::device>> const& initial,
    std::type_identity_t<sequence_view<T const, memory::device>> const& y_cotangent,
    std::type_identity_t<state_view<float, memory::device>> const& carry_cotangent,
    std::type_identity_t<selective_scan_gradients<T, memory::device>> const& gradients,
    std::type_identity_t<trajectory_view<float const, memory::device>> const& checkpoints = {},
    selective_scan_plan const& plan = {}) {
  auto p =
      detail::vjp_problem(in, initial, y_cotangent, carry_cotangent, gradients, checkpoints, plan);
  if (!detail::has_work(p)) return 0;
  auto const memory = detail::plan_vjp(p, plan.segments, checkpoints.data_handle() != nullptr,
                                       detail::wants_shared(gradients));
  return sizeof(float) * static_cast<std::size_t>(memory.end);
}

/// Gradient of selective_scan, given the cotangents of y and of the final state, as the CPU's.
/// `carry_cotangent` is the cotangent of the final state on entry and the gradient of the initial
/// state on exit; the others are added to `gradients`, or stored there. States are computed again
/// from the `checkpoints` of a forward run, or from `initial`, which costs a third more. Returns
/// before the work is done, allocates nothing, and may be captured in a graph.
///
/// Time is cut into segments that run side by side, back in time. What arrives at the end of each
/// is found by a first pass that, walking on from there, leaves each state where its cotangent has
/// decayed (`plan`, but for `visited`). 16 states are a pass.
/// Shapes    as selective_scan; every gradient as its input. A stride of 0 sums for what channels
///           or states share: eigenvalue, D, step_bias, scaling.
/// Accuracy  as selective_scan; what the first pass leaves out is at most plan.negligible times the
///           size the cotangent had there.
/// Repeats   bit for bit.
/// Special   without steps nothing is written, whatever `how` is.
/// Memory    reads inputs and cotangents twice; workspace 32·length floats for each 128 channels
///           of a row, and the checkpoints where none are given: a float for each state of each
///           channel in every selective_scan_checkpoint_steps steps.
/// Throws    shape_error before any launch; gpu::error where a launch fails.
/// Tested    tests/selective_scan_vjp_test.cu, selective_scan_graph_test.cu.
template <class T>
void selective_scan_vjp(
    on where, selective_scan_inputs<T, memory::device> const& in,
    std::type_identity_t<state_view<float const, memory::device>> const& initial,
    std::type_identity_t<sequence_view<T const, memory::device>> const& y_cotangent,
    std::type_identity_t<state_view<float, memory::device>> const& carry_cotangent,
    std::type_identity_t<selective_scan_gradients<T, memory::device>> const& gradients,
    workspace const& memory,
    std::type_identity_t<trajectory_view<float const, memory::device>> const& checkpoints = {},
    selective_scan_plan const& plan = {}, accumulate how = accumulate::yes) {
  auto p =
      detail::vjp_problem(in, initial, y_cotangent, carry_cotangent, gradients, checkpoints, plan);
  if (!detail::has_work(p)) return;
  p.accumulates = how == accumulate::yes;
  auto const parts = detail::plan_vjp(p, plan.segments, checkpoints.data_handle() != nullptr,
                                      detail::wants_shared(gradients));
  auto* const own = detail::checked(memory, sizeof(float) * static_cast<std::size_t>(parts.end),
                                    "selective_scan_vjp");
  detail::run_vjp(where, p, parts, reinterpret_cast<float*>(own), checkpoints, gradients.B,
                  gradients.C,
                  {gradients.eigenvalue, gradients.D, gradients.step_bias, gradients.scaling});
}

/// selective_scan_vjp with a workspace that is allocated and freed in stream order.
template <class T>
void selective_scan_vjp_allocating(
    on where, selective_scan_inputs<T, memory::device> const& in,
    std::type_identity_t<state_view<float const, memory::device>> const& initial,
    std::type_identity_t<sequence_view<T const, memory::device>> const& y_cotangent,
    std::type_identity_t<state_view<float, memory::device>> const& carry_cotangent,
    std::type_identity_t<selective_scan_gradients<T, memory::device>> const& gradients,
    std::type_identity_t<trajectory_view<float const, memory::device>> const& checkpoints = {},
    selective_scan_plan const& plan = {}, accumulate how = accumulate::yes) {
  auto const bytes = static_cast<index_t>(selective_scan_vjp_workspace(
      in, initial, y_cotangent, carry_cotangent, gradients, checkpoints, plan));
  tensor<std::byte, 1> own(where, {bytes});
  selective_scan_vjp(where, in, initial, y_cotangent, carry_cotangent, gradients, own.view(),
                     checkpoints, plan, how);
}

}  // namespace ssm::gpu
