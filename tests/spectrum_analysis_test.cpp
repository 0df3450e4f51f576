// SPDX-License-Identifier: Apache-2.0
// spectrum_analysis_test.cpp: energies of states, how they react to factors, what is said of both.
#include "ssm/spectrum_analysis.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "support/oracle.hpp"
#include "support/random_scaling.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

constexpr double eps = std::numeric_limits<double>::epsilon();
constexpr double infinity = std::numeric_limits<double>::infinity();

/// Eigenvalues from -4 to -1/100 at step sizes from 1/100 to 1/2.
template <class T>
ssm::spectrum<T> random_spectrum(index_t channels, index_t states, std::uint64_t seed) {
  ssm::spectrum<T> result{tensor<T, 2>({channels, states}), tensor<T, 1>({channels})};
  random_stream const stream{seed};
  index_t i = 0;
  for (T& A : result.eigenvalue) A = T(-0.01 * std::pow(400, stream.uniform(i++)));
  for (T& step : result.step_size) step = T(0.01 * std::pow(50, stream.uniform(i++)));
  return result;
}

ssm::spectrum<digits50> widened(ssm::spectrum<double> const& s) {
  return {ssm::test::widened(s.eigenvalue), ssm::test::widened(s.step_size)};
}

/// d log f(s)/d log s at 1, by a central difference in 50 digits.
template <class F>
digits50 slope_of_log(F const& f) {
  digits50 const h("1e-16");
  return (log(f(exp(h))) - log(f(exp(digits50(-h))))) / (2 * h);
}

TEST(GainElasticity, IsTheSlopeOfTheLogarithmOfTheGain) {
  for (double const rate : {1e-300, 1e-8, 1e-3, 0.3, 0.4999, 0.5, 0.7, 4.0, 50.0, 1000.0}) {
    auto const scaled = [&](digits50 const& s) {
      return pole<digits50>::with_rate(digits50(s * rate));
    };
    digits50 const at_last =
        slope_of_log([&](digits50 const& s) { return stationary_gain(scaled(s)); });
    // the difference is off by 1e-32 of the third derivative, which is about 1
    EXPECT_LE(abs(digits50(gain_elasticity(rate) - at_last)), 4 * eps * abs(at_last) + 1e-31);
    EXPECT_EQ(gain_elasticity(rate, infinity), gain_elasticity(rate));
    for (double const steps : {1.0, 2.0, 50.0, 4096.0, 1e9}) {
      digits50 const slope =
          slope_of_log([&](digits50 const& s) { return state_gain(scaled(s), digits50(steps)); });
      EXPECT_LE(abs(digits50(gain_elasticity(rate, steps) - slope)), 40 * eps * abs(slope) + 1e-31)
          << rate << ", " << steps;
    }
  }
}

TEST(GainElasticity, OfDecaysOneAndZeroIsTheirLimit) {
  EXPECT_EQ(gain_elasticity(0.0), -1);
  EXPECT_EQ(gain_elasticity(infinity), 0);
  EXPECT_EQ(gain_elasticity(0.0, infinity), -1);
  EXPECT_EQ(gain_elasticity(0.0, 1000.0), 0);
  EXPECT_EQ(gain_elasticity(infinity, 1000.0), 0);
  EXPECT_EQ(gain_elasticity(1e-3, 1e300), gain_elasticity(1e-3));
}

// Unit inputs at one of the steps, one after another, add up to white inputs at all of them.
TEST(StateEnergy, IsThatOfTheRecurrenceUnderWhiteInput) {
  auto const layer = random_spectrum<double>(3, 4, 1);
  auto const exact = widened(layer);
  digits50 energy = 0;
  tensor<digits50, 2> response({3, 4});
  for (index_t t = 0; t < 60; ++t) {
    EXPECT_TRUE(
        is_within(12 + 10, state_energy<double>(layer, static_cast<double>(t)), energy, energy))
        << t;
    for (index_t c = 0; c < 3; ++c)
      for (index_t n = 0; n < 4; ++n) {
        digits50 const step = exact.step_size(c);
        digits50& h = response(c, n);
        h = t == 0 ? step : digits50(exp(digits50(step * exact.eigenvalue(c, n))) * h);
        energy += h * h;
      }
  }
}

TEST(StateEnergy, IsTheSumOfThatOfItsChannels) {
  auto const layer = random_spectrum<digits50>(3, 4, 2);
  for (digits50 const& steps : {digits50(7), digits50(infinity)}) {
    digits50 sum = 0;
    for (index_t c = 0; c < 3; ++c) {
      sum += state_energy(channel_of<digits50>(layer, c), steps);
    }
    EXPECT_LT(abs(digits50(sum / state_energy<digits50>(layer, steps) - 1)), 1e-47);
  }
}

// The bounds that norm matching starts from: 1/s and 1, s² and s.
TEST(StateEnergy, OfAFactorOfTheEigenvaluesAndOfTheStepIsWithinItsBounds) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    auto const layer = random_spectrum<double>(2, 3, seed);
    random_stream const stream{seed + 500};
    double const s = std::pow(10, 2 * stream.uniform(0) - 1);
    double const steps = std::floor(std::pow(10, 5 * stream.uniform(1)));
    double const before = state_energy<double>(layer, steps);
    spectrum_scaling<double> linear, step;
    linear.linear = {&s, {2, 3}, {0, 0}};
    step.step = {&s, {2}, {0}};
    double const by_linear =
        state_energy<double>(scaled_spectrum<double>(layer, linear), steps) / before;
    double const by_step =
        state_energy<double>(scaled_spectrum<double>(layer, step), steps) / before;
    double const rounding = 40 * eps;
    EXPECT_GE(by_linear, std::min(1 / s, 1.0) * (1 - rounding)) << "seed " << seed;
    EXPECT_LE(by_linear, std::max(1 / s, 1.0) * (1 + rounding)) << "seed " << seed;
    EXPECT_GE(by_step, std::min(s, s * s) * (1 - rounding)) << "seed " << seed;
    EXPECT_LE(by_step, std::max(s, s * s) * (1 + rounding)) << "seed " << seed;
    EXPECT_NEAR(by_step / by_linear, s * s, rounding * s * s) << "seed " << seed;
  }
}

// Every kind and granularity, gathered into the row of the factors: the slope of the energy in 50
// digits, and in double the same to 1e-10.
TEST(StateEnergy, GradientByEveryFactorIsItsSlope) {
  for (index_t const states : {3, 1}) {
    auto const layer = random_spectrum<double>(2, states, 3);
    auto const exact = widened(layer);
    for (double const steps : {1.0, 40.0, infinity}) {
      for_each_scaling<double>({1, 2, states}, 10, [&](scaling_factors<double> const& factors) {
        auto wide = factors.rounded<digits50>();
        auto const count = static_cast<index_t>(wide.numbers().size());
        tensor<digits50, 1> numbers({count}), gradient({count});
        tensor<double, 1> in_double({count});
        std::copy(wide.numbers().begin(), wide.numbers().end(), numbers.begin());
        state_energy_vjp<digits50>(exact, wide.scaling(0), steps, 3,
                                   wide.gradient(0, {gradient.data(), wide.numbers().size()}));
        state_energy_vjp<double>(layer, factors.scaling(0), steps, 3,
                                 factors.gradient(0, {in_double.data(), wide.numbers().size()}));
        auto const energy = [&] {
          std::copy(numbers.begin(), numbers.end(), wide.numbers().begin());
          return digits50(
              3 * state_energy<digits50>(scaled_spectrum<digits50>(exact, wide.scaling(0)), steps));
        };
        auto const slope = gradient_by_differences(numbers, energy);
        EXPECT_TRUE(is_near(gradient, slope, "1e-27")) << name_of(factors) << ", " << steps;
        EXPECT_TRUE(is_near(ssm::test::widened(in_double), slope, "1e-10")) << name_of(factors);
      });
    }
  }
}

TEST(StateEnergy, GradientAtAnEigenvalueOfZeroIsTheLimit) {
  ssm::spectrum<double> layer{tensor<double, 2>({1, 1}), tensor<double, 1>({1}, 0.5)};
  double const one = 1;
  double to_step = 0, to_linear = 0;
  spectrum_scaling<double> scaling;
  scaling.linear = {&one, {1, 1}};
  scaling.step = {&one, {1}};
  state_energy_vjp<double>(layer, scaling, 10.0, 1.0,
                           {.linear = {&to_linear, {1, 1}}, .step = {&to_step, {1}}});
  EXPECT_EQ(to_step, 2 * 0.25 * 10);  // of (0.5 s)²·10
  EXPECT_EQ(to_linear, 0);
  state_energy_vjp<double>(layer, scaling, infinity, 1.0, {.linear = {&to_linear, {1, 1}}});
  EXPECT_EQ(to_linear, 0);
  // for an eigenvalue that goes to 0 the slope by a step is that of Δ² t (1 - Δ|A|(t - 1))
  layer.eigenvalue(0, 0) = -1e-14;
  state_energy_vjp<double>(layer, scaling, 10.0, 1.0, {.linear = {&to_linear, {1, 1}}});
  EXPECT_NEAR(to_linear / (-0.125 * 10 * 9 * 1e-14), 1, 1e-12);
}

TEST(SpectrumAnalysis, ElasticitiesAreTheSlopesOfTheEnergy) {
  auto const layer = random_spectrum<double>(3, 4, 5);
  auto const exact = widened(layer);
  for (double const longer : {64.0, 4096.0, infinity}) {
    auto const found = analyze<double>(layer, 64.0, longer);
    auto const slope = [&](auto const& factor_of) {
      return static_cast<double>(slope_of_log([&](digits50 const& s) {
        spectrum_scaling<digits50> scaling;
        factor_of(scaling, &s);
        return state_energy<digits50>(scaled_spectrum<digits50>(exact, scaling), longer);
      }));
    };
    EXPECT_NEAR(found.linear_elasticity, slope([](auto& to, digits50 const* s) {
                  to.linear = {s, {3, 4}, {0, 0}};
                }),
                60 * eps);
    EXPECT_NEAR(found.power_elasticity, slope([](auto& to, digits50 const* s) {
                  to.power = {s, {3, 4}, {0, 0}};
                }),
                60 * 5 * eps);  // |log A| is at most 4.6
    EXPECT_NEAR(found.step_elasticity, slope([](auto& to, digits50 const* s) {
                  to.step = {s, {3}, {0}};
                }),
                60 * eps);
  }
}

TEST(SpectrumAnalysis, HoldsWhatItsNamesSay) {
  auto const layer = random_spectrum<double>(3, 5, 6);
  auto const found = analyze<double>(layer, 100.0, 1e5);
  std::vector<double> horizons;
  double inputs = 0;
  for (index_t c = 0; c < 3; ++c)
    for (index_t n = 0; n < 5; ++n) {
      horizons.push_back(-1 / (layer.step_size(c) * layer.eigenvalue(c, n)));
      inputs += layer.step_size(c) * layer.step_size(c);
    }
  std::sort(horizons.begin(), horizons.end());
  EXPECT_NEAR(found.horizon.least / horizons.front(), 1, 5 * eps);
  EXPECT_NEAR(found.horizon.median / horizons[7], 1, 5 * eps);
  EXPECT_NEAR(found.horizon.largest / horizons.back(), 1, 5 * eps);
  EXPECT_NEAR(found.input_energy / inputs, 1, 15 * eps);
  EXPECT_NEAR(found.gain / (state_energy<double>(layer, infinity) / inputs), 1, 60 * eps);
  EXPECT_NEAR(found.trained_energy / state_energy<double>(layer, 100.0), 1, 40 * eps);
  EXPECT_NEAR(found.longer_energy / state_energy<double>(layer, 1e5), 1, 40 * eps);
  EXPECT_EQ(found.growth, found.longer_energy / found.trained_energy);
}

TEST(SpectrumAnalysis, MedianOfAnEvenNumberIsTheMeanOfTwo) {
  auto const q = quantiles<double>::of({3, 1, 2, 10});
  EXPECT_EQ(q.least, 1);
  EXPECT_EQ(q.median, 2.5);
  EXPECT_EQ(q.largest, 10);
  EXPECT_EQ(quantiles<double>::of({3, 1, 2}).median, 2);
}

TEST(SpectrumAnalysis, WhatCannotBeAnalyzedIsRefused) {
  auto layer = random_spectrum<double>(2, 2, 7);
  auto const message = [&](double trained, double longer) {
    return message_of<ssm::domain_error>([&] { analyze<double>(layer, trained, longer); });
  };
  EXPECT_EQ(message(10, 5),
            "analyze: trained on 10 steps, run for 5, expected 0 < trained <= longer");
  EXPECT_NE(message(0, 5), "no exception");
  EXPECT_NE(message(NAN, 5), "no exception");
  std::fill(layer.step_size.begin(), layer.step_size.end(), 0.0);
  EXPECT_EQ(message(1, 5), "analyze: every step size is 0, expected one that is more");
  layer.eigenvalue(1, 0) = 0.5;
  EXPECT_EQ(message(1, 5), "poles_of: eigenvalue(1, 0) is 0.5, expected 0 or less");
  EXPECT_EQ(message_of<ssm::domain_error>([&] { quantiles<double>::of({}); }),
            "quantiles: no values, expected at least one");
  double factor = 1;
  spectrum_scaling<double> narrow;
  narrow.linear = {&factor, {2, 1}};
  EXPECT_EQ(message_of<shape_error>([&] { scaled_spectrum<double>(layer, narrow); }),
            "spectrum_scaling: linear has shape (2, 1), expected (2, 2) (channel, state)");
  EXPECT_EQ(message_of<shape_error>([&] {
              state_energy_vjp<double>(layer, {}, 1.0, 1.0, {.step = {&factor, {1}}});
            }),
            "spectrum_scaling: step has shape (1), expected (2) (channel)");
}

}  // namespace
