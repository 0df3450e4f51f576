// SPDX-License-Identifier: Apache-2.0
#include "ssm/causal_conv1d.cuh"

#include <gtest/gtest.h>

#include <limits>

#include "support/conv1d_device.cuh"
#include "support/device.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;

/// Alike or not, aligned or not: each is another kernel, or another way through it.
constexpr layout const* conv_layouts[] = {
    &columns,      &rows,           &shifted_columns, &shifted_rows,         &wide_columns,
    &pitched_rows, &spread_columns, &rows_apart,      &rows_from_their_ends, &batch_innermost};

template <class T>
void expect_same_bits(conv_outcome<T> const& found, conv_outcome<T> const& expected) {
  EXPECT_TRUE(has_same_bits(converted<float>(found.y), converted<float>(expected.y))) << "y";
  EXPECT_TRUE(has_same_bits(converted<float>(found.carry), converted<float>(expected.carry)))
      << "carry";
}

/// Largest relative error of rounding to T, and half of its smallest number.
template <class T>
constexpr double unit = std::is_same_v<T, float>      ? 0
                        : std::is_same_v<T, bfloat16> ? 0x1p-8
                                                      : 0x1p-11;
template <class T>
constexpr double smallest = std::is_same_v<T, float16> ? 0x1p-25 : 1e-36;

/// y within the stated bound, the carry exactly.
template <class T>
void expect_truth(index_array<3> const& shape, index_t width, conv_options const& options,
                  std::uint64_t seed, layout const& how) {
  gpu::stream const stream;
  auto const p = random_conv<T>(shape, width, options, seed);
  auto const exact = converted_problem<double>(p);
  auto const truth = conv_by_formula(exact);
  auto bound = conv_rounding(exact, truth, 1.0);
  double const eps = std::numeric_limits<float>::epsilon();
  for (index_t i = 0; i < bound.size(); ++i) {
    double& b = bound.data()[i];
    b = b * (1 + unit<T>)+(unit<T> * std::abs(truth.y.data()[i]) + smallest<T>) / eps;
  }
  auto const found = device_conv<T>(stream, p, how).run(stream);
  EXPECT_LE(worst_ratio(converted<float>(found.y), truth.y, bound), 1)
      << p.name() << ", " << how.name;
  if (!options.carry) return;
  EXPECT_TRUE(has_same_bits(converted<double>(converted<float>(found.carry)), truth.carry))
      << p.name() << ", " << how.name;
}

TEST(CausalConv1d, IsTheFormulaForEveryWidthAndOption) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 100;
  for (index_t width = 1; width <= 8; ++width)
    for (conv_options const& options : all_conv_options())
      for (layout const* how : {&columns, &rows}) {
        expect_truth<float>({2, 43, 12}, width, options, seed++, *how);
      }
}

TEST(CausalConv1d, IsTheFormulaForAnyLengthAndLayout) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 500;
  for (layout const* how : conv_layouts)
    for (index_t const length : {1, 2, 3, 7, 8, 9, 15, 16, 17, 63, 64, 65, 700}) {
      bool const packed = seed % 2 == 0;
      expect_truth<float>({2, length, 20}, 4, {.packed = packed}, seed++, *how);
      expect_truth<float>({3, length, 7}, length % 8 + 1, {.packed = !packed}, seed++, *how);
      expect_truth<bfloat16>({2, length, 24}, 4, {.packed = packed}, seed++, *how);
    }
}

TEST(CausalConv1d, IsTheFormulaForManyStepsOrChannels) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 1000;
  for (layout const* how : {&columns, &rows, &shifted_columns, &shifted_rows})
    for (index_t const length : {2047, 2048, 2049, 131071}) {
      index_t const channels = length > 10000 ? 3 : 130;
      expect_truth<float>({1, length, channels}, 4, {.packed = seed % 2 == 0}, seed, *how);
      expect_truth<bfloat16>({1, length, channels}, 4, {}, seed++, *how);
    }
  expect_truth<float>({3, 5, 5000}, 4, {}, seed++, columns);
  expect_truth<float>({3000, 5, 4}, 4, {}, seed++, rows);
}

TEST(CausalConv1d, RoundsOnceToSixteenBits) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 2000;
  for (layout const* how : conv_layouts)
    for (index_t const width : {2, 3, 4, 8})
      for (bool const packed : {false, true}) {
        expect_truth<bfloat16>({2, 77, 16}, width, {.packed = packed}, seed++, *how);
        expect_truth<float16>({2, 77, 16}, width, {.packed = packed}, seed++, *how);
      }
}

TEST(CausalConv1d, LayoutsAndRepeatsChangeNoBit) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const stream;
  for (bool const packed : {false, true}) {
    auto const p = random_conv<bfloat16>({2, 500, 40}, 4, {.packed = packed}, 3000);
    auto const expected = device_conv<bfloat16>(stream, p, columns).run(stream);
    for (layout const* how : conv_layouts) {
      SCOPED_TRACE(how->name);
      device_conv<bfloat16> on(stream, p, *how);
      for (int repeat = 0; repeat < 3; ++repeat) {
        on.reset(stream);
        expect_same_bits(on.run(stream), expected);
      }
    }
  }
}

// A part that begins a sequence begins with zeros.
TEST(CausalConv1d, EqualsItsPartsBitForBitDownToSingleSteps) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const stream;
  for (layout const* how : {&columns, &rows, &spread_columns})
    for (index_t const width : {1, 2, 4, 8}) {
      auto const p = random_conv<float>({2, 30, 20}, width, {}, 4000);
      auto const whole = device_conv<float>(stream, p, *how).run(stream);
      for (index_t const part : {1, 2, 5, 8, 29}) {
        SCOPED_TRACE(p.name() + ", " + how->name + ", parts of " + std::to_string(part));
        device_conv<float> on(stream, p, *how);
        for (index_t first = 0; first < 30; first += part) {
          index_t const count = std::min(part, 30 - first);
          auto in = on.inputs();
          in.x = in.x.slice(1, first, count);
          gpu::causal_conv1d(stream, in, on.carry_view(), on.y.view().slice(1, first, count));
        }
        expect_same_bits(on.outcome(stream), whole);
      }
    }
}

TEST(CausalConv1d, FollowsIeeeRulesWithinReachOfATapOnly) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const stream;
  float const infinity = std::numeric_limits<float>::infinity();
  for (layout const* how : {&columns, &rows, &shifted_columns, &shifted_rows})
    for (index_t width = 1; width <= 8; ++width) {
      auto p = random_conv<float>({1, 64, 4}, width, {}, 5000);
      p.x(0, 20, 0) = not_a_number<float>();
      p.x(0, 20, 1) = infinity;
      for (index_t t = 0; t < 64; ++t) p.x(0, t, 2) = -1e4f;
      p.weight(2, width - 1) = 1;
      for (index_t k = 0; k + 1 < width; ++k) p.weight(2, k) = 1;
      auto const y = device_conv<float>(stream, p, *how).run(stream).y;
      for (index_t t = 0; t < 64; ++t) {
        SCOPED_TRACE(p.name() + ", " + how->name + ", step " + std::to_string(t));
        bool const is_reached = t >= 20 && t < 20 + width;
        EXPECT_EQ(std::isnan(y(0, t, 0)), is_reached);
        EXPECT_EQ(std::isfinite(y(0, t, 1)), !is_reached);
        if (t >= width) EXPECT_EQ(y(0, t, 2), 0.0f);  // SiLU of -10000 or less
        EXPECT_TRUE(std::isfinite(y(0, t, 3)));
      }
    }
}

TEST(CausalConv1d, NothingToDoLeavesTheCarry) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const stream;
  for (index_array<3> const& shape : {index_array<3>{2, 0, 3}, {0, 4, 3}, {2, 4, 0}}) {
    auto const p = random_conv<float>(shape, 4, {.packed = true}, 6000);
    EXPECT_TRUE(has_same_bits(device_conv<float>(stream, p, columns).run(stream).carry, p.initial))
        << p.name();
  }
}

}  // namespace
