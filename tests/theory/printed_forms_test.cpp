// SPDX-License-Identifier: Apache-2.0
// printed_forms_test.cpp: what arXiv:2509.19633 prints against what is true.
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "closed_forms.hpp"
#include "support/oracle.hpp"

namespace {

using namespace ssm;
using namespace ssm::theory;
using ssm::test::message_of;

uniform_law<double> uniform(double a, double b) {
  return uniform_law<double>::between(pole<double>::at(a), pole<double>::at(b));
}

// Theorem 4.2, a = 0: b, true and printed gain to ten digits.
TEST(Paper, PrintedGainIsTooSmallByHalfToOne) {
  double const table[][3] = {
      {0.01, 1.000033335, 0.005000250},  {0.1, 1.003353477, 0.050251679},
      {0.25, 1.021651248, 0.129077042},  {0.5, 1.098612289, 0.287682073},
      {0.75, 1.297273433, 0.551119049},  {0.9, 1.635799433, 0.922628448},
      {0.95, 1.928190340, 1.225212053},  {0.99, 2.673386275, 1.978300781},
      {0.999, 3.804005172, 3.110664777}, {0.9999, 4.952213997, 4.259047501},
  };
  for (auto const& [b, exact, printed] : table) {
    auto const law = uniform(0, b);
    EXPECT_NEAR(mean_stationary_gain(law), exact, 6e-10) << b;
    EXPECT_NEAR(printed_gain(law), printed, 6e-10) << b;
  }
}

TEST(Paper, PrintedOverTrueGainLiesBetweenTheEndsAndGrowsWithBoth) {
  std::vector<double> const ends = {0, 1e-8, 0.05, 0.25, 0.5, 0.8, 0.95, 0.99, 0.999, 1 - 1e-6};
  for (std::size_t i = 0; i < ends.size(); ++i) {
    for (std::size_t j = i + 1; j < ends.size(); ++j) {
      auto const law = uniform(ends[i], ends[j]);
      double const ratio = printed_ratio(law);
      EXPECT_LT(ends[i], ratio);
      EXPECT_LT(ratio, ends[j]);
      EXPECT_GE(printed_error(law), 1 / (1 + ends[j]));
      EXPECT_LE(printed_error(law), 1 / (1 + ends[i]));
      EXPECT_NEAR(mean_stationary_gain(law) - printed_gain(law), printed_error(law),
                  8e-16 * mean_stationary_gain(law));
      if (j + 1 < ends.size()) {
        EXPECT_LT(ratio, printed_ratio(uniform(ends[i], ends[j + 1])));
      }
      if (i + 1 < j) {
        EXPECT_LT(ratio, printed_ratio(uniform(ends[i + 1], ends[j])));
      }
    }
  }
}

TEST(Paper, PrintedGainFallsBelowOneWhereNoGainCan) {
  double const b = printed_reaches_one();
  EXPECT_NEAR(printed_gain(uniform(0, b)), 1, 4e-16);
  EXPECT_LT(printed_gain(uniform(0, 0.99 * b)), 1);
  EXPECT_GT(mean_stationary_gain(uniform(0, 0.99 * b)), 1);
}

// Equation (9) has the gain vanish for a short memory; it tends to 1, in units of the input.
TEST(Paper, TrueGainTendsToOneAndThePrintedToZeroAsDecaysVanish) {
  EXPECT_NEAR(mean_stationary_gain(uniform(0, 1e-6)), 1 + 1e-12 / 3, 3e-16);
  EXPECT_NEAR(printed_gain(uniform(0, 1e-6)), 5e-7, 1e-18);
  EXPECT_NEAR(mamba_gain(pole<double>::at(1e-6), 0.1), 0.01, 1e-14);
  EXPECT_NEAR(printed_mamba_gain(pole<double>::at(1e-6), 0.1), 5e-8, 1e-19);
}

TEST(Paper, MambaGainsDifferFromThePrintedByTheLogarithmAndAPowerOfTheStep) {
  for (double const l : {0.01, 0.1, 0.5, 0.9, 0.99, 0.999}) {
    auto const p = pole<double>::at(l);
    double const step = 0.03;
    EXPECT_NEAR(printed_mamba_gain(p, step) / mamba_gain(p, step) * step,
                printed_ratio(uniform(0, l)), 1e-15);
    EXPECT_NEAR(printed_mamba2_gain(p, step) / mamba2_gain(p, step), l / step, 1e-13);
    EXPECT_NEAR(mamba2_gain(p, 1.0) - printed_mamba2_gain(p, 1.0), 1 / (1 + l), 1e-13);
    double const rate = -std::log(l) / step;
    EXPECT_NEAR(mamba2_gain(p, step), euler_gain(rate, step), 1e-12 * mamba2_gain(p, step));
  }
}

// Appendix B.4(1): .861, .930, .964 and .982 of the truth, and a constant that is missing.
TEST(Paper, LeadingGainIsSlowlyRight) {
  double const table[][2] = {{1e-2, 0.861}, {1e-4, 0.930}, {1e-8, 0.964}, {1e-16, 0.982}};
  for (auto const& [gap, ratio] : table) {
    auto const law = uniform_law<double>::between(pole<double>{}, pole<double>::below_one(gap));
    EXPECT_NEAR(leading_gain(law) / mean_stationary_gain(law), ratio, 6e-4);
  }
  for (double const a : {0.0, 0.3, 0.9}) {
    auto const low = pole<double>::at(a);
    auto const law = uniform_law<double>::between(low, pole<double>::below_one(1e-15));
    EXPECT_NEAR(mean_stationary_gain(law) - leading_gain(law), leading_gain_constant(low),
                2e-14 / (1 - a) / (1 - a));
  }
}

// The logarithm of squares belongs to the area of a ring, and with a leading 1 to log-uniform λ.
TEST(Paper, PrintedLogarithmIsThatOfARing) {
  auto const law = uniform(0.3, 0.95);
  auto const ring = ring_law<double>::between(law.low, law.high);
  EXPECT_NEAR(mean_stationary_gain(ring), printed_gain(law) * 2 / (0.3 + 0.95), 1e-15 * 4);
  auto const log_uniform = log_uniform_law<double>::of_rates(-std::log(0.95), -std::log(0.3));
  double const squares = std::log((1 - 0.3 * 0.3) / (1 - 0.95 * 0.95));
  EXPECT_NEAR(mean_stationary_gain(log_uniform), 1 + squares / (2 * std::log(0.95 / 0.3)),
              1e-15 * 8);
}

TEST(Paper, InputEnergyDependsOnTheReadingOfTheRowVariance) {
  EXPECT_DOUBLE_EQ(input_energy({16, 16}, row_scale::covariance), 64);
  EXPECT_DOUBLE_EQ(input_energy({16, 16}, row_scale::standard_deviation), 16);
  EXPECT_DOUBLE_EQ(input_energy({16, 3}, row_scale::covariance), 12);
  EXPECT_DOUBLE_EQ(input_energy({16, 3}, row_scale::standard_deviation), 3);
  EXPECT_DOUBLE_EQ(entry_variance({16, 3}, row_scale::standard_deviation), 1.0 / 16);
}

// Lemma 4.1 is tight: B = s I does it, with x = (c, ..., c); and so is the bound on the state, by
// a constant input on the slowest mode.
TEST(Paper, BoundsAreReached) {
  EXPECT_DOUBLE_EQ(input_bound(3.0, 0.5, 16.0), std::sqrt(16 * 1.5 * 1.5));
  auto const p = pole<double>::at(0.9);
  double h = 5;
  for (index_t t = 0; t <= 40; ++t) {
    EXPECT_NEAR(state_bound(p, 2.0, 5.0, t), h, 1e-13);
    h = 0.9 * h + 2;
  }
  EXPECT_DOUBLE_EQ(state_bound(pole<double>::at(1), 2.0, 5.0, 7), 19);
  EXPECT_DOUBLE_EQ(state_bound(pole<double>{}, 2.0, 5.0, 7), 2);
}

// Equation (9) is ill-posed: λ → 1 by Δ → 0 sends the gain to 0, not to infinity.
TEST(Paper, GainsOfHoldsAtTheirLimits) {
  EXPECT_NEAR(euler_gain(1.0, 1e-9), 5e-10, 1e-18);
  EXPECT_NEAR(euler_gain(1e-9, 1.0), 5e8, 1);
  EXPECT_DOUBLE_EQ(euler_gain(1e3, 2.0), 4);
  EXPECT_DOUBLE_EQ(zero_order_hold_gain(1e3, 2.0), 1e-6);
  EXPECT_NEAR(zero_order_hold_gain(0.7, 0.4), std::tanh(0.14) / 0.49, 1e-16);
  EXPECT_DOUBLE_EQ(ornstein_uhlenbeck_gain(4.0), 0.125);
  // sampled Brownian input of variance Δ a step
  EXPECT_NEAR(euler_gain(4.0, 1e-8) / 1e-8, ornstein_uhlenbeck_gain(4.0), 1e-8);
}

TEST(Paper, NoStationaryGainAtOne) {
  auto const law = uniform(0, 1);
  char const* why =
      ": the tail index is 1, expected more than 1: decays so near 1 make the mean "
      "infinite";
  EXPECT_EQ(message_of<domain_error>([&] { mean_stationary_gain(law); }),
            std::string("gain_moment") + why);
  EXPECT_EQ(message_of<domain_error>([&] { printed_gain(law); }),
            std::string("printed_gain") + why);
  EXPECT_EQ(message_of<domain_error>([&] { leading_gain(law); }),
            std::string("leading_gain") + why);
}

}  // namespace
