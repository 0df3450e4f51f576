// SPDX-License-Identifier: Apache-2.0
// s4d_model.hpp: random S4D models with inputs and cotangents, and what they should give.
#pragma once

#include <cstdint>

#include "ssm/s4d.hpp"
#include "support/diagonal_oracle.hpp"
#include "support/random_tensor.hpp"

namespace ssm::test {

/// A model, its inputs and the cotangents that arrive.
template <scalar T>
struct s4d_model {
  tensor<real_t<T>, 1> step_size;
  tensor<T, 2> eigenvalue, B, C;
  tensor<real_t<T>, 1> D;
  tensor<real_t<T>, 3> x, y_cotangent;
  tensor<T, 3> initial, final_cotangent;

  template <class Rule>
  s4d<Rule, T> views() const {
    return {.step_size = step_size,
            .eigenvalue = eigenvalue,
            .B = B,
            .C = C,
            .D = D,
            .conjugate_pairs = complex_scalar<T>};
  }
};

/// Stable for every rule: |z| < 0.75 and Re z < 0.
template <scalar T>
s4d_model<T> random_s4d(scan_shape const& s, std::uint64_t seed) {
  auto eigenvalue = random_tensor<T>({s.channels, s.states}, seed, -1.5, 0);
  if constexpr (complex_scalar<T>) {
    for (T& lambda : eigenvalue) lambda = T(lambda.real(), lambda.imag() + real_t<T>(0.75));
  }
  auto const sequence = [&](std::uint64_t k) {
    return random_tensor<real_t<T>>({s.batch, s.length, s.channels}, seed + k);
  };
  auto const matrix = [&](std::uint64_t k) {
    return random_tensor<T>({s.channels, s.states}, seed + k);
  };
  auto const state = [&](std::uint64_t k) {
    return random_tensor<T>({s.batch, s.channels, s.states}, seed + k);
  };
  return {random_tensor<real_t<T>>({s.channels}, seed + 1, 0.1, 0.5),
          eigenvalue,
          matrix(2),
          matrix(3),
          random_tensor<real_t<T>>({s.channels}, seed + 4),
          sequence(5),
          sequence(6),
          state(7),
          state(8)};
}

template <scalar T>
s4d_model<wide<T>> widened(s4d_model<T> const& m) {
  return {widened(m.step_size),   widened(m.eigenvalue), widened(m.B),
          widened(m.C),           widened(m.D),          widened(m.x),
          widened(m.y_cotangent), widened(m.initial),    widened(m.final_cotangent)};
}

/// Outputs and final states in 50 digits by the definition, with bounds of |error|/eps of a
/// recurrence in lower precision: reference_scan's for the states; an output adds, of its terms,
/// half an eps for each sum and eps_per_step for the product, and two for the skip.
template <class Rule, scalar T>
struct s4d_reference {
  tensor<digits50, 3> y, y_bound;
  tensor<wide<T>, 3> final_states;
  tensor<digits50, 3> final_bound;

  explicit s4d_reference(s4d_model<T> const& model) {
    auto const m = widened(model);
    index_t const batch = m.x.extent(0), length = m.x.extent(1);
    auto const in_time = [&](auto const& view) {
      return materialized(view.broadcast(0, length).broadcast(0, batch));
    };
    diagonal_system<wide<T>> const system{in_time(m.step_size.const_view()),
                                          m.x,
                                          m.y_cotangent,
                                          m.eigenvalue,
                                          in_time(m.B.const_view()),
                                          in_time(m.C.const_view()),
                                          m.initial,
                                          m.final_cotangent};
    map_errors const maps(Rule{}, system);
    auto const run =
        reference_scan(maps.decay, maps.drive, m.initial, maps.decay_error, maps.drive_error);
    auto const bound = run.bound(eps_per_step<T>);
    double const scale = complex_scalar<T> ? 2 : 1;
    double const sum = static_cast<double>(m.eigenvalue.extent(1)) / 2 + eps_per_step<T>;
    y = y_bound = tensor<digits50, 3>(m.x.extents());
    for_each_position(run.states.extents(), [&](auto const& position) {
      auto const [b, t, c, n] = position.value;
      y(b, t, c) += scale * real_part(wide<T>(m.C(c, n) * run.states(b, t, c, n)));
      y_bound(b, t, c) +=
          scale * magnitude(m.C(c, n)) * (bound(b, t, c, n) + (sum + 1) * run.terms(b, t, c, n));
    });
    for_each_position(y.extents(), [&](auto const& position) {
      auto const [b, t, c] = position.value;
      y(b, t, c) += m.D(c) * m.x(b, t, c);
      y_bound(b, t, c) += 2 * magnitude(digits50(m.D(c) * m.x(b, t, c)));
    });
    final_states = run.final_states;
    final_bound = run.final_bound(eps_per_step<T>);
  }
};

}  // namespace ssm::test
