// SPDX-License-Identifier: Apache-2.0
// state_space_dual_errors_test.cu: what the GPU's operator refuses, before any launch.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "ssm/state_space_dual.cuh"
#include "support/untouched_memory.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;

struct untouched : untouched_memory {
  state_space_dual_inputs<bfloat16, memory::device> in{};
  tensor_view<float, 4, memory::device> carry;
  tensor_view<bfloat16, 4, memory::device> y;
  state_space_dual_saved<bfloat16, memory::device> saved;
  gpu::state_space_dual_plan plan;

  explicit untouched(index_t states = 16) {
    in.x = next<bfloat16 const, 4>({2, 1000, 6, 32});
    in.step_size = next<bfloat16 const, 3>({2, 1000, 6});
    in.eigenvalue = next<float const, 1>({6});
    in.B = next<bfloat16 const, 4>({2, 1000, 2, states});
    in.C = next<bfloat16 const, 4>({2, 1000, 2, states});
    in.D = next<float const, 2>({6, 32});
    in.sequence = next<std::int32_t const, 2>({2, 1000});
    carry = next<float, 4>({2, 6, 32, states});
    y = next<bfloat16, 4>({2, 1000, 6, 32});
    saved.states = next<float, 5>({2, 8, 6, 32, states});
    saved.ungated = next<float, 4>({2, 1000, 6, 32});
  }

  /// What state_space_dual asks of its arguments before it does anything; no kernel is compiled.
  std::string message() {
    return refusal_of(
        [&] { (void)gpu::detail::state_space_dual_problem(in, carry, y, saved, plan); });
  }
};

TEST(StateSpaceDualErrors, NameTheArgumentWhatWasFoundAndWhatWasExpected) {
  untouched of;
  of.carry = of.next<float, 4>({2, 6, 32, 15});
  EXPECT_EQ(of.message(),
            "state_space_dual: carry has shape (2, 6, 32, 15), expected (2, 6, 32, 16) (batch, "
            "head, head_dim, state)");
  of = untouched();
  of.y = of.next<bfloat16, 4>({2, 999, 6, 32});
  EXPECT_EQ(
      of.message(),
      "state_space_dual: y has shape (2, 999, 6, 32), expected (2, 1000, 6, 32) (batch, time, "
      "head, head_dim)");
  of = untouched();
  of.in.B = of.next<bfloat16 const, 4>({2, 1000, 4, 16});
  of.in.C = of.next<bfloat16 const, 4>({2, 1000, 4, 16});
  EXPECT_EQ(of.message(),
            "state_space_dual: x has 6 heads, expected a multiple of the 4 groups of B");
  of = untouched();
  of.in.sequence = of.next<std::int32_t const, 2>({2, 10});
  EXPECT_EQ(of.message(),
            "state_space_dual: sequence has shape (2, 10), expected (2, 1000) (batch, time)");
  of = untouched();
  of.saved.states = of.next<float, 5>({2, 7, 6, 32, 16});
  EXPECT_EQ(
      of.message(),
      "state_space_dual: saved.states has shape (2, 7, 6, 32, 16), expected (2, 8, 6, 32, 16) "
      "(batch, block, head, head_dim, state)");
  of = untouched(257);
  EXPECT_EQ(of.message(), "state_space_dual: B has 257 states, expected at most 256");
}

TEST(StateSpaceDualErrors, OutputsHaveMemoryOfTheirOwn) {
  untouched of;
  of.y = {const_cast<bfloat16*>(of.in.x.data_handle()) + 8, of.in.x.extents()};
  EXPECT_EQ(of.message(), "state_space_dual: y overlaps x, expected memory of its own");
  of = untouched();
  of.saved.ungated = {of.carry.data_handle(), of.saved.ungated.extents()};
  EXPECT_EQ(of.message(),
            "state_space_dual: saved.ungated overlaps carry, expected memory of its own");
  of = untouched();
  of.y = {of.y.data_handle(), of.y.extents(), {0, 192, 32, 1}};
  EXPECT_EQ(
      of.message(),
      "state_space_dual: y has stride 0 along axis 0 of extent 2, expected elements of its own "
      "at every position");
}

TEST(StateSpaceDualErrors, PlansArePossible) {
  untouched of;
  of.plan.segments = -1;
  EXPECT_EQ(of.message(), "state_space_dual: plan.segments is -1, expected 0 to 65535");
  of = untouched();
  of.plan.negligible = 1.0f;
  EXPECT_EQ(of.message(),
            "state_space_dual: plan.negligible is 1, expected at least 0 and less than 1");
}

}  // namespace
