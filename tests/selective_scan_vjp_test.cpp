// SPDX-License-Identifier: Apache-2.0
// selective_scan_vjp_test.cpp: the gradient of Mamba's operator against that of its slow twin,
// which scan_vjp differentiates and selective_scan_differences_test checks in 50 digits.
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

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

/// Bit for bit, a NaN being equal to a NaN.
template <class T>
void expect_same_bits(selective_gradient<T> const& found, selective_gradient<T> const& expected) {
  for_each_gradient(
      selective_options::all(),
      [](char const* name, auto const& f, auto const& e) {
        ASSERT_EQ(f.extents(), e.extents()) << name;
        index_t differences = 0;
        for (index_t i = 0; i < f.size(); ++i) {
          T const a = f.data()[i], b = e.data()[i];
          differences += a == b || (a != a && b != b) ? 0 : 1;
        }
        EXPECT_EQ(differences, 0) << name;
      },
      found, expected);
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

TEST(SelectiveScanVjp, InDoubleIsWithinTheBound) {
  double worst = 0;
  for (unsigned bits = 0; bits < selective_options::combinations; bits += 21) {
    auto const options = selective_options::of_bits(bits);
    worst = std::max(worst, expect_right<long double>(random_selective<double>(
                                {2, 35, 6, 5}, 3, options, 200 + 20 * bits)));
  }
  std::cout << "double: the largest error is " << worst << " of its bound\n";
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

TEST(SelectiveScanVjp, ThreadsChangeNoBit) {
  for (scan_shape const& s : {scan_shape{2, 70, 130, 9}, {1, 300, 65, 40}}) {
    auto const p = random_selective<float>(s, 1, selective_options::all(), 700);
    auto const expected = run_selective_vjp(parallel{1}, p);
    for (int const threads : {0, 2, 3, 7}) {
      SCOPED_TRACE("threads " + std::to_string(threads));
      expect_same_bits(run_selective_vjp(parallel{threads}, p), expected);
    }
  }
}

TEST(SelectiveScanVjp, CheckpointsOfTheForwardRunChangeNoBit) {
  for (index_t const length : {5, 32, 75}) {
    auto const p = random_selective<float>({2, length, 21, 6}, 1, selective_options::all(), 800);
    tensor<float, 4> checkpoints({2, (length + 31) / 32, 6, 21});
    auto carry = p.initial;
    tensor<float, 3> y(p.x.extents());
    selective_scan(parallel{}, p.inputs(), carry, y, checkpoints);
    expect_same_bits(run_selective_vjp(parallel{}, p, checkpoints),
                     run_selective_vjp(parallel{}, p));
  }
}

/// Inputs and gradients in `scattered` memory.
template <class Policy>
void expect_same_bits_from_any_strides(Policy policy) {
  auto const p = random_selective<float>({2, 41, 18, 7}, 2, selective_options::all(), 900);
  scattered<float, 3> const x(p.x), step_size(p.step_size), gate(p.gate), initial(p.initial),
      y_cotangent(p.y_cotangent), carry(p.final_cotangent);
  scattered<float, 4> const B(p.B), C(p.C);
  scattered<float, 2> const eigenvalue(p.eigenvalue), linear(p.linear), power(p.power);
  scattered<float, 1> const D(p.D), step_bias(p.step_bias), step(p.step);
  auto in = p.inputs();
  in.x = x, in.step_size = step_size, in.gate = gate, in.B = B, in.C = C;
  in.eigenvalue = eigenvalue, in.D = D, in.step_bias = step_bias;
  in.scaling = {.linear = linear, .power = power, .step = step};

  selective_gradient<float> zero(p);
  scattered<float, 3> const to_x(zero.x), to_step_size(zero.step_size), to_gate(zero.gate);
  scattered<float, 4> const to_B(zero.B), to_C(zero.C);
  scattered<float, 2> const to_eigenvalue(zero.eigenvalue), to_linear(zero.linear),
      to_power(zero.power);
  scattered<float, 1> const to_D(zero.D), to_step_bias(zero.step_bias), to_step(zero.step);
  selective_scan_vjp(policy, in, initial.view(), y_cotangent.view(), carry.view(),
                     {.x = to_x,
                      .step_size = to_step_size,
                      .eigenvalue = to_eigenvalue,
                      .B = to_B,
                      .C = to_C,
                      .D = to_D,
                      .gate = to_gate,
                      .step_bias = to_step_bias,
                      .scaling = {.linear = to_linear, .power = to_power, .step = to_step}});
  EXPECT_EQ(to_x.overwritten() + to_step_size.overwritten() + to_gate.overwritten() +
                carry.overwritten() + to_B.overwritten() + to_C.overwritten(),
            0);
  EXPECT_EQ(to_eigenvalue.overwritten() + to_linear.overwritten() + to_power.overwritten() +
                to_D.overwritten() + to_step_bias.overwritten() + to_step.overwritten(),
            0);
  selective_gradient<float> found(p);
  found.x = materialized(to_x.view()), found.step_size = materialized(to_step_size.view());
  found.gate = materialized(to_gate.view()), found.initial = materialized(carry.view());
  found.B = materialized(to_B.view()), found.C = materialized(to_C.view());
  found.eigenvalue = materialized(to_eigenvalue.view()), found.D = materialized(to_D.view());
  found.linear = materialized(to_linear.view()), found.power = materialized(to_power.view());
  found.step_bias = materialized(to_step_bias.view()), found.step = materialized(to_step.view());
  expect_same_bits(found, run_selective_vjp(policy, p));
}

TEST(SelectiveScanVjp, StridesChangeNoBit) {
  for (auto const set : sets) expect_same_bits_from_any_strides(parallel{1, 0, set});
  expect_same_bits_from_any_strides(sequential{});
}

/// The gradients of `p`, each summed over axis 0 by a view of stride 0.
template <class Policy>
selective_gradient<double> summed(Policy policy, selective_problem<double> const& p) {
  selective_gradient<double> to(p);
  to.initial = p.final_cotangent;
  auto views = to.views();
  auto const shared = [](auto& view) { view = view.select(0, 0).broadcast(0, view.extent(0)); };
  shared(views.x), shared(views.step_size), shared(views.gate), shared(views.B), shared(views.C);
  shared(views.eigenvalue), shared(views.scaling.linear), shared(views.scaling.power);
  views.D = {to.D.data(), to.D.extents(), {0}};
  views.step_bias = {to.step_bias.data(), to.D.extents(), {0}};
  views.scaling.step = {to.step.data(), to.D.extents(), {0}};
  selective_scan_vjp(policy, p.inputs(), p.initial, p.y_cotangent, to.initial, views);
  return to;
}

TEST(SelectiveScanVjp, Stride0Sums) {
  auto const p = random_selective<double>({3, 40, 10, 5}, 1, selective_options::all(), 1000);
  selective_gradient_bounds const bounds(p);
  auto const check = [&](auto policy) {
    auto single = run_selective_vjp(policy, p);
    auto found = summed(policy, p);
    auto terms = bounds.terms;
    for_each_gradient(
        p.options,
        [&](std::string const name, auto const& f, auto& all, auto& sizes) {
          if (name == "initial") return;
          index_t const count = all.size() / all.extent(0);
          for (index_t i = count; i < all.size(); ++i) {
            all.data()[i % count] += all.data()[i];
            sizes.data()[i % count] += sizes.data()[i];
          }
          for (index_t i = 0; i < count; ++i) {  // both have the roundings of their own sums
            EXPECT_NEAR(f.data()[i], all.data()[i],
                        2.3e-16 * 2 * bounds.roundings * sizes.data()[i])
                << name;
          }
        },
        found, single, terms);
  };
  check(parallel{});
  check(sequential{});
}

TEST(SelectiveScanVjp, IsAddedToWhatIsThereAndUnwantedGradientsChangeNoOther) {
  auto const p = random_selective<float>({2, 40, 10, 5}, 1, {}, 1100);
  auto const once = run_selective_vjp(parallel{}, p);
  auto twice = once;
  twice.initial = p.final_cotangent;
  selective_scan_vjp(parallel{}, p.inputs(), p.initial, p.y_cotangent, twice.initial,
                     twice.views());
  selective_gradient_bounds const bounds(converted_problem<double>(p));
  for_each_gradient(
      p.options,
      [&](std::string const name, auto const& one, auto const& two, auto const& terms) {
        double const times = name == "initial" ? 1 : 2;
        for (index_t i = 0; i < one.size(); ++i) {  // all three have the roundings of their sums
          EXPECT_NEAR(two.data()[i], times * one.data()[i],
                      1.2e-7 * 4 * bounds.roundings * terms.data()[i])
              << name;
        }
      },
      once, twice, bounds.terms);
  selective_gradient<float> only(p);
  only.initial = p.final_cotangent;
  selective_scan_vjp(parallel{}, p.inputs(), p.initial, p.y_cotangent, only.initial,
                     {.eigenvalue = only.eigenvalue});
  EXPECT_EQ(only.eigenvalue, once.eigenvalue);
  EXPECT_EQ(only.initial, once.initial);
}

TEST(SelectiveScanVjp, OfInputsStoredIn16BitsIsWithinTheBound) {
  expect_right<double>(
      random_selective<bfloat16>({2, 45, 37, 7}, 1, selective_options::all(), 1200));
}

}  // namespace
