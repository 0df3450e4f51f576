// SPDX-License-Identifier: Apache-2.0
// spectrum_test.cpp: decays near 1 to full precision, and the gains that follow from them.
#include "ssm/spectrum.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "support/oracle.hpp"
#include "support/random_tensor.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// A pole in double together with what it stands for: λ, -log λ and 1 - λ in 50 digits.
struct known_pole {
  pole<double> in_double;
  digits50 value;
  digits50 rate;
  digits50 gap;
  std::string name;
};

/// Gaps from 1e-300 to 1, dense near 1/2 where the formulas change branch, by all three makers.
std::vector<known_pole> known_poles() {
  std::vector<double> numbers;
  for (int exponent = -300; exponent <= -1; exponent += exponent < -20 ? 20 : 1) {
    numbers.push_back(std::pow(10.0, exponent));
  }
  for (double const near_half : {0.49, 0.4999999999999999, 0.5, 0.5000000000000001, 0.51}) {
    numbers.push_back(near_half);
  }
  random_stream const stream{1};
  for (index_t i = 0; i < 300; ++i) {
    numbers.push_back(i % 2 == 0 ? stream.uniform(i) : std::pow(10.0, -20 * stream.uniform(i)));
  }

  std::vector<known_pole> poles;
  for (double const x : numbers) {
    digits50 const exact(x);
    std::string const name = "(" + exact.str(17) + ")";
    poles.push_back({pole<double>::below_one(x), 1 - exact, -log1p(digits50(-exact)), exact,
                     "below_one" + name});
    poles.push_back({pole<double>::at(x), exact, -log(exact), 1 - exact, "at" + name});
    for (double const rate : {x, 40 * x}) {
      digits50 const r(rate);
      poles.push_back({pole<double>::with_rate(rate), exp(digits50(-r)), r, -expm1(digits50(-r)),
                       "with_rate(" + r.str(17) + ")"});
    }
  }
  return poles;
}

digits50 exact_state_gain(known_pole const& p, digits50 const& steps) {
  return -expm1(digits50(-2 * steps * p.rate)) / (p.gap * (2 - p.gap));
}

std::vector<pole<double>> random_poles(index_t count, std::uint64_t seed) {
  std::vector<pole<double>> poles;
  random_stream const stream{seed};
  for (index_t i = 0; i < count; ++i) {
    poles.push_back(pole<double>::below_one(std::pow(10.0, -12 * stream.uniform(i))));
  }
  return poles;
}

TEST(Pole, ValueAndGapAreBothWithinOneEpsOfTheExactOnesForGapsFrom1eMinus300To1) {
  for (auto const& p : known_poles()) {
    EXPECT_TRUE(is_within(1, p.in_double.gap, p.gap, p.gap)) << "gap of " << p.name;
    EXPECT_TRUE(is_within(1, p.in_double.value, p.value, p.value)) << "value of " << p.name;
  }
}

TEST(Pole, OneAndZeroAreReachedByEveryMaker) {
  for (auto const& one :
       {pole<double>::at(1), pole<double>::below_one(0), pole<double>::with_rate(0)}) {
    EXPECT_EQ(one, (pole<double>{1, 0}));
  }
  for (auto const& zero : {pole<double>::at(0), pole<double>::below_one(1),
                           pole<double>::with_rate(infinity), pole<double>{}}) {
    EXPECT_EQ(zero, (pole<double>{0, 1}));
  }
}

TEST(Pole, NumbersOutsideTheDomainThrowAndAreNamed) {
  EXPECT_EQ(message_of<ssm::domain_error>([] { pole<double>::at(1.5); }),
            "pole::at: value is 1.5, expected a decay in [0, 1]");
  EXPECT_EQ(message_of<ssm::domain_error>([] { pole<double>::below_one(-0.25); }),
            "pole::below_one: gap is -0.25, expected 1 - decay in [0, 1]");
  EXPECT_EQ(message_of<ssm::domain_error>([] { pole<double>::with_rate(-2); }),
            "pole::with_rate: rate is -2, expected -step_size·eigenvalue >= 0");
  for (double const outside : {nan, -infinity, -1e-300}) {
    EXPECT_THROW(pole<double>::at(outside), ssm::domain_error) << outside;
    EXPECT_THROW(pole<double>::below_one(outside), ssm::domain_error) << outside;
    EXPECT_THROW(pole<double>::with_rate(outside), ssm::domain_error) << outside;
  }
  EXPECT_THROW(pole<double>::at(std::nextafter(1.0, 2.0)), ssm::domain_error);
  EXPECT_THROW(pole<double>::below_one(infinity), ssm::domain_error);
}

// One eps for the pole and one for the logarithm, either of which 1/(λ log λ) <= 1.45 amplifies.
TEST(Spectrum, LogDecayAndHorizonAreWithinFourEps) {
  for (auto const& p : known_poles()) {
    EXPECT_TRUE(is_within(4, log_decay(p.in_double), -p.rate, p.rate)) << p.name;
    EXPECT_TRUE(is_within(4, horizon(p.in_double), 1 / p.rate, 1 / p.rate)) << p.name;
  }
}

TEST(Spectrum, HorizonIsInfiniteForDecayOneAndZeroForDecayZero) {
  EXPECT_EQ(horizon(pole<double>::at(1)), infinity);
  EXPECT_EQ(log_decay(pole<double>::at(0)), -infinity);
  EXPECT_EQ(horizon(pole<double>::at(0)), 0);
}

TEST(Spectrum, StateFallsToOneOverEInAHorizon) {
  for (double const gap : {1e-9, 1e-3, 0.3, 0.9}) {
    auto const p = pole<double>::below_one(gap);
    EXPECT_NEAR(std::exp(horizon(p) * log_decay(p)), std::exp(-1.0), 1e-15) << gap;
  }
}

TEST(Spectrum, OneMinusSquareIsWithinTwoAndAHalfEps) {
  for (auto const& p : known_poles()) {
    digits50 const exact = p.gap * (2 - p.gap);
    EXPECT_TRUE(is_within(2.5, one_minus_square(p.in_double), exact, exact)) << p.name;
  }
}

TEST(Spectrum, StationaryGainIsWithinThreeEps) {
  for (auto const& p : known_poles()) {
    digits50 const exact = 1 / (p.gap * (2 - p.gap));
    EXPECT_TRUE(is_within(3, stationary_gain(p.in_double), exact, exact)) << p.name;
  }
}

TEST(Spectrum, StationaryGainOfDecayOneThrows) {
  EXPECT_EQ(message_of<ssm::domain_error>([] { stationary_gain(pole<double>::at(1)); }),
            "stationary_gain: the decay is 1, expected less: no stationary state");
}

TEST(Spectrum, StateGainIsWithinSixEpsForStepsFromHalfToABillion) {
  for (auto const& p : known_poles()) {
    for (double const steps : {0.5, 1.0, 2.0, 3.0, 7.0, 100.0, 12345.0, 1e6, 1e9}) {
      digits50 const exact = exact_state_gain(p, steps);
      EXPECT_TRUE(is_within(6, state_gain(p.in_double, steps), exact, exact))
          << p.name << ", steps " << steps;
    }
  }
}

TEST(Spectrum, StateGainIsTheSumOfSquaredPowersOfTheDecay) {
  for (double const gap : {1e-12, 0.01, 0.5, 0.875, 1.0}) {
    auto const p = pole<digits50>::below_one(gap);
    digits50 sum = 0, power = 1;
    for (int steps = 0; steps <= 31; ++steps) {
      digits50 const found = state_gain(p, digits50(steps));
      EXPECT_LE(abs(digits50(found - sum)), 1e-47 * sum) << "gap " << gap << ", steps " << steps;
      sum += power * power;
      power *= p.value;
    }
  }
}

TEST(Spectrum, StateGainOfDecayOneIsTheNumberOfStepsAndOfDecayZeroIsOne) {
  for (double const steps : {0.0, 1.0, 17.0, 1e9}) {
    EXPECT_EQ(state_gain(pole<double>::at(1), steps), steps);
    EXPECT_EQ(state_gain(pole<double>::at(0), steps), steps == 0 ? 0 : 1);
  }
}

TEST(Spectrum, StateGainOfInfinitelyManyStepsIsTheStationaryGain) {
  for (auto const& p : random_poles(50, 5)) {
    EXPECT_EQ(state_gain(p, infinity), stationary_gain(p)) << p.gap;
  }
  EXPECT_EQ(state_gain(pole<double>::at(1), infinity), infinity);
}

TEST(Spectrum, NegativeOrUndefinedStepsThrow) {
  EXPECT_EQ(message_of<ssm::domain_error>([] { state_gain(pole<double>::at(0.5), -1.0); }),
            "state_gain: steps is -1, expected 0 or more");
  EXPECT_THROW(state_gain(pole<double>::at(0.5), nan), ssm::domain_error);
}

TEST(Spectrum, MeanGainsAreWithinCountPlusSixEpsOfTheMean) {
  for (index_t const count : {1, 2, 13, 64}) {
    auto const poles = random_poles(count, static_cast<std::uint64_t>(count));
    digits50 at_1000 = 0, stationary = 0;
    for (auto const& p : poles) {
      known_pole const exact{p, 1 - digits50(p.gap), -log1p(digits50(-p.gap)), p.gap, ""};
      at_1000 += exact_state_gain(exact, 1000) / count;
      stationary += 1 / (exact.gap * (2 - exact.gap)) / count;
    }
    std::span<pole<double> const> const spectrum(poles);
    auto const k = static_cast<double>(count + 6);
    EXPECT_TRUE(is_within(k, mean_state_gain(spectrum, 1000.0), at_1000, at_1000)) << count;
    EXPECT_TRUE(is_within(k, mean_stationary_gain(spectrum), stationary, stationary)) << count;
  }
}

TEST(Spectrum, MeanOfNoPolesThrows) {
  std::span<pole<double> const> const none;
  EXPECT_EQ(message_of<ssm::domain_error>([&] { mean_state_gain(none, 1.0); }),
            "mean_state_gain: no poles, expected at least one");
  EXPECT_EQ(message_of<ssm::domain_error>([&] { mean_stationary_gain(none); }),
            "mean_stationary_gain: no poles, expected at least one");
}

TEST(Spectrum, EnergyGrowsByAFactorBetweenOneAndTheRatioOfLengths) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    auto const poles = random_poles(1 + static_cast<index_t>(seed % 20), seed);
    random_stream const stream{seed + 1000};
    double const shorter = std::pow(10.0, 9 * stream.uniform(0));
    double const longer = shorter * std::pow(10.0, 4 * stream.uniform(1));
    double const growth = energy_growth(std::span<pole<double> const>(poles), shorter, longer);
    double const rounding = 60 * std::numeric_limits<double>::epsilon();
    EXPECT_GE(growth, 1 - rounding) << "seed " << seed;
    EXPECT_LE(growth, longer / shorter * (1 + rounding)) << "seed " << seed;
  }
}

TEST(Spectrum, GrowthReachesBothOfItsBounds) {
  std::vector<pole<double>> const memoryless{pole<double>::at(0)};
  std::vector<pole<double>> const integrator{pole<double>::at(1)};
  EXPECT_EQ(energy_growth(std::span<pole<double> const>(memoryless), 10.0, 1000.0), 1);
  EXPECT_EQ(energy_growth(std::span<pole<double> const>(integrator), 10.0, 1000.0), 100);
}

TEST(Spectrum, GrowthFromZeroOrToFewerStepsThrows) {
  auto const poles = random_poles(2, 1);
  std::span<pole<double> const> const spectrum(poles);
  EXPECT_EQ(message_of<ssm::domain_error>([&] { energy_growth(spectrum, 0.0, 5.0); }),
            "energy_growth: from 0 to 5 steps, expected 0 < shorter <= longer");
  EXPECT_THROW(energy_growth(spectrum, 5.0, 4.0), ssm::domain_error);
  EXPECT_THROW(energy_growth(spectrum, 5.0, nan), ssm::domain_error);
}

TEST(Spectrum, TimeConstantIsMinusOneOverTheRealPart) {
  EXPECT_EQ(time_constant(-4.0), 0.25);
  EXPECT_EQ(time_constant(std::complex<double>(-4, 100)), 0.25);
  EXPECT_EQ(time_constant(-0.0), infinity);
}

TEST(Spectrum, S4dRealIsMinusOneMinusTwoAndSoOn) {
  for (index_t n = 0; n < 16; ++n) EXPECT_EQ(s4d_real<float>(n), -static_cast<float>(n + 1));
}

TEST(PolesOf, HoldsExpOfStepTimesEigenvalueOfEveryChannelAndState) {
  auto const eigenvalue = random_tensor<double>({3, 5}, 21, -8, 0);
  auto const step_size = random_tensor<double>({3}, 22, 1e-3, 1);
  scattered const strided(eigenvalue);
  auto const poles = poles_of<double>(eigenvalue, step_size);
  EXPECT_EQ(poles_of<double>(strided, step_size), poles);
  ASSERT_EQ(poles.size(), 15u);
  for (index_t c = 0; c < 3; ++c)
    for (index_t n = 0; n < 5; ++n) {
      // Half an eps of the rounded product of size |z|, and one for the exponential.
      digits50 const z = digits50(step_size(c)) * eigenvalue(c, n);
      auto const& found = poles[static_cast<std::size_t>(5 * c + n)];
      double const k = 1 + 0.5 * static_cast<double>(-z);
      EXPECT_TRUE(is_within(k, found.value, exp(z), exp(z))) << c << ", " << n;
      EXPECT_TRUE(is_within(2, found.gap, -expm1(z), -expm1(z))) << c << ", " << n;
    }
}

TEST(PolesOf, NoStatesGiveNoPoles) {
  EXPECT_TRUE(poles_of<double>(tensor<double, 2>({3, 0}), tensor<double, 1>({3}, 0.5)).empty());
  EXPECT_TRUE(poles_of<double>(tensor<double, 2>({0, 4}), tensor<double, 1>({0})).empty());
}

TEST(PolesOf, WrongShapeSignOrNaNThrowsAndIsNamed) {
  auto const with = [](double eigenvalue_12, double step_1) {
    auto eigenvalue = random_tensor<double>({2, 3}, 23, -8, 0);
    auto step_size = random_tensor<double>({2}, 24, 1e-3, 1);
    eigenvalue(1, 2) = eigenvalue_12;
    step_size(1) = step_1;
    return message_of<ssm::domain_error>([&] { poles_of<double>(eigenvalue, step_size); });
  };
  EXPECT_EQ(with(-1, 0.5), "no exception");
  EXPECT_EQ(with(0, 0), "no exception");
  EXPECT_EQ(with(0.25, 0.5), "poles_of: eigenvalue(1, 2) is 0.25, expected 0 or less");
  EXPECT_EQ(with(nan, 0.5), "poles_of: eigenvalue(1, 2) is nan, expected 0 or less");
  EXPECT_EQ(with(-1, -0.5), "poles_of: step_size(1) is -0.5, expected 0 or more");
  EXPECT_EQ(with(-1, nan), "poles_of: step_size(1) is nan, expected 0 or more");
  EXPECT_EQ(message_of<shape_error>([] {
              poles_of<double>(random_tensor<double>({2, 3}, 25, -8, 0), tensor<double, 1>({3}));
            }),
            "poles_of: step_size has shape (3), expected (2) (channel)");
}

}  // namespace
