// SPDX-License-Identifier: Apache-2.0
// selective_gradient.hpp: room for the gradient of a selective_problem, and whether it is right.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "support/selective_problem.hpp"

namespace ssm::bench {

/// A tensor for each input, by the names and shapes of selective_problem.
template <class T>
struct selective_gradient {
  using real = accumulator_t<T>;

  explicit selective_gradient(selective_problem<T> const& p)
      : x(p.x.extents()),
        step_size(p.step_size.extents()),
        gate(p.gate.extents()),
        B(p.B.extents()),
        C(p.C.extents()),
        A(p.A.extents()),
        D(p.D.extents()),
        step_bias(p.step_bias.extents()),
        carry(p.carry.extents()) {}

  tensor<real, 3> x, step_size, gate, B, C;
  tensor<real, 2> A;
  tensor<real, 1> D, step_bias;
  tensor<real, 3> carry;
};

/// A sum that must be zero, and the sum of the sizes of its terms.
struct balance {
  double sum = 0, size = 0;

  void add(double term) {
    sum += term;
    size += std::abs(term);
  }
  template <class V, class G>
  void add_products(V const& values, G const& gradients, double sign) {
    auto g = gradients.begin();
    for (auto const& v : values) {
      add(sign * static_cast<double>(static_cast<accumulator_t<typename V::value_type>>(v)) *
          static_cast<double>(*g++));
    }
  }
};

/// What rounding may come to in a balance, relative to its size: a term passes through as many
/// decays as a state lives steps, with 7 u each, and twice.
template <class T>
double rounding_of(selective_problem<T> const& p) {
  using real = accumulator_t<T>;
  double steps = 0, slowest = std::numeric_limits<double>::infinity();
  for (index_t b = 0; b < p.x.extent(0); ++b) {
    for (index_t t = 0; t < p.x.extent(1); ++t) {
      for (index_t h = 0; h < p.heads; ++h) steps += p.step(b, t, h);
    }
  }
  steps /= static_cast<double>(p.step_size.size());
  for (real const a : p.A) slowest = std::min(slowest, std::abs(double(a)));
  double const unit = std::numeric_limits<real>::epsilon() / 2;
  double const stored = sizeof(T) == 2 ? 0x1p-8 : 0;
  return 2 * unit * (static_cast<double>(p.B.extent(2)) + 32 + 14 / (steps * slowest)) + stored;
}

/// The largest error of a gradient for the cotangent ȳ = y from a state of zeros, as a multiple of
/// what rounding may come to, by what must hold exactly (Euler's theorem; y is linear in what
/// stands on the left, and Δ scaled by s is A and B scaled by s):
///   Σ x gx = Σ B gB + D gD = Σ C gC + D gD = Σ ȳ y,   Σ Δ gΔ = Σ A gA + Σ B gB
///   Σ gate' silu(gate) = Σ ȳ y silu'(gate),   the gradient of the bias sums that of step_size
template <class T>
double gradient_error(selective_problem<T> const& p, selective_gradient<T> const& g,
                      tensor<T, 3> const& y) {
  using real = accumulator_t<T>;
  auto const number = [](auto const& v) { return static_cast<double>(static_cast<real>(v)); };
  balance of_x, of_B, of_C, of_steps, of_gate, of_bias;
  for (index_t b = 0; b < p.x.extent(0); ++b) {
    for (index_t t = 0; t < p.x.extent(1); ++t) {
      for (index_t h = 0; h < p.heads; ++h) {
        double const gradient = number(g.step_size(b, t, h)), step = p.step(b, t, h);
        of_steps.add(step * gradient / -std::expm1(-step));  // d softplus = 1 - exp(-softplus)
        of_bias.add(gradient);
      }
    }
  }
  for (balance* each : {&of_x, &of_B, &of_C}) each->add_products(y, y, -1);
  of_x.add_products(p.x, g.x, 1);
  of_B.add_products(p.B, g.B, 1);
  of_C.add_products(p.C, g.C, 1);
  of_B.add_products(p.D, g.D, 1);
  of_C.add_products(p.D, g.D, 1);
  of_steps.add_products(p.A, g.A, -1);
  of_steps.add_products(p.B, g.B, -1);
  for (real const each : g.step_bias) of_bias.add(-double(each));
  for (index_t i = 0; i < y.size(); ++i) {
    double const z = number(p.gate.data()[i]), product = number(y.data()[i]);
    of_gate.add(number(g.gate.data()[i]) * silu(z));
    of_gate.add(-product * product * silu_slope(z));
  }
  double const factor = rounding_of(p);
  double worst = 0;
  for (balance const& each : {of_x, of_B, of_C, of_steps, of_gate, of_bias}) {
    double const error = std::abs(each.sum) / (factor * each.size);
    if (!(error <= worst)) worst = error;
    if (std::isnan(error)) return error;
  }
  return worst;
}

}  // namespace ssm::bench
