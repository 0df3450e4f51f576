// SPDX-License-Identifier: Apache-2.0
// state_space_dual_inputs.hpp: the arguments of state_space_dual and their checks. Include
// ssm/state_space_dual.hpp.
#pragma once

#include "ssm/detail/half.hpp"
#include "ssm/detail/require_writable.hpp"
#include "ssm/detail/sum_into.hpp"
#include "ssm/error.hpp"
#include "ssm/packed.hpp"
#include "ssm/scalar.hpp"
#include "ssm/spectrum_scaling.hpp"
#include "ssm/step_size.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm {

/// What state_space_dual reads. T is how inputs and outputs are stored: float, double, bfloat16,
/// float16, or any other real number; parameters and states are accumulator_t<T>, float for 16
/// bits. Heads share B and C in groups, the heads of a group side by side.
/// Shapes    x, gate (batch, time, head, head_dim); step_size (batch, time, head); eigenvalue,
///           step_bias (head); B, C (batch, time, group, state); D (head, head_dim), stride 0 for
///           one number a head; factors of `scaling` (head, 1) and (head). D, gate, step_bias and
///           sequence may be empty: 0, none, 0, one sequence a row.
template <class T, memory Where = memory::host>
requires real_scalar<accumulator_t<T>>
struct state_space_dual_inputs {
  using value_type = T;
  using real = accumulator_t<T>;

  tensor_view<T const, 4, Where> x{};
  sequence_view<T const, Where> step_size{};  ///< before bias and softplus
  tensor_view<real const, 1, Where> eigenvalue{};
  trajectory_view<T const, Where> B{};
  trajectory_view<T const, Where> C{};
  tensor_view<real const, 2, Where> D{};
  tensor_view<T const, 4, Where> gate{};  ///< z: y is multiplied by silu(z)
  tensor_view<real const, 1, Where> step_bias{};
  step_size_rule<real> step_rule{};
  spectrum_scaling<real, Where> scaling{};
  sequence_index_view<Where> sequence{};
};

/// Where state_space_dual_vjp adds the gradient of each input; an empty view: not wanted. A stride
/// of 0 sums over its axis.
template <class T, memory Where = memory::host>
struct state_space_dual_gradients {
  using real = accumulator_t<T>;

  tensor_view<real, 4, Where> x{};
  sequence_view<real, Where> step_size{};
  tensor_view<real, 1, Where> eigenvalue{};
  trajectory_view<real, Where> B{};
  trajectory_view<real, Where> C{};
  tensor_view<real, 2, Where> D{};
  tensor_view<real, 4, Where> gate{};
  tensor_view<real, 1, Where> step_bias{};
  typename spectrum_scaling<real, Where>::gradient scaling{};
};

/// Steps between the states that state_space_dual saves for its gradient, on the host and on a
/// device.
inline constexpr index_t state_space_dual_block = 32;
inline constexpr index_t state_space_dual_device_block = 128;

/// The view of a contiguous tensor with the last two axes exchanged in memory: how states are saved
/// quickest on the host.
template <class T, memory Where>
tensor_view<T, 5, Where> channels_innermost(tensor_view<T, 5, Where> const& view) {
  auto strides = view.strides();
  strides[3] = 1;
  strides[4] = view.extent(3);
  return {view.data_handle(), view.extents(), strides};
}

/// What state_space_dual can save so that its gradient need not run it again; an empty view: not
/// wanted, or not at hand.
/// Shapes    states (batch, block, head, head_dim, state), one block for every
///           state_space_dual_block steps begun (on a device state_space_dual_device_block): the
///           state its first step starts from, zeros where that step begins a sequence; on the host
///           quickest as channels_innermost; ungated (batch, time, head, head_dim): y before the
///           gate.
template <class T, memory Where = memory::host>
struct state_space_dual_saved {
  using real = accumulator_t<T>;

  tensor_view<real, 5, Where> states{};
  tensor_view<real, 4, Where> ungated{};
};

namespace detail {

struct ssd_extents {
  index_t batch, length, heads, head_dim, groups, states;

  index_t heads_per_group() const { return heads / groups; }
  index_t blocks(index_t steps = state_space_dual_block) const {
    return (length + steps - 1) / steps;
  }
  index_array<4> carry() const { return {batch, heads, head_dim, states}; }
  index_array<4> sequences() const { return {batch, length, heads, head_dim}; }
  index_t work() const { return batch * length * heads * head_dim * states; }
};

template <class T, memory Where>
ssd_extents extents_of(state_space_dual_inputs<T, Where> const& in) {
  return {in.x.extent(0), in.x.extent(1), in.x.extent(2),
          in.x.extent(3), in.B.extent(2), in.B.extent(3)};
}

template <class T, memory Where>
ssd_extents require_inputs(state_space_dual_inputs<T, Where> const& in) {
  ssd_extents const e = extents_of(in);
  require_shape(in.step_size, {e.batch, e.length, e.heads}, "state_space_dual: step_size",
                "batch, time, head");
  require_shape(in.eigenvalue, {e.heads}, "state_space_dual: eigenvalue", "head");
  require_shape(in.B, {e.batch, e.length, e.groups, e.states}, "state_space_dual: B",
                "batch, time, group, state");
  require_shape(in.C, in.B.extents(), "state_space_dual: C", "batch, time, group, state");
  require<shape_error>(e.groups > 0 && e.heads % e.groups == 0, "state_space_dual: x has ", e.heads,
                       " heads, expected a multiple of the ", e.groups, " groups of B");
  require_gradient_shape(in.D, {e.heads, e.head_dim}, "state_space_dual: D", "head, head_dim");
  require_gradient_shape(in.gate, e.sequences(), "state_space_dual: gate",
                         "batch, time, head, head_dim");
  require_gradient_shape(in.step_bias, {e.heads}, "state_space_dual: step_bias", "head");
  require_step_limits(in.step_rule, "state_space_dual: step limits");
  require_scaling(in.scaling, e.heads, 1);
  if constexpr (Where == memory::host) {
    require_sequence(in.sequence, e.batch, e.length, "state_space_dual: sequence");
  } else {  // the order of numbers on a device cannot be seen from here
    require_gradient_shape(in.sequence, {e.batch, e.length}, "state_space_dual: sequence",
                           "batch, time");
  }
  return e;
}

template <class T, memory Where>
void require_saved(state_space_dual_saved<T, Where> const& saved, ssd_extents const& e) {
  index_t const blocks =
      e.blocks(Where == memory::host ? state_space_dual_block : state_space_dual_device_block);
  require_gradient_shape(saved.states, {e.batch, blocks, e.heads, e.head_dim, e.states},
                         "state_space_dual: saved.states", "batch, block, head, head_dim, state");
  require_gradient_shape(saved.ungated, e.sequences(), "state_space_dual: saved.ungated",
                         "batch, time, head, head_dim");
}

template <class T, memory Where>
void require_gradients(state_space_dual_gradients<T, Where> const& to, ssd_extents const& e) {
  require_gradient_shape(to.x, e.sequences(), "state_space_dual_vjp: gradients.x",
                         "batch, time, head, head_dim");
  require_gradient_shape(to.step_size, {e.batch, e.length, e.heads},
                         "state_space_dual_vjp: gradients.step_size", "batch, time, head");
  require_gradient_shape(to.eigenvalue, {e.heads}, "state_space_dual_vjp: gradients.eigenvalue",
                         "head");
  index_array<4> const shared{e.batch, e.length, e.groups, e.states};
  require_gradient_shape(to.B, shared, "state_space_dual_vjp: gradients.B",
                         "batch, time, group, state");
  require_gradient_shape(to.C, shared, "state_space_dual_vjp: gradients.C",
                         "batch, time, group, state");
  require_gradient_shape(to.D, {e.heads, e.head_dim}, "state_space_dual_vjp: gradients.D",
                         "head, head_dim");
  require_gradient_shape(to.gate, e.sequences(), "state_space_dual_vjp: gradients.gate",
                         "batch, time, head, head_dim");
  require_gradient_shape(to.step_bias, {e.heads}, "state_space_dual_vjp: gradients.step_bias",
                         "head");
  require_gradient_shape(to.scaling.linear, {e.heads, 1},
                         "state_space_dual_vjp: gradients.scaling.linear", "head, 1");
  require_gradient_shape(to.scaling.power, {e.heads, 1},
                         "state_space_dual_vjp: gradients.scaling.power", "head, 1");
  require_gradient_shape(to.scaling.step, {e.heads}, "state_space_dual_vjp: gradients.scaling.step",
                         "head");
}

/// What the step-size rule is applied to.
template <class T>
accumulator_t<T> biased_step(state_space_dual_inputs<T> const& in, index_t b, index_t t,
                             index_t head) {
  auto const raw = static_cast<accumulator_t<T>>(in.step_size(b, t, head));
  return in.step_bias.data_handle() == nullptr ? raw : accumulator_t<T>(raw + in.step_bias(head));
}

/// A' of a head.
template <class T>
accumulator_t<T> scaled_eigenvalue(state_space_dual_inputs<T> const& in, index_t head) {
  return in.scaling.eigenvalue(head, 0, in.eigenvalue(head));
}

}  // namespace detail
}  // namespace ssm
