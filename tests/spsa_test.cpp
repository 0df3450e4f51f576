// SPDX-License-Identifier: Apache-2.0
// spsa_test.cpp: what SPSA estimates, finds, keeps and stops at; the same bits however it is run.
#include "ssm/optimize/spsa.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "ssm/optimize/choose_step.hpp"
#include "support/noisy_quadratic.hpp"

namespace ssm::optimize {
namespace {

using factors = std::vector<double>;
using quadratic = test::noisy_quadratic;

void expect_same(optimum const& a, optimum const& b) {
  EXPECT_EQ(a.factors, b.factors);
  EXPECT_EQ(a.status, b.status);
  EXPECT_EQ(a.evaluations, b.evaluations);
  ASSERT_EQ(a.history.size(), b.history.size());
  for (std::size_t k = 0; k < a.history.size(); ++k) {
    EXPECT_EQ(a.history[k].loss, b.history[k].loss) << k;
    EXPECT_EQ(a.history[k].factors, b.history[k].factors) << k;
  }
}

// All 2^p directions, each as likely: their mean is the expectation.
TEST(Spsa, EstimateOfAQuadraticIsItsGradientOnAverage) {
  factors const x{1, 0.9, 1.1, 0.2};
  quadratic const f;
  factors mean(x.size());
  for (int bits = 0; bits < 16; ++bits) {
    perturbed_pair pair{x, x};
    for (std::size_t i = 0; i < x.size(); ++i) {
      double const shift = (bits >> i & 1) != 0 ? 0.1 : -0.1;
      pair.plus[i] += shift;
      pair.minus[i] -= shift;
    }
    pair.add_gradient(f.exact(pair.plus) - f.exact(pair.minus), 1.0 / 16, mean);
  }
  // each estimate is a difference of losses below 1 over 0.2, to 8 roundings
  for (std::size_t i = 0; i < x.size(); ++i) {
    EXPECT_NEAR(mean[i], f.gradient(x, i), 8 * 0x1p-52 / 0.2) << i;
  }
}

TEST(Spsa, PairsStayInTheDomainAndAreDividedByWhatRemains) {
  factors const x{0.01, 1, 0.5};
  auto const pair = perturbed_pair::around(x, 0.1, random_stream{1}, 0.01, 1);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_GE(std::min(pair.plus[i], pair.minus[i]), 0.01);
    EXPECT_LE(std::max(pair.plus[i], pair.minus[i]), 1);
  }
  factors slope(3);
  pair.add_gradient(3 * (pair.plus[1] - pair.minus[1]), 1, slope);  // of the loss 3 x_1
  EXPECT_DOUBLE_EQ(slope[1], 3);
}

TEST(Spsa, FindsTheMinimumOfANoisyQuadratic) {
  factors const start(8, 1.0);
  quadratic const f{.noise = 0.01};
  spsa_settings settings{.iterations = 1000,
                         .step = {.offset = 100, .exponent = 0.602},
                         .has_common_random_numbers = false,
                         .averages_from = 500};
  settings = choose_step(f, start, settings, 0.5);
  auto const found = spsa(f, start, settings);
  EXPECT_EQ(found.status, status::all_iterations_done);
  EXPECT_EQ(found.evaluations, 2000);
  EXPECT_EQ(found.history.size(), 1000u);
  EXPECT_LT(f.exact(found.factors), 0.01 * f.exact(start)) << "seed " << settings.seed;
}

TEST(Spsa, ResultsAreTheSameForAnyNumberOfThreads) {
  factors const start(5, 1.0);
  spsa_settings settings{.iterations = 20, .directions = 4, .blocks_above = 0.01};
  auto const one = spsa(quadratic{.noise = 0.1}, start, settings);
  for (int const threads : {2, 3, 8}) {
    settings.threads = threads;
    expect_same(one, spsa(quadratic{.noise = 0.1}, start, settings));
  }
}

TEST(Spsa, RunThatIsCopiedGoesOnToTheSameBits) {
  factors const start(5, 1.0);
  spsa_settings const settings{.iterations = 30,
                               .domain = {.is_logarithmic = true},
                               .directions = 2,
                               .averages_from = 7,
                               .seed = 5};
  quadratic const f{.noise = 0.1};
  auto const whole = spsa(f, start, settings);
  for (int const cut : {1, 7, 8, 29}) {
    spsa_run first(start, settings);
    for (int k = 0; k < cut; ++k) first.advance(f);
    spsa_run second = first;
    finish(f, second);
    expect_same(whole, second.best);
  }
}

TEST(Spsa, SeedsDiffer) {
  factors const start(5, 1.0);
  auto const a = spsa(quadratic{}, start, {.iterations = 5, .seed = 1});
  auto const b = spsa(quadratic{}, start, {.iterations = 5, .seed = 2});
  EXPECT_NE(a.factors, b.factors);
}

// Noise that is added cancels exactly where both sides draw the same.
TEST(Spsa, CommonRandomNumbersCancelAddedNoise) {
  factors const start(5, 1.0);
  spsa_settings settings{.iterations = 20};
  auto const quiet = spsa(quadratic{}, start, settings);
  auto const common = spsa(quadratic{.noise = 0.25}, start, settings);
  settings.has_common_random_numbers = false;
  auto const independent = spsa(quadratic{.noise = 0.25}, start, settings);
  for (std::size_t i = 0; i < start.size(); ++i) {
    // 20 steps, each of a difference that rounds by eps over 2c = 0.2 or less, times a below 0.03
    EXPECT_NEAR(common.factors[i], quiet.factors[i], 20 * 0.03 * 4 * 0x1p-52 / 0.1);
  }
  EXPECT_GT(std::abs(independent.factors[0] - quiet.factors[0]), 1e-3);
}

TEST(Spsa, LogarithmsKeepFactorsPositive) {
  factors const start(3, 1.0);
  auto const f = [](std::span<double const> x) {  // falls without end as factors go to 0
    for (double const v : x) EXPECT_GT(v, 0);
    return x[0] + x[1] + x[2];
  };
  spsa_settings const settings{.iterations = 300,
                               .step = {.scale = 1, .offset = 10, .exponent = 0.602},
                               .domain = {.is_logarithmic = true}};
  auto const found = spsa(f, start, settings);
  for (double const v : found.factors) {
    EXPECT_GT(v, 0);
    EXPECT_LT(v, 0.5);
  }
}

TEST(Spsa, ProjectionKeepsEveryEvaluationInTheDomain) {
  auto const f = [](std::span<double const> x) {
    for (double const v : x) {
      EXPECT_GE(v, 0.25);
      EXPECT_LE(v, 1);
    }
    return quadratic{.centre = 0}.exact(x);  // the minimum is outside
  };
  spsa_settings const settings{.iterations = 1000,
                               .step = {.scale = 0.5, .offset = 10, .exponent = 0.602},
                               .domain = {.low = 0.25, .high = 1}};
  auto const found = spsa(f, factors(4, 1.0), settings);
  EXPECT_EQ(found.status, status::all_iterations_done);
  for (double const v : found.factors) EXPECT_LT(v, 0.35);
}

TEST(Spsa, BlockedStepsAreUndone) {
  factors const start(4, 0.6);
  quadratic const f;
  spsa_settings settings{.iterations = 8,
                         .step = {.scale = 20, .offset = 0, .exponent = 0.602},  // far too large
                         .blocks_above = 0.0};
  auto const kept = spsa(f, start, settings);
  auto const& last = kept.history.back();
  EXPECT_EQ(kept.evaluations, 24);
  EXPECT_TRUE(std::any_of(kept.history.begin(), kept.history.end(),
                          [](auto const& r) { return r.is_blocked; }));
  EXPECT_LT(last.loss, 1);
  EXPECT_EQ(kept.history[0].factors, start);
  settings.blocks_above.reset();
  EXPECT_GT(spsa(f, start, settings).history.back().loss, 1e3);
}

TEST(Spsa, LargestChangeBoundsEveryStep) {
  spsa_settings const settings{.iterations = 20,
                               .step = {.scale = 50, .offset = 0, .exponent = 0.602},
                               .largest_change = 0.05};
  auto const found = spsa(quadratic{}, factors(4, 1.0), settings);
  for (auto const& r : found.history) EXPECT_LE(r.largest_change, 0.05 + 0x1p-52);
}

TEST(Spsa, AverageIsThatOfTheIterates) {
  factors const start(3, 1.0);
  spsa_settings settings{.iterations = 10};
  auto const iterates = spsa(quadratic{}, start, settings);
  settings.averages_from = 6;
  auto const averaged = spsa(quadratic{}, start, settings);
  for (std::size_t i = 0; i < 3; ++i) {
    double sum = 0;
    for (std::size_t k = 6; k < 10; ++k) sum += iterates.history[k].factors[i];
    EXPECT_EQ(averaged.factors[i], sum / 4);
  }
}

TEST(Spsa, StandardErrorIsThatOfTheDirections) {
  factors const start(3, 1.0);
  auto const one = spsa(quadratic{}, start, {.iterations = 1});
  EXPECT_TRUE(std::isnan(one.history[0].standard_error));
  quadratic const noisy{.noise = 0.3};
  auto const many = spsa(noisy, start, {.iterations = 1, .directions = 4000});
  // common noise: the mean of a pair has variance 0.09, and little from the curvature
  EXPECT_NEAR(many.history[0].standard_error, 0.3 / std::sqrt(4000.0), 0.3 / 4000 * 4);
}

TEST(Spsa, StopsWhenTheLossHasStalled) {
  factors const start(4, 1.0);
  spsa_settings settings{.iterations = 10000,
                         .step = {.scale = 0.5, .offset = 10, .exponent = 0.602}};
  settings.stop = {.window = 20, .least_gain = 1e-4};
  auto const found = spsa(quadratic{}, start, settings);
  EXPECT_EQ(found.status, status::stopped_early);
  EXPECT_LT(found.history.size(), 2000u);
  EXPECT_LT(quadratic{}.exact(found.factors), 1e-3);
  // by the rule as it is written
  auto const mean = [&](std::size_t first) {
    double sum = 0;
    for (std::size_t k = first; k < first + 20; ++k) sum += found.history[k].loss;
    return sum / 20;
  };
  EXPECT_LT(mean(found.history.size() - 40) - mean(found.history.size() - 20), 1e-4);
}

}  // namespace
}  // namespace ssm::optimize
