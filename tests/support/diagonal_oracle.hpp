// SPDX-License-Identifier: Apache-2.0
// diagonal_oracle.hpp: a diagonal system, how far rounding may take its maps, and the terms of its
// gradients.
#pragma once

#include "ssm/discretize.hpp"
#include "ssm/execution.hpp"
#include "ssm/scalar.hpp"
#include "ssm/tensor.hpp"
#include "support/oracle.hpp"

namespace ssm::test {

/// A diagonal system with a contraction as readout, everything for every (batch, time, channel,
/// state), and the cotangents that arrive: what the gradients of diagonal and scalar_identity are
/// made of.
template <scalar T>
struct diagonal_system {
  tensor<real_t<T>, 3> step_size, x, y_cotangent;
  tensor<T, 2> eigenvalue;
  tensor<T, 4> B, C;
  tensor<T, 3> initial, final_cotangent;
};

template <scalar T>
diagonal_system<wide<T>> widened(diagonal_system<T> const& s) {
  return {widened(s.step_size), widened(s.x), widened(s.y_cotangent), widened(s.eigenvalue),
          widened(s.B),         widened(s.C), widened(s.initial),     widened(s.final_cotangent)};
}

/// What lower precision may make of a diagonal system, in eps.
/// A decay f(z) inherits half an eps of |z f'(z)| from the rounded product z = Δλ and has up to
/// three roundings of its own; so has the gain, and the drive three more. A complex function or
/// product counts for at most four real ones.
template <class Rule, scalar W>
struct map_errors {
  tensor<W, 4> decay, drive;
  tensor<digits50, 4> decay_error, drive_error;

  map_errors(Rule const& rule, diagonal_system<W> const& s)
      : decay{s.B.extents()},
        drive{s.B.extents()},
        decay_error{s.B.extents()},
        drive_error{s.B.extents()} {
    double const factor = complex_scalar<W> ? 4 : 1;
    for_each_position(s.B.extents(), [&](auto const& position) {
      auto const [b, t, c, n] = position.value;
      W const z = s.eigenvalue(c, n) * s.step_size(b, t, c);
      W const input = s.B(b, t, c, n) * digits50(s.step_size(b, t, c) * s.x(b, t, c));
      decay(b, t, c, n) = rule.decay(z);
      drive(b, t, c, n) = rule.gain(z) * input;
      decay_error(b, t, c, n) =
          factor * (0.5 * magnitude(W(z * rule.decay_slope(z))) + 1.5 * magnitude(rule.decay(z)));
      drive_error(b, t, c, n) =
          factor * magnitude(input) *
          (0.5 * magnitude(W(z * rule.gain_slope(z))) + 3 * magnitude(rule.gain(z)));
    });
  }
};

/// Σ|terms| of each gradient of a diagonal system.
struct gradient_terms {
  tensor<digits50, 3> step_size, x;
  tensor<digits50, 2> eigenvalue;
  tensor<digits50, 4> B, C;
  tensor<digits50, 3> initial;

  template <class Rule, scalar W>
  gradient_terms(Rule const& rule, diagonal_system<W> const& s, direction order)
      : step_size{s.x.extents()},
        x{s.x.extents()},
        eigenvalue{s.eigenvalue.extents()},
        B{s.B.extents()},
        C{s.C.extents()},
        initial{magnitude(s.final_cotangent)} {
    auto const window = whole(s.x.extent(1), order);
    for_each_position(s.initial.extents(), [&](auto const& lane) {
      auto const [b, c, n] = lane.value;
      digits50 const lambda = magnitude(s.eigenvalue(c, n));
      std::vector<digits50> before{magnitude(s.initial(b, c, n))};
      for (index_t i = 0; i < window.count; ++i) {
        index_t const t = window(i);
        W const z = s.eigenvalue(c, n) * s.step_size(b, t, c);
        W const drive =
            rule.gain(z) * s.B(b, t, c, n) * digits50(s.step_size(b, t, c) * s.x(b, t, c));
        before.push_back(magnitude(rule.decay(z)) * before.back() + magnitude(drive));
      }
      digits50& cotangent = initial(b, c, n);
      for (index_t i = window.count - 1; i >= 0; --i) {
        index_t const t = window(i);
        digits50 const delta = magnitude(s.step_size(b, t, c)), input = magnitude(s.x(b, t, c));
        digits50 const g = magnitude(s.y_cotangent(b, t, c)), b_size = magnitude(s.B(b, t, c, n));
        W const z = s.eigenvalue(c, n) * s.step_size(b, t, c);
        digits50 const gain = magnitude(rule.gain(z));
        auto const k = static_cast<std::size_t>(i);
        C(b, t, c, n) = before[k + 1] * g;
        digits50 const adjoint = cotangent + magnitude(s.C(b, t, c, n)) * g;
        digits50 const to_z = adjoint * (magnitude(rule.decay_slope(z)) * before[k] +
                                         magnitude(rule.gain_slope(z)) * b_size * delta * input);
        step_size(b, t, c) += to_z * lambda + adjoint * gain * b_size * input;
        eigenvalue(c, n) += to_z * delta;
        B(b, t, c, n) = adjoint * gain * delta * input;
        x(b, t, c) += adjoint * gain * b_size * delta;
        cotangent = magnitude(rule.decay(z)) * adjoint;
      }
    });
  }
};

}  // namespace ssm::test
