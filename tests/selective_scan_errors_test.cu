// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string>

#include "compiled/selective_scan.cuh"
#include "support/device.cuh"
#include "support/untouched_memory.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;

struct untouched : untouched_memory {
  index_t states = 16;
  selective_scan_inputs<float, memory::device> in{};
  state_view<float, memory::device> carry;
  sequence_view<float, memory::device> y;
  trajectory_view<float, memory::device> checkpoints;
  gpu::selective_scan_plan plan;

  explicit untouched(index_t n = 16) : states{n} {
    in.x = next<float const, 3>({2, 100, 8});
    in.step_size = next<float const, 3>({2, 100, 8});
    in.gate = next<float const, 3>({2, 100, 8});
    in.eigenvalue = next<float const, 2>({8, n});
    in.B = next<float const, 4>({2, 100, 1, n});
    in.C = next<float const, 4>({2, 100, 1, n});
    carry = next<float, 3>({2, 8, n});
    y = next<float, 3>({2, 100, 8});
    checkpoints = next<float, 4>({2, 13, n, 8});
  }

  std::string message() {
    return refusal_of([&] { gpu::selective_scan({}, in, carry, y, {}, checkpoints, plan); });
  }
};

TEST(SelectiveScanErrors, NameTheArgumentWhatWasFoundAndWhatWasExpected) {
  untouched of;
  of.carry = of.next<float, 3>({2, 8, 15});
  EXPECT_EQ(of.message(),
            "selective_scan: carry has shape (2, 8, 15), expected (2, 8, 16) (batch, channel, "
            "state)");
  of = untouched();
  of.y = of.next<float, 3>({2, 99, 8});
  EXPECT_EQ(of.message(),
            "selective_scan: y has shape (2, 99, 8), expected (2, 100, 8) (batch, time, channel)");
  of = untouched();
  of.checkpoints = of.next<float, 4>({2, 4, 16, 8});
  EXPECT_EQ(of.message(),
            "selective_scan: checkpoints has shape (2, 4, 16, 8), expected (2, 13, 16, 8) (batch, "
            "block, state, channel)");
  of = untouched(257);
  EXPECT_EQ(of.message(), "selective_scan: eigenvalue has 257 states, expected at most 256");
}

TEST(SelectiveScanErrors, OutputsHaveMemoryOfTheirOwn) {
  untouched of;
  of.y = {const_cast<float*>(of.in.x.data_handle()) + 8, of.in.x.extents()};
  EXPECT_EQ(of.message(), "selective_scan: y overlaps x, expected memory of its own");
  of = untouched();
  of.y = {of.y.data_handle(), of.y.extents(), {0, 8, 1}};
  EXPECT_EQ(of.message(),
            "selective_scan: y has stride 0 along axis 0 of extent 2, expected elements of its own "
            "at every position");
}

TEST(SelectiveScanErrors, PlansArePossible) {
  untouched of;
  of.plan.segments = -1;
  EXPECT_EQ(of.message(), "selective_scan: plan.segments is -1, expected 0 to 65535");
  of = untouched();
  of.plan.negligible = 1.0f;
  EXPECT_EQ(of.message(),
            "selective_scan: plan.negligible is 1, expected at least 0 and less than 1");
}

TEST(SelectiveScanErrors, WorkspaceIsLargeEnough) {
  SSM_SKIP_WITHOUT_DEVICE();
  untouched of;
  of.plan.segments = 2;
  auto const bytes = gpu::selective_scan_workspace(of.in, of.carry, of.y, of.plan);
  EXPECT_EQ(bytes, 2u * 2 * 2 * 8 * 16 * sizeof(float));
  EXPECT_EQ(of.message(),
            "selective_scan: workspace has 0 bytes, expected at least " + std::to_string(bytes));
}

}  // namespace
