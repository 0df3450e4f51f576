// SPDX-License-Identifier: Apache-2.0
// state_space_dual_errors_test.cpp: what Mamba-2's operator refuses, before it writes anything.
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>

#include "compiled/state_space_dual.hpp"
#include "support/oracle.hpp"
#include "support/ssd_problem.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

/// The message of a call with inputs as `change` leaves them; outputs must stay NaN.
template <class Change>
std::string refusal(Change const& change) {
  ssd_problem<float> const problem({1, 9, 4, 3, 2, 5});
  auto inputs = problem.inputs();
  auto carry = poisoned<float>({1, 4, 3, 5});
  auto y = poisoned<float>({1, 9, 4, 3});
  auto carry_view = carry.view();
  auto y_view = y.view();
  parallel policy{.threads = 1};
  state_space_dual_saved<float> saved{};
  change(inputs, carry_view, y_view, policy, saved);
  auto const message =
      message_of<shape_error>([&] { state_space_dual(policy, inputs, carry_view, y_view, saved); });
  EXPECT_TRUE(is_poisoned(carry));
  EXPECT_TRUE(is_poisoned(y));
  EXPECT_EQ(message_of<shape_error>(
                [&] { state_space_dual(sequential{}, inputs, carry_view, y_view, saved); }),
            policy.chunk < 0 || policy.threads < 0 ? "no exception" : message);
  return message;
}

TEST(StateSpaceDualOptions, RefusesWhatDoesNotFit) {
  using in_t = state_space_dual_inputs<float>;
  using view4 = tensor_view<float, 4>;
  using saved_t = state_space_dual_saved<float>;
  tensor<float, 4> const other({1, 9, 4, 2});
  tensor<float, 1> const three({3});
  tensor<std::int32_t, 2> falling({1, 9}, 1);
  falling(0, 5) = 0;
  tensor<float, 5> states({1, 2, 4, 3, 5});

  EXPECT_EQ(refusal([&](in_t& in, view4&, view4&, parallel&, saved_t&) { in.gate = other.view(); }),
            "state_space_dual: gate has shape (1, 9, 4, 2), expected (1, 9, 4, 3) (batch, time, "
            "head, head_dim)");
  EXPECT_EQ(
      refusal([&](in_t& in, view4&, view4&, parallel&, saved_t&) { in.eigenvalue = three.view(); }),
      "state_space_dual: eigenvalue has shape (3), expected (4) (head)");
  EXPECT_EQ(refusal([&](in_t& in, view4&, view4&, parallel&, saved_t&) {
              in.B = in.C = tensor_view<float const, 4>(in.B.data_handle(), {1, 9, 3, 3});
            }),
            "state_space_dual: x has 4 heads, expected a multiple of the 3 groups of B");
  EXPECT_EQ(refusal([&](in_t&, view4& carry, view4&, parallel&, saved_t&) {
              carry = carry.slice(3, 0, 4);
            }),
            "state_space_dual: carry has shape (1, 4, 3, 4), expected (1, 4, 3, 5) (batch, head, "
            "head_dim, state)");
  EXPECT_EQ(refusal([&](in_t&, view4&, view4& y, parallel&, saved_t&) {
              y = {y.data_handle(), y.extents(), {0, 0, 3, 1}};
            }),
            "state_space_dual: y has stride 0 along axis 1 of extent 9, expected elements of its "
            "own at every position");
  EXPECT_EQ(refusal([&](in_t& in, view4&, view4&, parallel&, saved_t&) {
              in.step_rule.limits = {0, std::numeric_limits<float>::infinity()};
            }),
            "state_space_dual: step limits are [0, inf], expected finite numbers, the smaller one "
            "first");
  EXPECT_EQ(
      refusal([&](in_t& in, view4&, view4&, parallel&, saved_t&) { in.sequence = falling.view(); }),
      "state_space_dual: sequence falls from 1 to 0 at (0, 5), expected never less than "
      "before");
  EXPECT_EQ(refusal([&](in_t&, view4&, view4&, parallel& policy, saved_t&) { policy.chunk = -1; }),
            "parallel: chunk is -1, expected 0 (from the shape) or more");
  EXPECT_EQ(refusal([&](in_t&, view4&, view4&, parallel&, saved_t& saved) {
              saved.states = states.view();
            }),
            "state_space_dual: saved.states has shape (1, 2, 4, 3, 5), expected (1, 1, 4, 3, 5) "
            "(batch, block, head, head_dim, state)");
  tensor<float, 2> const factor({4, 2});
  EXPECT_EQ(refusal([&](in_t& in, view4&, view4&, parallel&, saved_t&) {
              in.scaling.linear = factor.view();
            }).substr(0, 24),
            "spectrum_scaling: linear");
}

}  // namespace
