// SPDX-License-Identifier: Apache-2.0
// published_spsa_test.cpp: the published schedules do what they are documented to do, defects too.
#include "ssm/optimize/published_spsa.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

namespace ssm::optimize {
namespace {

using factors = std::vector<double>;

double bowl(std::span<double const> x) {
  double sum = 0;
  for (double const v : x) sum += (v - 0.5) * (v - 0.5) / 2;
  return sum;
}

TEST(PublishedSpsa, SchedulesAreThoseOfTheScripts) {
  auto const& p = published::modulation_perplexity_mamba;
  EXPECT_EQ(p.iterations, 30);
  EXPECT_NEAR(p.perturbation(29), 0.0712, 1e-4);  // 0.1/30^0.1
  EXPECT_NEAR(p.step(29), 0.001 * std::cos(29 * 3.14159265358979 / 198), 1e-15);
  EXPECT_EQ(published::paper.step(49), 0.001);
  EXPECT_EQ(published::paper.perturbation(49), 0.1);
  EXPECT_EQ(published::paper.low, 0.001);
  for (auto const& schedule : published::all) {
    auto const start = published_start(schedule, 48, 3);
    EXPECT_EQ(start, published_start(schedule, 48, 3));
    auto const [low, high] = std::minmax_element(start.begin(), start.end());
    EXPECT_GE(*low, schedule.start_low) << schedule.name;
    EXPECT_LE(*high, schedule.start_high) << schedule.name;
    if (schedule.start_low < schedule.low) continue;
    auto const end = published_spsa(schedule, bowl, bowl, start, 3);
    EXPECT_EQ(std::ssize(end.found.history), schedule.iterations) << schedule.name;
    EXPECT_EQ(end.found.evaluations, schedule.iterations * (schedule.keeps_best_of_three ? 3 : 2))
        << schedule.name;
  }
}

// One factor at its bound, loss x: one side of the difference is clipped away, and the estimate is
// half of the slope 1.
TEST(PublishedSpsa, DividesByThePerturbationThatItHasClipped) {
  auto schedule = published::paper;
  auto const loss = [](std::span<double const> x) { return -x[0]; };
  auto const step = [&](double from) {
    auto const end = published_spsa(schedule, loss, loss, factors{from}, 1, {.iterations = 1});
    return end.found.factors[0] - from;
  };
  EXPECT_NEAR(step(0.5), 0.001, 1e-15);
  EXPECT_NEAR(step(0.001), 0.0005, 1e-15);
}

// Selection losses above the calibration losses: every iteration moves each factor by c.
TEST(PublishedSpsa, BestOfThreeIsARandomWalkWhereTestLossesAreLarger) {
  auto schedule = published::modulation_perplexity_mamba2;
  auto const test = [](std::span<double const> x) { return bowl(x) + 5; };
  auto const end = published_spsa(schedule, bowl, test, factors(8, 0.9), 4);
  for (auto const& r : end.found.history) EXPECT_NEAR(r.largest_change, r.perturbation, 1e-15);
  auto const fair = published_spsa(schedule, bowl, bowl, factors(8, 0.9), 4);
  EXPECT_LT(fair.found.history.back().largest_change, 0.09);
}

TEST(PublishedSpsa, ReportsTheCalibrationLossOfThePlusSide) {
  double last_plus = 0;
  int calls = 0;
  auto const counted = [&](std::span<double const> x) {
    if (calls++ % 2 == 0) last_plus = bowl(x);
    return bowl(x);
  };
  auto const end = published_spsa(published::paper, counted, bowl, factors(4, 0.9), 4);
  EXPECT_EQ(end.reported, last_plus);
  EXPECT_NE(end.reported, bowl(end.found.factors));
}

TEST(PublishedSpsa, ANumberThatIsNotFiniteEndsTheRun) {
  auto const f = [](std::span<double const> x) { return std::log(x[0] - 0.45); };
  auto const end = published_spsa(published::paper, f, f, factors{0.5}, 1);
  EXPECT_EQ(end.found.status, status::not_finite);
  EXPECT_EQ(end.found.not_finite_at.size(), 1u);
}

}  // namespace
}  // namespace ssm::optimize
