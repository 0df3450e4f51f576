// SPDX-License-Identifier: Apache-2.0
// state_space_dual_vjp_options_test.cpp: the gradient of Mamba-2's operator in float, with each of
// its options.
#include <gtest/gtest.h>

#include <vector>

#include "compiled/state_space_dual.hpp"
#include "support/oracle.hpp"
#include "support/ssd_vjp_problem.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

constexpr parallel one_thread{.threads = 1};

ssd_gradient<float> gradient_of(parallel policy, vjp_problem<float> const& p,
                                state_space_dual_inputs<float> const& inputs,
                                state_space_dual_saved<float> const& saved = {}) {
  return run_ssd_vjp(policy, inputs, p.initial, p.y_cotangent, p.carry_cotangent, saved);
}

TEST(StateSpaceDualVjpOptions, InFloatIsWithinRounding) {
  for (ssd_sizes const& sizes : {ssd_sizes{1, 150, 3, 20, 1, 24}, ssd_sizes{2, 17, 4, 80, 2, 9},
                                 ssd_sizes{1, 3, 2, 5, 1, 7}}) {
    vjp_problem<float> const problem(sizes);
    auto const exact = in_double(problem), positive = with_magnitudes(exact);
    for (auto const set : {instruction_set::baseline, instruction_set::widest}) {
      expect_near(
          gradient_of({.threads = 1, .instructions = set}, problem, problem.scaled_inputs()), exact,
          exact.scaled_inputs(), positive.scaled_inputs());
    }
  }
}

TEST(StateSpaceDualVjpOptions, PackedSequencesLimitsAndNoSoftplus) {
  vjp_problem<float> const problem({1, 160, 3, 20, 1, 24});
  auto const sequence = sequence_index(std::vector<index_t>{0, 1, 3, 16, 32, 49, 50, 150, 160});
  auto const exact = in_double(problem), positive = with_magnitudes(exact);
  for (bool const softplus : {true, false}) {
    auto const options = [&](auto inputs) {
      inputs.sequence = sequence.view();
      inputs.step_rule.softplus = softplus;
      inputs.step_rule.limits = {softplus ? 0.05F : -0.125F, 0.5F};
      return inputs;
    };
    expect_near(gradient_of(one_thread, problem, options(problem.scaled_inputs())), exact,
                options(exact.scaled_inputs()), options(positive.scaled_inputs()));
  }
}

TEST(StateSpaceDualVjpOptions, HasTheSameBitsForEveryThreadCount) {
  vjp_problem<float> const problem({2, 300, 6, 24, 2, 20});
  ASSERT_GE(2 * 300 * 6 * 24 * 20, ssm::detail::least_threaded_work);
  auto const expected = gradient_of(one_thread, problem, problem.scaled_inputs());
  for (int const threads : {2, 3, 7})
    EXPECT_TRUE(gradient_of({.threads = threads}, problem, problem.scaled_inputs()) == expected);
}

TEST(StateSpaceDualVjpOptions, WhatWasSavedGivesTheSameBits) {
  vjp_problem<float> const problem({1, 300, 3, 20, 1, 24});
  auto const inputs = problem.scaled_inputs();
  tensor<float, 5> states({1, 10, 3, 20, 24});
  tensor<float, 4> ungated(problem.x.extents());
  state_space_dual_saved<float> const all{states.view(), ungated.view()};
  auto carry = problem.initial;
  tensor<float, 4> y(problem.x.extents());
  state_space_dual(one_thread, inputs, carry.view(), y.view(), all);
  auto const expected = gradient_of(one_thread, problem, inputs);
  EXPECT_TRUE(gradient_of(one_thread, problem, inputs, all) == expected);
  EXPECT_TRUE(gradient_of(one_thread, problem, inputs, {states.view(), {}}) == expected);
  EXPECT_TRUE(gradient_of(one_thread, problem, inputs, {{}, ungated.view()}) == expected);
}

TEST(StateSpaceDualVjpOptions, SavedStatesGiveTheSameBitsInAnyLayout) {
  vjp_problem<float> const problem({1, 100, 2, 16, 1, 24});
  auto const sequence = sequence_index(std::vector<index_t>{0, 40, 41, 64, 100});
  auto inputs = problem.scaled_inputs();
  inputs.sequence = sequence.view();
  tensor<float, 5> states({1, 4, 2, 16, 24});
  auto const expected = gradient_of(one_thread, problem, inputs);
  for (auto const& view : {states.view(), channels_innermost(states.view())}) {
    auto carry = problem.initial;
    tensor<float, 4> y(problem.x.extents());
    state_space_dual(one_thread, inputs, carry.view(), y.view(), {view, {}});
    EXPECT_TRUE(gradient_of(one_thread, problem, inputs, {view, {}}) == expected);
  }
}

TEST(StateSpaceDualVjpOptions, IsAddedAndStrideZeroSums) {
  vjp_problem<float> const problem({2, 40, 3, 20, 1, 24});
  auto const inputs = problem.inputs();
  auto const all = gradient_of(one_thread, problem, inputs);
  tensor<float, 1> of_x({20}, 3.0F), of_B({24}, 5.0F), of_D({3}, 7.0F), of_step({1}, 11.0F);
  auto carry = problem.carry_cotangent;
  state_space_dual_vjp(one_thread, inputs, problem.initial.view(), problem.y_cotangent.view(),
                       carry.view(),
                       {.x = {of_x.data(), {2, 40, 3, 20}, {0, 0, 0, 1}},
                        .step_size = {of_step.data(), {2, 40, 3}, {0, 0, 0}},
                        .B = {of_B.data(), {2, 40, 1, 24}, {0, 0, 0, 1}},
                        .D = {of_D.data(), {3, 20}, {1, 0}}});
  EXPECT_TRUE(carry == all.initial);
  tensor<double, 1> x({20}, 3), B({24}, 5), D({3}, 7), step({1}, 11);
  for_each_position(all.x.extents(),
                    [&](auto const& at) { x(at[3]) += double{all.x(at[0], at[1], at[2], at[3])}; });
  for_each_position(all.B.extents(),
                    [&](auto const& at) { B(at[3]) += double{all.B(at[0], at[1], at[2], at[3])}; });
  for_each_position(all.D.extents(),
                    [&](auto const& at) { D(at[0]) += double{all.D(at[0], at[1])}; });
  for (float const z : all.step_size) step(0) += double{z};
  auto const compare = [](tensor<float, 1> const& found, tensor<double, 1> const& expected,
                          double scale) {
    for (index_t i = 0; i < found.size(); ++i)
      EXPECT_NEAR(double{found(i)}, expected(i), 240 * 6e-8 * scale);  // 240 terms at most
  };
  compare(of_x, x, 240 * 5);
  compare(of_B, B, 240 * 50);
  compare(of_D, D, 240 * 5);
  compare(of_step, step, 240 * 50);
}

TEST(StateSpaceDualVjpOptions, StridedViewsGiveTheSameBits) {
  vjp_problem<float> const problem({2, 40, 3, 20, 1, 24});
  auto inputs = problem.inputs();
  auto const expected = gradient_of(one_thread, problem, inputs);
  scattered<float, 4> const x(problem.x), B(problem.B), C(problem.C), gate(problem.gate),
      initial(problem.initial), arriving(problem.y_cotangent), carry(problem.carry_cotangent);
  scattered<float, 4> const to_x(tensor<float, 4>(problem.x.extents())),
      to_gate(tensor<float, 4>(problem.x.extents())), to_B(tensor<float, 4>(problem.B.extents()));
  inputs.x = x.view();
  inputs.B = B.view();
  inputs.C = C.view();
  inputs.gate = gate.view();
  state_space_dual_vjp(one_thread, inputs, initial.view(), arriving.view(), carry.view(),
                       {.x = to_x.view(), .B = to_B.view(), .gate = to_gate.view()});
  EXPECT_TRUE(materialized(to_x.view()) == expected.x);
  EXPECT_TRUE(materialized(to_B.view()) == expected.B);
  EXPECT_TRUE(materialized(to_gate.view()) == expected.gate);
  EXPECT_TRUE(materialized(carry.view()) == expected.initial);
  EXPECT_EQ(to_x.overwritten() + to_B.overwritten() + to_gate.overwritten() + carry.overwritten(),
            0);
}

TEST(StateSpaceDualVjpOptions, RefusesWhatDoesNotFit) {
  vjp_problem<float> const problem({1, 9, 2, 3, 1, 5});
  auto carry = poisoned<float>({1, 2, 3, 5});
  auto to_x = poisoned<float>({1, 9, 2, 3});
  tensor<float, 1> const three({3});
  auto const refusal = [&](auto const& change) {
    state_space_dual_gradients<float> to{.x = to_x.view()};
    tensor_view<float, 4> carry_view = carry.view();
    tensor_view<float const, 4> y_cotangent = problem.y_cotangent.view();
    change(to, carry_view, y_cotangent);
    auto const message = message_of<shape_error>([&] {
      state_space_dual_vjp(one_thread, problem.inputs(), problem.initial.view(), y_cotangent,
                           carry_view, to);
    });
    EXPECT_TRUE(is_poisoned(carry));
    EXPECT_TRUE(is_poisoned(to_x));
    return message;
  };
  tensor<float, 1> other({3});
  EXPECT_EQ(refusal([&](auto& to, auto&, auto&) { to.eigenvalue = other.view(); }),
            "state_space_dual_vjp: gradients.eigenvalue has shape (3), expected (2) (head)");
  EXPECT_EQ(refusal([&](auto&, auto& view, auto&) {
              view = {view.data_handle(), view.extents(), {0, 15, 5, 0}};
            }),
            "state_space_dual_vjp: carry_cotangent has stride 0 along axis 3 of extent 5, expected "
            "elements of its own at every position");
  EXPECT_EQ(refusal([&](auto&, auto&, auto& view) { view = view.slice(1, 0, 8); }),
            "state_space_dual_vjp: y_cotangent has shape (1, 8, 2, 3), expected (1, 9, 2, 3) "
            "(batch, time, head, head_dim)");
}

}  // namespace
