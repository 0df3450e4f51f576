// SPDX-License-Identifier: Apache-2.0
// selective_scan_special_test.cpp: extreme inputs of selective_scan, and what it refuses.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "compiled/selective_scan.hpp"

#include "support/oracle.hpp"
#include "support/selective_scan_problem.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr selective_options plain{.D = false, .gate = false, .bias = false, .softplus = false};

/// Call f(policy) for every policy and instruction set.
template <class F>
void for_each_policy(F const& f) {
  auto const run = [&](char const* name, auto policy) {
    SCOPED_TRACE(name);
    f(policy);
  };
  run("sequential", sequential{});
  run("baseline", parallel{.instructions = instruction_set::baseline});
  run("avx2", parallel{.instructions = instruction_set::avx2});
  run("avx512", parallel{.instructions = instruction_set::avx512});
}

/// Short and long calls, with whole packs of states and with a rest.
template <class F>
void for_each_shape(F const& f) {
  for (index_t const length : {3, 40})
    for (index_t const states : {1, 5, 16}) {
      SCOPED_TRACE("length " + std::to_string(length) + ", states " + std::to_string(states));
      f(scan_shape{1, length, 19, states});
    }
}

TEST(SelectiveScanSpecial, StepSize0HoldsTheStateBitForBit) {
  for_each_shape([](scan_shape const& s) {
    auto p = random_selective<float>(s, 1, plain, 100);
    for (float& each : p.step_size) each = 0;
    for_each_policy([&](auto policy) {
      EXPECT_TRUE(has_same_bits(run_selective(policy, p).carry, p.initial));
    });
  });
}

// e^-1000 is no number: only the last drive is left.
TEST(SelectiveScanSpecial, HugeStepSizesForgetEverything) {
  for_each_shape([](scan_shape const& s) {
    auto p = random_selective<float>(s, 1, plain, 200);
    for (float& each : p.step_size) each = 1e6f;
    for_each_policy([&](auto policy) {
      auto const found = run_selective(policy, p);
      for_each_position(found.carry.extents(), [&](auto const& at) {
        auto const [b, c, n] = at.value;
        index_t const t = s.length - 1;
        EXPECT_EQ(found.carry(b, c, n), 1e6f * p.x(b, t, c) * p.B(b, t, 0, n));
      });
    });
  });
}

TEST(SelectiveScanSpecial, NegativeStepSizesAndPositiveEigenvaluesGrowAsTheFormulaSays) {
  for_each_shape([](scan_shape const& s) {
    for (float const sign : {-1.f, 1.f}) {  // of the step size; exponents are positive for both
      auto p = random_selective<float>(s, 1, plain, 300);
      for (float& each : p.step_size) each = sign * 3 * each;
      for (float& each : p.eigenvalue) each = -sign * each / (s.length > 8 ? 2 : 30);
      selective_truth const truth(converted_problem<double>(p));
      for_each_policy([&](auto policy) {
        auto const found = run_selective(policy, p);
        EXPECT_LE(worst_ratio(found.y, truth.y, truth.y_bound), 1);
        EXPECT_LE(worst_ratio(found.carry, truth.carry, truth.carry_bound), 1);
      });
    }
  });
}

// All terms are positive, so that no infinities cancel.
TEST(SelectiveScanSpecial, GrowthOverflowsToInfinityWithoutNaN) {
  for_each_shape([](scan_shape const& s) {
    auto p = random_selective<float>(s, 1, plain, 400);
    for (auto* each : {&p.x, &p.step_size})
      for (float& number : *each) number = ssm::abs(number) + 0.1f;
    for (auto* each : {&p.B, &p.C})
      for (float& number : *each) number = ssm::abs(number) + 0.1f;
    for (float& number : p.eigenvalue) number = 400;
    for (float& number : p.initial) number = 1;
    for_each_policy([&](auto policy) {
      auto const found = run_selective(policy, p);
      for (float const number : found.carry) EXPECT_EQ(number, infinity);
      for (float const number : found.y) EXPECT_FALSE(std::isnan(number));
      EXPECT_EQ(found.y(0, s.length - 1, 0), infinity);
    });
  });
}

TEST(SelectiveScanSpecial, EigenvalueZeroAddsUp) {
  for_each_shape([](scan_shape const& s) {
    auto p = random_selective<float>(s, 1, plain, 500);
    for (float& each : p.eigenvalue) each = 0;
    selective_truth const truth(converted_problem<double>(p));
    for_each_policy([&](auto policy) {
      auto const found = run_selective(policy, p);
      EXPECT_LE(worst_ratio(found.y, truth.y, truth.y_bound), 1);
      EXPECT_LE(worst_ratio(found.carry, truth.carry, truth.carry_bound), 1);
    });
  });
}

// With payload bits, which arithmetic on exponents could turn into a number.
TEST(SelectiveScanSpecial, NaNStaysInItsChannel) {
  float const nans[] = {std::numeric_limits<float>::quiet_NaN(),
                        std::bit_cast<float>(std::uint32_t{0x7fc001ff}),
                        std::bit_cast<float>(std::uint32_t{0xffffffff})};
  for_each_shape([&](scan_shape const& s) {
    for (float const nan : nans) {
      for (index_t const where : {0, 1, 2, 3}) {
        auto p = random_selective<float>(s, 1, {}, 600);
        auto const clean = p;
        index_t const c = 7;
        if (where == 0) p.x(0, 1, c) = nan;
        if (where == 1) p.step_size(0, 1, c) = nan;
        if (where == 2) p.eigenvalue(c, 0) = nan;
        if (where == 3) p.initial(0, c, 0) = nan;
        for_each_policy([&](auto policy) {
          auto found = run_selective(policy, p);
          auto const expected = run_selective(policy, clean);
          EXPECT_TRUE(std::isnan(found.y(0, s.length - 1, c))) << "where " << where;
          EXPECT_TRUE(std::isnan(found.carry(0, c, 0))) << "where " << where;
          for (index_t t = 0; t < s.length; ++t) found.y(0, t, c) = expected.y(0, t, c);
          for (index_t n = 0; n < s.states; ++n) found.carry(0, c, n) = expected.carry(0, c, n);
          EXPECT_TRUE(has_same_bits(found.y, expected.y)) << "where " << where;
          EXPECT_TRUE(has_same_bits(found.carry, expected.carry)) << "where " << where;
        });
      }
    }
  });
}

// One step of a tile is out of the range of the fast functions; the others must not notice.
TEST(SelectiveScanSpecial, StepsFarOutsideTheRangeOfTheFastFunctionsAreRight) {
  for_each_shape([](scan_shape const& s) {
    for (float const biased : {-200.f, -104.f, -90.f, -86.f, 86.f, 90.f, 200.f, 1e30f}) {
      auto p = random_selective<float>(s, 1, {.bias = false}, 700);
      auto const clean = p;
      p.step_size(0, s.length - 2, 3) = biased;
      auto exact = converted_problem<double>(p);
      exact.options.softplus = false;
      for (double& each : exact.step_size) each = ssm::softplus(each);
      selective_truth const truth(exact);
      for_each_policy([&](auto policy) {
        auto found = run_selective(policy, p);
        auto const expected = run_selective(policy, clean);
        for (index_t t = 0; t < s.length; ++t) {
          // The argument is exact and softplus right to 2 ulp, or to half a subnormal number.
          double const bound =
              1e-44 + 3 * truth.y_bound(0, t, 3) * double(std::numeric_limits<float>::epsilon());
          EXPECT_NEAR(found.y(0, t, 3), truth.y(0, t, 3), bound) << biased << " at " << t;
          found.y(0, t, 3) = expected.y(0, t, 3);
        }
        EXPECT_TRUE(has_same_bits(found.y, expected.y)) << biased;
      });
    }
  });
}

// Drives are infinite from then on, and all of one sign.
TEST(SelectiveScanSpecial, AnInfiniteStepOrInputGivesInfinityAndNoNaN) {
  for_each_shape([](scan_shape const& s) {
    for (bool const step : {true, false}) {
      auto p = random_selective<float>(s, 1, plain, 800);
      for (auto* each : {&p.B, &p.C})
        for (float& number : *each) number = ssm::abs(number) + 0.1f;
      p.x(0, 1, 4) = step ? 1.f : infinity;
      if (step) p.step_size(0, 1, 4) = infinity;
      for_each_policy([&](auto policy) {
        auto const found = run_selective(policy, p);
        for (index_t t = 1; t < s.length; ++t) EXPECT_EQ(found.y(0, t, 4), infinity) << t;
        for (index_t n = 0; n < s.states; ++n) EXPECT_EQ(found.carry(0, 4, n), infinity);
      });
    }
  });
}

}  // namespace
