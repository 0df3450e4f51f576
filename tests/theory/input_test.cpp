// SPDX-License-Identifier: Apache-2.0
// input_test.cpp: gains for inputs that are not white, for random steps, and under scaling.
#include "closed_forms/input.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <tuple>
#include <vector>

#include "closed_forms/scaling.hpp"
#include "closed_forms/spectra.hpp"
#include "support/oracle.hpp"

namespace {

using namespace ssm;
using namespace ssm::theory;
using ssm::test::digits50, ssm::test::message_of;

using decay = pole<double>;

uniform_law<double> uniform(double a, double b) {
  return uniform_law<double>::between(decay::at(a), decay::at(b));
}

constexpr double correlations[] = {-0.99, -0.5, 0.0, 0.3, 0.9, 0.999};

TEST(Ar1Input, GainIsTheDoubleSumOfItsAutocovariance) {
  for (double const value : {0.0, 0.3, 0.9, 0.999}) {
    auto const p = decay::at(value);
    for (double const rho : correlations) {
      digits50 const l(value), r(rho);
      for (index_t const t : {0, 1, 2, 3, 25}) {
        digits50 sum = 0;  // Σ_ij λ^(i+j) ρ^|i-j|
        for (index_t i = 0; i < t; ++i) {
          for (index_t j = 0; j < t; ++j) {
            sum += pow(l, static_cast<int>(i + j)) * pow(r, static_cast<int>(std::abs(i - j)));
          }
        }
        EXPECT_NEAR(
            ar1_gain(p, rho, t), static_cast<double>(sum),
            4.0 * static_cast<double>(t) * 2.3e-16 / (1 + value * rho) * static_cast<double>(sum))
            << value << " " << rho << " " << t;
      }
      EXPECT_NEAR(ar1_gain(p, rho, 40000) / ar1_gain(p, rho), 1, 1e-11);
    }
  }
}

TEST(Ar1Input, MeanGainIsItsClosedFormAndWhiteAtZero) {
  for (auto const& [a, b] :
       std::vector<std::array<double, 2>>{{0, 0.5}, {0.2, 0.99}, {0.9, 0.999}}) {
    auto const law = uniform(a, b);
    EXPECT_NEAR(mean_ar1_gain(law, 0.0) / mean_stationary_gain(law), 1, 1e-15);
    for (double const r : {-0.9, -0.5, 0.3, 0.9}) {
      double const closed = (2 * r / (1 - r * r) * std::log((1 - r * b) / (1 - r * a)) +
                             (1 + r) / (2 * (1 - r)) * std::log((1 - a) / (1 - b)) +
                             (1 - r) / (2 * (1 + r)) * std::log((1 + b) / (1 + a))) /
                            (b - a);
      EXPECT_NEAR(mean_ar1_gain(law, r) / closed, 1, 2e-12) << a << " " << b << " " << r;
      EXPECT_NEAR(mean_ar1_gain(law, r, 30000) / closed, 1, 2e-12);
      EXPECT_GE(closed, 0.25);  // alternating inputs can cancel, but not below this
    }
  }
}

TEST(Ar1Input, ComplexGainIsTheSumOverTheAutocovariance) {
  for (double const phase : {0.0, 0.3, 2.0, 3.14159}) {
    for (double const rho : correlations) {
      double const r = 0.93;
      std::complex<double> const pole_rho = std::polar(r, phase) * rho;
      // (R0 + 2 Re Σ λ^k R_k)/(1 - |λ|²)
      double const expected = (1.0 + 2.0 * (pole_rho / (1.0 - pole_rho)).real()) / (1 - r * r);
      EXPECT_NEAR(complex_ar1_gain(decay::at(r), phase, rho) / expected, 1, 1e-12);
    }
  }
  EXPECT_NEAR(complex_ar1_gain(decay::at(0.8), 0.0, 0.4), ar1_gain(decay::at(0.8), 0.4), 1e-14);
  EXPECT_NEAR(complex_ar1_gain(decay::at(0.8), 1.0, 0.0), 1 / 0.36, 1e-14);
}

TEST(ConstantInput, OutgrowsWhiteInputAsDecaysApproachOne) {
  auto const law = uniform_law<double>::between(decay{}, decay::below_one(1e-6));
  EXPECT_NEAR(constant_gain(law), 1e6, 1e-6);
  EXPECT_LT(mean_stationary_gain(law), 7.3);
}

TEST(RandomStep, SpecialCasesAreExact) {
  // softplus of a logistic variable is exponential: q = 1/(1 + 2α), E Δ² = 2
  gamma_step<double> const exponential{1, 1};
  EXPECT_DOUBLE_EQ(exponential.mean_decay(0.6).value, 1 / 1.6);
  EXPECT_DOUBLE_EQ(random_step_gain(exponential, 0.3), 2 * 1.6 / 0.6);
  // E σ(-z) = 1/2 for symmetric z, of every width
  for (double const deviation : {0.0, 1e-3, 1.0, 5.0, 30.0}) {
    auto const q = softplus_normal_step<double>{0, deviation}.mean_decay(1.0);
    EXPECT_NEAR(q.value, 0.5, 2e-15) << deviation;
    EXPECT_NEAR(q.gap, 0.5, 2e-15) << deviation;
  }
  // a step that does not vary
  double const step = std::log1p(std::exp(-2.0));
  EXPECT_NEAR(random_step_gain(softplus_normal_step<double>{-2, 0}, 0.7) / euler_gain(0.7, step), 1,
              4e-15);
  EXPECT_NEAR(random_step_gain(fixed_step<double>{step}, 0.7) / euler_gain(0.7, step), 1, 4e-15);
}

TEST(RandomStep, QuadratureAgreesWithFiftyDigits) {
  for (auto const& [mean, deviation, rate] : std::vector<std::array<double, 3>>{
           {-5, 1, 2}, {-7, 0.3, 0.1}, {0, 4, 3}, {-3, 12, 1}, {4, 1, 30}}) {
    softplus_normal_step<double> const step{mean, deviation};
    softplus_normal_step<digits50> const exact{mean, deviation};
    auto const q = step.mean_decay(rate);
    auto const wide = exact.mean_decay(digits50(rate));
    EXPECT_NEAR(q.value / static_cast<double>(wide.value), 1,
                5e-15 + 1e-16 * 4 * rate * (1 + std::max(mean, 0.0)))
        << mean << " " << deviation;
    EXPECT_NEAR(q.gap / static_cast<double>(wide.gap), 1, 5e-15) << mean << " " << deviation;
    EXPECT_NEAR(step.mean_square() / static_cast<double>(exact.mean_square()), 1, 5e-15);
    EXPECT_LT(abs(wide.value + wide.gap - 1), 1e-45);
  }
}

TEST(RandomStep, GainExceedsThatAtTheMeanStep) {
  for (double const rate : {0.01, 0.5, 3.0}) {
    gamma_step<double> const step{2, 0.3};
    EXPECT_GT(random_step_gain(step, rate), euler_gain(rate, 0.6));
    EXPECT_NEAR(random_step_gain(step, rate, 100000) / random_step_gain(step, rate), 1, 1e-14);
    EXPECT_DOUBLE_EQ(random_step_gain(step, rate, 1), step.mean_square());
  }
}

TEST(Scaling, OfStepsIsThatOfEigenvaluesTimesTheSquare) {
  for (double const s : {0.25, 0.5, 2.0, 3.0}) {
    for (double const rate : {1e-6, 0.1, 1.0, 30.0}) {
      double const before = euler_gain(rate, 0.2);
      double const eigenvalue = eigenvalue_scaled_gain(rate, 0.2, s) / before;
      double const step = step_scaled_gain(rate, 0.2, s) / before;
      EXPECT_NEAR(step / eigenvalue, s * s, 4e-15 * s * s);
      double const slack = 1 + 1e-14;
      EXPECT_GE(eigenvalue * slack, std::min(1 / s, 1.0));
      EXPECT_LE(eigenvalue, std::max(1 / s, 1.0) * slack);
      EXPECT_GE(step * slack, std::min(s, s * s));
      EXPECT_LE(step, std::max(s, s * s) * slack);
    }
  }
}

/// d log f/d log s at 1, by a central difference in 50 digits.
template <class F>
double slope_of_log(F const& f) {
  digits50 const h("1e-16");
  return static_cast<double>(digits50((log(f(exp(h))) - log(f(exp(-h)))) / (2 * h)));
}

TEST(Scaling, ElasticitiesAreSlopes) {
  for (double const rate : {1e-8, 1e-3, 0.5, 4.0, 50.0}) {
    auto const p = pole<digits50>::with_rate(digits50(rate));
    auto const scaled = [&](digits50 const& s) { return scale_decay(p, s); };
    EXPECT_NEAR(constant_elasticity(rate), slope_of_log([&](digits50 const& s) {
                  return digits50(1 / power(scaled(s).gap, 2));
                }),
                3e-15);
    for (double const rho : {-0.9, 0.3, 0.9}) {
      EXPECT_NEAR(ar1_elasticity(rate, rho), slope_of_log([&](digits50 const& s) {
                    return ar1_gain(scaled(s), digits50(rho));
                  }),
                  1e-14)
          << rate << " " << rho;
    }
  }
}

// Scaling eigenvalues disturbs less than scaling steps where the elasticity is above -1.
TEST(Scaling, RankingDependsOnTheInput) {
  auto const least = [](double rho) {
    double e = 0;
    for (double y = 1e-5; y < 100; y *= 1.02) e = std::min(e, ar1_elasticity(y, rho));
    return e;
  };
  EXPECT_GE(least(0.41), -1);
  EXPECT_LT(least(0.42), -1);
  EXPECT_NEAR(least(0.7), -1.16, 5e-3);
  EXPECT_NEAR(least(0.9), -1.46, 5e-3);
  EXPECT_NEAR(constant_elasticity(constant_elasticity_balance()), -1, 4e-16);
  EXPECT_NEAR(constant_elasticity(1e-12), -2, 3e-12);
}

}  // namespace
