// SPDX-License-Identifier: Apache-2.0
// selective_scan.cuh: Mamba's operator on the GPU.
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <type_traits>

#include "ssm/detail/require_apart.cuh"
#include "ssm/detail/require_writable.hpp"
#include "ssm/detail/selective_launch.cuh"
#include "ssm/detail/selective_scan_inputs.hpp"
#include "ssm/tensor.cuh"
#include "ssm/workspace.cuh"

namespace ssm::gpu {

/// How a selective_scan on the GPU is run; the defaults are right for speed.
struct selective_scan_plan {
  /// Segments of time that run side by side, each from the state that a first pass finds; 0: as
  /// many as keep the device busy. What a state has is the same for any number, but for rounding.
  index_t segments = 0;
  /// The first pass follows states back until all that is further back would be multiplied by less
  /// than this; what it leaves out is at most that part of a state there. 0 follows everything.
  /// Unless given 2^-32, or 2^-20 where inputs have 16 bits.
  std::optional<float> negligible = std::nullopt;
  /// If not null: steps of states that the first pass visits are added here, in device memory. All
  /// of them are batch · channels · states · (length - last segment); where segments are
  /// short, a step is visited for all states of 32 channels or for none.
  unsigned long long* visited = nullptr;
};

namespace detail {

/// What kernels know of the inputs and the plan, forward and gradient alike.
template <class T>
void give_inputs(selective_problem<T>& p, selective_scan_inputs<T, memory::device> const& in,
                 selective_scan_plan const& plan, char const* call) {
  static_assert(std::is_same_v<accumulator_t<T>, float>,
                "gpu::selective_scan computes in float: T is float, bfloat16 or float16");
  scan_shape const s = ssm::detail::checked_shape(in);
  require<shape_error>(s.states <= 256, call, ": eigenvalue has ", s.states,
                       " states, expected at most 256");
  require<shape_error>(plan.segments >= 0 && plan.segments <= 65535, call, ": plan.segments is ",
                       plan.segments, ", expected 0 to 65535");
  float const negligible = plan.negligible.value_or(sizeof(T) == 2 ? 0x1p-20f : 0x1p-32f);
  require<shape_error>(negligible >= 0.0f && negligible < 1.0f, call, ": plan.negligible is ",
                       negligible, ", expected at least 0 and less than 1");
  p.x = in.x, p.step_size = in.step_size, p.gate = in.gate;
  p.B = in.B, p.C = in.C;
  p.projections_along_time = p.B.time == 1 && p.B.state != 1;
  p.eigenvalue = in.eigenvalue, p.scaling = in.scaling;
  p.scales_steps = in.scaling.step.data_handle() != nullptr;
  p.D = in.D, p.step_bias = in.step_bias;
  p.softplus = in.step_rule.softplus, p.limited = in.step_rule.limits.has_value();
  p.smallest_step = p.limited ? in.step_rule.limits->smallest : -INFINITY;
  p.largest_step = p.limited ? in.step_rule.limits->largest : INFINITY;
  p.sequence = in.sequence;
  p.batch = s.batch, p.length = s.length, p.channels = s.channels, p.states = s.states;
  p.group_channels = in.B.extent(2) > 0 ? s.channels / in.B.extent(2) : 0;
  // With negative steps states grow again: then nothing may be left out.
  bool const never_negative = p.softplus || p.smallest_step >= 0.0f;
  p.threshold = never_negative ? std::log2(negligible) : -INFINITY;
  for (int i = 0; i < 3; ++i) {
    // (brevity·m/2e)^m / m! is negligible, where m is the first power left out: moments_tile.
    double const m[] = {6, 4, 3};
    double const brevity =
        std::pow(std::tgamma(m[i] + 1) * negligible, 1 / m[i]) * 2 * std::exp(1.0) / m[i];
    p.brevity[i] = never_negative ? static_cast<float>(brevity) : NAN;  // nothing is shorter
  }
}

/// Whether all packets and quads are whole and begin at multiples of their size, those of `others`
/// too.
template <class T, class... Arrays>
bool are_packed(selective_problem<T> const& p, Arrays const&... others) {
  auto const packets = [&](auto const&... arrays) {
    return (has_packets(arrays, p.along_time) && ...);
  };
  return packets(p.x, p.step_size, p.gate, others...) &&
         (p.along_time ? p.length : p.group_channels) % packet_elements == 0 &&
         has_quads(p.B, p.projections_along_time) && has_quads(p.C, p.projections_along_time) &&
         (p.projections_along_time ? p.length : p.states) % 4 == 0;
}

template <class T>
selective_problem<T> selective_scan_problem(
    selective_scan_inputs<T, memory::device> const& in,
    state_view<float, memory::device> const& carry, sequence_view<T, memory::device> const& y,
    trajectory_view<float, memory::device> const& checkpoints, selective_scan_plan const& plan) {
  scan_shape const s = ssm::detail::checked_shape(in);
  require_shape(carry, {s.batch, s.channels, s.states}, "selective_scan: carry",
                "batch, channel, state");
  require_shape(y, in.x.extents(), "selective_scan: y", "batch, time, channel");
  ssm::detail::require_writable(carry, "selective_scan: carry");
  ssm::detail::require_writable(y, "selective_scan: y");
  ssm::detail::require_checkpoints(checkpoints, s, "selective_scan: checkpoints",
                                   selective_scan_checkpoint_steps);
  ssm::detail::require_writable(checkpoints, "selective_scan: checkpoints");
  auto const apart = [&](auto const& out, char const* name) {
    require_apart(out, in.x, name, "x");
    require_apart(out, in.step_size, name, "step_size");
    require_apart(out, in.gate, name, "gate");
    require_apart(out, in.B, name, "B");
    require_apart(out, in.C, name, "C");
    require_apart(out, in.eigenvalue, name, "eigenvalue");
    require_apart(out, in.D, name, "D");
    require_apart(out, in.step_bias, name, "step_bias");
  };
  apart(carry, "selective_scan: carry");
  apart(y, "selective_scan: y");
  apart(checkpoints, "selective_scan: checkpoints");
  require_apart(y, carry, "selective_scan: y", "carry");
  require_apart(checkpoints, carry, "selective_scan: checkpoints", "carry");
  require_apart(checkpoints, y, "selective_scan: checkpoints", "y");
  selective_problem<T> p{};
  give_inputs(p, in, plan, "selective_scan");
  p.y = y;
  auto const dense_in_time = [](auto const& array) {
    return array.time == 1 && array.channel != 1;
  };
  p.along_time = dense_in_time(p.x) || (p.x.channel != 1 && dense_in_time(p.y));
  p.packed = are_packed(p, p.y);
  p.initial = carry, p.carry = carry, p.checkpoints = checkpoints;
  p.visited = plan.visited;
  return p;
}

template <class T>
bool has_work(selective_problem<T> const& p) {
  return p.batch > 0 && p.length > 0 && p.channels > 0 && p.states > 0;
}

}  // namespace detail

/// Bytes of workspace that selective_scan needs for these arguments; 0 where time is not cut.
template <class T>
std::size_t selective_scan_workspace(
    selective_scan_inputs<T, memory::device> const& in,
    std::type_identity_t<state_view<float, memory::device>> const& carry,
    std::type_identity_t<sequence_view<T, memory::device>> const& y,
    selective_scan_plan const& plan = {}) {
  auto p = detail::selective_scan_problem(in, carry, y, {}, plan);
  if (!detail::has_work(p)) return 0;
  return sizeof(float) * static_cast<std::size_t>(
                             plan_segments(p, detail::shape_for(p, plan.segments), plan.segments));
}

/// Run Mamba's operator over all of time, as selective_scan of the CPU does: the same names,
/// shapes, options and meaning, prompts and chunks and single tokens alike. Returns before the work
/// is done, allocates nothing, and may be captured in a graph.
///
/// Time is cut into segments that run side by side. What enters each is found by a first pass that
/// computes no y and, walking back from the end of a segment, leaves states where they have
/// decayed (`plan`); how much of it was visited is in `plan.visited`. Many rows are not cut; nor
/// are up to 8192 steps of so few channels that a multiprocessor has 12 of them, 4096 if it has 4,
/// from sm_90 on: there warps find the decays of parts of a tile side by side, and hand on the
/// states.
///
/// T is float, bfloat16 or float16; all is computed in float. Views may have any strides. Fast are
/// x, step_size, gate and y with channels innermost or all with time innermost, B and C with states
/// or with time innermost, from addresses and with strides that are multiples of 16 bytes. With
/// time innermost from other addresses or with other strides, as rows of an odd length have, it
/// takes up to twice as long.
/// Shapes    as selective_scan of the CPU; at most 256 states; checkpoints (batch,
///           ⌈length / selective_scan_checkpoint_steps⌉, state, channel).
/// Accuracy  a decay is off by 1.5 eps more than its exponent is, which is right to 8 eps (softplus
///           6); the gate to 8 eps; sums of states as on the CPU. What the first pass leaves out is
///           at most plan.negligible times the size the state had there.
/// Repeats   bit for bit, whatever else the device does.
/// Special   length 0 leaves carry as it is. NaN and infinity follow IEEE rules; states and steps
///           below the normal range are 0.
/// Memory    reads x and step_size twice where time is cut, all else once; workspace two floats a
///           segment and state.
/// Throws    shape_error before any launch; gpu::error where a launch fails.
/// Source    Gu & Dao 2023, arXiv:2312.00752, algorithm 2.
/// Tested    tests/selective_scan_test.cu, _kernels_test.cu, _graph_test.cu, _large_test.cu.
template <class T>
void selective_scan(
    on where, selective_scan_inputs<T, memory::device> const& in,
    std::type_identity_t<state_view<float, memory::device>> const& carry,
    std::type_identity_t<sequence_view<T, memory::device>> const& y, workspace const& memory,
    std::type_identity_t<trajectory_view<float, memory::device>> const& checkpoints = {},
    selective_scan_plan const& plan = {}) {
  auto p = detail::selective_scan_problem(in, carry, y, checkpoints, plan);
  if (!detail::has_work(p)) return;
  auto const shape = detail::shape_for(p, plan.segments);
  auto const floats = static_cast<std::size_t>(plan_segments(p, shape, plan.segments));
  auto* const own = detail::checked(memory, sizeof(float) * floats, "selective_scan");
  detail::run_selective(where, p, shape, reinterpret_cast<float*>(own));
}

/// selective_scan with a workspace that is allocated and freed in stream order.
template <class T>
void selective_scan_allocating(
    on where, selective_scan_inputs<T, memory::device> const& in,
    std::type_identity_t<state_view<float, memory::device>> const& carry,
    std::type_identity_t<sequence_view<T, memory::device>> const& y,
    std::type_identity_t<trajectory_view<float, memory::device>> const& checkpoints = {},
    selective_scan_plan const& plan = {}) {
  auto const bytes = static_cast<index_t>(selective_scan_workspace(in, carry, y, plan));
  tensor<std::byte, 1> own(where, {bytes});
  selective_scan(where, in, carry, y, own.view(), checkpoints, plan);
}

}  // namespace ssm::gpu
