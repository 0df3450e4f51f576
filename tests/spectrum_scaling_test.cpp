// SPDX-License-Identifier: Apache-2.0
// spectrum_scaling_test.cpp: factors of a spectrum, their gradient, and what they do to states.
#include "ssm/spectrum_scaling.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "compiled/selective_scan.hpp"
#include "support/oracle.hpp"
#include "support/random_scaling.hpp"
#include "support/selective_scan_problem.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

TEST(SpectrumScaling, NothingIsAFactorOf1) {
  spectrum_scaling<double> const none;
  EXPECT_FALSE(none.scales_eigenvalues());
  EXPECT_EQ(none.step_factor(3), 1);
  for (double const A : {-2.5, 0.0, 1e-300, 3.0}) EXPECT_EQ(none.eigenvalue(0, 0, A), A);
}

// The reference is the standard library's pow in long double.
TEST(SpectrumScaling, PowerKeepsTheSignAndRaisesTheSize) {
  for (double const A : {-3.0, -0.01, 0.5, 700.0}) {
    for (double const exponent : {-1.5, 0.0, 0.5, 1.0, 2.0}) {
      tensor<double, 2> const power({1, 1}, exponent), linear({1, 1}, -2.5);
      spectrum_scaling<double> const raised{.power = power}, both{.linear = linear, .power = power};
      auto const size = static_cast<double>(
          std::pow(std::fabs(static_cast<long double>(A)), static_cast<long double>(exponent)));
      double const expected = A < 0 ? -size : size;
      // An ulp for the logarithm and half of one for the product, in the argument of exp; one more.
      double const bound = 2.3e-16 * (2 + 1.5 * std::fabs(exponent * std::log(std::fabs(A))));
      EXPECT_NEAR(raised.eigenvalue(0, 0, A), expected, bound * size) << A << ", " << exponent;
      EXPECT_NEAR(both.eigenvalue(0, 0, A), -2.5 * expected, (bound + 2e-16) * 2.5 * size);
      EXPECT_TRUE(exponent != 1 || raised.eigenvalue(0, 0, A) == A);
    }
  }
}

TEST(SpectrumScaling, EigenvalueZeroStaysZeroAndHasNoGradientUnderAPower) {
  tensor<double, 2> const two({1, 1}, 2.0), zero({1, 1});
  tensor<double, 2> to_linear({1, 1}), to_power({1, 1});
  spectrum_scaling<double> const squared{.linear = two, .power = two};
  EXPECT_EQ(squared.eigenvalue(0, 0, 0), 0);
  EXPECT_EQ((spectrum_scaling<double>{.power = zero}.eigenvalue(0, 0, 0)), 1);
  EXPECT_EQ(squared.pull_back(0, 0, 0, 3, {.linear = to_linear, .power = to_power}), 0);
  EXPECT_EQ(to_linear(0, 0), 0);
  EXPECT_EQ(to_power(0, 0), 0);
  EXPECT_EQ((spectrum_scaling<double>{.linear = two}.pull_back(0, 0, 0, 3, {})), 6);
}

TEST(SpectrumScaling, GradientIsThatOfDifferencesIn50Digits) {
  tensor<digits50, 2> linear({2, 2}), power({2, 2}), A({2, 2});
  auto const fill = [](tensor<digits50, 2>& to, double a, double b, double c, double d) {
    double const values[] = {a, b, c, d};
    for (int i = 0; i < 4; ++i) to.data()[i] = values[i];
  };
  fill(linear, 0.5, -1.25, 2, 1);
  fill(power, 0.75, 2, -0.5, 1);
  fill(A, -0.3, 1.7, -4, 1);
  for (bool const has_linear : {false, true}) {
    for (bool const has_power : {false, true}) {
      spectrum_scaling<digits50> scaling;
      if (has_linear) scaling.linear = linear;
      if (has_power) scaling.power = power;
      auto const sum = [&] {
        digits50 total = 0;
        for (index_t c = 0; c < 2; ++c)
          for (index_t n = 0; n < 2; ++n) {
            total += (1 + c - 3 * n) * scaling.eigenvalue(c, n, A(c, n));
          }
        return total;
      };
      tensor<digits50, 2> to_linear({2, 2}), to_power({2, 2}), to_A({2, 2});
      for (index_t c = 0; c < 2; ++c)
        for (index_t n = 0; n < 2; ++n) {
          to_A(c, n) = scaling.pull_back(c, n, A(c, n), digits50(1 + c - 3 * n),
                                         {.linear = to_linear, .power = to_power});
        }
      EXPECT_TRUE(is_near(to_A, gradient_by_differences(A, sum), "1e-30"));
      if (has_linear) {
        EXPECT_TRUE(is_near(to_linear, gradient_by_differences(linear, sum), "1e-30"));
      }
      if (has_power) {
        EXPECT_TRUE(is_near(to_power, gradient_by_differences(power, sum), "1e-30"));
      }
    }
  }
}

TEST(SpectrumScaling, GradientsOfASharedFactorAreSummed) {
  tensor<double, 2> const A = random_tensor<double>({3, 2}, 1, -3, -1);
  double const factor = 1.5;
  double to_factor = 0;
  tensor_view<double const, 2> const linear(&factor, {3, 2}, {0, 0});
  tensor_view<double, 2> const to(&to_factor, {3, 2}, {0, 0});
  spectrum_scaling<double> const scaling{.linear = linear};
  double expected = 0;
  for (index_t c = 0; c < 3; ++c)
    for (index_t n = 0; n < 2; ++n) {
      double const arriving = 1 + static_cast<double>(c * n);
      EXPECT_EQ(scaling.pull_back(c, n, A(c, n), arriving, {.linear = to}), arriving * factor);
      expected += arriving * A(c, n);
    }
  EXPECT_NEAR(to_factor, expected, 6 * 2.3e-16 * 12);  // six sums of at most 12
}

TEST(SpectrumScaling, ScaledEigenvaluesAreThoseThatTheScanUses) {
  auto const p = random_selective<float>({1, 20, 17, 6}, 1, {.linear = true, .power = true}, 10);
  auto scaled = p;
  scaled.eigenvalue = scaled_eigenvalues<float>(p.eigenvalue, p.inputs().scaling);
  scaled.options.linear = scaled.options.power = false;
  auto const found = run_selective(parallel{}, p), expected = run_selective(parallel{}, scaled);
  EXPECT_TRUE(has_same_bits(found.y, expected.y));
  EXPECT_TRUE(has_same_bits(found.carry, expected.carry));
}

// Kinds and granularities are views of a row of numbers; what a factor for each channel and state
// does is tested with the operator. Whole, in parts and step by step, to the bit.
TEST(SpectrumScaling, EveryGranularityIsThatOfItsFactorsWrittenOut) {
  auto const p = random_selective<float>({2, 45, 19, 6}, 1, {}, 15);
  for_each_scaling<float>({1, 19, 6}, 16, [&](scaling_factors<float> const& factors) {
    auto written_out = p;
    auto const scaling = factors.scaling(0);
    for (index_t c = 0; c < 19; ++c) {
      written_out.step(c) = scaling.step_factor(c);
      for (index_t n = 0; n < 6; ++n) {
        written_out.linear(c, n) = scaling.linear_factor(c, n);
        written_out.power(c, n) = scaling.power_factor(c, n);
      }
    }
    auto const kind = factors.kind();
    written_out.options.linear = kind.linear;
    written_out.options.power = kind.power;
    written_out.options.step = kind.step;
    auto shared = p.inputs();
    shared.scaling = scaling;
    for (index_t const size : {45, 16, 1}) {
      auto const run = [&](selective_scan_inputs<float> const& all) {
        selective_outcome<float> out{tensor<float, 3>(p.x.extents()), p.initial};
        for (index_t t = 0; t < 45; t += size) {
          index_t const count = std::min<index_t>(size, 45 - t);
          auto in = all;
          for (auto* each : {&in.x, &in.step_size, &in.gate}) *each = each->slice(1, t, count);
          for (auto* each : {&in.B, &in.C}) *each = each->slice(1, t, count);
          selective_scan(parallel{}, in, out.carry, out.y.view().slice(1, t, count));
        }
        return out;
      };
      auto const found = run(shared), expected = run(written_out.inputs());
      EXPECT_TRUE(has_same_bits(found.y, expected.y)) << name_of(factors) << ", " << size;
      EXPECT_TRUE(has_same_bits(found.carry, expected.carry)) << name_of(factors) << ", " << size;
    }
  });
}

/// How the factors vary: strides of a (channel, state) view.
struct granularity {
  char const* name;
  index_array<2> strides;
};

// h(Δ scaled by s) = s·h(A scaled by s), for every input and step, from a state of zeros. A factor
// of the step has one number for each channel, so s may vary by state on neither side.
TEST(SpectrumScaling, OfTheStepIsThatOfTheEigenvaluesTimesTheFactor) {
  for (granularity const& each : {granularity{"layer", {0, 0}}, granularity{"channel", {1, 0}}}) {
    auto p = random_selective<double>({2, 70, 19, 6}, 1, {.D = false, .gate = false}, 20);
    for (double& h : p.initial) h = 0;
    tensor<double, 1> const s = random_tensor<double>({19}, 21, 0.25, 4);
    auto by_step = p.inputs(), by_eigenvalue = p.inputs();
    by_step.scaling.step = {s.data(), {19}, {each.strides[0]}};
    by_eigenvalue.scaling.linear = {s.data(), {19, 6}, each.strides};
    auto of_step = p.initial, of_eigenvalue = p.initial;
    tensor<double, 3> y_of_step(p.x.extents()), y_of_eigenvalue(p.x.extents());
    selective_scan(parallel{}, by_step, of_step, y_of_step);
    selective_scan(parallel{}, by_eigenvalue, of_eigenvalue, y_of_eigenvalue);

    auto scaled = p;
    scaled.options.step = true;
    for (index_t c = 0; c < 19; ++c) scaled.step(c) = s.view()(c * each.strides[0]);
    selective_truth const bound(converted_problem<long double>(scaled));
    for_each_position(y_of_step.extents(), [&](auto const& at) {
      auto const [b, t, c] = at.value;
      EXPECT_NEAR(y_of_step(b, t, c), scaled.step(c) * y_of_eigenvalue(b, t, c),
                  2 * 2.3e-16 * static_cast<double>(bound.y_bound(b, t, c)))
          << each.name;
    });
    for_each_position(of_step.extents(), [&](auto const& at) {
      auto const [b, c, n] = at.value;
      EXPECT_NEAR(of_step(b, c, n), scaled.step(c) * of_eigenvalue(b, c, n),
                  2 * 2.3e-16 * static_cast<double>(bound.carry_bound(b, c, n)))
          << each.name;
    });
  }
}

// With a factor for each state the identity holds one state at a time, each with its own Δ.
TEST(SpectrumScaling, OfEachStateIsThatOfAStepOfItsOwn) {
  auto p = random_selective<double>({1, 70, 9, 4}, 1, {.D = false, .gate = false}, 30);
  for (double& h : p.initial) h = 0;
  tensor<double, 1> const s = random_tensor<double>({4}, 31, 0.25, 4);
  auto in = p.inputs();
  in.scaling.linear = {s.data(), {9, 4}, {0, 1}};
  auto together = p.initial;
  tensor<double, 3> y(p.x.extents());
  selective_scan(parallel{}, in, together, y);
  for (index_t n = 0; n < 4; ++n) {
    auto scaled = p;
    scaled.options.step = true;
    for (double& factor : scaled.step) factor = s(n);
    selective_truth const truth(converted_problem<long double>(scaled));
    for (index_t c = 0; c < 9; ++c) {
      EXPECT_NEAR(s(n) * together(0, c, n), static_cast<double>(truth.carry(0, c, n)),
                  2 * 2.3e-16 * static_cast<double>(truth.carry_bound(0, c, n)));
    }
  }
}

TEST(SpectrumScaling, FactorsMustHaveTheShapeOfTheSpectrum) {
  tensor<float, 2> const matrix({3, 2});
  tensor<float, 1> const vector({3});
  auto const message = [](spectrum_scaling<float> const& scaling) {
    return message_of<shape_error>([&] { require_scaling(scaling, 3, 4); });
  };
  EXPECT_EQ(message({}), "no exception");
  EXPECT_EQ(message({.step = vector}), "no exception");
  EXPECT_EQ(message({.linear = matrix}),
            "spectrum_scaling: linear has shape (3, 2), expected (3, 4) (channel, state)");
  EXPECT_EQ(message({.power = matrix}),
            "spectrum_scaling: power has shape (3, 2), expected (3, 4) (channel, state)");
  tensor<float, 1> const other({2});
  EXPECT_EQ(message({.step = other}),
            "spectrum_scaling: step has shape (2), expected (3) (channel)");
}

}  // namespace
