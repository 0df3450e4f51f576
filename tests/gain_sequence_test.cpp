// SPDX-License-Identifier: Apache-2.0
// gain_sequence_test.cpp: values of gains, and which of them SPSA accepts.
#include "ssm/optimize/gain_sequence.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <string>

namespace ssm::optimize {
namespace {

TEST(GainSequence, IsSpallsWithHisKFromOne) {
  gain_sequence const a{.scale = 0.16, .offset = 50, .exponent = 0.602};
  for (index_t const k : {0, 1, 99, 100000}) {
    double const expected = 0.16 / std::pow(static_cast<double>(k) + 51, 0.602);
    EXPECT_NEAR(a(k), expected, 16 * 0x1p-52 * expected) << k;  // e^(-0.602 log k), |log| < 12
  }
}

TEST(GainSequence, CosineHasItsPeriod) {
  gain_sequence const step{.scale = 0.001, .cosine_period = 396};
  EXPECT_EQ(step(0), 0.001);
  for (index_t const k : {1, 29, 49, 99, 150}) {
    double const expected = 0.001 * std::cos(static_cast<double>(k) * std::numbers::pi / 198);
    EXPECT_NEAR(step(k), expected, 0.001 * 4 * 0x1p-52) << k;
  }
}

gain_sequence step(double exponent) {
  return {.scale = 0.1, .offset = 10, .exponent = exponent};
}
gain_sequence perturbation(double exponent) {
  return {.scale = 0.1, .exponent = exponent};
}

TEST(GainSequence, TheUsualOnesAndTheFastestConverge) {
  EXPECT_NO_THROW(require_convergent(step(0.602), perturbation(0.101)));
  EXPECT_NO_THROW(require_convergent(step(1), perturbation(1.0 / 6)));
}

TEST(GainSequence, WhatDoesNotConvergeIsRefusedByName) {
  auto const message = [](gain_sequence const& a, gain_sequence const& c) {
    try {
      require_convergent(a, c);
    } catch (domain_error const& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  auto const c = perturbation(0.101);
  EXPECT_EQ(message(step(0), c), "spsa: step has exponent 0, expected one in (0, 1]");
  EXPECT_EQ(message(step(1.25), c), "spsa: step has exponent 1.25, expected one in (0, 1]");
  EXPECT_EQ(message(step(0.602), perturbation(0)),
            "spsa: perturbation has exponent 0, expected more than 0");
  EXPECT_EQ(message(step(0.5), perturbation(0.125)),
            "spsa: exponents of step and perturbation differ by 0.375, expected more than 1/2");
  EXPECT_EQ(message(step(0.75), perturbation(0.0625)),
            "spsa: exponent of perturbation is 0.0625, expected from 0.125 to less than 0.375, "
            "a sixth and half of the step's");
  auto zero = c;
  zero.scale = 0;
  EXPECT_EQ(message(step(0.602), zero),
            "spsa: perturbation has scale 0, expected a finite one above 0");
  auto cosine = step(0.602);
  cosine.cosine_period = 396;
  EXPECT_NE(message(cosine, c).find("has a cosine"), std::string::npos);
  auto before = step(0.602);
  before.offset = -1;
  EXPECT_NE(message(before, c).find("has offset -1"), std::string::npos);
}

}  // namespace
}  // namespace ssm::optimize
