// SPDX-License-Identifier: Apache-2.0
// The tests of the claims are tested: how often they reject what is true and what is not.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <optional>
#include <vector>

#include "claim.hpp"
#include "experiments.hpp"
#include "run_claim.hpp"
#include "run_control.hpp"
#include "statistics.hpp"

namespace ssm::theory {
namespace {

/// A normal sample of mean 1 and variance 0.04.
struct normal_sample {
  double operator()(random_stream const& stream) const { return 1 + 0.2 * stream.normal(0); }
};

/// An experiment that believes `exact` and must tell it from `alternative`.
experiment test_of(double exact, std::optional<double> printed, index_t samples) {
  return mean_experiment({.setting = "normal",
                          .method = "sum",
                          .exact = exact,
                          .printed = printed,
                          .variance = 0.04,
                          .cost = 10,
                          .samples = samples},
                         normal_sample{});
}

struct counts {
  int accepted = 0, rejected = 0;
  double power = 0;
};

constexpr int runs = 4000;

counts repeated(experiment const& e) {
  counts all;
  run_control run;
  run.threads = 1;
  for (int i = 0; i < runs; ++i) {
    run.seed = static_cast<std::uint64_t>(i);
    finding const f = e.run(run);
    all.accepted += f.accepted;
    all.rejected += f.rejected;
    all.power = f.power;
  }
  return all;
}

/// Binomial counts stay within 4.5 standard deviations of their mean but once in 100000 times.
void expect_binomial(int count, double probability) {
  double const mean = runs * probability;
  EXPECT_NEAR(count, mean, 4.5 * std::sqrt(mean * (1 - probability)) + 1) << "of " << runs;
}

TEST(MeanExperiment, RejectsAPrintedValueThatIsTrueAsOftenAsItsLevelSays) {
  expect_binomial(repeated(test_of(1.2, 1.0, 50)).rejected, level_of_printed);
}

TEST(MeanExperiment, RejectsAnExactValueThatIsTrueHardlyEver) {
  EXPECT_GE(repeated(test_of(1.0, 2.0, 50)).accepted, runs - 2);
}

TEST(MeanExperiment, RejectsAPrintedValueThatIsFalseAsOftenAsItsPowerSays) {
  for (double const power : {0.3, 0.8, 0.95}) {
    index_t const samples = samples_for_power(0.04, 0.1, level_of_printed, power);
    auto const all = repeated(test_of(1.0, 1.1, samples));
    EXPECT_NEAR(all.power, power, 0.05);
    expect_binomial(all.rejected, all.power);
  }
}

TEST(MeanExperiment, NoticesAnExactValueThatIsOffByFivePercent) {
  index_t const samples = samples_for_power(0.04, 0.05, level_of_exact, 0.9);
  expect_binomial(runs - repeated(test_of(1.05, 2.0, samples)).accepted, 0.9);
}

TEST(MeanExperiment, TellsATrueValueFromOneOffByFivePercentWithThePlannedPower) {
  auto const all = repeated(test_of(1.0, std::nullopt, 0));
  EXPECT_GE(all.power, planned_power);
  EXPECT_GE(all.accepted, runs - 2);
  expect_binomial(all.rejected, all.power);
}

TEST(MeanExperiment, IsDecisiveOnlyWithTheLeastPower) {
  run_control run;
  index_t const enough = samples_for_power(0.04, 0.1, level_of_printed, least_power);
  EXPECT_TRUE(test_of(1.0, 1.1, enough).run(run).decisive);
  EXPECT_FALSE(test_of(1.0, 1.1, enough - 1).run(run).decisive);
}

TEST(MeanExperiment, TakesAsManySamplesAsTheRunAsksFor) {
  run_control run;
  run.samples = 7;
  finding const f = test_of(1.0, 1.1, 1000).run(run);
  EXPECT_EQ(f.samples, 7);
  EXPECT_DOUBLE_EQ(f.standard_error, 0.2 / std::sqrt(7.0));
}

TEST(SamplesForPower, AreTheFewestThatKeepThePromise) {
  for (double const variance : {0.01, 1.0, 300.0}) {
    for (double const difference : {0.01, 0.2}) {
      for (double const level : {0.05, 1e-5}) {
        for (double const power : {0.5, 0.95, 0.9995}) {
          index_t const n = samples_for_power(variance, difference, level, power);
          auto const reached = [&](index_t samples) {
            return power_of_test(difference, std::sqrt(variance / static_cast<double>(samples)),
                                 level);
          };
          EXPECT_GE(reached(n), power) << variance << ' ' << difference << ' ' << level;
          // the formula leaves out the far tail, which adds a little at low power
          EXPECT_TRUE(n == 1 || reached(n - 1) < power + 1e-4) << n;
        }
      }
    }
  }
  EXPECT_THROW(samples_for_power(1, 0, 0.05, 0.9), domain_error);
  EXPECT_THROW(samples_for_power(-1, 1, 0.05, 0.9), domain_error);
  EXPECT_THROW(samples_for_power(1, 1, 0, 0.9), domain_error);
  EXPECT_THROW(samples_for_power(1, 1, 0.05, 1), domain_error);
}

TEST(TwoSidedCritical, IsTheTabulatedQuantile) {
  EXPECT_NEAR(two_sided_critical(0.05), 1.959963984540054, 1e-12);
  EXPECT_NEAR(two_sided_critical(1e-5), 4.417173413469022, 1e-12);
}

TEST(ComputedExperiment, ComparesWithinItsTolerance) {
  run_control run;
  computed_plan plan{
      .setting = "", .method = "", .value = 1.001, .exact = 1, .printed = 1.5, .tolerance = 0.002};
  finding f = computed_experiment(plan).run(run);
  EXPECT_TRUE(f.accepted && f.rejected && f.decisive);
  plan.tolerance = 0.0009;
  EXPECT_FALSE(computed_experiment(plan).run(run).accepted);
  plan.printed = 1.0015;
  EXPECT_FALSE(computed_experiment(plan).run(run).rejected);
}

TEST(BoundExperiment, NoticesARatioAboveTheBoundAndOneBelowTheTighter) {
  auto const largest = [](double factor) {
    run_control run;
    bound_plan const plan{.setting = "",
                          .method = "",
                          .alternative = 0.9,
                          .rounding = 1e-12,
                          .cost = 1,
                          .samples = 1000};
    return bound_experiment(plan,
                            [factor](random_stream const& s) { return factor * s.uniform(0); })
        .run(run);
  };
  EXPECT_TRUE(largest(1).accepted && largest(1).rejected);
  EXPECT_FALSE(largest(1.1).accepted);
  EXPECT_FALSE(largest(0.9).rejected);
}

TEST(Draw, GivesTheSameNumbersOnAnyNumberOfThreads) {
  auto const on = [](int threads) {
    run_control run;
    run.threads = threads;
    return draw(run, {1, 2}, 1000, 1e7, normal_sample{});  // many rounds
  };
  auto const alone = on(1);
  for (int const threads : {2, 3, 7}) EXPECT_EQ(on(threads), alone) << threads << " threads";
}

TEST(StreamOf, DiffersByClaimSettingMethodAndSeed) {
  run_control one, other_seed, other_claim;
  other_seed.seed = 2;
  other_claim.scope = "b";
  EXPECT_EQ(stream_of(one, "s", "m").id, stream_of(one, "s", "m").id);
  EXPECT_NE(stream_of(one, "s", "m").id, stream_of(one, "t", "m").id);
  EXPECT_NE(stream_of(one, "s", "m").id, stream_of(one, "s", "n").id);
  EXPECT_NE(stream_of(one, "s", "m").id, stream_of(other_claim, "s", "m").id);
  EXPECT_NE(stream_of(one, "s", "m").seed, stream_of(other_seed, "s", "m").seed);
}

claim three_experiments() {
  claim c;
  c.recorded = verdict::refuted;
  for (int i = 0; i < 3; ++i) c.experiments.push_back(test_of(1.0, 1.5, 1000));
  return c;
}

TEST(RunClaim, KeepsWhatWasFoundBeforeItWasStopped) {
  std::atomic<bool> interrupted{false};
  run_control run;
  run.interrupted = &interrupted;
  run.on_progress = [&](double done) { interrupted = done > 15000; };  // in the second
  result const r = run_claim(three_experiments(), run);
  EXPECT_EQ(r.findings.size(), 1u);
  EXPECT_FALSE(r.is_complete());
  EXPECT_EQ(r.reached, verdict::undecided);
  EXPECT_FALSE(r.as_recorded());
}

TEST(RunClaim, StopsAtTheDeadlineAndRunsThroughWithoutOne) {
  run_control run;
  EXPECT_EQ(run_claim(three_experiments(), run).reached, verdict::refuted);
  EXPECT_EQ(run.done(), 3 * 10 * 1000);
  run.deadline = run_control::clock::now() - std::chrono::seconds(1);
  EXPECT_TRUE(run_claim(three_experiments(), run).findings.empty());
}

// -------------------------------------------------------------------------------------------------
// The verdict
// -------------------------------------------------------------------------------------------------

finding rejecting(bool alternative_is_printed) {
  finding f;
  f.alternative_is_printed = alternative_is_printed;
  f.accepted = f.rejected = f.decisive = true;
  return f;
}

finding const tells_printed = rejecting(true);
finding const tells_wrong = rejecting(false);

verdict verdict_on(std::vector<finding> const& findings, verdict recorded = verdict::undecided,
                   std::size_t experiments = 0) {
  claim c;
  c.recorded = recorded;
  c.experiments.resize(std::max(experiments, findings.size()));
  return decide(c, findings);
}

TEST(Decide, RefutesWhereThePrintedValueIsRejected) {
  EXPECT_EQ(verdict_on({tells_printed}), verdict::refuted);
  EXPECT_EQ(verdict_on({tells_wrong, tells_printed}), verdict::refuted);
}

TEST(Decide, HoldsWhereOnlyWrongValuesAreRejected) {
  EXPECT_EQ(verdict_on({tells_wrong, tells_wrong}), verdict::holds);
  EXPECT_EQ(verdict_on({tells_wrong}, verdict::holds_as_bound), verdict::holds_as_bound);
}

TEST(Decide, DoesNotTakeItsVerdictFromTheRecord) {
  EXPECT_EQ(verdict_on({tells_printed}, verdict::holds), verdict::refuted);
  EXPECT_EQ(verdict_on({tells_printed}, verdict::holds_as_bound), verdict::refuted);
  EXPECT_EQ(verdict_on({tells_wrong}, verdict::refuted), verdict::holds);
}

TEST(Decide, IsUndecidedWhereAValueContradictsTheExactForm) {
  finding contradiction = tells_printed;
  contradiction.accepted = false;
  EXPECT_EQ(verdict_on({tells_printed, contradiction}, verdict::refuted), verdict::undecided);
  contradiction.decisive = false;
  EXPECT_EQ(verdict_on({tells_printed, contradiction}, verdict::refuted), verdict::undecided);
}

TEST(Decide, IsUndecidedWhereNoTestHasPower) {
  finding weak = tells_printed;
  weak.decisive = false;
  EXPECT_EQ(verdict_on({weak, weak}, verdict::refuted), verdict::undecided);
  EXPECT_EQ(verdict_on({}), verdict::undecided);
  EXPECT_EQ(verdict_on({weak, tells_printed}, verdict::refuted), verdict::refuted);
}

TEST(Decide, IsUndecidedWhereATestWithPowerDoesNotReject) {
  finding kept = tells_printed;
  kept.rejected = false;
  EXPECT_EQ(verdict_on({tells_printed, kept}, verdict::refuted), verdict::undecided);
}

TEST(Decide, IsUndecidedWhereTheRunWasStopped) {
  EXPECT_EQ(verdict_on({tells_printed}, verdict::refuted, 2), verdict::undecided);
}

}  // namespace
}  // namespace ssm::theory
