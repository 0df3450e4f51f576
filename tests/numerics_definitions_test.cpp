// SPDX-License-Identifier: Apache-2.0
// numerics_definitions_test.cpp: the functions in 50 digits against their definitions in 100.
#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <numbers>
#include <vector>

#include "ssm/numerics.hpp"
#include "ssm/random.hpp"
#include "support/numerics_functions.hpp"

namespace {

using boost::multiprecision::cpp_bin_float_100;
using namespace ssm::test;

/// Expect the template at 50 digits to give 47 of a formula that loses up to half of 100.
template <class Function, class Formula>
void expect_formula(Function f, Formula formula, std::vector<double> const& points) {
  for (double x : points) {
    auto const found = cpp_bin_float_100(f(cpp_bin_float_50(x)));
    auto const expected = cpp_bin_float_100(formula(cpp_bin_float_100(x)));
    EXPECT_LE(abs(found - expected), 1e-47 * abs(expected)) << "x = " << digits(x);
  }
}

TEST(NumericsDefinitions, FiftyDigitsAgreeWithTheDefinitionsAtAHundred) {
  std::vector<double> points;
  ssm::random_stream const random{.seed = 7};
  for (int i = 0; i < 60; i += 2) {
    double const size = std::exp2(26 * random.uniform(i) - 20);  // from 1e-6 to 64
    points.push_back(random.sign(i + 1) * size);
  }
  expect_formula(
      phi1, [](auto x) { return (exp(x) - 1) / x; }, points);
  expect_formula(
      phi1_slope, [](auto x) { return (x * exp(x) - exp(x) + 1) / (x * x); }, points);
  expect_formula(
      sigmoid, [](auto x) { return 1 / (1 + exp(-x)); }, points);
  expect_formula(
      softplus_slope, [](auto x) { return 1 / (1 + exp(-x)); }, points);
  expect_formula(
      softplus, [](auto x) { return log(1 + exp(x)); }, points);
  expect_formula(
      silu, [](auto x) { return x / (1 + exp(-x)); }, points);
  auto const with_b = [](auto a) { return ssm::log_add_exp(a, decltype(a)(3)); };
  expect_formula(
      with_b, [](auto a) { return log(exp(a) + exp(decltype(a)(3))); }, points);
  for (double& y : points) y = std::fabs(y);
  expect_formula(
      softplus_inverse, [](auto y) { return log(exp(y) - 1); }, points);
}

TEST(NumericsDefinitions, ComplexFiftyDigitsAgreeWithTheDefinitionsAtAHundred) {
  using complex_100 = std::complex<cpp_bin_float_100>;
  auto const expect_close = [](complex_50 found, complex_100 expected, std::complex<double> z) {
    complex_100 const wide{cpp_bin_float_100(found.real()), cpp_bin_float_100(found.imag())};
    // The sine at 50 digits loses as many near π as its argument comes close.
    EXPECT_LE(abs(wide - expected), 1e-43 * abs(expected)) << "z = " << digits(z);
  };
  for (auto const& points : {complex_points<double>(0, 1e-6, 20, 40),
                             complex_points<double>({0, 2 * std::numbers::pi}, 1e-6, 1, 20)})
    for (std::complex<double> z : points) {
      complex_50 const z50 = exactly(z);
      complex_100 const z100{z.real(), z.imag()};
      complex_100 const e = exp(z100);
      complex_100 const one{1};
      expect_close(complex_expm1(z50), e - one, z);
      expect_close(phi1(z50), (e - one) / z100, z);
      expect_close(phi1_slope(z50), (z100 * e - e + one) / (z100 * z100), z);
    }
}

TEST(NumericsDefinitions, SlopesAreTheDerivatives) {
  cpp_bin_float_50 const h = 1e-15;
  auto const expect_slope = [&](auto f, auto slope, double x0) {
    auto const x = cpp_bin_float_50(x0);
    cpp_bin_float_50 const difference = (f(x + h) - f(x - h)) / (2 * h);  // h² = 1e-30
    EXPECT_LE(abs(difference - slope(x)), 1e-28) << "x = " << x0;
  };
  for (double x : {-40.0, -7.3, -2.0, -1.9, -0.6, -1e-3, 0.0, 1e-9, 0.4, 1.99, 2.01, 3.7, 5.0}) {
    expect_slope(phi1, phi1_slope, x);
    expect_slope(softplus, softplus_slope, x);
    expect_slope(silu, silu_slope, x);
    // A complex-differentiable function has the same slope along any direction.
    complex_50 const z{x, 1.3};
    complex_50 const step{0, h};
    complex_50 const difference = (phi1(z + step) - phi1(z - step)) / (step + step);
    EXPECT_LE(abs(difference - phi1_slope(z)), 1e-28) << "z = " << digits(z);
  }
}

}  // namespace
