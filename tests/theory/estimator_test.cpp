// SPDX-License-Identifier: Apache-2.0
// estimator_test.cpp: variances of gain estimators, burn-in, and the largest of many gains.
#include "closed_forms/estimator.hpp"

#include <gtest/gtest.h>

#include <boost/math/special_functions/bessel.hpp>
#include <chrono>
#include <cmath>
#include <vector>

#include "closed_forms/extremes.hpp"
#include "statistics.hpp"
#include "support/oracle.hpp"

namespace {

using namespace ssm;
using namespace ssm::theory;
using ssm::test::message_of;

using decay = pole<double>;

uniform_law<double> uniform(double a, double b) {
  return uniform_law<double>::between(decay::at(a), decay::at(b));
}
uniform_law<double> up_to(double gap) {
  return uniform_law<double>::between(decay{}, decay::below_one(gap));
}

// λ = 0 leaves h = Bx. One state: the square of a product of normals, 9 - 1. Two states and one
// input: (b1² + b2²) x²/2, E = 3·8/4 - 1. Two inputs: E(b·x)^4 = 3 E|x|^4 = 24, W = 2.
TEST(EnergyVariance, OfTheInputAloneIsThatOfProductsOfNormals) {
  point_law<double> const none{decay{}};
  EXPECT_DOUBLE_EQ(energy_variance(none, {1, 1}), 8);
  EXPECT_DOUBLE_EQ(energy_variance(none, {2, 1}), 5);
  EXPECT_DOUBLE_EQ(energy_variance(none, {1, 2}), 5);
  EXPECT_DOUBLE_EQ(energy_variance(none, {2, 1}, 1), 5);
  EXPECT_DOUBLE_EQ(energy_variance_given_B(none, {1, 1}), 2);
  EXPECT_DOUBLE_EQ(energy_variance_given_decays(none, {1, 1}), 0);
  EXPECT_DOUBLE_EQ(shared_decay_variance(none, {1, 1}), 8);
  // shared or not, equal decays are the same
  point_law<double> const slow{decay::at(0.99)};
  EXPECT_NEAR(energy_variance(slow, {8, 4}) / shared_decay_variance(slow, {8, 4}), 1, 1e-14);
  EXPECT_NEAR(energy_variance(slow, {8, 4}, 50) / shared_decay_variance(slow, {8, 4}, 50), 1,
              1e-13);
}

TEST(EnergyVariance, FiniteTimeTendsToTheStationary) {
  auto const law = uniform(0.2, 0.9);
  dimensions const size{8, 4};
  index_t const long_time = 1000;
  EXPECT_NEAR(energy_variance(law, size, long_time) / energy_variance(law, size), 1, 1e-12);
  EXPECT_NEAR(energy_variance_given_B(law, size, long_time) / energy_variance_given_B(law, size), 1,
              1e-12);
  EXPECT_NEAR(
      energy_variance_given_decays(law, size, long_time) / energy_variance_given_decays(law, size),
      1, 1e-12);
  EXPECT_NEAR(control_variate_variance(law, size, long_time) / control_variate_variance(law, size),
              1, 1e-12);
  EXPECT_NEAR(shared_decay_variance(law, size, long_time) / shared_decay_variance(law, size), 1,
              1e-12);
}

TEST(EnergyVariance, GivenMoreIsLess) {
  for (index_t const steps : {1, 7, 200}) {
    auto const law = uniform(0, 0.99);
    dimensions const size{8, 4};
    EXPECT_GT(energy_variance(law, size, steps), energy_variance_given_B(law, size, steps));
    EXPECT_GE(energy_variance_given_B(law, size, steps),
              energy_variance_given_decays(law, size, steps));
    EXPECT_LE(control_variate_variance(law, size, steps), 1.0 / (4 * 8));
  }
}

TEST(EnergyVariance, OfGainsEqualsMomentsWithoutTheirCancellation) {
  for (double const gap : {0.5, 1e-3, 1e-9}) {
    auto const law = up_to(gap);
    double const m1 = gain_moment(law, 1), m2 = gain_moment(law, 2);
    EXPECT_NEAR(energy_variance_given_decays(law, {1, 1}) / (m2 - m1 * m1), 1, 1e-13);
    double const mean = printed_error(law);
    double const closed = 1 / (1 + law.high.value) - mean * mean;  // 1/((1+a)(1+b)) - (E 1/(1+λ))²
    EXPECT_NEAR(control_variate_variance(law, {1, 1}), closed, 4e-16);
    EXPECT_LE(control_variate_variance(law, {1, 1}), 1.0 / 16);
  }
  // over a narrow law Var f = f'²(b-a)²/12
  double const width = std::ldexp(1.0, -30);
  auto const narrow = uniform(0.5, 0.5 + width);
  double const slope = 1 / (0.75 * 0.75);  // 2λ/(1-λ²)²
  EXPECT_NEAR(energy_variance_given_decays(narrow, {1, 1}) * 12 / (slope * slope * width * width),
              1, 1e-6);
}

// W = d m: .0 to .99 of 3.7919 shared and 2.5029 independent.
TEST(EnergyVariance, SharedDecaysDoNotAverage) {
  auto const law = uniform(0, 0.9);
  EXPECT_NEAR(shared_decay_variance(law, {8, 4}), 3.7919, 5e-5);
  EXPECT_NEAR(energy_variance(law, {8, 4}), 2.5029, 5e-5);
  double const limit = gain_moment(law, 2) - std::pow(gain_moment(law, 1), 2);
  EXPECT_NEAR(shared_decay_variance(law, {1 << 20, 1 << 20}), limit, 1e-4);
  EXPECT_LT(energy_variance(law, {1 << 20, 1 << 20}), 1e-4);
}

// The mean over T stationary steps of h², whose autocovariance is 2g²λ^2k.
TEST(EnergyVariance, OfATimeAverageIsTheSumOfItsAutocovariance) {
  for (double const gap : {1.0, 0.5, 1e-2, 1e-5}) {
    auto const p = decay::below_one(gap);
    double const g = stationary_gain(p);
    for (index_t const steps : {1, 2, 100}) {
      double sum = static_cast<double>(steps);
      for (index_t k = 1; k < steps; ++k) {
        sum += 2 * static_cast<double>(steps - k) * std::pow(p.value, 2.0 * static_cast<double>(k));
      }
      double const exact = 2 * g * g * sum / std::pow(static_cast<double>(steps), 2);
      EXPECT_NEAR(time_average_variance(p, steps) / exact, 1, 1e-15 / gap + 1e-14);
    }
  }
}

// Power .95 at level .05 against the printed gain, one state, four inputs.
TEST(EnergyVariance, PlansTheSamplesOfATestOfThePrintedGain) {
  double const table[][5] = {{0.5, 85, 13, 1, 1},
                             {0.1, 329, 64, 20, 1},
                             {1e-2, 3011, 876, 520, 1},
                             {1e-3, 30267, 9828, 6422, 1}};
  for (auto const& [gap, raw, given_B, given_decays, controlled] : table) {
    auto const law = up_to(gap);
    auto const samples = [&](double variance) {
      return static_cast<double>(samples_for_power(variance, printed_error(law), 0.05, 0.95));
    };
    EXPECT_EQ(samples(energy_variance(law, {1, 4})), raw);
    EXPECT_EQ(samples(energy_variance_given_B(law, {1, 4})), given_B);
    EXPECT_EQ(samples(energy_variance_given_decays(law, {1, 4})), given_decays);
    EXPECT_EQ(samples(control_variate_variance(law, {1, 4})), controlled);
  }
}

TEST(EnergyVariance, IsQuickEnoughToBeAskedOften) {
  auto const start = std::chrono::steady_clock::now();
  double sum = 0;
  for (index_t i = 0; i < 100; ++i) sum += energy_variance(uniform(0.5, 0.999), {32, 8}, 1024 + i);
  EXPECT_GT(sum, 0);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
}

TEST(ExponentialIntegral, InverseUndoesIt) {
  for (double x = 1e-300; x < 700; x = x * 1.7 + 1e-302) {
    double const y = exponential_integral(x);
    // dx/x = -dy/y · y e^x: the inverse is ill-conditioned where that is large, for tiny x
    double const condition = std::max(1.0, y * std::exp(x));
    EXPECT_NEAR(exponential_integral_inverse(y) / x, 1, 8e-16 * condition) << x;
  }
  EXPECT_EQ(message_of<domain_error>([] { exponential_integral_inverse(0.0); }),
            "exponential_integral_inverse: the value is 0, expected more than 0");
}

TEST(BurnIn, IsTheFirstStepWithinTheBias) {
  for (double const gap : {0.5, 0.1, 1e-3}) {
    auto const law = up_to(gap);
    for (double const share : {1.0, 0.05, 0.01, 1e-6}) {
      double const bias = share * printed_error(law);
      index_t const t = burn_in(law, bias);
      EXPECT_LE(remaining_gain(law, t), bias);
      if (t > 0) {
        EXPECT_GT(remaining_gain(law, t - 1), bias);
      }
      EXPECT_LE(static_cast<double>(t), std::ceil(steps_until(law, bias)));
      EXPECT_LE(steps_until(law, bias), steps_until_at_most(law, bias));
    }
  }
  EXPECT_EQ(burn_in(point_law<double>{decay{}}, 0.5), 1);
  EXPECT_EQ(burn_in(point_law<double>{decay{}}, 1.5), 0);
}

// The printed value is crossed on the way to the true one: a short run confirms the misprint.
TEST(BurnIn, ShortRunsPassThroughThePrintedGain) {
  double const table[][2] = {{1e-2, 9}, {1e-3, 83}, {1e-4, 822}, {1e-5, 8219}};
  for (auto const& [gap, crossing] : table) {
    auto const law = up_to(gap);
    double const steps = steps_until(law, printed_error(law));
    EXPECT_NEAR(steps, crossing, 1);
    auto const t = static_cast<index_t>(steps);
    EXPECT_LT(mean_state_gain(law, t), printed_gain(law) * (1 + 1e-12));
    EXPECT_GT(mean_state_gain(law, t + 1), printed_gain(law));
  }
}

// Relaxation of the gain to a tenth, a hundredth, a thousandth: bounds by E1 and by W0.
TEST(BurnIn, RelaxationTimesOfUniformLaws) {
  double const table[][7] = {{1e-1, 3.94, 5.29, 11.3, 12.2, 20.0, 20.7},
                             {1e-2, 26.2, 41.1, 96.7, 108, 185, 193},
                             {1e-3, 184, 336, 843, 961, 1714, 1799},
                             {1e-4, 1340, 2853, 7533, 8758, 16090, 16965},
                             {1e-6, 7.62e4, 2.21e5, 6.28e5, 7.58e5, 1.46e6, 1.55e6}};
  for (auto const& row : table) {
    auto const law = up_to(row[0]);
    for (int i = 0; i < 3; ++i) {
      double const bias = std::pow(10.0, -1 - i) * mean_stationary_gain(law);
      EXPECT_NEAR(steps_until(law, bias) / row[1 + 2 * i], 1, 4e-3);
      EXPECT_NEAR(steps_until_at_most(law, bias) / row[2 + 2 * i], 1, 5e-3);
    }
  }
}

TEST(LargestGain, QuantilesInvertTheirDistribution) {
  for (auto const& law : {uniform(0, 0.9), uniform(0.5, 0.999), up_to(1e-9)}) {
    for (index_t const channels : {1, 16, 1000}) {
      for (double const p : {1e-6, 0.1, 0.5, 0.99}) {
        double const y = largest_gain_quantile(law, channels, p);
        // what an eps of y is in λ, against λ - a
        double const value = std::sqrt(1 - 1 / y);
        double const condition = 1 / (2 * value * y * (value - law.low.value));
        EXPECT_NEAR(largest_gain_cdf(law, channels, y) / p, 1,
                    1e-15 * static_cast<double>(channels) * (1 + condition));
        EXPECT_LE(y, stationary_gain(law.high));
        double const least = smallest_gain_quantile(law, channels, p);
        EXPECT_GE(least, stationary_gain(law.low));
        EXPECT_LE(least, largest_gain_quantile(law, channels, p) * (1 + 1e-15));
      }
    }
  }
  EXPECT_NEAR(largest_gain_quantile(uniform(0, 0.9), 1000, 0.5), 5.2323, 5e-5);
  EXPECT_NEAR(largest_gain_quantile(up_to(1e-9), 1000, 0.5), 721.85, 5e-3);
  EXPECT_NEAR(largest_gain_quantile(up_to(0), 1000000, 0.5) * 2 * std::log(2) / 1e6, 1, 1e-5);
  EXPECT_EQ(largest_gain_cdf(uniform(0.5, 0.9), 3, 1.0), 0);
  EXPECT_EQ(largest_gain_cdf(uniform(0.5, 0.9), 3, 6.0), 1);
  EXPECT_EQ(message_of<domain_error>([] { largest_gain_quantile(uniform(0, 0.5), 2, 1.0); }),
            "largest_gain_quantile: probability 1 and 2 channels, expected one in (0, 1) and at "
            "least one");
}

TEST(ProductOfChiSquares, IsABesselFunctionForTwoAndTwo) {
  for (double const x : {1e-12, 1e-3, 0.7, 4.0, 50.0, 2000.0}) {
    double const root = std::sqrt(x);  // E e^(-x/2Y) = √x K1(√x)
    EXPECT_NEAR(product_of_chi_squares_cdf(2.0, 2.0, x),
                1 - root * boost::math::cyl_bessel_k(1, root), 5e-15);
  }
}

TEST(ProductOfChiSquares, IsSymmetricAndNormalized) {
  for (double const m : {1.0, 3.0, 16.0, 128.0}) {
    for (double const d : {1.0, 2.0, 64.0}) {
      for (double const x : {0.01, 1.0, m * d, 3 * m * d}) {
        EXPECT_NEAR(product_of_chi_squares_cdf(m, d, x), product_of_chi_squares_cdf(d, m, x), 5e-15)
            << m << " " << d << " " << x;
      }
      EXPECT_NEAR(product_of_chi_squares_cdf(m, d, 1e9), 1, 5e-15);
      EXPECT_EQ(product_of_chi_squares_cdf(m, d, 0.0), 0);
    }
  }
}

}  // namespace
