// SPDX-License-Identifier: Apache-2.0
// data_free_scaling_test.cpp: norm matching and winsorizing do what they promise, or say why not.
#include "ssm/data_free_scaling.hpp"

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
constexpr scaling_kind linear{.linear = true}, power{.power = true}, step{.step = true};

/// Layers that hold their spectra, and views of them.
template <class T>
struct model {
  std::vector<ssm::spectrum<T>> layers;

  std::vector<spectrum_view<T>> views() const { return {layers.begin(), layers.end()}; }
};

/// Eigenvalues -size at step sizes from 1/1000 to 1/10; size from `low` to `high`.
model<double> random_model(spectrum_shape const& shape, std::uint64_t seed, double low,
                           double high) {
  model<double> result;
  random_stream const stream{seed};
  index_t i = 0;
  for (index_t layer = 0; layer < shape.layers; ++layer) {
    ssm::spectrum<double> one{tensor<double, 2>({shape.channels, shape.states}),
                              tensor<double, 1>({shape.channels})};
    for (double& A : one.eigenvalue) A = -low * std::pow(high / low, stream.uniform(i++));
    for (double& size : one.step_size) size = 1e-3 * std::pow(100, stream.uniform(i++));
    result.layers.push_back(one);
  }
  return result;
}

model<double> one_state(double eigenvalue, double step_size) {
  return {{{tensor<double, 2>({1, 1}, eigenvalue), tensor<double, 1>({1}, step_size)}}};
}

template <class T>
scaling_factors<T> matched(model<T> const& of, scaling_kind kind, granularity each, T trained,
                           T longer) {
  auto const views = of.views();
  return norm_matching(std::span(views), kind, each, trained, longer);
}

double one_factor(model<double> const& of, scaling_kind kind, double trained, double longer) {
  auto const factors = matched(of, kind, granularity::channel, trained, longer);
  return factors.numbers()[0];
}

// Horizon; s of the eigenvalue and of the step for ever; that of the step until 65536 steps;
// trained on 2048. The first has a closed form: (1 - λ^2s) S = 1, S the energy after training.
TEST(NormMatching, FactorsOfOneStateAreTheKnownOnes) {
  double const table[][4] = {{1e3, 1.0169, 0.98338, 0.98338},
                             {4e3, 1.5607, 0.64090, 0.64090},
                             {1.6e4, 4.4285, 0.22587, 0.25715},
                             {6.4e4, 16.134, 0.061996, 0.19128},
                             {1e6, 244.70, 0.0040876, 0.17762}};
  for (auto const& [steps, for_ever, step_for_ever, step_until] : table) {
    auto const slow = one_state(-10 / steps, 0.1);
    double const found = one_factor(slow, linear, 2048, infinity);
    EXPECT_NEAR(found / for_ever, 1, 5e-5);
    EXPECT_NEAR(one_factor(slow, step, 2048, infinity) / step_for_ever, 1, 5e-5);
    EXPECT_NEAR(one_factor(slow, step, 2048, 65536) / step_until, 1, 5e-5);
    double const gain = state_gain(pole<double>::with_rate(1 / steps), 2048.0);
    EXPECT_NEAR(found / (std::log1p(-1 / gain) * steps / -2), 1, 40 * eps);
    // |A|^p = s·|A| for a single eigenvalue
    double const size = 10 / steps;
    EXPECT_NEAR(one_factor(slow, power, 2048, infinity), 1 + std::log(found) / std::log(size),
                60 * eps);
  }
}

/// The parts of a layer that share a factor.
template <class T>
std::vector<spectrum_view<T>> parts(spectrum_view<T> const& layer, granularity each, bool states) {
  if (each == granularity::layer) return {layer};
  std::vector<spectrum_view<T>> result;
  for (index_t c = 0; c < layer.step_size.extent(0); ++c) {
    auto channel = channel_of(layer, c);
    if (!states) {
      result.push_back(channel);
      continue;
    }
    for (index_t n = 0; n < layer.eigenvalue.extent(1); ++n) {
      channel.eigenvalue = {&layer.eigenvalue(c, n), {1, 1}};
      result.push_back(channel);
    }
  }
  return result;
}

// Twice the bound of an energy, (count + 12) eps, and what 4 eps of the factor do to it: at most 8.
TEST(NormMatching, EveryPartHasTheEnergyOfTraining) {
  for (spectrum_shape const& shape : {spectrum_shape{2, 3, 4}, {2, 3, 1}}) {
    for (auto const kind : {linear, power, step}) {
      auto const before = random_model(shape, 1, 1.01, 40);  // a power wants all on one side of -1
      for (auto const each : all_granularities(shape.states)) {
        for (auto const& [trained, longer] :
             {std::pair(2.0, 3.0), {50.0, 4000.0}, {300.0, infinity}, {1e4, 1e6}}) {
          auto const factors = matched(before, kind, each, trained, longer);
          bool const states = each == granularity::channel_and_state && !kind.step;
          for (index_t layer = 0; layer < 2; ++layer) {
            auto const& from = before.layers[static_cast<std::size_t>(layer)];
            auto const after = scaled_spectrum<double>(from, factors.scaling(layer));
            auto const parts_before = parts<double>(from, each, states);
            auto const parts_after = parts<double>(after, each, states);
            for (std::size_t i = 0; i < parts_before.size(); ++i) {
              double const target = state_energy(parts_before[i], trained);
              EXPECT_NEAR(state_energy(parts_after[i], longer) / target, 1,
                          eps * (2.0 * (12 + 12) + 8))
                  << name_of(factors) << ", " << trained << " to " << longer;
            }
          }
          for (double const s : factors.numbers()) {
            EXPECT_TRUE(kind.step ? s > 0 && s <= 1 : s >= 1) << s;
          }
        }
      }
    }
  }
}

// (count + 14) eps of the energies, over the elasticity of the scaled spectrum.
TEST(NormMatching, FactorsAreThoseOf50DigitsWithinTheirBound) {
  auto const of = random_model({1, 3, 4}, 2, 1.01, 20);
  model<digits50> const exact{
      {{widened(of.layers[0].eigenvalue), widened(of.layers[0].step_size)}}};
  for (auto const kind : {linear, power, step}) {
    auto const found = matched(of, kind, granularity::layer, 200.0, 5000.0);
    auto const expected = matched(exact, kind, granularity::layer, digits50(200), digits50(5000));
    auto const after =
        analyze<double>(scaled_spectrum<double>(of.layers[0], found.scaling(0)), 200.0, 5000.0);
    double const elasticity = kind.linear  ? after.linear_elasticity
                              : kind.power ? after.power_elasticity
                                           : after.step_elasticity;
    double const error =
        static_cast<double>(digits50(found.numbers()[0] / expected.numbers()[0] - 1));
    EXPECT_LE(std::abs(error), eps * (4 + (12 + 14) / std::abs(elasticity)));
  }
}

TEST(NormMatching, OfEqualLengthsAndOfFastDecaysIsOne) {
  auto const of = random_model({2, 3, 4}, 3, 1, 40);
  for (auto const kind : {linear, power, step}) {
    auto const same = matched(of, kind, granularity::channel, 500.0, 500.0);
    EXPECT_EQ(same, scaling_factors<double>(kind, granularity::channel, {2, 3, 4}));
    EXPECT_EQ(one_factor(one_state(-1e6, 1), kind, 2, infinity), 1);
  }
}

// Slow states that a thousand steps leave a thousand eps to nothing below the stationary energy.
TEST(NormMatching, OfEnergiesThatDifferByRoundingEndsAndIsNearOne) {
  model<double> of{{{tensor<double, 2>({1, 2}), tensor<double, 1>({1})}}};
  for (index_t n = 0; n < 2; ++n) of.layers[0].eigenvalue(0, n) = -1.01 - static_cast<double>(n);
  for (double rate = 14; rate < 20; rate += 1.0 / 128) {
    of.layers[0].step_size(0) = rate / 1000;
    for (auto const kind : {linear, power, step}) {
      auto const factors = matched(of, kind, granularity::channel, 1000.0, infinity);
      auto const after = scaled_spectrum<double>(of.layers[0], factors.scaling(0));
      EXPECT_NEAR(
          state_energy<double>(after, infinity) / state_energy<double>(of.layers[0], 1000.0), 1,
          2 * (2 + 12) * eps)
          << rate;
    }
  }
}

TEST(NormMatching, PowersBelowOneMoveEigenvaluesBetweenZeroAndMinusOne) {
  auto const of = random_model({1, 3, 4}, 4, 1e-3, 0.5);
  auto const factors = matched(of, power, granularity::layer, 200.0, 5000.0);
  EXPECT_LT(factors.numbers()[0], 1);
  auto const after = scaled_spectrum<double>(of.layers[0], factors.scaling(0));
  EXPECT_NEAR(state_energy<double>(after, 5000.0) / state_energy<double>(of.layers[0], 200.0), 1,
              60 * eps);
}

TEST(NormMatching, WhereNoFactorExistsTheErrorSaysWhy) {
  auto const refusal = [](model<double> const& of, scaling_kind kind, double trained,
                          double longer) {
    return message_of<ssm::domain_error>(
        [&] { matched(of, kind, granularity::channel, trained, longer); });
  };
  auto const slow = one_state(-0.01, 0.1);
  EXPECT_EQ(refusal(slow, linear, 1, 10),
            "norm_matching: layer 0, channel 0, state 0 has no linear factor for 1 to 10 steps: "
            "the fastest decays leave as much");
  EXPECT_EQ(refusal(slow, step, 1, 10), "no exception");
  auto const constant = one_state(0, 0.1);
  EXPECT_NE(refusal(constant, linear, 5, 10), "no exception");
  EXPECT_EQ(refusal(constant, step, 5, 10), "no exception");
  EXPECT_EQ(refusal(constant, step, 5, infinity),
            "norm_matching: layer 0, channel 0, state 0 has no step factor for 5 to inf steps: an "
            "eigenvalue is 0");
  EXPECT_NE(refusal(one_state(-1, 0.1), power, 2, 3), "no exception");
  auto const both = random_model({1, 1, 8}, 5, 0.1, 10);
  EXPECT_EQ(refusal(both, power, 50, 100),
            "norm_matching: layer 0, channel 0, state 0 has no power factor for 50 to 100 steps: "
            "eigenvalues are on both sides of -1");
  EXPECT_EQ(refusal(slow, {.linear = true, .step = true}, 5, 10),
            "norm_matching: kind is linear+step, expected one: more are not determined");
  EXPECT_EQ(refusal(slow, linear, 10, 5),
            "norm_matching: from 10 to 5 steps, expected 1 <= trained <= longer");
  EXPECT_NE(refusal(slow, linear, NAN, 5), "no exception");
  EXPECT_EQ(one_factor(one_state(-1, 0), step, 2, 5), 1);  // no energy before and after
  EXPECT_EQ(refusal({}, linear, 2, 5), "shape_of: no layers, expected at least one");

  auto uneven = random_model({2, 2, 2}, 6, 1, 2);
  uneven.layers[1].eigenvalue = tensor<double, 2>({2, 3}, -1.0);
  EXPECT_EQ(message_of<shape_error>([&] { matched(uneven, linear, granularity::layer, 2.0, 3.0); }),
            "shape_of: eigenvalue has shape (2, 3), expected (2, 2) (channel, state)");
}

TEST(Winsorizing, ClampsTheSlowestAndLeavesTheOthersAlone) {
  auto const of = random_model({2, 3, 5}, 7, 0.05, 40);
  auto const views = of.views();
  double const longest = 50;
  auto const factors = winsorizing(std::span(views), longest);
  EXPECT_EQ(factors.kind(), linear);
  EXPECT_EQ(factors.each(), granularity::channel_and_state);
  index_t clamped = 0;
  for (index_t layer = 0; layer < 2; ++layer) {
    auto const& before = of.layers[static_cast<std::size_t>(layer)];
    auto const after = scaled_spectrum<double>(before, factors.scaling(layer));
    for (index_t c = 0; c < 3; ++c)
      for (index_t n = 0; n < 5; ++n) {
        double const was = -1 / (before.eigenvalue(c, n) * before.step_size(c));
        double const is = -1 / (after.eigenvalue(c, n) * after.step_size(c));
        if (was > longest) {
          ++clamped;
          EXPECT_NEAR(is / longest, 1, 3 * eps);
        } else {
          EXPECT_EQ(after.eigenvalue(c, n), before.eigenvalue(c, n));
        }
      }
  }
  EXPECT_GT(clamped, 5);
  EXPECT_LT(clamped, 25);
}

TEST(Winsorizing, RefusesWhatNoFactorMoves) {
  auto const refusal = [](model<double> const& of, double longest) {
    auto const views = of.views();
    return message_of<ssm::domain_error>([&] { winsorizing(std::span(views), longest); });
  };
  EXPECT_EQ(refusal(one_state(-1, 1), 0),
            "winsorizing: the longest horizon is 0 steps, expected more than 0");
  EXPECT_NE(refusal(one_state(-1, 1), NAN), "no exception");
  EXPECT_EQ(
      refusal(one_state(-1, 0), 10),
      "winsorizing: layer 0, channel 0, state 0 never decays, expected a rate of more than 0");
  EXPECT_NE(refusal(one_state(0, 1), 10), "no exception");
  EXPECT_EQ(refusal(one_state(-1, 1), infinity), "no exception");
}

}  // namespace
