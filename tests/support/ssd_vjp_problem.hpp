// SPDX-License-Identifier: Apache-2.0
// ssd_vjp_problem.hpp: inputs and cotangents of the gradient of Mamba-2's operator, and how far
// rounding may take it from the same in double.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "support/ssd_gradients.hpp"

namespace ssm::test {

/// A problem with cotangents and factors of the spectrum, and the same numbers in double.
template <class T>
struct vjp_problem : ssd_problem<T> {
  using R = accumulator_t<T>;

  tensor<R, 4> y_cotangent, carry_cotangent;
  tensor<R, 2> linear, power;
  tensor<R, 1> step;

  explicit vjp_problem(ssd_sizes const& s)
      : ssd_problem<T>(s),
        y_cotangent{uniform_tensor<R>(s.sequences(), 31, -1, 1)},
        carry_cotangent{uniform_tensor<R>(s.carry(), 32, -1, 1)},
        linear{{s.heads, 1}, R(0.75)},
        power{{s.heads, 1}, R(1.25)},
        step{{s.heads}, R(1.5)} {}

  state_space_dual_inputs<T> scaled_inputs() const {
    auto inputs = this->inputs();
    inputs.scaling = {linear.view(), power.view(), step.view()};
    return inputs;
  }
};

template <class From, int Rank>
void copy_numbers(tensor<From, Rank> const& from, tensor<double, Rank>& to) {
  for (index_t i = 0; i < from.size(); ++i)
    to.data()[i] = static_cast<double>(static_cast<accumulator_t<From>>(from.data()[i]));
}

template <class T>
vjp_problem<double> in_double(vjp_problem<T> const& from) {
  vjp_problem<double> to(from.sizes);
  copy_numbers(from.x, to.x);
  copy_numbers(from.gate, to.gate);
  copy_numbers(from.B, to.B);
  copy_numbers(from.C, to.C);
  copy_numbers(from.step_size, to.step_size);
  copy_numbers(from.eigenvalue, to.eigenvalue);
  copy_numbers(from.step_bias, to.step_bias);
  copy_numbers(from.D, to.D);
  copy_numbers(from.initial, to.initial);
  copy_numbers(from.y_cotangent, to.y_cotangent);
  copy_numbers(from.carry_cotangent, to.carry_cotangent);
  copy_numbers(from.linear, to.linear);
  copy_numbers(from.power, to.power);
  copy_numbers(from.step, to.step);
  return to;
}

/// The problem with all numbers but step sizes and eigenvalues positive, so that sums of x, B, C,
/// gate, D and the carries become sums of magnitudes.
inline vjp_problem<double> with_magnitudes(vjp_problem<double> p) {
  for (auto* each : {&p.x, &p.B, &p.C, &p.initial, &p.y_cotangent, &p.carry_cotangent})
    for (double& z : *each) z = std::abs(z);
  for (double& z : p.D) z = std::abs(z);
  return p;
}

double largest_terms(auto const& tensor_of_terms) {
  double largest = 1e-30;
  for (double const z : tensor_of_terms) largest = std::max(largest, std::abs(z));
  return largest;
}

/// Each gradient within k·eps of the largest Σ|terms| in its tensor. Sums have at most N + P + L
/// terms that matter (states, channels, steps of a sequence), the decays in them are off by 8 |S|
/// (ssd_truth), which is at most 8·16 eps of what 1/eps leaves of them, and all else by 40.
template <class R>
void expect_near(ssd_gradient<R> const& found, vjp_problem<double> const& exact,
                 state_space_dual_inputs<double> const& inputs,
                 state_space_dual_inputs<double> const& magnitudes) {
  auto const& s = exact.sizes;
  auto const expected =
      run_ssd_vjp(sequential{}, inputs, exact.initial, exact.y_cotangent, exact.carry_cotangent);
  auto const positive = with_magnitudes(exact);
  auto const terms = run_ssd_vjp(sequential{}, magnitudes, positive.initial, positive.y_cotangent,
                                 positive.carry_cotangent);
  double const k = static_cast<double>(s.states + s.head_dim + s.length) + 8 * 16 + 40;
  double worst = 0;
  for_each_ssd_gradient(
      [&](char const* name, auto const& f, auto const& e, auto const& m) {
        double const unit = std::numeric_limits<float>::epsilon() * k * largest_terms(m);
        double here = 0;
        for (index_t i = 0; i < f.size(); ++i) {
          double const error = std::abs(double{f.data()[i]} - e.data()[i]) / unit;
          if (!(error <= here)) here = error == error ? error : 1e300;
        }
        EXPECT_LE(here, 1) << name;
        worst = std::max(worst, here);
      },
      found, expected, terms);
  std::printf("[ %s ] k = %.0f, worst error %.2g of k eps of the terms\n", to_string(s).c_str(), k,
              worst);
}

}  // namespace ssm::test
