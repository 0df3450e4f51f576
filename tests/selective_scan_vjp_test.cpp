// SPDX-License-Identifier: Apache-2.0
// selective_scan_vjp_test.cpp: the gradient of Mamba's operator against that of its slow twin,
// which scan_vjp differentiates and selective_scan_differences_test checks in 50 digits.
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <string>

#include "compiled/selective_scan.hpp"
#include "support/selective_scan_gradients.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

constexpr instruction_set sets[] = {instruction_set::baseline, instruction_set::avx2,
                                    instruction_set::avx512};

/// Gradients of the slow twin in W, and the bounds.
template <class W>
struct gradient_truth {
  selective_options options;
  std::string name;
  selective_gradient<W> expected;
  selective_gradient_bounds<W> bounds;

  explicit gradient_truth(selective_problem<W> const& p)
      : options{p.options},
        name{p.name()},
        expected{run_selective_vjp(sequential{}, p)},
        bounds{p} {}

  template <class T>
  double expect_within(selective_gradient<T> found) {
    auto const worst = worst_of(options, found, expected, bounds);
    EXPECT_LE(worst.ratio, 1) << worst.name << ", " << name;
    return worst.ratio;
  }
};

/// Every policy and instruction set is within the bound; returns the largest error.
template <class W, class T>
double expect_right(selective_problem<T> const& p) {
  gradient_truth<W> truth(converted_problem<W>(p));
  double worst = truth.expect_within(run_selective_vjp(sequential{}, p));
  for (auto const set : sets) {
    SCOPED_TRACE("instruction set " + std::to_string(static_cast<int>(set)));
    worst = std::max(worst, truth.expect_within(run_selective_vjp(parallel{1, 0, set}, p)));
  }
  return worst;
}

TEST(SelectiveScanVjp, IsWithinTheBoundWithEveryCombinationOfOptions) {
  double worst = 0;
  for (unsigned bits = 0; bits < selective_options::combinations; ++bits) {
    auto const options = selective_options::of_bits(bits);
    worst = std::max(worst, expect_right<double>(random_selective<float>({2, 11, 6, 5}, 2, options,
                                                                         100 + 20 * bits)));
  }
  std::cout << "float: the largest error is " << worst << " of its bound\n";
}

TEST(SelectiveScanVjp, IsWithinTheBoundInOddSizes) {
  index_t const lengths[] = {1, 2, 7, 8, 9, 31, 32, 33, 65}, batches[] = {1, 3};
  index_t case_number = 0;
  for (index_t const channels : {1, 3, 15, 16, 17, 64, 65, 130})
    for (index_t const states : {1, 2, 4, 7, 8, 16, 17, 33, 64, 100}) {
      index_t const i = case_number++, wanted = 1 + i % 3;
      index_t const groups = channels % wanted == 0 ? wanted : 1;
      auto const options = selective_options::of_bits(static_cast<unsigned>(37 * i) % 512);
      scan_shape const s{batches[i % 2], lengths[i % 9], channels, states};
      expect_right<double>(
          random_selective<float>(s, groups, options, static_cast<std::uint64_t>(300 + 20 * i)));
    }
}

TEST(SelectiveScanVjp, OfSeveralSpansIsWithinTheBound) {
  expect_right<double>(random_selective<float>({1, 1100, 3, 40}, 1, {.packed = true}, 400));
  expect_right<double>(random_selective<float>({1, 2100, 2, 4}, 1, {}, 410));
}

TEST(SelectiveScanVjp, OfNothingLeavesTheCotangentOfTheState) {
  for (scan_shape const& s : {scan_shape{0, 5, 3, 2}, {2, 0, 3, 2}, {2, 5, 0, 2}}) {
    auto const p = random_selective<float>(s, 1, selective_options::all(), 500);
    auto const found = run_selective_vjp(parallel{}, p);
    EXPECT_TRUE(s.length > 0 || found.initial == p.final_cotangent);
    expect_same_bits(found, run_selective_vjp(sequential{}, p));
  }
  for (index_t const length : {3, 40}) {
    expect_right<double>(random_selective<float>({2, length, 3, 0}, 1, {}, 510));
  }
}

TEST(SelectiveScanVjp, PackedSequencesOfEveryLengthAreWithinTheBound) {
  index_t const lengths[][5] = {
      {5, 60, 1, 1, 29}, {32, 32, 0, 0, 32}, {1, 95, 0, 0, 0}, {31, 1, 1, 32, 31}};
  for (auto const& each : lengths) {
    auto p = random_selective<float>({1, 96, 19, 6}, 1, {.packed = true}, 600);
    for (index_t i = 0, t = 0; i < 5; ++i)
      for (index_t k = 0; k < each[i]; ++k) p.sequence(0, t++) = static_cast<std::int32_t>(i);
    expect_right<double>(p);
  }
  auto p = random_selective<float>({1, 96, 19, 6}, 1, {.packed = true}, 610);
  for (index_t t = 0; t < 96; ++t) p.sequence(0, t) = static_cast<std::int32_t>(t);
  expect_right<double>(p);
}

// The last part first: what it leaves as the gradient of its initial state arrives at the first.
TEST(SelectiveScanVjp, OfTwoPartsIsThatOfTheWhole) {
  auto options = selective_options::all();
  options.packed = false;
  auto const p = random_selective<float>({2, 75, 21, 6}, 1, options, 1150);
  gradient_truth<double> truth(converted_problem<double>(p));
  for (index_t const cut : {1, 32, 41, 70}) {
    selective_gradient<float> found(p);
    found.initial = p.final_cotangent;
    auto const part = [&](index_t first, index_t count, auto const& run) {
      auto in = p.inputs();
      auto to = found.views();
      for (auto* view : {&in.x, &in.step_size, &in.gate}) *view = view->slice(1, first, count);
      for (auto* view : {&in.B, &in.C}) *view = view->slice(1, first, count);
      for (auto* view : {&to.x, &to.step_size, &to.gate}) *view = view->slice(1, first, count);
      for (auto* view : {&to.B, &to.C}) *view = view->slice(1, first, count);
      run(in, p.y_cotangent.view().slice(1, first, count), to);
    };
    auto between = p.initial;
    part(0, cut, [&](auto const& in, auto const& y_cotangent, auto const&) {
      tensor<float, 3> y(y_cotangent.extents());
      selective_scan(parallel{}, in, between, y);
    });
    part(cut, 75 - cut, [&](auto const& in, auto const& y_cotangent, auto const& to) {
      selective_scan_vjp(parallel{}, in, between, y_cotangent, found.initial, to);
    });
    part(0, cut, [&](auto const& in, auto const& y_cotangent, auto const& to) {
      selective_scan_vjp(parallel{}, in, p.initial, y_cotangent, found.initial, to);
    });
    truth.expect_within(found);
  }
}

// Some steps take a tile out of the range of the fast functions.
TEST(SelectiveScanVjp, OfHugeStepsIsWithinTheBound) {
  for (float const biased : {90.f, 200.f, 500.f}) {
    auto p = random_selective<float>({2, 75, 21, 6}, 1, {.bias = false}, 1160);
    p.step_size(1, 40, 3) = biased;
    p.step_size(0, 74, 20) = biased;
    auto exact = converted_problem<double>(p);
    gradient_truth<double> truth(exact);
    for (auto const set : sets) truth.expect_within(run_selective_vjp(parallel{1, 0, set}, p));
    truth.expect_within(run_selective_vjp(sequential{}, p));
  }
}

TEST(SelectiveScanVjp, NaNInOneChannelReachesOnlyWhatChannelsShare) {
  auto p = random_selective<float>({2, 75, 21, 6}, 1, {}, 1170);
  auto const clean = p;
  p.x(1, 40, 7) = not_a_number<float>();
  for (auto const set : sets) {
    auto found = run_selective_vjp(parallel{1, 0, set}, p);
    auto const expected = run_selective_vjp(parallel{1, 0, set}, clean);
    auto const restore = [](auto& to, auto const& from, auto... position) {
      EXPECT_NE(to(position...), to(position...));
      to(position...) = from(position...);
    };
    restore(found.D, expected.D, 7);
    restore(found.step_bias, expected.step_bias, 7);
    restore(found.step, expected.step, 7);
    for (index_t n = 0; n < 6; ++n) {
      restore(found.eigenvalue, expected.eigenvalue, 7, n);
      restore(found.linear, expected.linear, 7, n);
      restore(found.power, expected.power, 7, n);
    }
    for (index_t t = 0; t < 75; ++t) {  // before the NaN its cotangent, after it the state
      found.step_size(1, t, 7) = expected.step_size(1, t, 7);
      found.gate(1, t, 7) = expected.gate(1, t, 7);
    }
    found.B = expected.B, found.C = expected.C;
    expect_same_bits(found, expected);
  }
}

TEST(SelectiveScanVjp, OfInputsStoredIn16BitsIsWithinTheBound) {
  expect_right<double>(
      random_selective<bfloat16>({2, 45, 37, 7}, 1, selective_options::all(), 1200));
}

}  // namespace
