// SPDX-License-Identifier: Apache-2.0
// selective_scan_test.cpp: Mamba's operator against its formula, in odd sizes, with every option,
// in pieces and over long times.
#include "compiled/selective_scan.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iomanip>
#include <iostream>
#include <string>

#include "support/oracle.hpp"
#include "support/selective_scan_problem.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

/// The largest error of y and of the final state, as a multiple of its bound.
template <class Policy, class T, class W>
double error_of(Policy policy, selective_problem<T> const& p, selective_truth<W> const& truth) {
  auto const found = run_selective(policy, p);
  return std::max(worst_ratio(found.y, truth.y, truth.y_bound),
                  worst_ratio(found.carry, truth.carry, truth.carry_bound));
}

/// Every policy and every instruction set is within the bound; returns the largest error.
template <class W, class T>
double expect_right(selective_problem<T> const& p) {
  selective_truth const truth(converted_problem<W>(p));
  double worst = 0;
  auto const check = [&](char const* name, auto policy) {
    double const error = error_of(policy, p, truth);
    EXPECT_LE(error, 1) << name << ", " << p.name();
    worst = std::max(worst, error);
  };
  check("sequential", sequential{});
  check("chunked", chunked{7});
  check("baseline", parallel{.instructions = instruction_set::baseline});
  check("avx2", parallel{.instructions = instruction_set::avx2});
  check("avx512", parallel{.instructions = instruction_set::avx512});
  return worst;
}

TEST(SelectiveScan, IsWithinTheBoundWithEveryCombinationOfOptions) {
  double worst = 0;
  for (unsigned bits = 0; bits < selective_options::combinations; ++bits) {
    auto const options = selective_options::of_bits(bits);
    worst = std::max(worst, expect_right<double>(random_selective<float>({2, 11, 6, 5}, 2, options,
                                                                         100 + 20 * bits)));
  }
  std::cout << "float: the largest error is " << worst << " of its bound\n";
}

TEST(SelectiveScan, InDoubleIsWithinTheBoundOf50Digits) {
  double worst = 0;
  for (unsigned bits = 0; bits < selective_options::combinations; bits += 21) {
    auto const options = selective_options::of_bits(bits);
    worst = std::max(worst, expect_right<digits50>(random_selective<double>(
                                {1, bits % 2 == 0 ? 9 : 3, 3, 2}, 3, options, 200 + 20 * bits)));
  }
  std::cout << "double: the largest error is " << worst << " of its bound\n";
}

// Each extent goes through all its values, groups where they divide the channels.
TEST(SelectiveScan, IsWithinTheBoundInOddSizes) {
  index_t const lengths[] = {1, 2, 7, 8, 9, 31, 32, 33, 65}, batches[] = {1, 3};
  index_t case_number = 0;
  for (index_t const channels : {1, 3, 15, 16, 17, 64, 65, 130})
    for (index_t const states : {1, 2, 4, 7, 8, 16, 17, 33, 64, 100}) {
      index_t const i = case_number++, groups = 1 + i % 3;
      auto options = selective_options::of_bits(static_cast<unsigned>(37 * i) % 512);
      scan_shape const s{batches[i % 2], lengths[i % 9], channels, states};
      auto const seed = static_cast<std::uint64_t>(300 + 20 * i);
      expect_right<double>(
          random_selective<float>(s, channels % groups == 0 ? groups : 1, options, seed));
      if (i % 7 != 0) continue;
      expect_right<long double>(
          random_selective<double>(s, channels % groups == 0 ? groups : 1, options, seed));
    }
}

TEST(SelectiveScan, OfNothingIsNothing) {
  for (scan_shape const& s :
       {scan_shape{0, 5, 3, 2}, {2, 0, 3, 2}, {2, 5, 0, 2}, {2, 9, 3, 0}, {2, 1, 3, 0}}) {
    auto const p = random_selective<float>(s, 1, selective_options::all(), 400);
    expect_right<double>(p);
    EXPECT_TRUE(s.length > 0 || has_same_bits(run_selective(parallel{}, p).carry, p.initial));
  }
}

/// y of steps [first, first + count) of a problem, whose state is `carry`.
template <class Policy>
void run_part(Policy policy, selective_problem<float> const& p, index_t first, index_t count,
              tensor<float, 3>& carry, tensor<float, 3>& y) {
  auto in = p.inputs();
  auto const part = [&](auto& view) {
    if (view.data_handle() != nullptr) view = view.slice(1, first, count);
  };
  part(in.x), part(in.step_size), part(in.gate), part(in.B), part(in.C), part(in.sequence);
  selective_scan(policy, in, carry, y.view().slice(1, first, count));
}

double largest_of(tensor<float, 3> const& numbers) {
  double largest = 0;
  for (float const each : numbers) largest = std::max(largest, ssm::abs(double(each)));
  return largest;
}

/// The largest difference, relative to the largest magnitude.
double difference(tensor<float, 3> const& found, tensor<float, 3> const& expected) {
  tensor<float, 3> const scale(
      expected.extents(),
      static_cast<float>(largest_of(expected) / 1.01 / std::numeric_limits<float>::epsilon()));
  return worst_ratio(found, expected, scale);
}

TEST(SelectiveScan, SplitAnywhereEqualsTheWhole) {
  auto const p = random_selective<float>({2, 130, 19, 16}, 1, {.linear = true, .step = true}, 500);
  auto const whole = run_selective(parallel{}, p);
  random_stream const random{501};
  for (index_t i = 0; i < 100; ++i) {
    auto const cut = static_cast<index_t>(random.uniform(i) * 130);
    auto carry = p.initial;
    auto y = poisoned<float>({2, 130, 19});
    run_part(parallel{}, p, 0, cut, carry, y);
    run_part(parallel{}, p, cut, 130 - cut, carry, y);
    EXPECT_LE(difference(y, whole.y), 1e-6) << "cut at " << cut;
    EXPECT_LE(difference(carry, whole.carry), 1e-6) << "cut at " << cut;
  }
}

// A prompt in chunks, then token by token, with all factors of the spectrum.
TEST(SelectiveScan, ChunksAndThenSingleStepsEqualTheWholeUnderScaling) {
  for (unsigned const bits : {0u, 1u, 2u, 3u, 4u, 5u, 6u, 7u}) {
    auto const p = random_selective<float>({2, 100, 33, 16}, 1,
                                           selective_options::of_bits(31 + 64 * bits), 600);
    selective_truth const truth(converted_problem<double>(p));
    auto carry = p.initial;
    auto y = poisoned<float>({2, 100, 33});
    for (index_t t = 0; t < 80; t += 20) run_part(parallel{}, p, t, 20, carry, y);
    for (index_t t = 80; t < 100; ++t) run_part(parallel{}, p, t, 1, carry, y);
    EXPECT_LE(worst_ratio(y, truth.y, truth.y_bound), 1) << p.name();
    EXPECT_LE(worst_ratio(carry, truth.carry, truth.carry_bound), 1) << p.name();
  }
}

/// Inputs whose decays last from a step to far beyond: eigenvalues -1, -1/4, ... times Δ of 0.01.
selective_problem<float> slow_and_fast(index_t length, index_t channels) {
  auto p = random_selective<float>({1, length, channels, 8}, 1, {}, 700);
  for (float& each : p.step_size) each = 1.5f * each - 2.5f;
  for (index_t c = 0; c < channels; ++c)
    for (index_t n = 0; n < 8; ++n) {
      p.eigenvalue(c, n) = -8.f / static_cast<float>(index_t{1} << (2 * n));
    }
  return p;
}

TEST(SelectiveScan, SingleStepsEqualOneCallOver65536Steps) {
  auto const p = slow_and_fast(65536, 2);
  auto const whole = run_selective(parallel{}, p);
  auto carry = p.initial;
  auto y = poisoned<float>({1, 65536, 2});
  for (index_t t = 0; t < 65536; ++t) run_part(parallel{}, p, t, 1, carry, y);
  EXPECT_LE(difference(y, whole.y), 1e-5);
  EXPECT_LE(difference(carry, whole.carry), 1e-5);
}

// SSM_LONGEST_LENGTH=1048576 prints the table of the README. The bound needs no more than 2^14.
TEST(SelectiveScan, ErrorIsWithinTheBoundAtEveryLength) {
  char const* const wanted = std::getenv("SSM_LONGEST_LENGTH");
  index_t const longest = wanted != nullptr ? std::atoll(wanted) : 16384;
  auto const p = slow_and_fast(longest, 4);
  selective_truth const truth(converted_problem<double>(p));
  auto const y = run_selective(parallel{}, p).y, slow = run_selective(sequential{}, p).y;
  std::cout << "length | parallel max|error|/max|y| | sequential | bound | largest error/bound\n";
  double largest = 0, error = 0, slow_error = 0, bound = 0, ratio = 0;
  constexpr double eps = std::numeric_limits<float>::epsilon();
  for (index_t t = 0, next = 1024; t < longest; ++t) {
    for (index_t c = 0; c < 4; ++c) {
      double const exact = truth.y(0, t, c), unit = eps * truth.y_bound(0, t, c);
      largest = std::max(largest, ssm::abs(exact));
      error = std::max(error, ssm::abs(double(y(0, t, c)) - exact));
      slow_error = std::max(slow_error, ssm::abs(double(slow(0, t, c)) - exact));
      bound = std::max(bound, unit);
      ratio = std::max(ratio, ssm::abs(double(y(0, t, c)) - exact) / unit);
      ratio = std::max(ratio, ssm::abs(double(slow(0, t, c)) - exact) / unit);
    }
    if (t + 1 != next) continue;
    next *= 4;
    std::cout << t + 1 << " | " << std::setprecision(2) << error / largest << " | "
              << slow_error / largest << " | " << bound / largest << " | " << ratio << '\n';
  }
  EXPECT_LE(ratio, 1);
}

}  // namespace
