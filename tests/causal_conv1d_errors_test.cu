// SPDX-License-Identifier: Apache-2.0
// Views of memory that is not there: an error comes before anything could read it.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "ssm/causal_conv1d.cuh"
#include "support/device.cuh"
#include "support/untouched_memory.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;

struct untouched : untouched_memory {
  causal_conv1d_inputs<float, memory::device> in{};
  state_view<float, memory::device> carry, carry_cotangent;
  sequence_view<float, memory::device> y;
  sequence_view<float const, memory::device> y_cotangent;
  causal_conv1d_gradients<float, memory::device> to{};

  untouched() {
    in.x = next<float const, 3>({2, 100, 8});
    in.weight = next<float const, 2>({8, 4});
    in.bias = next<float const, 1>({8});
    in.sequence = next<std::int32_t const, 2>({2, 100});
    carry = next<float, 3>({2, 8, 3});
    carry_cotangent = next<float, 3>({2, 8, 3});
    y = next<float, 3>({2, 100, 8});
    y_cotangent = next<float const, 3>({2, 100, 8});
    to.x = next<float, 3>({2, 100, 8});
    to.weight = next<float, 2>({8, 4});
    to.bias = next<float, 1>({8});
  }

  std::string forward() const {
    return refusal_of([&] { gpu::causal_conv1d({}, in, carry, y); });
  }
  std::string gradient() const {
    return refusal_of(
        [&] { gpu::causal_conv1d_vjp({}, in, carry, y_cotangent, carry_cotangent, to, {}); });
  }
};

TEST(CausalConv1dErrors, NameTheArgumentWhatWasFoundAndWhatWasExpected) {
  untouched of;
  of.in.weight = of.next<float const, 2>({8, 9});
  EXPECT_EQ(of.forward(),
            "causal_conv1d: weight has shape (8, 9), expected (8, 1 to 8) (channel, width)");
  of = untouched();
  of.in.bias = of.next<float const, 1>({7});
  EXPECT_EQ(of.gradient(), "causal_conv1d: bias has shape (7), expected (8) (channel)");
  of = untouched();
  of.in.sequence = of.next<std::int32_t const, 2>({2, 99});
  EXPECT_EQ(of.forward(),
            "causal_conv1d: sequence has shape (2, 99), expected (2, 100) (batch, time)");
  of = untouched();
  of.carry = of.next<float, 3>({2, 8, 4});
  EXPECT_EQ(of.forward(),
            "causal_conv1d: carry has shape (2, 8, 4), expected (2, 8, 3) (batch, channel, width - "
            "1)");
  EXPECT_EQ(of.gradient(),
            "causal_conv1d_vjp: initial has shape (2, 8, 4), expected (2, 8, 3) (batch, channel, "
            "width - 1)");
  of = untouched();
  of.y = of.y.slice(1, 0, 50);
  EXPECT_EQ(of.forward(),
            "causal_conv1d: y has shape (2, 50, 8), expected (2, 100, 8) (batch, time, channel)");
  of.y_cotangent = of.y_cotangent.slice(1, 0, 50);
  EXPECT_EQ(of.gradient(),
            "causal_conv1d_vjp: y_cotangent has shape (2, 50, 8), expected (2, 100, 8) (batch, "
            "time, channel)");
  of = untouched();
  of.to.weight = of.next<float, 2>({8, 3});
  EXPECT_EQ(of.gradient(),
            "causal_conv1d_vjp: gradients.weight has shape (8, 3), expected (8, 4) (channel, "
            "width)");
}

TEST(CausalConv1dErrors, OutputsHaveMemoryOfTheirOwn) {
  untouched of;
  of.y = {const_cast<float*>(of.in.x.data_handle()) + 8, of.in.x.extents()};
  EXPECT_EQ(of.forward(), "causal_conv1d: y overlaps x, expected memory of its own");
  of = untouched();
  of.carry = {of.y.data_handle(), of.carry.extents()};
  EXPECT_EQ(of.forward(), "causal_conv1d: y overlaps carry, expected memory of its own");
  of = untouched();
  of.y = of.y.select(0, 0).broadcast(0, 2);
  EXPECT_EQ(of.forward(),
            "causal_conv1d: y has stride 0 along axis 0 of extent 2, expected elements of its own "
            "at every position");
  of = untouched();
  of.to.x = of.to.x.select(2, 0).broadcast(2, 8);
  EXPECT_EQ(of.gradient(),
            "causal_conv1d_vjp: gradients.x has stride 0 along axis 2 of extent 8, expected "
            "elements of its own at every position");
  of = untouched();
  of.to.bias = {of.to.weight.data_handle() + 31, {8}};
  EXPECT_EQ(of.gradient(),
            "causal_conv1d_vjp: gradients.weight overlaps gradients.bias, expected memory of its "
            "own");
  of = untouched();
  of.to.x = {const_cast<float*>(of.y_cotangent.data_handle()), of.to.x.extents()};
  EXPECT_EQ(of.gradient(),
            "causal_conv1d_vjp: gradients.x overlaps y_cotangent, expected memory of its own");
}

TEST(CausalConv1dErrors, WorkspaceIsLargeEnough) {
  SSM_SKIP_WITHOUT_DEVICE();
  untouched of;
  auto const bytes =
      gpu::causal_conv1d_vjp_workspace(of.in, of.carry, of.y_cotangent, of.carry_cotangent, of.to);
  EXPECT_GE(bytes, sizeof(float) * (5 * 8 + 2 * 8 * 3));
  EXPECT_EQ(of.gradient(),
            "causal_conv1d_vjp: workspace has 0 bytes, expected at least " + std::to_string(bytes));
  untouched nothing;
  nothing.to = {};
  EXPECT_EQ(gpu::causal_conv1d_vjp_workspace(nothing.in, nothing.carry, nothing.y_cotangent, {},
                                             nothing.to),
            0u);
}

}  // namespace
