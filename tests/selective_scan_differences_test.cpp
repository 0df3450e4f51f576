// SPDX-License-Identifier: Apache-2.0
// selective_scan_differences_test.cpp: the gradient of Mamba's operator against differences of its
// formula, in 50 digits for the slow twin and in double for the fast path.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <vector>

#include "compiled/selective_scan.hpp"
#include "support/oracle.hpp"
#include "support/random_scaling.hpp"
#include "support/selective_scan_gradients.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

/// What arrives at the outputs of a problem, times the outputs.
template <class W>
W loss(selective_problem<W> const& p, tensor<W, 3> const& y, tensor<W, 3> const& carry) {
  return inner_product(p.y_cotangent, y) + inner_product(p.final_cotangent, carry);
}

void expect_slopes_of_the_formula(selective_problem<digits50> p) {
  auto found = run_selective_vjp(sequential{}, p);
  auto const of_formula = [&] {
    selective_truth const truth(p);
    return loss(p, truth.y, truth.carry);
  };
  for_each_gradient(
      p.options,
      [&](char const* name, auto const& gradient, auto& variable) {
        EXPECT_TRUE(is_near(gradient, gradient_by_differences(variable, of_formula), "1e-28"))
            << name << ", " << p.name();
      },
      found, p);
}

// Each option alone, all, none, and some together.
TEST(SelectiveScanDifferences, SlowTwinHasTheSlopesOfTheFormulaIn50Digits) {
  for (unsigned bits : {0u, 1u, 2u, 4u, 8u, 16u, 32u, 64u, 128u, 256u, 511u, 170u, 341u}) {
    expect_slopes_of_the_formula(random_selective<digits50>(
        {1, 3, 2, 1}, 1 + bits % 2, selective_options::of_bits(bits), 100 + 20 * bits));
  }
  expect_slopes_of_the_formula(
      random_selective<digits50>({2, 2, 2, 2}, 1, selective_options::all(), 200));
}

TEST(SelectiveScanDifferences, InDoubleIsWithinTheBoundOf50Digits) {
  double largest = 0;
  for (unsigned bits = 0; bits < selective_options::combinations; bits += 73) {
    auto const p = random_selective<double>({2, 7, 3, 3}, 3, selective_options::of_bits(bits),
                                            250 + 20 * bits);
    auto const exact = converted_problem<digits50>(p);
    auto expected = run_selective_vjp(sequential{}, exact);
    selective_gradient_bounds bounds(exact);
    auto const check = [&](auto policy) {
      auto found = run_selective_vjp(policy, p);
      auto const worst = worst_of(p.options, found, expected, bounds);
      EXPECT_LE(worst.ratio, 1) << worst.name << ", " << p.name();
      largest = std::max(largest, worst.ratio);
    };
    check(sequential{});
    check(parallel{.instructions = instruction_set::baseline});
    check(parallel{.instructions = instruction_set::avx2});
    check(parallel{.instructions = instruction_set::avx512});
  }
  std::cout << "double: the largest error is " << largest << " of its bound\n";
}

/// A layer with the factors that the formula knows, one for each channel and state.
template <class W>
selective_problem<W> with_factors(selective_problem<W> p, scaling_factors<W> const& factors,
                                  index_t layer) {
  auto const scaling = factors.scaling(layer);
  p.options.linear = factors.kind().linear;
  p.options.power = factors.kind().power;
  p.options.step = factors.kind().step;
  for (index_t c = 0; c < p.shape.channels; ++c) {
    p.step(c) = scaling.step_factor(c);
    for (index_t n = 0; n < p.shape.states; ++n) {
      p.linear(c, n) = scaling.linear_factor(c, n);
      p.power(c, n) = scaling.power_factor(c, n);
    }
  }
  return p;
}

// Every kind and granularity, gathered over two layers into the row of the factors.
TEST(SelectiveScanDifferences, GradientsOfScalingFactorsInDoubleAreTheSlopesIn50Digits) {
  std::vector<selective_problem<double>> layers;
  std::vector<selective_problem<digits50>> exact;
  for (std::uint64_t seed : {300u, 320u}) {
    layers.push_back(random_selective<double>({1, 4, 2, 2}, 1, {}, seed));
    exact.push_back(converted_problem<digits50>(layers.back()));
  }
  for_each_scaling<double>({2, 2, 2}, 340, [&](scaling_factors<double> const& factors) {
    auto wide = factors.rounded<digits50>();
    auto const count = static_cast<index_t>(factors.numbers().size());
    tensor<digits50, 1> numbers({count});
    std::copy(wide.numbers().begin(), wide.numbers().end(), numbers.begin());
    auto const of_formula = [&] {
      std::copy(numbers.begin(), numbers.end(), wide.numbers().begin());
      digits50 sum = 0;
      for (index_t layer = 0; layer < 2; ++layer) {
        auto const p = with_factors(exact[static_cast<std::size_t>(layer)], wide, layer);
        selective_truth const truth(p);
        sum += loss(p, truth.y, truth.carry);
      }
      return sum;
    };
    auto const slope = gradient_by_differences(numbers, of_formula);
    auto const check = [&](auto policy) {
      tensor<double, 1> gradient({count});
      for (index_t layer = 0; layer < 2; ++layer) {
        auto const& p = layers[static_cast<std::size_t>(layer)];
        auto in = p.inputs();
        in.scaling = factors.scaling(layer);
        auto to_initial = p.final_cotangent;
        selective_scan_vjp(
            policy, in, p.initial, p.y_cotangent, to_initial,
            {.scaling = factors.gradient(layer, {gradient.data(), factors.numbers().size()})});
      }
      EXPECT_TRUE(is_near(widened(gradient), slope, "1e-10")) << name_of(factors);
    };
    check(sequential{});
    check(parallel{.instructions = instruction_set::baseline});
    check(parallel{.instructions = instruction_set::avx2});
    check(parallel{.instructions = instruction_set::avx512});
  });
}

}  // namespace
