// SPDX-License-Identifier: Apache-2.0
// state_space_dual_vjp_errors_test.cu: what the gradient of the GPU's operator refuses, before any
// launch.
#include <gtest/gtest.h>

#include <string>

#include "ssm/state_space_dual_vjp.cuh"
#include "support/untouched_memory.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;

struct untouched : untouched_memory {
  state_space_dual_inputs<bfloat16, memory::device> in{};
  tensor_view<float, 4, memory::device> initial, carry_cotangent;
  tensor_view<bfloat16, 4, memory::device> y_cotangent;
  state_space_dual_gradients<bfloat16, memory::device> to{};
  state_space_dual_saved<bfloat16, memory::device> saved{};
  gpu::state_space_dual_plan plan{};

  untouched() {
    in.x = next<bfloat16 const, 4>({2, 1000, 6, 32});
    in.step_size = next<bfloat16 const, 3>({2, 1000, 6});
    in.eigenvalue = next<float const, 1>({6});
    in.B = next<bfloat16 const, 4>({2, 1000, 2, 16});
    in.C = next<bfloat16 const, 4>({2, 1000, 2, 16});
    in.gate = next<bfloat16 const, 4>({2, 1000, 6, 32});
    initial = next<float, 4>({2, 6, 32, 16});
    carry_cotangent = next<float, 4>({2, 6, 32, 16});
    y_cotangent = next<bfloat16, 4>({2, 1000, 6, 32});
    to.x = next<float, 4>({2, 1000, 6, 32});
    to.gate = next<float, 4>({2, 1000, 6, 32});
    to.B = next<float, 4>({2, 1000, 2, 16});
    to.eigenvalue = next<float, 1>({6});
  }

  /// What state_space_dual_vjp asks of its arguments before it does anything; no kernel is
  /// compiled.
  std::string message() {
    return refusal_of([&] {
      (void)gpu::detail::vjp_problem<bfloat16>(in, initial, y_cotangent, carry_cotangent, to, saved,
                                               plan);
    });
  }
};

TEST(StateSpaceDualVjpErrors, NameTheArgumentWhatWasFoundAndWhatWasExpected) {
  untouched of;
  EXPECT_EQ(of.message(), "nothing");
  of.initial = of.next<float, 4>({2, 6, 32, 15});
  EXPECT_EQ(of.message(),
            "state_space_dual_vjp: initial has shape (2, 6, 32, 15), expected (2, 6, 32, 16) "
            "(batch, head, head_dim, state)");
  of = untouched();
  of.y_cotangent = of.next<bfloat16, 4>({2, 999, 6, 32});
  EXPECT_EQ(of.message(),
            "state_space_dual_vjp: y_cotangent has shape (2, 999, 6, 32), expected (2, 1000, 6, "
            "32) (batch, time, head, head_dim)");
  of = untouched();
  of.to.B = of.next<float, 4>({2, 1000, 1, 16});
  EXPECT_EQ(of.message(),
            "state_space_dual_vjp: gradients.B has shape (2, 1000, 1, 16), expected (2, 1000, 2, "
            "16) (batch, time, group, state)");
  of = untouched();
  of.saved.states = of.next<float, 5>({2, 7, 6, 32, 16});
  EXPECT_EQ(of.message(),
            "state_space_dual: saved.states has shape (2, 7, 6, 32, 16), expected (2, 8, 6, 32, "
            "16) (batch, block, head, head_dim, state)");
  of = untouched();
  of.plan.negligible = 1.0f;
  EXPECT_EQ(of.message(),
            "state_space_dual_vjp: plan.negligible is 1, expected at least 0 and less than 1");
}

TEST(StateSpaceDualVjpErrors, NothingIsWrittenWhereSomethingIsReadOrWrittenToo) {
  untouched of;
  of.carry_cotangent = of.initial;
  EXPECT_EQ(of.message(),
            "state_space_dual_vjp: carry_cotangent overlaps initial, expected memory of its own");
  of = untouched();
  of.to.gate = of.to.x;
  EXPECT_EQ(of.message(),
            "state_space_dual_vjp: gradients.gate overlaps gradients.x, expected memory of its "
            "own");
  of = untouched();
  of.to.eigenvalue = {of.to.B.data_handle() + 7, {6}};
  EXPECT_EQ(of.message(),
            "state_space_dual_vjp: gradients.eigenvalue overlaps gradients.B, expected memory of "
            "its own");
}

/// Of what many blocks add to, only what heads or channels share may have a stride of 0.
TEST(StateSpaceDualVjpErrors, StridesOfZeroSumOnlyForWhatHeadsShare) {
  untouched of;
  of.to.B = {of.to.B.data_handle(), of.to.B.extents(), {16, 0, 16, 1}};
  EXPECT_NE(of.message().find("gradients.B"), std::string::npos);
  of = untouched();
  of.to.eigenvalue = {of.to.eigenvalue.data_handle(), {6}, {0}};
  EXPECT_EQ(of.message(), "nothing");
}

}  // namespace
