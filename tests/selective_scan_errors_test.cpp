// SPDX-License-Identifier: Apache-2.0
// selective_scan_errors_test.cpp: what selective_scan and its gradient refuse, in whose words, and
// that they have then written nothing.
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "compiled/selective_scan.hpp"
#include "support/oracle.hpp"
#include "support/selective_scan_gradients.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

/// All that a call of either function takes, right at first: batch 2, length 9, 4 channels, 3
/// states, 2 groups.
struct call {
  selective_problem<float> p =
      random_selective<float>({2, 9, 4, 3}, 2, selective_options::all(), 1);
  selective_scan_inputs<float> in = p.inputs();
  tensor<float, 3> states = poisoned<float>({2, 4, 3}), outputs = poisoned<float>({2, 9, 4});
  tensor<float, 4> blocks = poisoned<float>({2, 1, 3, 4});
  state_view<float> carry = states;
  sequence_view<float> y = outputs;
  trajectory_view<float> checkpoints = blocks;
  parallel policy{};

  state_view<float const> initial = p.initial;
  sequence_view<float const> y_cotangent = p.y_cotangent;
  selective_gradient<float> gradient{p};
  selective_scan_gradients<float> to = gradient.views();

  template <class Policy>
  std::string message(Policy chosen) {
    std::string const text =
        message_of<shape_error>([&] { selective_scan(chosen, in, carry, y, checkpoints); });
    EXPECT_TRUE(is_poisoned(states)) << text;
    EXPECT_TRUE(is_poisoned(outputs)) << text;
    EXPECT_TRUE(is_poisoned(blocks)) << text;
    return text;
  }
  template <class Policy>
  std::string vjp_message(Policy chosen) {
    std::string const text = message_of<shape_error>([&] {
      selective_scan_vjp(chosen, in, initial, y_cotangent, carry, to,
                         trajectory_view<float const>(checkpoints));
    });
    EXPECT_TRUE(is_poisoned(states)) << text;
    for_each_gradient(
        p.options,
        [&](std::string const name, auto const& each) {
          if (name == "initial") return;
          for (float const number : each) EXPECT_EQ(number, 0) << text;
        },
        gradient);
    return text;
  }
};

struct misuse {
  std::function<void(call&)> what;
  char const* message;
};

// Memory of the wrong shape, never read.
float some[200];
std::int32_t numbers[18] = {0, 0, 1, 1, 2, 2, 3, 3, 3, 0, 0, 1, 1, 5, 4, 4, 4, 4};

std::vector<misuse> wrong_inputs() {
  return {
      {[](call& c) {
         c.in.step_size = {some, {2, 9, 5}};
       },
       "selective_scan: step_size has shape (2, 9, 5), expected (2, 9, 4) (batch, time, channel)"},
      {[](call& c) {
         c.in.eigenvalue = {some, {3, 3}};
       },
       "selective_scan: eigenvalue has shape (3, 3), expected (4, 3) (channel, state)"},
      {[](call& c) {
         c.in.B = {some, {2, 8, 2, 3}};
       },
       "selective_scan: B has shape (2, 8, 2, 3), expected (2, 9, 2, 3) "
       "(batch, time, group, state)"},
      {[](call& c) {
         c.in.C = {some, {2, 9, 1, 3}};
       },
       "selective_scan: C has shape (2, 9, 1, 3), expected (2, 9, 2, 3) "
       "(batch, time, group, state)"},
      {[](call& c) {
         c.in.B = c.in.C = {some, {2, 9, 3, 3}};
       },
       "selective_scan: x has 4 channels, expected a multiple of the 3 groups of B"},
      {[](call& c) {
         c.in.B = c.in.C = {some, {2, 9, 0, 3}};
       },
       "selective_scan: x has 4 channels, expected a multiple of the 0 groups of B"},
      {[](call& c) {
         c.in.D = {some, {3}};
       },
       "selective_scan: D has shape (3), expected (4) (channel)"},
      {[](call& c) {
         c.in.gate = {some, {2, 9, 1}};
       },
       "selective_scan: gate has shape (2, 9, 1), expected (2, 9, 4) (batch, time, channel)"},
      {[](call& c) {
         c.in.step_bias = {some, {1}};
       },
       "selective_scan: step_bias has shape (1), expected (4) (channel)"},
      {[](call& c) {
         c.in.step_rule.limits = {0.5f, 0.25f};
       },
       "selective_scan: step_rule.limits are [0.5, 0.25], expected finite numbers, the smaller one "
       "first"},
      {[](call& c) {
         c.in.step_rule.limits = {0, std::numeric_limits<float>::infinity()};
       },
       "selective_scan: step_rule.limits are [0, inf], expected finite numbers, the smaller one "
       "first"},
      {[](call& c) {
         c.in.step_rule.limits = {nan, 1};
       },
       "selective_scan: step_rule.limits are [nan, 1], expected finite numbers, the smaller one "
       "first"},
      {[](call& c) {
         c.in.scaling.linear = {some, {4, 1}};
       },
       "spectrum_scaling: linear has shape (4, 1), expected (4, 3) (channel, state)"},
      {[](call& c) {
         c.in.scaling.power = {some, {1, 3}};
       },
       "spectrum_scaling: power has shape (1, 3), expected (4, 3) (channel, state)"},
      {[](call& c) {
         c.in.scaling.step = {some, {1}};
       },
       "spectrum_scaling: step has shape (1), expected (4) (channel)"},
      {[](call& c) {
         c.in.sequence = {numbers, {1, 9}};
       },
       "selective_scan: sequence has shape (1, 9), expected (2, 9) (batch, time)"},
      {[](call& c) {
         c.in.sequence = {numbers, {2, 9}};
       },
       "selective_scan: sequence falls from 5 to 4 at (1, 5), expected never less than before"},
  };
}

TEST(SelectiveScanErrors, NameTheInputThatDoesNotFit) {
  for (misuse const& each : wrong_inputs()) {
    call c;
    each.what(c);
    EXPECT_EQ(c.message(parallel{}), each.message);
    EXPECT_EQ(c.message(sequential{}), each.message);
    EXPECT_EQ(c.vjp_message(parallel{}), each.message);
    EXPECT_EQ(c.vjp_message(sequential{}), each.message);
  }
}

TEST(SelectiveScanErrors, NameTheOutputThatDoesNotFit) {
  misuse const all[] = {
      {[](call& c) {
         c.carry = {some, {2, 3, 4}};
       },
       "selective_scan: carry has shape (2, 3, 4), expected (2, 4, 3) (batch, channel, state)"},
      {[](call& c) {
         c.y = {some, {2, 4, 9}};
       },
       "selective_scan: y has shape (2, 4, 9), expected (2, 9, 4) (batch, time, channel)"},
      {[](call& c) { c.y = {}; },
       "selective_scan: y has shape (0, 0, 0), expected (2, 9, 4) (batch, time, channel)"},
      {[](call& c) {
         c.carry = {some, {2, 4, 3}, {0, 3, 1}};
       },
       "selective_scan: carry has stride 0 along axis 0 of extent 2, expected elements of its own "
       "at every position"},
      {[](call& c) {
         c.y = {some, {2, 9, 4}, {4, 0, 1}};
       },
       "selective_scan: y has stride 0 along axis 1 of extent 9, expected elements of its own at "
       "every position"},
      {[](call& c) {
         c.checkpoints = {some, {2, 2, 3, 4}};
       },
       "selective_scan: checkpoints has shape (2, 2, 3, 4), expected (2, 1, 3, 4) "
       "(batch, block, state, channel)"},
      {[](call& c) {
         c.checkpoints = {some, {2, 1, 3, 4}, {12, 12, 4, 0}};
       },
       "selective_scan: checkpoints has stride 0 along axis 3 of extent 4, expected elements of "
       "its own at every position"},
  };
  for (misuse const& each : all) {
    call c;
    each.what(c);
    EXPECT_EQ(c.message(parallel{}), each.message);
    EXPECT_EQ(c.message(sequential{}), each.message);
  }
}

TEST(SelectiveScanErrors, NameTheGradientThatDoesNotFit) {
  misuse const all[] = {
      {[](call& c) {
         c.initial = {some, {2, 4, 2}};
       },
       "selective_scan_vjp: initial has shape (2, 4, 2), expected (2, 4, 3) "
       "(batch, channel, state)"},
      {[](call& c) {
         c.y_cotangent = {some, {2, 9, 3}};
       },
       "selective_scan_vjp: y_cotangent has shape (2, 9, 3), expected (2, 9, 4) "
       "(batch, time, channel)"},
      {[](call& c) {
         c.carry = {some, {1, 4, 3}};
       },
       "selective_scan_vjp: carry_cotangent has shape (1, 4, 3), expected (2, 4, 3) "
       "(batch, channel, state)"},
      {[](call& c) {
         c.carry = {some, {2, 4, 3}, {12, 3, 0}};
       },
       "selective_scan_vjp: carry_cotangent has stride 0 along axis 2 of extent 3, expected "
       "elements of its own at every position"},
      {[](call& c) {
         c.checkpoints = {some, {2, 1, 4, 3}};
       },
       "selective_scan_vjp: checkpoints has shape (2, 1, 4, 3), expected (2, 1, 3, 4) "
       "(batch, block, state, channel)"},
      {[](call& c) {
         c.to.x = {some, {2, 9, 5}};
       },
       "selective_scan_vjp: gradients.x has shape (2, 9, 5), expected (2, 9, 4) "
       "(batch, time, channel)"},
      {[](call& c) {
         c.to.step_size = {some, {1, 9, 4}};
       },
       "selective_scan_vjp: gradients.step_size has shape (1, 9, 4), expected (2, 9, 4) "
       "(batch, time, channel)"},
      {[](call& c) {
         c.to.gate = {some, {2, 1, 4}};
       },
       "selective_scan_vjp: gradients.gate has shape (2, 1, 4), expected (2, 9, 4) "
       "(batch, time, channel)"},
      {[](call& c) {
         c.to.eigenvalue = {some, {4, 1}};
       },
       "selective_scan_vjp: gradients.eigenvalue has shape (4, 1), expected (4, 3) "
       "(channel, state)"},
      {[](call& c) {
         c.to.B = {some, {2, 9, 4, 3}};
       },
       "selective_scan_vjp: gradients.B has shape (2, 9, 4, 3), expected (2, 9, 2, 3) "
       "(batch, time, group, state)"},
      {[](call& c) {
         c.to.C = {some, {2, 9, 2, 1}};
       },
       "selective_scan_vjp: gradients.C has shape (2, 9, 2, 1), expected (2, 9, 2, 3) "
       "(batch, time, group, state)"},
      {[](call& c) {
         c.to.D = {some, {1}};
       },
       "selective_scan_vjp: gradients.D has shape (1), expected (4) (channel)"},
      {[](call& c) {
         c.to.step_bias = {some, {5}};
       },
       "selective_scan_vjp: gradients.step_bias has shape (5), expected (4) (channel)"},
      {[](call& c) {
         c.to.scaling.linear = {some, {4, 1}};
       },
       "spectrum_scaling: linear has shape (4, 1), expected (4, 3) (channel, state)"},
      {[](call& c) {
         c.to.scaling.step = {some, {1}};
       },
       "spectrum_scaling: step has shape (1), expected (4) (channel)"},
  };
  for (misuse const& each : all) {
    call c;
    each.what(c);
    EXPECT_EQ(c.vjp_message(parallel{}), each.message);
    EXPECT_EQ(c.vjp_message(sequential{}), each.message);
  }
}

TEST(SelectiveScanErrors, NameThePolicysSetting) {
  call c;
  EXPECT_EQ(c.message(parallel{.threads = -1}),
            "parallel: threads is -1, expected 0 (all) or more");
  EXPECT_EQ(c.message(parallel{.chunk = -1}),
            "parallel: chunk is -1, expected 0 (from the shape) or more");
  EXPECT_EQ(c.message(chunked{0}), "chunked: length is 0, expected at least 1");
  EXPECT_EQ(c.vjp_message(chunked{0}), "chunked: length is 0, expected at least 1");
}

}  // namespace
