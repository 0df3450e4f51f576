// SPDX-License-Identifier: Apache-2.0
// spsa_errors_test.cpp: what SPSA refuses, and what becomes of a run that fails.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "ssm/optimize/choose_step.hpp"
#include "ssm/optimize/spsa.hpp"
#include "support/noisy_quadratic.hpp"

namespace ssm::optimize {
namespace {

using factors = std::vector<double>;
using quadratic = test::noisy_quadratic;

std::string message_of(auto const& call) {
  try {
    call();
  } catch (domain_error const& error) {
    return error.what();
  }
  return "nothing thrown";
}

TEST(Spsa, ANumberThatIsNotFiniteEndsTheRunAndKeepsTheIterate) {
  factors const start(3, 1.0);
  auto const f = [](std::span<double const> x) {
    return x[0] < 0.8 ? std::numeric_limits<double>::quiet_NaN() : quadratic{}.exact(x);
  };
  auto const found = spsa(f, start, {.iterations = 1000});
  EXPECT_EQ(found.status, status::not_finite);
  ASSERT_EQ(found.not_finite_at.size(), 3u);
  EXPECT_LT(found.not_finite_at[0], 0.8);
  EXPECT_TRUE(std::isnan(found.not_finite_loss));
  ASSERT_FALSE(found.history.empty());
  EXPECT_EQ(found.factors, found.history.back().factors);
  EXPECT_GE(found.factors[0], 0.8);
}

TEST(Spsa, WhatTheObjectiveThrowsLeavesTheRunAsItWas) {
  auto const f = [](std::span<double const>) -> double { throw std::runtime_error("no data"); };
  spsa_run run(factors{1, 2}, {});
  EXPECT_THROW(run.advance(f), std::runtime_error);
  EXPECT_EQ(run.iteration, 0);
  EXPECT_EQ(run.best.factors, (factors{1, 2}));
  EXPECT_EQ(run.best.status, status::running);
}

TEST(Spsa, BadSettingsAreRefusedByName) {
  auto const refuse = [](factors const& start, spsa_settings const& settings) {
    return message_of([&] { spsa(quadratic{}, start, settings); });
  };
  EXPECT_EQ(refuse({}, {}), "spsa: there are no factors, expected at least one");
  EXPECT_EQ(refuse({1, 0.0005}, {.domain = {.low = 0.001}}),
            "spsa: factor 1 starts at 0.00050000000000000001, below the clamp at 0.001");
  EXPECT_EQ(refuse({2}, {.domain = {.high = 1}}),
            "spsa: factor 0 starts at 2, above the clamp at 1");
  EXPECT_EQ(refuse({1}, {.domain = {.low = 1, .high = 1}}),
            "spsa: the clamp is [1, 1], expected low < high");
  EXPECT_EQ(refuse({0}, {.domain = {.is_logarithmic = true}}),
            "spsa: factor 0 starts at 0, expected more than 0 for logarithms");
  EXPECT_EQ(refuse({1, std::nan("")}, {}),
            "spsa: factor 1 starts at nan, expected a finite number");
  EXPECT_EQ(refuse({1}, {.perturbation = {.scale = 0, .exponent = 0.101}}),
            "spsa: perturbation has scale 0, expected a finite one above 0");
  EXPECT_EQ(refuse({1024}, {.perturbation = {.scale = 0x1p-60, .exponent = 0.101}}),
            "spsa: a perturbation of 8.6736173798840355e-19 does not move factor 0, which is at "
            "1024; expected a larger one");
  EXPECT_EQ(refuse({1}, {.directions = 0}), "spsa: directions is 0, expected at least 1");
  EXPECT_EQ(refuse({1}, {.stop = {.window = 1}}),
            "spsa: the window of early_stop is 1, expected 0 (never) or at least 2");
  EXPECT_EQ(message_of([] {
              choose_step([](std::span<double const>) { return 1.0; }, factors{1, 1}, {}, 0.5);
            }),
            "choose_step: the mean square slope of the objective at the start is 0, expected a "
            "finite one above 0");
}

}  // namespace
}  // namespace ssm::optimize
