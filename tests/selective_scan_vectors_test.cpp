// SPDX-License-Identifier: Apache-2.0
// selective_scan_vectors_test.cpp: selective_scan and its gradient against results that were
// computed elsewhere, in float64.
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <string>

#include "compiled/selective_scan.hpp"
#include "support/selective_scan_vectors.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

/// Call f(name, policy) for every policy and instruction set.
template <class F>
void for_each_policy(F const& f) {
  f("sequential", sequential{});
  f("chunked", chunked{7});
  f("baseline", parallel{.instructions = instruction_set::baseline});
  f("avx2", parallel{.instructions = instruction_set::avx2});
  f("avx512", parallel{.instructions = instruction_set::avx512});
}

template <class F>
void for_each_case_and_policy(F const& f) {
  auto const file = operator_vectors();
  auto const cases = operator_cases(file, "selective_scan");
  ASSERT_EQ(cases.size(), 5u);
  for (operator_case const& each : cases) {
    for_each_policy([&](char const* name, auto policy) {
      SCOPED_TRACE(each.name() + ", " + name);
      f(each, policy);
    });
  }
}

TEST(SelectiveScanVectors, InDoubleAreRightTo12Digits) {
  for_each_case_and_policy([](operator_case const& each, auto policy) {
    auto const p = problem_of<double>(each);
    auto const found = run_selective(policy, p);
    EXPECT_LE(relative_error(found.y, each.read<double, 3>("out.y")), 1e-12);
    EXPECT_LE(relative_error(found.carry, each.read<double, 3>("out.final_state")), 1e-12);
  });
}

TEST(SelectiveScanVectors, GradientsInDoubleAreRightTo12Digits) {
  for_each_case_and_policy([](operator_case const& each, auto policy) {
    auto const p = problem_of<double>(each);
    auto found = run_selective_vjp(policy, p);
    auto expected = gradients_of(each, p);
    if (!each.contains("grad.h0")) expected.initial = found.initial;  // no initial state, no word
    for_each_gradient(
        p.options,
        [&](char const* name, auto const& f, auto const& e) {
          EXPECT_LE(relative_error(f, e), 1e-12) << name;
        },
        found, expected);
  });
}

TEST(SelectiveScanVectors, InFloatAreWithinTheBound) {
  double worst = 0, largest_bound = 0;
  for_each_case_and_policy([&](operator_case const& each, auto policy) {
    selective_truth const truth(problem_of<double>(each));
    auto const y = each.read<double, 3>("out.y"), carry = each.read<double, 3>("out.final_state");
    auto const found = run_selective(policy, problem_of<float>(each));
    double const of_y = worst_ratio(found.y, y, truth.y_bound),
                 of_carry = worst_ratio(found.carry, carry, truth.carry_bound);
    EXPECT_LE(of_y, 1) << "y";
    EXPECT_LE(of_carry, 1) << "final state";
    worst = std::max({worst, of_y, of_carry});
    double largest = 0;
    for (double const value : y) largest = std::max(largest, ssm::abs(value));
    for (double const bound : truth.y_bound) {
      largest_bound = std::max(largest_bound, bound / largest);
    }
  });
  std::cout << "y and final states in float: the bound is at most " << largest_bound
            << " eps of the largest |y|; the largest error is " << worst << " of its bound\n";
}

TEST(SelectiveScanVectors, GradientsInFloatAreWithinTheBound) {
  double largest_bound = 0;
  worst_gradient worst;
  for_each_case_and_policy([&](operator_case const& each, auto policy) {
    auto const exact = problem_of<double>(each);
    auto expected = gradients_of(each, exact);
    if (!each.contains("grad.h0")) expected.initial = run_selective_vjp(policy, exact).initial;
    selective_gradient_bounds bounds(exact);
    auto found = run_selective_vjp(policy, problem_of<float>(each));
    auto const here = worst_of(exact.options, found, expected, bounds);
    EXPECT_LE(here.ratio, 1) << here.name;
    if (here.ratio > worst.ratio) worst = here;
    largest_bound = std::max(largest_bound, bounds.roundings);
  });
  std::cout << "gradients in float: the bound is at most " << largest_bound
            << " eps of the sum of terms; the largest error is " << worst.ratio
            << " of its bound, of " << worst.name << '\n';
}

}  // namespace
