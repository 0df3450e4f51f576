// SPDX-License-Identifier: Apache-2.0
// scaling_factors_test.cpp: factors of many layers as one row of numbers, and their algebra.
#include "ssm/scaling_factors.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "support/oracle.hpp"
#include "support/random_scaling.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

constexpr spectrum_shape shape{3, 4, 5}, heads{3, 4, 1};
constexpr spectrum_shape small{2, 3, 2}, few_heads{2, 3, 1};  // for 50 digits

/// What a scaling makes of the eigenvalues and step sizes of every layer, one after another.
template <class T>
std::vector<T> applied(scaling_factors<T> const& factors, std::vector<T> const& numbers) {
  std::vector<T> result;
  auto next = numbers.begin();
  for (index_t layer = 0; layer < factors.shape().layers; ++layer) {
    auto const scaling = factors.scaling(layer);
    for (index_t c = 0; c < factors.shape().channels; ++c) {
      for (index_t n = 0; n < factors.shape().states; ++n) {
        result.push_back(scaling.eigenvalue(c, n, *next++));
      }
      result.push_back(scaling.step_factor(c) * *next++);
    }
  }
  return result;
}

template <class T>
std::vector<T> random_spectrum(spectrum_shape const& of, std::uint64_t seed) {
  std::vector<T> numbers;
  random_stream const stream{seed};
  for (index_t i = 0; i < of.layers * of.channels * (of.states + 1); ++i) {
    bool const is_step = i % (of.states + 1) == of.states;
    numbers.push_back(T(is_step ? stream.uniform(i) : -4 * stream.uniform(i)));
  }
  return numbers;
}

/// The largest |found - expected|/|expected|.
template <class T>
double worst(std::vector<T> const& found, std::vector<T> const& expected) {
  T largest(0);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    T const error = ssm::abs(T((found[i] - expected[i]) / expected[i]));
    largest = error > largest || error != error ? error : largest;
  }
  return found.size() == expected.size() ? static_cast<double>(largest) : INFINITY;
}

TEST(ScalingFactors, NamesReadBack) {
  for (auto const kind : all_kinds()) EXPECT_EQ(scaling_kind_named(to_string(kind)), kind);
  EXPECT_EQ(to_string(scaling_kind{true, false, true}), "linear+step");
  EXPECT_EQ(to_string(scaling_kind{}), "none");
  for (auto const each : {granularity::layer, granularity::head, granularity::channel,
                          granularity::channel_and_state}) {
    EXPECT_EQ(granularity_named(to_string(each)), each);
  }
  EXPECT_EQ(message_of<ssm::domain_error>([] { scaling_kind_named("step+linear"); }),
            "scaling_kind_named: \"step+linear\", expected linear, power, step or some of them in "
            "this order, such as linear+step");
  EXPECT_EQ(message_of<ssm::domain_error>([] { granularity_named("state"); }),
            "granularity_named: \"state\", expected layer, head, channel or channel-and-state");
}

TEST(ScalingFactors, IdentityLeavesEverySpectrumAsItIs) {
  for (auto const& of : {shape, heads}) {
    auto const numbers = random_spectrum<double>(of, 1);
    for (auto const kind : all_kinds())
      for (auto const each : all_granularities(of.states)) {
        EXPECT_EQ(applied(scaling_factors<double>(kind, each, of), numbers), numbers);
      }
  }
}

// Every number stands for the factors that the order of the row says, and for no others.
TEST(ScalingFactors, NumbersAreByKindThenLayerChannelAndState) {
  for (auto const& of : {shape, heads}) {
    for_each_scaling<double>(of, 10, [&](scaling_factors<double> const& factors) {
      auto const each = factors.each();
      index_t const rows = each == granularity::layer ? 1 : of.channels;
      index_t const columns = each == granularity::channel_and_state ? of.states : 1;
      auto const kind = factors.kind();
      auto const numbers = factors.numbers();
      index_t const block = of.layers * rows * columns;
      ASSERT_EQ(static_cast<index_t>(numbers.size()),
                block * (kind.linear + kind.power) + kind.step * of.layers * rows);
      auto const number = [&](index_t at) { return numbers[static_cast<std::size_t>(at)]; };
      for (index_t layer = 0; layer < of.layers; ++layer) {
        auto const scaling = factors.scaling(layer);
        for (index_t c = 0; c < of.channels; ++c) {
          index_t const row = layer * rows + (rows == 1 ? 0 : c);
          for (index_t n = 0; n < of.states; ++n) {
            index_t const at = row * columns + (columns == 1 ? 0 : n);
            EXPECT_EQ(scaling.linear_factor(c, n), kind.linear ? number(at) : 1);
            EXPECT_EQ(scaling.power_factor(c, n),
                      kind.power ? number(kind.linear * block + at) : 1);
          }
          EXPECT_EQ(scaling.step_factor(c),
                    kind.step ? number((kind.linear + kind.power) * block + row) : 1);
        }
      }
    });
  }
}

TEST(ScalingFactors, ComposedDoWhatOneAfterTheOtherDoesIn50Digits) {
  for (auto const& of : {small, few_heads}) {
    auto const numbers = random_spectrum<digits50>(of, 2);
    for_each_scaling<digits50>(of, 40, [&](auto const& outer) {
      for_each_scaling<digits50>(of, 80, [&](auto const& inner) {
        EXPECT_LT(
            worst(applied(compose(outer, inner), numbers), applied(outer, applied(inner, numbers))),
            1e-46)
            << name_of(outer) << " after " << name_of(inner);
      });
    });
  }
}

TEST(ScalingFactors, InverseUndoesInBothOrdersIn50Digits) {
  for (auto const& of : {small, few_heads}) {
    auto const numbers = random_spectrum<digits50>(of, 3);
    for_each_scaling<digits50>(of, 120, [&](auto const& factors) {
      auto const inverse = factors.inverse();
      EXPECT_EQ(inverse.kind(), factors.kind());
      EXPECT_EQ(inverse.each(), factors.each());
      EXPECT_LT(worst(applied(inverse, applied(factors, numbers)), numbers), 1e-46);
      EXPECT_LT(worst(applied(factors, applied(inverse, numbers)), numbers), 1e-46);
    });
  }
}

// In eps: 1 for the exponent, which |log| of the base times it amplifies, 3 for log and exp, 1 for
// the product; a power of at most 1.5 of bases from 1/2, by a power from 1/2 in the inverse.
TEST(ScalingFactors, CompositionAndInverseAreWithinTheirBoundsInDouble) {
  double const bound = 2.3e-16 * (4 + 2 * 2 * std::log(2.0));
  for_each_scaling<double>(shape, 160, [&](auto const& outer) {
    auto const wide = outer.template rounded<digits50>();
    auto const check = [&](auto const& found, auto const& expected) {
      std::vector<digits50> a, b;
      for (double const x : found.numbers()) a.push_back(x);
      for (digits50 const& x : expected.numbers()) b.push_back(x);
      EXPECT_LT(worst(a, b), bound) << name_of(outer);
    };
    auto const other = random_factors<double>({true, true, true}, granularity::channel, shape, 190);
    check(outer.inverse(), wide.inverse());
    check(compose(outer, other), compose(wide, other.template rounded<digits50>()));
  });
}

// Σ weight·A'(layer, c, n) + Σ weight·step factor, by each number of the row.
TEST(ScalingFactors, GradientGathersInTheOrderOfTheNumbers) {
  for (auto const& of : {small, few_heads}) {
    auto const weights = random_spectrum<digits50>(of, 4),
               eigenvalues = random_spectrum<digits50>(of, 5);
    for_each_scaling<digits50>(of, 200, [&](scaling_factors<digits50> factors) {
      tensor<digits50, 1> numbers({static_cast<index_t>(factors.numbers().size())});
      tensor<digits50, 1> gradient(numbers.extents());
      std::copy(factors.numbers().begin(), factors.numbers().end(), numbers.begin());
      auto const sum = [&] {
        std::copy(numbers.begin(), numbers.end(), factors.numbers().begin());
        auto const scaled = applied(factors, eigenvalues);
        digits50 total = 0;
        for (std::size_t i = 0; i < scaled.size(); ++i) total += weights[i] * scaled[i];
        return total;
      };
      std::size_t next = 0;
      for (index_t layer = 0; layer < of.layers; ++layer) {
        auto const scaling = factors.scaling(layer);
        auto const to = factors.gradient(layer, {gradient.data(), factors.numbers().size()});
        for (index_t c = 0; c < of.channels; ++c) {
          for (index_t n = 0; n < of.states; ++n, ++next) {
            scaling.pull_back(c, n, eigenvalues[next], weights[next], to);
          }
          if (factors.kind().step) to.step(c) += weights[next] * eigenvalues[next];
          ++next;
        }
      }
      EXPECT_TRUE(is_near(gradient, gradient_by_differences(numbers, sum), "1e-29"))
          << name_of(factors);
    });
  }
}

TEST(ScalingFactors, RoundedAreTheNearestOfTheOtherType) {
  auto const factors = random_factors<double>({true, true, true}, granularity::channel, shape, 6);
  auto const rounded = factors.rounded<float>();
  for (std::size_t i = 0; i < factors.numbers().size(); ++i) {
    EXPECT_EQ(rounded.numbers()[i], static_cast<float>(factors.numbers()[i]));
  }
}

template <class Call>
std::string refusal(Call const& call) {
  return message_of<ssm::domain_error>(call);
}

TEST(ScalingFactors, WhatIsNoScalingIsRefused) {
  auto const make = [](scaling_kind kind, granularity each, spectrum_shape const& of) {
    return refusal([&] { scaling_factors<double>(kind, each, of); });
  };
  EXPECT_EQ(make({}, granularity::layer, shape),
            "scaling_factors: kind is none, expected linear, power or step");
  EXPECT_EQ(make({true}, granularity::layer, {2, 0, 1}),
            "scaling_factors: shape is (2, 0, 1), expected 1 or more (layer, channel, state)");
  EXPECT_EQ(make({true}, granularity::head, shape),
            "scaling_factors: 5 states, expected 1 where factors are those of heads");
  std::vector<double> const two{1, 1};
  EXPECT_EQ(
      refusal([&] { scaling_factors<double>({true}, granularity::layer, shape, std::span(two)); }),
      "scaling_factors: 2 numbers, expected 3");
}

TEST(ScalingFactors, BadNumbersAreNamed) {
  double const nan = std::numeric_limits<double>::quiet_NaN();
  scaling_factors<double> factors({true, true, true}, granularity::channel_and_state, shape);
  auto const with = [&](std::size_t at, double value) {
    auto changed = factors;
    changed.numbers()[at] = value;
    return refusal([&] { changed.require_valid(); });
  };
  EXPECT_EQ(with(29, 0),
            "scaling_factors: linear of layer 1, channel 1, state 4 is 0, expected a finite "
            "positive number");
  EXPECT_EQ(
      with(60 + 59, nan),
      "scaling_factors: power of layer 2, channel 3, state 4 is nan, expected a finite number");
  EXPECT_EQ(with(120 + 11, -2),
            "scaling_factors: step of layer 2, channel 3, state 0 is -2, expected a finite "
            "positive number");
  for (std::size_t at : {0u, 60u, 120u}) {
    EXPECT_EQ(with(at, 3), "no exception");
    EXPECT_NE(with(at, INFINITY), "no exception");
  }
  EXPECT_EQ(with(60, -3), "no exception");

  factors.numbers()[70] = 0;
  EXPECT_EQ(
      refusal([&] { (void)factors.inverse(); }),
      "scaling_factors: a power of layer 0 is 0, expected another: the scaling has no inverse");
  EXPECT_EQ(refusal([&] { (void)factors.scaling(3); }),
            "scaling_factors: layer 3, expected one of the 3");
  std::vector<double> few(4);
  EXPECT_EQ(refusal([&] { (void)factors.gradient(0, few); }),
            "scaling_factors: 4 numbers, expected 132");
  EXPECT_EQ(refusal([&] {
              (void)compose(factors, scaling_factors<double>({true}, granularity::layer, heads));
            }),
            "compose: outer scales a spectrum of (3, 4, 5), expected that of inner, (3, 4, 1) "
            "(layer, channel, state)");
  scaling_factors<double> tiny({true}, granularity::layer, shape);
  tiny.numbers()[1] = 1e-50;
  EXPECT_NE(refusal([&] { (void)tiny.rounded<float>(); }), "no exception");
}

}  // namespace
