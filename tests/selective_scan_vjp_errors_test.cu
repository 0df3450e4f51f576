// SPDX-License-Identifier: Apache-2.0
// Views of memory that is not there: an error comes before anything could read it.
#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "compiled/selective_scan.cuh"
#include "support/untouched_memory.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;

struct untouched : untouched_memory {
  selective_scan_inputs<float, memory::device> in{};
  state_view<float const, memory::device> initial;
  state_view<float, memory::device> carry_cotangent;
  sequence_view<float const, memory::device> y_cotangent;
  trajectory_view<float const, memory::device> checkpoints;
  selective_scan_gradients<float, memory::device> to{};

  untouched() {
    in.x = next<float const, 3>({2, 100, 8});
    in.step_size = next<float const, 3>({2, 100, 8});
    in.gate = next<float const, 3>({2, 100, 8});
    in.eigenvalue = next<float const, 2>({8, 16});
    in.B = next<float const, 4>({2, 100, 1, 16});
    in.C = next<float const, 4>({2, 100, 1, 16});
    in.D = next<float const, 1>({8});
    initial = next<float const, 3>({2, 8, 16});
    carry_cotangent = next<float, 3>({2, 8, 16});
    y_cotangent = next<float const, 3>({2, 100, 8});
    checkpoints = next<float const, 4>({2, 13, 16, 8});
    to.x = next<float, 3>({2, 100, 8});
    to.B = next<float, 4>({2, 100, 1, 16});
    to.C = next<float, 4>({2, 100, 1, 16});
    to.eigenvalue = next<float, 2>({8, 16});
    to.D = next<float, 1>({8});
  }

  std::string message() const {
    return refusal_of([&] {
      gpu::selective_scan_vjp({}, in, initial, y_cotangent, carry_cotangent, to, {}, checkpoints);
    });
  }
};

TEST(SelectiveScanVjpErrors, NameTheArgumentWhatWasFoundAndWhatWasExpected) {
  untouched of;
  of.initial = of.next<float const, 3>({2, 8, 15});
  EXPECT_EQ(of.message(),
            "selective_scan_vjp: initial has shape (2, 8, 15), expected (2, 8, 16) (batch, "
            "channel, state)");
  of = untouched();
  of.y_cotangent = of.y_cotangent.slice(1, 0, 99);
  EXPECT_EQ(of.message(),
            "selective_scan_vjp: y_cotangent has shape (2, 99, 8), expected (2, 100, 8) (batch, "
            "time, channel)");
  of = untouched();
  of.to.C = of.to.C.slice(3, 0, 8);
  EXPECT_EQ(of.message(),
            "selective_scan_vjp: gradients.C has shape (2, 100, 1, 8), expected (2, 100, 1, 16) "
            "(batch, time, group, state)");
  of = untouched();
  of.checkpoints = of.next<float const, 4>({2, 4, 16, 8});
  EXPECT_EQ(of.message(),
            "selective_scan_vjp: checkpoints has shape (2, 4, 16, 8), expected (2, 13, 16, 8) "
            "(batch, block, state, channel)");
}

TEST(SelectiveScanVjpErrors, GradientsHaveMemoryOfTheirOwn) {
  untouched of;
  of.to.x = {const_cast<float*>(of.y_cotangent.data_handle()) + 8, of.to.x.extents()};
  EXPECT_EQ(of.message(),
            "selective_scan_vjp: gradients.x overlaps y_cotangent, expected memory of its own");
  of = untouched();
  of.carry_cotangent = {const_cast<float*>(of.initial.data_handle()), of.initial.extents()};
  EXPECT_EQ(of.message(),
            "selective_scan_vjp: carry_cotangent overlaps initial, expected memory of its own");
  of = untouched();
  of.to.C = of.to.B;
  EXPECT_EQ(of.message(),
            "selective_scan_vjp: gradients.B overlaps gradients.C, expected memory of its own");
  of = untouched();
  of.to.D = {of.to.eigenvalue.data_handle() + 5, {8}};
  EXPECT_EQ(
      of.message(),
      "selective_scan_vjp: gradients.eigenvalue overlaps gradients.D, expected memory of its own");
  of = untouched();
  of.to.x = of.to.x.select(1, 0).broadcast(1, 100);
  EXPECT_EQ(of.message(),
            "selective_scan_vjp: gradients.x has stride 0 along axis 1 of extent 100, expected "
            "elements of its own at every position");
}

// The gradients of B and C are often the halves of one tensor.
TEST(SelectiveScanVjpErrors, GradientsMayLieBetweenEachOther) {
  untouched of;
  auto const both = of.next<float, 4>({2, 100, 1, 32});
  auto const check = [&](auto const& B, auto const& C) {
    using gpu::detail::named_view;
    gpu::detail::require_all_apart("call", std::tuple(named_view{B, "B"}, named_view{C, "C"}),
                                   std::tuple(named_view{of.in.x, "x"}));
  };
  EXPECT_NO_THROW(check(both.slice(3, 0, 16), both.slice(3, 16, 16)));
  EXPECT_THROW(check(both.slice(3, 0, 17), both.slice(3, 15, 17)), shape_error);
}

}  // namespace
