// SPDX-License-Identifier: Apache-2.0
// calibrate_test.cpp: factors out of model, data and loss; batches, splits, and what is refused.
#include "ssm/calibrate.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "support/calibration_problem.hpp"

namespace ssm {
namespace {

using optimize::adam_settings;
using optimize::spsa_settings;
using test::toy_data;
using test::toy_loss;
using test::toy_loss_and_gradient;
using test::toy_model;
using test::toy_start;

template <class Error>
std::string message_of(auto const& call) {
  try {
    call();
  } catch (Error const& error) {
    return error.what();
  }
  return "nothing thrown";
}

TEST(Calibrate, FindsTheFactorsOfAKnownModel) {
  toy_model const model;
  spsa_settings const settings{.iterations = 400,
                               .step = {.offset = 40, .exponent = 0.602},
                               .domain = {.is_logarithmic = true}};
  auto const by_spsa =
      calibrate(model, toy_data(), toy_loss, toy_start(), settings, {.distance = 0.7});
  auto const by_adam = calibrate(model, toy_data(), toy_loss_and_gradient, toy_start(),
                                 adam_settings{.iterations = 400, .domain = {.low = 0.001}});
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_NEAR(by_spsa.factors.numbers()[i], model.best[i], 0.01);
    EXPECT_NEAR(by_adam.factors.numbers()[i], model.best[i], 0.01);
    EXPECT_EQ(by_spsa.factors.numbers()[i], by_spsa.found().factors[i]);
  }
  EXPECT_EQ(by_spsa.model, fingerprint_of(model));
  EXPECT_EQ(by_spsa.data, fingerprint_of(toy_data()));
}

TEST(Calibrate, BatchesAreSharedByBothSidesAndChangeWithTheIteration) {
  // The loss is the sum of what was drawn: any difference between the two sides is one of batches.
  auto const loss = [](toy_model const&, scaling_factors<double> const& f, double weight) {
    return weight + 0 * f.numbers()[0];
  };
  auto const c = calibrate(toy_model{}, toy_data(), loss, toy_start(),
                           spsa_settings{.iterations = 30, .domain = {.low = 0.001}}, {.batch = 2});
  std::set<double> means;
  for (auto const& r : c.found().history) {
    EXPECT_EQ(r.largest_change, 0);
    means.insert(r.loss);
  }
  EXPECT_GT(means.size(), 5u);
}

TEST(Calibrate, ResultsDoNotDependOnHowManyCompute) {
  spsa_settings const settings{.iterations = 10, .domain = {.low = 0.001}, .directions = 2};
  auto const one = calibrate(toy_model{}, toy_data(), toy_loss, toy_start(), settings,
                             {.batch = 3, .threads = 1});
  auto const four = calibrate(toy_model{}, toy_data(), toy_loss, toy_start(), settings,
                              {.batch = 3, .threads = 4});
  EXPECT_EQ(one.factors, four.factors);
}

TEST(Calibrate, ResumedCalibrationHasTheBitsOfAnUninterruptedOne) {
  spsa_settings settings{.iterations = 30, .domain = {.is_logarithmic = true}};
  auto const whole = calibrate(toy_model{}, toy_data(), toy_loss, toy_start(), settings);
  settings.iterations = 11;
  auto part = calibrate(toy_model{}, toy_data(), toy_loss, toy_start(), settings);
  auto& run = std::get<optimize::spsa_run>(part.run);
  run.settings.iterations = 30;
  run.best.status = optimize::status::running;
  resume(toy_model{}, toy_data(), toy_loss, part);
  EXPECT_EQ(part.factors, whole.factors);
  EXPECT_EQ(part.found().evaluations, whole.found().evaluations);
}

TEST(Calibrate, AnotherModelOrOtherDataAreRefused) {
  spsa_settings const settings{.iterations = 2, .domain = {.low = 0.001}};
  auto c = calibrate(toy_model{}, toy_data(), toy_loss, toy_start(), settings);
  toy_model const other{{0.5, 2.5}};
  EXPECT_NO_THROW(c.factors_for(toy_model{}));
  EXPECT_EQ(message_of<checkpoint_error>([&] { c.factors_for(other); }),
            "calibration: it is for the model " + fingerprint_of(toy_model{}) + ", this one is " +
                fingerprint_of(other));
  EXPECT_NE(message_of<checkpoint_error>([&] {
              resume(other, toy_data(), toy_loss, c);
            }).find("begun for the model"),
            std::string::npos);
  calibration_set<double> const little({1, 2});
  EXPECT_NE(message_of<checkpoint_error>([&] {
              resume(toy_model{}, little, toy_loss, c);
            }).find("begun for the data"),
            std::string::npos);
  EXPECT_EQ(
      message_of<domain_error>([&] { resume(toy_model{}, toy_data(), toy_loss_and_gradient, c); }),
      "calibrate: SPSA has a loss with a gradient, expected one without");
}

TEST(Calibrate, DomainsThatHoldNoFactorsAreRefused) {
  EXPECT_EQ(message_of<domain_error>(
                [] { calibrate(toy_model{}, toy_data(), toy_loss, toy_start(), spsa_settings{}); }),
            "calibrate: the domain begins at -inf, expected more than 0, or logarithms, for "
            "linear factors");
}

TEST(Calibrate, LossThatIsNotFiniteIsReportedWithItsFactors) {
  auto const loss = [](toy_model const& m, scaling_factors<double> const& f, double w) {
    return f.numbers()[0] < 0.8 ? std::numeric_limits<double>::infinity() : toy_loss(m, f, w);
  };
  auto const c = calibrate(toy_model{}, toy_data(), loss, toy_start(),
                           spsa_settings{.iterations = 1000, .domain = {.low = 0.001}});
  EXPECT_EQ(c.found().status, optimize::status::not_finite);
  EXPECT_LT(c.found().not_finite_at.at(0), 0.8);
  EXPECT_GE(c.factors.numbers()[0], 0.8);
}

// Steps that are far too long end a run; what it had found by then is kept.
TEST(Calibrate, FactorsThatOverflowAreReported) {
  auto const c = calibrate(toy_model{}, toy_data(), toy_loss, toy_start(),
                           spsa_settings{.iterations = 1000,
                                         .step = {.scale = 1e4, .offset = 10, .exponent = 0.602},
                                         .domain = {.is_logarithmic = true}});
  EXPECT_EQ(c.found().status, optimize::status::not_finite);
  EXPECT_FALSE(c.found().not_finite_at.empty());
  c.factors.require_valid();
}

TEST(Calibrate, SplitPutsEachExampleOnOneSide) {
  std::vector<int> all(20);
  std::iota(all.begin(), all.end(), 0);
  auto const parts = split(all, 5, 7);
  auto const here = parts.calibration.examples();
  EXPECT_EQ(here.size(), 15u);
  EXPECT_TRUE(std::is_sorted(here.begin(), here.end()));
  int aside = 190 - std::accumulate(here.begin(), here.end(), 0);
  auto const number = [](int, scaling_factors<double> const&, int example) {
    return static_cast<double>(example);
  };
  auto const judged = held_out_loss(0, parts.held_out, number, toy_start());
  EXPECT_EQ(judged.examples, 5);
  EXPECT_NEAR(judged.loss, aside / 5.0, 1e-13);
  EXPECT_THROW(split(all, 20, 7), domain_error);
  EXPECT_THROW(split(all, 0, 7), domain_error);
}

TEST(Calibrate, HeldOutLossHasItsStandardError) {
  held_out_set<double> const data({1, 2, 3, 6});
  auto const number = [](int, scaling_factors<double> const&, double example) { return example; };
  auto const judged = held_out_loss(0, data, number, toy_start());
  EXPECT_DOUBLE_EQ(judged.loss, 3);
  EXPECT_DOUBLE_EQ(judged.standard_error, std::sqrt(14.0 / 3 / 4));  // squares 4 + 1 + 0 + 9
}

}  // namespace
}  // namespace ssm
