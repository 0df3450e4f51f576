// SPDX-License-Identifier: Apache-2.0
// causal_conv1d_vjp_test.cpp: the gradient of the convolution against differences in 50 digits,
// under every policy.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "support/causal_conv1d_problem.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

template <class A>
void expect_same_bits(conv_gradients<A> const& found, conv_gradients<A> const& expected) {
  EXPECT_TRUE(has_same_bits(found.x, expected.x)) << "x";
  EXPECT_TRUE(has_same_bits(found.weight, expected.weight)) << "weight";
  EXPECT_TRUE(has_same_bits(found.bias, expected.bias)) << "bias";
  EXPECT_TRUE(has_same_bits(found.initial, expected.initial)) << "initial";
}

TEST(CausalConv1dVjp, EveryGradientIsThatOfDifferencesIn50Digits) {
  for (index_t const width : {1, 2, 4, 8}) {
    for (conv_options const& options : all_conv_options()) {
      auto p = random_conv<digits50>({2, 5, 1}, width, options, 100);
      auto const found = run_conv_vjp(sequential{}, p);
      auto const loss = [&] {
        auto const out = run_conv(sequential{}, p);
        return digits50(inner_product(p.y_cotangent, out.y) +
                        inner_product(p.final_cotangent, out.carry));
      };
      auto const check = [&](auto const& gradient, auto& variable) {
        EXPECT_TRUE(is_near(gradient, gradient_by_differences(variable, loss), "1e-28"))
            << p.name();
      };
      check(found.x, p.x);
      check(found.weight, p.weight);
      if (options.bias) check(found.bias, p.bias);
      if (options.carry) check(found.initial, p.initial);
    }
  }
}

template <class T, class W>
void expect_within_bounds(conv_gradients<T> const& found, conv_problem<W> const& p) {
  auto const expected = run_conv_vjp(sequential{}, p);
  auto const of_inputs = conv_gradient_bounds(p, W(p.width + 1)),
             of_sums = conv_gradient_bounds(p, W(p.shape[0] * p.shape[1]));
  EXPECT_LE(worst_ratio(found.x, expected.x, of_inputs.x), 1) << "x, " << p.name();
  EXPECT_LE(worst_ratio(found.initial, expected.initial, of_inputs.initial), 1)
      << "initial, " << p.name();
  EXPECT_LE(worst_ratio(found.weight, expected.weight, of_sums.weight), 1)
      << "weight, " << p.name();
  EXPECT_LE(worst_ratio(found.bias, expected.bias, of_sums.bias), 1) << "bias, " << p.name();
}

TEST(CausalConv1dVjp, DoubleIsWithinTheBoundOf50Digits) {
  for (index_t width = 1; width <= 8; ++width) {
    auto const p = random_conv<double>({2, 9, 3}, width, {.packed = width % 2 == 0}, 200);
    auto const exact = converted_problem<digits50>(p);
    expect_within_bounds(run_conv_vjp(sequential{}, p), exact);
    expect_within_bounds(run_conv_vjp(parallel{}, p), exact);
  }
}

TEST(CausalConv1dVjp, FloatIsWithinTheBoundForEveryWidthAndOptionAndInstructionSet) {
  for (index_t width = 1; width <= 8; ++width) {
    for (conv_options const& options : all_conv_options()) {
      auto const p = random_conv<float>({2, 11, 37}, width, options, 300);
      auto const exact = converted_problem<double>(p);
      expect_within_bounds(run_conv_vjp(sequential{}, p), exact);
      for (auto const set :
           {instruction_set::baseline, instruction_set::avx2, instruction_set::widest}) {
        expect_within_bounds(run_conv_vjp(parallel{1, 0, set}, p), exact);
      }
    }
  }
}

TEST(CausalConv1dVjp, SeveralBlocksAndPiecesAreWithinTheBound) {
  for (index_array<3> const& shape : {index_array<3>{2, 515, 19}, {1, 2, 600}, {3, 257, 1}}) {
    for (bool const packed : {false, true}) {
      auto const p = random_conv<float>(shape, 4, {.packed = packed}, 400);
      expect_within_bounds(run_conv_vjp(parallel{0, 1}, p), converted_problem<double>(p));
    }
  }
}

TEST(CausalConv1dVjp, ThreadsChangeNoBit) {
  auto const p = random_conv<float>({2, 515, 300}, 4, {.packed = true}, 500);
  for (index_t const chunk : {0, 1}) {
    auto const expected = run_conv_vjp(parallel{1, chunk}, p);
    for (int const threads : {2, 3, 7}) {
      SCOPED_TRACE("threads " + std::to_string(threads));
      expect_same_bits(run_conv_vjp(parallel{threads, chunk}, p), expected);
    }
  }
  auto const few = random_conv<digits50>({2, 3, 5}, 4, {}, 510);
  expect_same_bits(run_conv_vjp(parallel{3}, few), run_conv_vjp(sequential{}, few));
}

TEST(CausalConv1dVjp, StorageIn16BitsChangesNoBit) {
  auto const p = random_conv<bfloat16>({2, 9, 37}, 4, {.packed = true}, 600);
  expect_same_bits(run_conv_vjp(parallel{}, p),
                   run_conv_vjp(parallel{}, converted_problem<float>(p)));
  expect_same_bits(run_conv_vjp(sequential{}, p),
                   run_conv_vjp(sequential{}, converted_problem<float>(p)));
}

template <class Policy>
void expect_same_bits_from_any_strides(Policy policy) {
  auto const p = random_conv<float>({2, 9, 32}, 4, {.packed = true}, 700);
  scattered<float, 3> const x(p.x), initial(p.initial), y_cotangent(p.y_cotangent);
  scattered<float, 3> const to_x(tensor<float, 3>(p.shape)), carry_cotangent(p.final_cotangent);
  scattered<float, 2> const weight(p.weight), to_weight(tensor<float, 2>({32, 4}));
  scattered<float, 1> const bias(p.bias), to_bias(tensor<float, 1>({32}));
  causal_conv1d_vjp(policy,
                    causal_conv1d_inputs<float>{.x = x,
                                                .weight = weight,
                                                .bias = bias,
                                                .sequence = p.sequence,
                                                .activation = p.options.kind},
                    initial, y_cotangent, carry_cotangent,
                    {.x = to_x, .weight = to_weight, .bias = to_bias});
  expect_same_bits(
      conv_gradients<float>{materialized(to_x.view()), materialized(carry_cotangent.view()),
                            materialized(to_weight.view()), materialized(to_bias.view())},
      run_conv_vjp(policy, p));
  EXPECT_EQ(to_x.overwritten() + to_weight.overwritten() + to_bias.overwritten(), 0);
  EXPECT_EQ(carry_cotangent.overwritten(), 0);
}

TEST(CausalConv1dVjp, StridesChangeNoBit) {
  expect_same_bits_from_any_strides(sequential{});
  expect_same_bits_from_any_strides(parallel{});
}

template <class Policy>
void expect_gradients_are_added(Policy policy) {
  auto const p = random_conv<float>({2, 9, 5}, 4, {}, 800);
  auto const alone = run_conv_vjp(policy, p);
  conv_gradients<float> sum{random_tensor<float>({2, 9, 5}, 801),
                            {},
                            random_tensor<float>({5, 4}, 802),
                            random_tensor<float>({5}, 803)};
  auto expected = alone;
  auto const add = [](auto& to, auto const& terms) {
    for (index_t i = 0; i < to.size(); ++i) to.data()[i] += terms.data()[i];
  };
  add(expected.x, sum.x);
  add(expected.weight, sum.weight);
  add(expected.bias, sum.bias);
  add_conv_gradients(policy, p, sum);
  expect_same_bits(sum, expected);
}

TEST(CausalConv1dVjp, GradientsAreAddedToWhatIsThere) {
  expect_gradients_are_added(sequential{});
  expect_gradients_are_added(parallel{});
}

template <class Policy>
void expect_each_gradient_alone(Policy policy) {
  auto const p = random_conv<float>({2, 9, 5}, 4, {.packed = true}, 850);
  auto const all = run_conv_vjp(policy, p);
  auto found = all;
  for (float& element : found.x) element = 0;
  for (float& element : found.weight) element = 0;
  for (float& element : found.bias) element = 0;
  found.initial = p.final_cotangent;
  causal_conv1d_vjp(policy, p.inputs(), p.initial, p.y_cotangent, {}, {.weight = found.weight});
  causal_conv1d_vjp(policy, p.inputs(), p.initial, p.y_cotangent, {}, {.bias = found.bias});
  causal_conv1d_vjp(policy, p.inputs(), p.initial, p.y_cotangent, found.initial, {.x = found.x});
  expect_same_bits(found, all);
}

TEST(CausalConv1dVjp, WhatIsNotWantedChangesNothing) {
  expect_each_gradient_alone(sequential{});
  expect_each_gradient_alone(parallel{});
}

// Both sum the same gradients of copies, in other orders.
TEST(CausalConv1dVjp, GradientOfABroadcastInputIsTheSumOverItsCopies) {
  index_t const batch = 2, length = 9, channels = 5, width = 4;
  auto const p = random_conv<double>({batch, length, channels}, width, {}, 900);
  auto const full = run_conv_vjp(sequential{}, p);
  tensor<double, 2> x({batch, length}), x_sum = x, x_terms = x;
  tensor<double, 1> weight({width}), weight_sum = weight, weight_terms = weight;
  tensor<double, 1> bias({1}), bias_sum = bias, bias_terms = bias;
  for (index_t c = 0; c < channels; ++c) {
    for_each_position(x.extents(), [&](auto const& at_time) {
      double const term = full.x(at_time[0], at_time[1], c);
      at(x_sum.view(), at_time) += term;
      at(x_terms.view(), at_time) += channels * abs(term);
    });
    for (index_t k = 0; k < width; ++k) {
      weight_sum(k) += full.weight(c, k);
      weight_terms(k) += channels * abs(full.weight(c, k));
    }
    bias_sum(0) += full.bias(c);
    bias_terms(0) += channels * abs(full.bias(c));
  }
  for (int const threads : {1, 7}) {
    x = tensor<double, 2>({batch, length});
    weight = tensor<double, 1>({width});
    bias = tensor<double, 1>({1});
    auto carry = p.final_cotangent;
    causal_conv1d_vjp(parallel{threads}, p.inputs(), p.initial, p.y_cotangent, carry,
                      {.x = x.view().broadcast(2, channels),
                       .weight = weight.view().broadcast(0, channels),
                       .bias = {bias.data(), {channels}, {0}}});
    EXPECT_LE(worst_ratio(x, x_sum, x_terms), 1) << p.name();
    EXPECT_LE(worst_ratio(weight, weight_sum, weight_terms), 1) << p.name();
    EXPECT_LE(worst_ratio(bias, bias_sum, bias_terms), 1) << p.name();
  }
}

template <class Policy>
void expect_empty_is_nothing(Policy policy) {
  for (index_array<3> const& shape : {index_array<3>{2, 0, 3}, {0, 4, 3}, {2, 4, 0}}) {
    auto const p = random_conv<float>(shape, 4, {.packed = true}, 950);
    auto const found = run_conv_vjp(policy, p);
    EXPECT_TRUE(has_same_bits(found.initial, p.final_cotangent)) << p.name();
    EXPECT_TRUE(has_same_bits(found.weight, tensor<float, 2>(found.weight.extents()))) << p.name();
  }
}

TEST(CausalConv1dVjp, NothingToDoLeavesTheCotangentOfTheCarry) {
  expect_empty_is_nothing(sequential{});
  expect_empty_is_nothing(parallel{});
}

TEST(CausalConv1dVjp, NamesWhatIsWrongBeforeItWrites) {
  auto const p = random_conv<float>({2, 4, 3}, 3, {.packed = true}, 960);
  struct views {
    causal_conv1d_inputs<float> in;
    state_view<float const> initial;
    sequence_view<float const> y_cotangent;
    state_view<float> carry_cotangent;
    causal_conv1d_gradients<float> to;
  };
  tensor<float, 3> x = poisoned<float>({2, 4, 3}), carry = poisoned<float>({2, 3, 2});
  tensor<float, 2> weight = poisoned<float>({3, 3});
  tensor<float, 1> bias = poisoned<float>({3});
  auto const message = [&](auto const& change) {
    views v{p.inputs(), p.initial, p.y_cotangent, carry, {x, weight, bias}};
    change(v);
    auto const found = message_of<shape_error>([&] {
      causal_conv1d_vjp(parallel{}, v.in, v.initial, v.y_cotangent, v.carry_cotangent, v.to);
    });
    EXPECT_TRUE(is_poisoned(x) && is_poisoned(carry)) << found;
    EXPECT_TRUE(is_poisoned(weight) && is_poisoned(bias)) << found;
    return found;
  };
  std::string const prefix = "causal_conv1d_vjp: ";
  std::string const carried = ", expected (2, 3, 2) (batch, channel, width - 1)";
  std::string const row = ", expected (2, 4, 3) (batch, time, channel)";
  EXPECT_EQ(message([](views& v) { v.in.weight = v.in.weight.slice(1, 0, 0); }),
            "causal_conv1d: weight has shape (3, 0), expected (3, 1 to 8) (channel, width)");
  EXPECT_EQ(message([](views& v) { v.initial = v.initial.slice(2, 0, 1); }),
            prefix + "initial has shape (2, 3, 1)" + carried);
  EXPECT_EQ(message([](views& v) { v.y_cotangent = {}; }),
            prefix + "y_cotangent has shape (0, 0, 0)" + row);
  EXPECT_EQ(message([](views& v) { v.carry_cotangent = v.carry_cotangent.slice(0, 0, 1); }),
            prefix + "carry_cotangent has shape (1, 3, 2)" + carried);
  EXPECT_EQ(
      message([](views& v) { v.carry_cotangent = v.carry_cotangent.select(1, 0).broadcast(1, 3); }),
      prefix +
          "carry_cotangent has stride 0 along axis 1 of extent 3, expected elements of "
          "its own at every position");
  EXPECT_EQ(message([](views& v) { v.to.x = v.to.x.slice(2, 0, 2); }),
            prefix + "gradients.x has shape (2, 4, 2)" + row);
  EXPECT_EQ(message([](views& v) { v.to.weight = v.to.weight.slice(1, 0, 2); }),
            prefix + "gradients.weight has shape (3, 2), expected (3, 3) (channel, width)");
  EXPECT_EQ(message([](views& v) { v.to.bias = v.to.bias.slice(0, 0, 2); }),
            prefix + "gradients.bias has shape (2), expected (3) (channel)");
}

}  // namespace
