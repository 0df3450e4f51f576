// SPDX-License-Identifier: Apache-2.0
// step_size_test.cpp: the rule that makes step sizes, its slope, and its limits.
#include "ssm/step_size.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "support/oracle.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

TEST(StepSize, IsSoftplusOfTheProjectionWithinTheLimits) {
  step_size_rule<double> const plain{.softplus = false}, soft{},
      limited{.softplus = true, .limits = {{0.25, 0.75}}};
  for (double const p : {-30.0, -2.0, -1.0, 0.0, 0.5, 40.0}) {
    EXPECT_EQ(plain(p), p);
    EXPECT_EQ(soft(p), softplus(p));
    EXPECT_EQ(limited(p), std::min(std::max(softplus(p), 0.25), 0.75));
  }
}

TEST(StepSize, SlopeIsThatOfDifferencesIn50DigitsAndZeroWhereALimitCuts) {
  digits50 const h("1e-16");
  for (bool const is_soft : {false, true}) {
    for (bool const is_limited : {false, true}) {
      step_size_rule<digits50> rule{.softplus = is_soft};
      if (is_limited) rule.limits = step_limits<digits50>{digits50("0.3"), digits50("0.7")};
      for (double const p : {-4.0, -1.0, -0.5, 0.1, 0.31, 0.6, 0.9, 3.0}) {
        digits50 const at(p);
        digits50 const slope = (rule(at + h) - rule(at - h)) / (2 * h);
        EXPECT_LE(abs(rule.slope(at) - slope), digits50("1e-30")) << p;
        bool const cut =
            rule.limits && (rule(at) == rule.limits->smallest || rule(at) == rule.limits->largest);
        EXPECT_EQ(rule.slope(at) == 0, cut) << p;
      }
    }
  }
}

TEST(StepSize, LimitThatIsJustReachedDoesNotCut) {
  step_size_rule<float> const rule{.softplus = false, .limits = {{0.25f, 0.5f}}};
  EXPECT_EQ(rule.slope(0.25f), 1);
  EXPECT_EQ(rule.slope(0.5f), 1);
  EXPECT_EQ(rule.slope(0.125f), 0);
  EXPECT_EQ(rule.slope(0.75f), 0);
}

TEST(StepSize, NaNPassesThroughAndInfinityEndsAtTheLimit) {
  float const infinity = std::numeric_limits<float>::infinity(),
              nan = std::numeric_limits<float>::quiet_NaN();
  step_size_rule<float> const soft{}, limited{.softplus = true, .limits = {{0.25f, 0.5f}}};
  EXPECT_NE(soft(nan), soft(nan));
  EXPECT_NE(limited(nan), limited(nan));
  EXPECT_EQ(soft(infinity), infinity);
  EXPECT_EQ(soft(-infinity), 0);
  EXPECT_EQ(limited(infinity), 0.5f);
  EXPECT_EQ(limited(-infinity), 0.25f);
}

TEST(StepSize, LimitsMustBeFiniteAndInOrder) {
  auto const message = [](float smallest, float largest) {
    step_size_rule<float> const rule{.softplus = true, .limits = {{smallest, largest}}};
    return message_of<shape_error>([&] { require_step_limits(rule, "limits"); });
  };
  float const infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(message(0, 1), "no exception");
  EXPECT_EQ(message(0.5f, 0.5f), "no exception");
  EXPECT_EQ(message(1, 0), "limits are [1, 0], expected finite numbers, the smaller one first");
  EXPECT_EQ(message(0, infinity),
            "limits are [0, inf], expected finite numbers, the smaller one first");
  EXPECT_EQ(message(-infinity, 0),
            "limits are [-inf, 0], expected finite numbers, the smaller one first");
  EXPECT_NE(message(0, std::numeric_limits<float>::quiet_NaN()), "no exception");
  EXPECT_EQ(message_of<shape_error>([] { require_step_limits(step_size_rule<float>{}, ""); }),
            "no exception");
}

}  // namespace
