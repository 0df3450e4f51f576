// SPDX-License-Identifier: Apache-2.0
// The kernel for Hopper by itself: what it takes, and that it is the definition there.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <utility>

#include "ssm/state_space_dual.cuh"
#include "support/device.cuh"
#include "support/state_space_dual_device.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;
using T = bfloat16;

bool is_taken(dual_case<T>& of, dual_layout const& how = {}) {
  dual_array<T, 4> y(of.p.x.extents(), how);
  dual_array<float, 4> carry(of.p.initial, how);
  return gpu::detail::is_for_hopper(
      gpu::detail::state_space_dual_problem(of.device_inputs(), carry.view(), y.view(), {}, {}));
}

#define SSM_SKIP_WITHOUT_HOPPER()                           \
  SSM_SKIP_WITHOUT_DEVICE();                                \
  if (!gpu::detail::hopper::is_compiled_for_this_device(    \
          gpu::detail::hopper::dual_hopper_kernel<T, 128>)) \
  GTEST_SKIP() << "this device is not Hopper, or nothing is compiled for it"

void expect_definition_on_hopper(ssd_sizes const& sizes, dual_options const& options,
                                 std::uint64_t seed, dual_layout const& how = {},
                                 gpu::state_space_dual_plan const& plan = {}) {
  dual_case<T> of(sizes, options, seed, how);
  EXPECT_TRUE(is_taken(of, how)) << of.name() << ", " << how.name;
  EXPECT_LE(worst_ratio(of.run(how, plan), of), 1.0)
      << of.name() << ", " << how.name << ", segments " << plan.segments;
}

TEST(StateSpaceDualHopper, TakesWhatItsCopyEngineReads) {
  SSM_SKIP_WITHOUT_HOPPER();
  for (auto const& how : dual_layouts) {
    dual_case<T> of({1, 100, 2, 64, 1, 128}, {}, 1, how);
    EXPECT_EQ(is_taken(of, how), how.offset == 0) << how.name;
  }
  for (auto const& [head_dim, states] : {std::pair{32, 128}, {64, 64}, {80, 128}, {64, 256}}) {
    dual_case<T> of({1, 100, 2, head_dim, 1, states}, {}, 1);
    EXPECT_FALSE(is_taken(of)) << head_dim << " x " << states;
  }
}

TEST(StateSpaceDualHopper, IsTheDefinitionForAnyLength) {
  SSM_SKIP_WITHOUT_HOPPER();
  std::uint64_t seed = 1;
  for (index_t const length : {9, 63, 64, 65, 128, 129, 193, 500}) {
    for (int const how : {0, 1, 3}) {
      expect_definition_on_hopper({2, length, 3, 64, 1, 128}, {}, seed++, dual_layouts[how]);
    }
  }
}

TEST(StateSpaceDualHopper, IsTheDefinitionForAnyHeadsAndGroups) {
  SSM_SKIP_WITHOUT_HOPPER();
  std::uint64_t seed = 100;
  for (index_t const head_dim : {64, 128}) {
    for (index_t const groups : {1, 2, 6}) {
      for (index_t const segments : {1, 2}) {
        expect_definition_on_hopper({2, 200, 6, head_dim, groups, 128}, {}, seed++, {},
                                    {.segments = segments});
      }
    }
  }
  expect_definition_on_hopper({3, 150, 1, 64, 1, 128}, {}, seed++);
}

TEST(StateSpaceDualHopper, IsTheDefinitionForEveryOption) {
  SSM_SKIP_WITHOUT_HOPPER();
  for (unsigned bits = 0; bits < dual_options::combinations; bits += 31) {
    expect_definition_on_hopper({1, 300, 2, 64, 1, 128}, dual_options::of_bits(bits), 500 + bits,
                                {}, {.segments = 1 + bits % 3});
  }
}

TEST(StateSpaceDualHopper, IsTheDefinitionForAnyNumberOfSegments) {
  SSM_SKIP_WITHOUT_HOPPER();
  std::uint64_t seed = 2000;
  dual_options all;
  all.packed = all.step = all.linear = all.power = true;
  for (index_t const segments : {2, 3, 7}) {
    expect_definition_on_hopper({1, 900, 3, 64, 1, 128}, {}, seed++, {}, {.segments = segments});
    expect_definition_on_hopper({1, 900, 3, 64, 1, 128}, all, seed++, {},
                                {.segments = segments, .negligible = 0.0f});
  }
}

// Both round the same products of the same numbers; the twin reads what begins at odd addresses.
TEST(StateSpaceDualHopper, EqualsThePortableKernel) {
  SSM_SKIP_WITHOUT_HOPPER();
  dual_options options;
  options.packed = true;
  for (index_t const segments : {1, 4}) {
    dual_case<T> of({1, 2000, 4, 64, 2, 128}, options, 3000);
    dual_case<T> twin({1, 2000, 4, 64, 2, 128}, options, 3000, dual_layouts[2]);
    ASSERT_TRUE(is_taken(of));
    ASSERT_FALSE(is_taken(twin, dual_layouts[2]));
    auto const found = of.run({}, {.segments = segments});
    auto const expected = twin.run(dual_layouts[2], {.segments = segments});
    // What each rounds of y, and where they round a state at other times, is independent: a mean
    // square of 4 · 2^-16 / 3 for the two.
    auto const distance = [](auto const& a, auto const& b) {
      double error = 0, norm = 0;
      for (index_t i = 0; i < a.size(); ++i) {
        double const x = static_cast<float>(a.data()[i]), y = static_cast<float>(b.data()[i]);
        error += (x - y) * (x - y), norm += y * y;
      }
      return std::sqrt(error / norm);
    };
    EXPECT_LE(distance(found.y, expected.y), 0x1p-8 * std::sqrt(4.0 / 3)) << segments;
    EXPECT_LE(distance(found.carry, expected.carry), 0x1p-8) << segments;
  }
}

TEST(StateSpaceDualHopper, GivesTheSameBitsEveryTime) {
  SSM_SKIP_WITHOUT_HOPPER();
  dual_case<T> of({2, 1000, 5, 64, 1, 128}, {}, 4000);
  auto const once = of.run({}, {.segments = 4});
  for (int repeat = 0; repeat < 10; ++repeat) {
    auto const again = of.run({}, {.segments = 4});
    EXPECT_TRUE(same_bits(once.y, again.y));
    EXPECT_TRUE(same_bits(once.carry, again.carry));
  }
}

// The first pass of a head whose states have decayed begins near the end of the segment.
TEST(StateSpaceDualHopper, FollowsNoStateThatHasDecayed) {
  SSM_SKIP_WITHOUT_HOPPER();
  dual_case<T> of({1, 16384, 2, 64, 1, 128}, {}, 6000);
  dual_array<unsigned long long, 1> visited(tensor<unsigned long long, 1>({2}, 0ull), {});
  auto* const counts = visited.view().data_handle();
  auto const all = of.run({}, {.segments = 2, .negligible = 0, .visited = counts});
  auto const few = of.run({}, {.segments = 2, .visited = counts + 1});
  auto const found = visited.fetch();
  EXPECT_EQ(found(0), 8192u * 2);
  EXPECT_LT(found(1), found(0) / 4);
  EXPECT_GT(found(1), 0u);
  for (index_t i = 0; i < few.y.size(); ++i) {
    auto const a = static_cast<float>(few.y.data()[i]), b = static_cast<float>(all.y.data()[i]);
    ASSERT_NEAR(a, b, 0x1p-7 * (0.01f + std::abs(b)));
  }
}

}  // namespace
