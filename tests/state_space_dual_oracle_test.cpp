// SPDX-License-Identifier: Apache-2.0
// state_space_dual_oracle_test.cpp: the gradient of Mamba-2's operator against differences of the
// operator in 50 digits.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

#include "compiled/state_space_dual.hpp"
#include "support/oracle.hpp"
#include "support/random_scaling.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

/// Five steps of two heads of two channels with three states, packed as 2 + 3, with every option.
template <class R>
struct tiny_problem {
  tensor<R, 4> x, gate, B, C, initial, y_cotangent, carry_cotangent;
  tensor<R, 3> step_size;
  tensor<R, 2> D, linear, power;
  tensor<R, 1> eigenvalue, step_bias, step;
  tensor<std::int32_t, 2> sequence;

  state_space_dual_inputs<R> inputs() const {
    return {.x = x.view(),
            .step_size = step_size.view(),
            .eigenvalue = eigenvalue.view(),
            .B = B.view(),
            .C = C.view(),
            .D = D.view(),
            .gate = gate.view(),
            .step_bias = step_bias.view(),
            .scaling = {linear.view(), power.view(), step.view()},
            .sequence = sequence.view()};
  }
};

tiny_problem<double> tiny() {
  tensor<std::int32_t, 2> sequence({1, 5});
  for (index_t t = 2; t < 5; ++t) sequence(0, t) = 1;
  return {.x = random_tensor<double>({1, 5, 2, 2}, 1),
          .gate = random_tensor<double>({1, 5, 2, 2}, 2),
          .B = random_tensor<double>({1, 5, 1, 3}, 3),
          .C = random_tensor<double>({1, 5, 1, 3}, 4),
          .initial = random_tensor<double>({1, 2, 2, 3}, 5),
          .y_cotangent = random_tensor<double>({1, 5, 2, 2}, 6),
          .carry_cotangent = random_tensor<double>({1, 2, 2, 3}, 7),
          .step_size = random_tensor<double>({1, 5, 2}, 8),
          .D = random_tensor<double>({2, 2}, 9),
          .linear = random_tensor<double>({2, 1}, 10, 0.5, 2),
          .power = random_tensor<double>({2, 1}, 11, 0.5, 2),
          .eigenvalue = random_tensor<double>({2}, 12, -3, -0.5),
          .step_bias = random_tensor<double>({2}, 13),
          .step = random_tensor<double>({2}, 14, 0.5, 2),
          .sequence = sequence};
}

tiny_problem<digits50> widened(tiny_problem<double> const& p) {
  using test::widened;
  return {widened(p.x),
          widened(p.gate),
          widened(p.B),
          widened(p.C),
          widened(p.initial),
          widened(p.y_cotangent),
          widened(p.carry_cotangent),
          widened(p.step_size),
          widened(p.D),
          widened(p.linear),
          widened(p.power),
          widened(p.eigenvalue),
          widened(p.step_bias),
          widened(p.step),
          p.sequence};
}

/// The gradients in the order of for_each_variable.
template <class Policy, class R>
tiny_problem<R> gradient(Policy policy, tiny_problem<R> const& p) {
  tiny_problem<R> to{p};
  auto const clear = [](auto& view) { std::fill(view.begin(), view.end(), R(0)); };
  clear(to.x), clear(to.gate), clear(to.B), clear(to.C), clear(to.step_size), clear(to.D);
  clear(to.linear), clear(to.power), clear(to.eigenvalue), clear(to.step_bias), clear(to.step);
  to.initial = p.carry_cotangent;
  state_space_dual_vjp(
      policy, p.inputs(), p.initial.view(), p.y_cotangent.view(), to.initial.view(),
      {.x = to.x.view(),
       .step_size = to.step_size.view(),
       .eigenvalue = to.eigenvalue.view(),
       .B = to.B.view(),
       .C = to.C.view(),
       .D = to.D.view(),
       .gate = to.gate.view(),
       .step_bias = to.step_bias.view(),
       .scaling = {.linear = to.linear.view(), .power = to.power.view(), .step = to.step.view()}});
  return to;
}

TEST(StateSpaceDualOracle, GradientsAreDifferencesInFiftyDigits) {
  tiny_problem<double> const problem = tiny();
  tiny_problem<digits50> exact = widened(problem);
  auto const loss = [&] {
    tensor<digits50, 4> y(exact.x.extents()), carry = exact.initial;
    state_space_dual(sequential{}, exact.inputs(), carry.view(), y.view());
    return digits50(inner_product(exact.y_cotangent, y) +
                    inner_product(exact.carry_cotangent, carry));
  };
  auto const of_reference = gradient(sequential{}, exact);
  auto const of_products = gradient(parallel{.threads = 1}, problem);
  auto const compare = [&](auto& variable, auto const& reference, auto const& products,
                           char const* name) {
    auto const expected = gradient_by_differences(variable, loss);
    EXPECT_TRUE(is_near(reference, expected, "1e-28")) << name;
    EXPECT_TRUE(is_near(test::widened(products), expected, "1e-13")) << name;
  };
  compare(exact.x, of_reference.x, of_products.x, "x");
  compare(exact.gate, of_reference.gate, of_products.gate, "gate");
  compare(exact.B, of_reference.B, of_products.B, "B");
  compare(exact.C, of_reference.C, of_products.C, "C");
  compare(exact.initial, of_reference.initial, of_products.initial, "initial");
  compare(exact.step_size, of_reference.step_size, of_products.step_size, "step_size");
  compare(exact.D, of_reference.D, of_products.D, "D");
  compare(exact.linear, of_reference.linear, of_products.linear, "linear");
  compare(exact.power, of_reference.power, of_products.power, "power");
  compare(exact.eigenvalue, of_reference.eigenvalue, of_products.eigenvalue, "eigenvalue");
  compare(exact.step_bias, of_reference.step_bias, of_products.step_bias, "step_bias");
  compare(exact.step, of_reference.step, of_products.step, "step");
}

// Every kind and granularity, gathered over two layers into the row of the factors.
TEST(StateSpaceDualOracle, GradientsOfScalingFactorsAreDifferencesInFiftyDigits) {
  tiny_problem<double> const problem = tiny();
  tiny_problem<digits50> const exact = widened(problem);
  for_each_scaling<double>({2, 2, 1}, 20, [&](scaling_factors<double> const& factors) {
    auto wide = factors.rounded<digits50>();
    auto const count = static_cast<index_t>(factors.numbers().size());
    tensor<digits50, 1> numbers({count});
    std::copy(wide.numbers().begin(), wide.numbers().end(), numbers.begin());
    auto const loss = [&] {
      std::copy(numbers.begin(), numbers.end(), wide.numbers().begin());
      digits50 sum = 0;
      for (index_t layer = 0; layer < 2; ++layer) {
        auto inputs = exact.inputs();
        inputs.scaling = wide.scaling(layer);
        tensor<digits50, 4> y(exact.x.extents()), carry = exact.initial;
        state_space_dual(sequential{}, inputs, carry.view(), y.view());
        sum += inner_product(exact.y_cotangent, y) + inner_product(exact.carry_cotangent, carry);
      }
      return sum;
    };
    auto const slope = gradient_by_differences(numbers, loss);
    for (auto const set :
         {instruction_set::baseline, instruction_set::avx2, instruction_set::avx512}) {
      tensor<double, 1> gradient({count});
      for (index_t layer = 0; layer < 2; ++layer) {
        auto inputs = problem.inputs();
        inputs.scaling = factors.scaling(layer);
        auto to_initial = problem.carry_cotangent;
        state_space_dual_vjp(
            parallel{.threads = 1, .instructions = set}, inputs, problem.initial.view(),
            problem.y_cotangent.view(), to_initial.view(),
            {.scaling = factors.gradient(layer, {gradient.data(), factors.numbers().size()})});
      }
      EXPECT_TRUE(is_near(test::widened(gradient), slope, "1e-10")) << name_of(factors);
    }
  });
}

}  // namespace
