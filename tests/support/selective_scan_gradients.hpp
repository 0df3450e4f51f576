// SPDX-License-Identifier: Apache-2.0
// selective_scan_gradients.hpp: the gradients of a random selective_scan, and how far rounding may
// take them from the truth.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>

#include "support/selective_scan_problem.hpp"

namespace ssm::test {

/// A tensor for the gradient of each input, zeros at first, by the names of the inputs.
template <class T>
struct selective_gradient {
  using real = accumulator_t<T>;

  tensor<real, 3> x, step_size, gate, initial;
  tensor<real, 4> B, C;
  tensor<real, 2> eigenvalue, linear, power;
  tensor<real, 1> D, step_bias, step;

  template <class U>
  explicit selective_gradient(selective_problem<U> const& p)
      : x(p.x.extents()),
        step_size(p.x.extents()),
        gate(p.x.extents()),
        initial(p.initial.extents()),
        B(p.B.extents()),
        C(p.B.extents()),
        eigenvalue(p.eigenvalue.extents()),
        linear(p.eigenvalue.extents()),
        power(p.eigenvalue.extents()),
        D(p.D.extents()),
        step_bias(p.D.extents()),
        step(p.D.extents()) {}

  selective_scan_gradients<T> views() {
    return {.x = x,
            .step_size = step_size,
            .eigenvalue = eigenvalue,
            .B = B,
            .C = C,
            .D = D,
            .gate = gate,
            .step_bias = step_bias,
            .scaling = {.linear = linear, .power = power, .step = step}};
  }
};

/// Call f(name, tensor of each of `all`) for every gradient, or every input that has one.
template <class F, class... All>
void for_each_gradient(selective_options const& o, F const& f, All&... all) {
  f("x", all.x...);
  f("step_size", all.step_size...);
  f("eigenvalue", all.eigenvalue...);
  f("B", all.B...);
  f("C", all.C...);
  f("initial", all.initial...);
  if (o.D) f("D", all.D...);
  if (o.gate) f("gate", all.gate...);
  if (o.bias) f("step_bias", all.step_bias...);
  if (o.linear) f("linear", all.linear...);
  if (o.power) f("power", all.power...);
  if (o.step) f("step", all.step...);
}

template <class Policy, class T>
selective_gradient<T> run_selective_vjp(Policy policy, selective_problem<T> const& p,
                                        trajectory_view<accumulator_t<T> const> checkpoints = {}) {
  selective_gradient<T> to(p);
  to.initial = p.final_cotangent;
  selective_scan_vjp(policy, p.inputs(), p.initial, p.y_cotangent, to.initial, to.views(),
                     checkpoints);
  return to;
}

/// Σ|terms| of every gradient, and how many eps rounding may take of it.
template <class W>
struct selective_gradient_bounds {
  selective_gradient<W> terms;
  W roundings;

  explicit selective_gradient_bounds(selective_problem<W> const& p) : terms(p), roundings(0) {
    selective_formula<W> const f{p};
    scan_shape const& s = p.shape;
    W worst_step(0), worst_eigenvalue(0), worst_path(0);
    tensor<W, 3> arriving(p.x.extents()), to_step(p.x.extents()), sums(p.x.extents());
    for_each_position(p.x.extents(), [&](auto const& at) {
      auto const [b, t, c] = at.value;
      W const z = p.gate(b, t, c), sigmoid = 1 / (1 + exp(W(-z)));
      W const cotangent = abs(p.y_cotangent(b, t, c)), x = abs(p.x(b, t, c));
      W const dy = p.options.gate ? W(cotangent * abs(W(z * sigmoid))) : cotangent;
      arriving(b, t, c) = dy;
      if (p.options.D) {
        terms.D(c) += dy * x;
        terms.x(b, t, c) += dy * abs(p.D(c));
        sums(b, t, c) = abs(p.D(c)) * x;
      }
      worst_step = std::max(worst_step, f.step_error(b, t, c));
    });
    for_each_position(p.initial.extents(), [&](auto const& lane) {
      auto const [b, c, n] = lane.value;
      index_t const g = f.group(c);
      tensor<W, 1> before({s.length + 1}), decay({s.length});
      W path(0), state = abs(p.initial(b, c, n));
      for (index_t t = 0; t < s.length; ++t) {
        W const step = f.step(b, t, c);
        if (f.starts(b, t)) state = 0;
        before(t) = state;
        decay(t) = exp(W(step * f.eigenvalue(c, n)));
        state = decay(t) * state + abs(W(step * p.B(b, t, g, n) * p.x(b, t, c)));
        sums(b, t, c) += abs(p.C(b, t, g, n)) * state;
        terms.C(b, t, g, n) += arriving(b, t, c) * state;
        path += f.decay_error(b, t, c, n) + 1;
      }
      worst_path = std::max(worst_path, path);
      worst_eigenvalue = std::max(worst_eigenvalue, f.eigenvalue_error(c, n));
      W adjoint = abs(p.final_cotangent(b, c, n)), to_eigenvalue(0);
      for (index_t t = s.length - 1; t >= 0; --t) {
        W const step = abs(f.step(b, t, c)), x = abs(p.x(b, t, c)), B = abs(p.B(b, t, g, n));
        adjoint += abs(p.C(b, t, g, n)) * arriving(b, t, c);
        W const to_z = adjoint * decay(t) * before(t);
        to_step(b, t, c) += to_z * abs(f.eigenvalue(c, n)) + adjoint * B * x;
        to_eigenvalue += to_z * step;
        terms.B(b, t, g, n) += adjoint * step * x;
        terms.x(b, t, c) += adjoint * step * B;
        adjoint = f.starts(b, t) ? W(0) : W(adjoint * decay(t));
      }
      terms.initial(b, c, n) = adjoint;
      scaled(p, f, c, n, to_eigenvalue);
    });
    for_each_position(p.x.extents(), [&](auto const& at) {
      auto const [b, t, c] = at.value;
      W const biased = f.biased(b, t, c), step = abs(f.rule(biased)), to = to_step(b, t, c);
      terms.step(c) += to * step;
      W const slope = p.options.softplus ? W(1 / (1 + exp(W(-biased)))) : W(1);
      terms.step_size(b, t, c) = to * slope * abs(f.factor(c));
      terms.step_bias(c) += terms.step_size(b, t, c);
      W const z = p.gate(b, t, c), sigmoid = 1 / (1 + exp(W(-z)));
      terms.gate(b, t, c) =
          abs(p.y_cotangent(b, t, c)) * sums(b, t, c) * sigmoid * (1 + abs(z) * (1 - sigmoid));
      worst_step = std::max(worst_step, W(1.5) * abs(biased) / 2);  // what it does to the slope
    });
    // A product of a state and a cotangent passes each step's decay once, there or back. Then come
    // a handful of factors, among them Δ and A' at most three times and the two functions of the
    // gate, and the sums: over batch and time, states, the channels of a group.
    roundings = worst_path + 3 * (worst_step + worst_eigenvalue) + 20 +
                W(s.batch * s.length + s.states + s.channels) / 2;
  }

 private:
  /// What `to`, the terms of the gradient of A', are for A and its factors.
  void scaled(selective_problem<W> const& p, selective_formula<W> const& f, index_t c, index_t n,
              W const& to) {
    W const factor = p.options.linear ? abs(p.linear(c, n)) : W(1), size = f.size_of(c, n);
    W const A = abs(p.eigenvalue(c, n));
    terms.linear(c, n) += to * size;
    terms.power(c, n) += to * factor * size * abs(W(log(A)));
    terms.eigenvalue(c, n) +=
        to * factor * (p.options.power ? abs(p.power(c, n)) * size / A : W(1));
  }
};

/// The largest error of any gradient, as a multiple of what rounding may come to, and whose it is.
struct worst_gradient {
  double ratio = 0;
  char const* name = "";
};

template <class T, class W>
worst_gradient worst_of(selective_options const& options, selective_gradient<T>& found,
                        selective_gradient<W>& expected, selective_gradient_bounds<W>& bounds) {
  worst_gradient worst;
  for_each_gradient(
      options,
      [&](char const* name, auto const& f, auto const& e, auto bound) {
        for (W& each : bound) each *= bounds.roundings;
        double const ratio = worst_ratio(f, e, bound);
        if (ratio > worst.ratio) worst = {ratio, name};
      },
      found, expected, bounds.terms);
  return worst;
}

/// Bit for bit, a NaN being equal to a NaN.
template <class T>
void expect_same_bits(selective_gradient<T> const& found, selective_gradient<T> const& expected) {
  for_each_gradient(
      selective_options::all(),
      [](char const* name, auto const& f, auto const& e) {
        ASSERT_EQ(f.extents(), e.extents()) << name;
        index_t differences = 0;
        for (index_t i = 0; i < f.size(); ++i) {
          T const a = f.data()[i], b = e.data()[i];
          differences += a == b || (a != a && b != b) ? 0 : 1;
        }
        EXPECT_EQ(differences, 0) << name;
      },
      found, expected);
}

}  // namespace ssm::test
