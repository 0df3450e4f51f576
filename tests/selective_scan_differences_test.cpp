// SPDX-License-Identifier: Apache-2.0
// selective_scan_differences_test.cpp: the gradient of Mamba's operator against differences of its
// formula, in 50 digits for the slow twin and in double for the fast path.
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>

#include "support/oracle.hpp"
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

// A factor for the layer, for each channel and for each state, by views of stride 0.
TEST(SelectiveScanDifferences, GradientsOfSharedFactorsAreTheirSlopesInDouble) {
  auto const p = random_selective<double>({2, 40, 5, 6}, 1, selective_options::all(), 300);
  selective_gradient_bounds const bounds(p);
  struct granularity {
    char const* name;
    index_array<2> strides;
    index_array<2> extents;
  };
  for (granularity const& each : {granularity{"layer", {0, 0}, {1, 1}},
                                  {"channel", {1, 0}, {5, 1}},
                                  {"state", {0, 1}, {1, 6}},
                                  {"channel and state", {6, 1}, {5, 6}}}) {
    tensor<double, 2> linear =
                          random_tensor<double>({each.extents[0], each.extents[1]}, 310, 0.5, 2),
                      power =
                          random_tensor<double>({each.extents[0], each.extents[1]}, 311, 0.5, 1.5);
    bool const per_layer = each.extents[0] == 1;
    tensor<double, 1> step = random_tensor<double>({each.extents[0]}, 312, 0.5, 2);
    tensor<double, 2> to_linear(each.extents), to_power(each.extents);
    tensor<double, 1> to_step(step.extents());
    auto const view = [&](auto& factors) {
      return tensor_view<double, 2>(factors.data(), p.eigenvalue.extents(), each.strides);
    };
    index_array<1> const step_stride{per_layer ? 0 : 1};
    auto in = p.inputs();
    in.scaling = {.linear = view(linear),
                  .power = view(power),
                  .step = tensor_view<double const, 1>(step.data(), {5}, step_stride)};
    auto const of_fast_path = [&] {
      auto carry = p.initial;
      tensor<double, 3> y(p.x.extents());
      selective_scan(parallel{}, in, carry, y);
      return loss(p, y, carry);
    };
    selective_gradient<double> to(p);
    to.initial = p.final_cotangent;
    selective_scan_vjp(
        parallel{}, in, p.initial, p.y_cotangent, to.initial,
        {.scaling = {.linear = view(to_linear),
                     .power = view(to_power),
                     .step = tensor_view<double, 1>(to_step.data(), {5}, step_stride)}});
    // Central differences with h = 1e-5 are off by h² of the third derivative, which here is at
    // most a hundred times the terms, and by the rounding of the loss over h.
    double scale = 1;
    for (double const term : bounds.terms.linear) scale += 4 * term;
    for (double const term : bounds.terms.power) scale += 4 * term;
    for (double const term : bounds.terms.step) scale += 4 * term;
    double const h = 1e-5, tolerance = scale * (100 * h * h + 1e-16 * bounds.roundings / h);
    auto const check = [&](char const* name, auto& factors, auto const& gradient) {
      for (index_t i = 0; i < factors.size(); ++i) {
        double& factor = factors.data()[i];
        double const here = factor;
        factor = here + h;
        double const up = of_fast_path();
        factor = here - h;
        double const down = of_fast_path();
        factor = here;
        EXPECT_NEAR(gradient.data()[i], (up - down) / (2 * h), tolerance)
            << name << " per " << each.name;
      }
    };
    check("linear", linear, to_linear);
    check("power", power, to_power);
    check("step", step, to_step);
  }
}

}  // namespace
