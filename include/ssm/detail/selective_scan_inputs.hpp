// SPDX-License-Identifier: Apache-2.0
// selective_scan_inputs.hpp: what Mamba's operator reads, its gradients, and what fits together.
#pragma once

#include <type_traits>

#include "ssm/detail/half.hpp"
#include "ssm/detail/require_writable.hpp"
#include "ssm/detail/sum_into.hpp"
#include "ssm/packed.hpp"
#include "ssm/recurrence.hpp"
#include "ssm/scalar.hpp"
#include "ssm/spectrum_scaling.hpp"
#include "ssm/step_size.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm {

/// The inputs of Mamba's operator. T is how they are stored: float, double, bfloat16, float16; all
/// is computed in `real`, which is float for the 16-bit types and T otherwise. An optional input
/// is left out by an empty view. Channels share B and C in groups, side by side; stride 0 along
/// time makes B and C constant.
template <class T, memory Where = memory::host>
struct selective_scan_inputs {
  using real = accumulator_t<T>;

  sequence_view<T const, Where> x;                ///< (batch, time, channel)
  sequence_view<T const, Where> step_size;        ///< (batch, time, channel), before the rule
  tensor_view<real const, 2, Where> eigenvalue;   ///< (channel, state)
  trajectory_view<T const, Where> B;              ///< (batch, time, group, state)
  trajectory_view<T const, Where> C;              ///< (batch, time, group, state)
  tensor_view<real const, 1, Where> D{};          ///< (channel)
  sequence_view<T const, Where> gate{};           ///< (batch, time, channel)
  tensor_view<real const, 1, Where> step_bias{};  ///< (channel)
  step_size_rule<real> step_rule{};               ///< Δ = step factor · rule(step_size + bias)
  spectrum_scaling<real, Where> scaling{};        ///< factors of the eigenvalues and of Δ
  sequence_index_view<Where> sequence{};          ///< (batch, time), for packed sequences
};

/// The gradients of selective_scan's inputs, each under the name of its input, in the type that
/// is computed with. They are added; a stride of 0 sums; an empty view is not wanted.
template <class T, memory Where = memory::host>
struct selective_scan_gradients {
  using real = accumulator_t<T>;

  sequence_view<real, Where> x{};
  sequence_view<real, Where> step_size{};
  tensor_view<real, 2, Where> eigenvalue{};
  trajectory_view<real, Where> B{};
  trajectory_view<real, Where> C{};
  tensor_view<real, 1, Where> D{};
  sequence_view<real, Where> gate{};
  tensor_view<real, 1, Where> step_bias{};
  typename spectrum_scaling<real, Where>::gradient scaling{};
};

/// Steps between the states that a forward run leaves for the gradient to start from.
inline constexpr index_t selective_scan_block = 32;

namespace detail {

/// Throws shape_error where the inputs do not fit together.
template <class T, memory Where>
scan_shape checked_shape(selective_scan_inputs<T, Where> const& in) {
  scan_shape const s{in.x.extent(0), in.x.extent(1), in.x.extent(2), in.eigenvalue.extent(1)};
  index_t const groups = in.B.extent(2);
  require_shape(in.step_size, in.x.extents(), "selective_scan: step_size", "batch, time, channel");
  require_shape(in.eigenvalue, {s.channels, s.states}, "selective_scan: eigenvalue",
                "channel, state");
  require_shape(in.B, {s.batch, s.length, groups, s.states}, "selective_scan: B",
                "batch, time, group, state");
  require_shape(in.C, {s.batch, s.length, groups, s.states}, "selective_scan: C",
                "batch, time, group, state");
  require<shape_error>(groups > 0 && s.channels % groups == 0, "selective_scan: x has ", s.channels,
                       " channels, expected a multiple of the ", groups, " groups of B");
  require_gradient_shape(in.D, {s.channels}, "selective_scan: D", "channel");
  require_gradient_shape(in.gate, in.x.extents(), "selective_scan: gate", "batch, time, channel");
  require_gradient_shape(in.step_bias, {s.channels}, "selective_scan: step_bias", "channel");
  require_step_limits(in.step_rule, "selective_scan: step_rule.limits");
  require_scaling(in.scaling, s.channels, s.states);
  if constexpr (Where == memory::host) {
    require_sequence(in.sequence, s.batch, s.length, "selective_scan: sequence");
  } else {  // the order of numbers on a device cannot be seen from here
    require_gradient_shape(in.sequence, {s.batch, s.length}, "selective_scan: sequence",
                           "batch, time");
  }
  return s;
}

/// Throws shape_error unless checkpoints are empty or one for each block of so many steps.
template <class U, memory Where>
void require_checkpoints(trajectory_view<U, Where> const& checkpoints, scan_shape const& s,
                         char const* name, index_t steps = selective_scan_block) {
  index_t const blocks = (s.length + steps - 1) / steps;
  require_gradient_shape(checkpoints, {s.batch, blocks, s.states, s.channels}, name,
                         "batch, block, state, channel");
}

/// Throws shape_error where a gradient has not the shape of its input.
template <class T, memory Where>
void require_gradients(selective_scan_inputs<T, Where> const& in,
                       selective_scan_gradients<T, Where> const& to) {
  require_gradient_shape(to.x, in.x.extents(), "selective_scan_vjp: gradients.x",
                         "batch, time, channel");
  require_gradient_shape(to.step_size, in.x.extents(), "selective_scan_vjp: gradients.step_size",
                         "batch, time, channel");
  require_gradient_shape(to.eigenvalue, in.eigenvalue.extents(),
                         "selective_scan_vjp: gradients.eigenvalue", "channel, state");
  require_gradient_shape(to.B, in.B.extents(), "selective_scan_vjp: gradients.B",
                         "batch, time, group, state");
  require_gradient_shape(to.C, in.C.extents(), "selective_scan_vjp: gradients.C",
                         "batch, time, group, state");
  require_gradient_shape(to.D, {in.x.extent(2)}, "selective_scan_vjp: gradients.D", "channel");
  require_gradient_shape(to.gate, in.x.extents(), "selective_scan_vjp: gradients.gate",
                         "batch, time, channel");
  require_gradient_shape(to.step_bias, {in.x.extent(2)}, "selective_scan_vjp: gradients.step_bias",
                         "channel");
  spectrum_scaling<accumulator_t<T>, Where> shapes{};
  shapes.linear = to.scaling.linear;
  shapes.power = to.scaling.power;
  shapes.step = to.scaling.step;
  require_scaling(shapes, in.x.extent(2), in.eigenvalue.extent(1));
}

}  // namespace detail
}  // namespace ssm
