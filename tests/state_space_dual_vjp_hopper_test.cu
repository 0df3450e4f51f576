// SPDX-License-Identifier: Apache-2.0
// The kernel for Hopper of the gradient: what it takes, and that it is the gradient there.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>

#include "ssm/state_space_dual_vjp.cuh"
#include "support/device.cuh"
#include "support/state_space_dual_vjp_device.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;
using T = bfloat16;

constexpr dual_options plain{false, true, true, false, false, false, false, false, 2};

/// What rounding of factors to 16 bits adds: at most four of a term, half a unit each.
constexpr double rounding = 4 * 0x1p-9;

bool is_taken(dual_gradient_case<T>& of) {
  auto const in = of.problem.device_inputs();
  auto p = gpu::detail::vjp_problem<T>(in, of.initial.view(), of.arriving.view(),
                                       of.to_initial.view(), of.gradients(), {}, {});
  auto copies = gpu::detail::copies_for<T>(in, of.arriving.view());
  (void)gpu::detail::plan_dual_vjp(p, copies, 0);
  return gpu::detail::is_for_hopper(p);
}

#define SSM_SKIP_WITHOUT_HOPPER()                          \
  SSM_SKIP_WITHOUT_DEVICE();                               \
  if (!gpu::detail::hopper::is_compiled_for_this_device(   \
          gpu::detail::hopper::dual_vjp_hopper_kernel<T>)) \
  GTEST_SKIP() << "this device is not Hopper, or nothing is compiled for it"

void expect_truth_on_hopper(ssd_sizes const& sizes, dual_options const& options, std::uint64_t seed,
                            dual_layout const& how = {},
                            gpu::state_space_dual_plan const& plan = {}) {
  dual_gradient_case<T> of(sizes, options, seed, how);
  EXPECT_TRUE(is_taken(of)) << of.problem.name() << ", " << how.name;
  of.add(plan);
  expect_truth(of, dual_truth(of), of.fetch(), rounding,
               std::string(", ") + how.name + ", segments " + std::to_string(plan.segments));
}

TEST(StateSpaceDualVjpHopper, TakesWhatItsCopyEngineReads) {
  SSM_SKIP_WITHOUT_HOPPER();
  for (auto const& how : dual_layouts) {
    dual_gradient_case<T> of({1, 100, 2, 64, 1, 128}, plain, 1, how);
    EXPECT_EQ(is_taken(of), how.offset == 0) << how.name;
  }
  for (auto const& [head_dim, states] : {std::pair{32, 128}, {64, 64}, {80, 128}, {64, 256}}) {
    dual_gradient_case<T> of({1, 100, 2, head_dim, 1, states}, plain, 1);
    EXPECT_FALSE(is_taken(of)) << head_dim << " x " << states;
  }
  dual_gradient_case<T> gated({1, 100, 2, 64, 1, 128}, {}, 1);
  EXPECT_FALSE(is_taken(gated));
}

TEST(StateSpaceDualVjpHopper, IsTheCpusForAnyLength) {
  SSM_SKIP_WITHOUT_HOPPER();
  std::uint64_t seed = 1;
  for (index_t const length : {1, 5, 63, 64, 65, 128, 129, 300}) {
    for (int const how : {0, 1, 3}) {
      expect_truth_on_hopper({2, length, 3, 64, 1, 128}, plain, seed++, dual_layouts[how]);
    }
  }
}

TEST(StateSpaceDualVjpHopper, IsTheCpusForAnyHeadsAndGroups) {
  SSM_SKIP_WITHOUT_HOPPER();
  std::uint64_t seed = 100;
  for (index_t const head_dim : {64, 128}) {
    for (index_t const groups : {1, 2, 6}) {
      expect_truth_on_hopper({2, 200, 6, head_dim, groups, 128}, plain, seed++);
    }
  }
  // More than a block for each chunk and group, and none for some processors.
  expect_truth_on_hopper({4, 5000, 2, 64, 2, 128}, plain, seed++);
  expect_truth_on_hopper({1, 70, 40, 64, 1, 128}, plain, seed++);
}

TEST(StateSpaceDualVjpHopper, IsTheCpusForEveryOption) {
  SSM_SKIP_WITHOUT_HOPPER();
  for (unsigned bits = 0; bits < dual_options::combinations; bits += 38) {
    auto const options = dual_options::of_bits(bits);  // the gate is bit 0
    expect_truth_on_hopper({1, 300, 2, 64, 1, 128}, options, 500 + bits, {},
                           {.segments = 1 + bits % 3});
  }
}

// Both round the same products of the same numbers; the twin adds to what has odd strides. What
// each rounds of four factors is independent: a mean square of 4 · 2^-18 / 3, twice.
TEST(StateSpaceDualVjpHopper, EqualsThePortableKernel) {
  SSM_SKIP_WITHOUT_HOPPER();
  dual_options options = plain;
  options.packed = true;
  for (bool const packed : {false, true}) {
    options.packed = packed;
    dual_gradient_case<T> of({1, 2000, 4, 64, 2, 128}, options, 3000);
    dual_gradient_case<T> twin({1, 2000, 4, 64, 2, 128}, options, 3000, dual_layouts[2]);
    ASSERT_TRUE(is_taken(of));
    ASSERT_FALSE(is_taken(twin));
    of.add(), twin.add();
    auto const found = of.fetch(), expected = twin.fetch();
    auto const expect_near = [](char const* name, auto const& a, auto const& b) {
      double error = 0, norm = 0;
      for (index_t i = 0; i < a.size(); ++i) {
        double const x = a.data()[i], y = b.data()[i];
        error += (x - y) * (x - y), norm += y * y;
      }
      EXPECT_LE(std::sqrt(error / norm), 0x1p-9 * std::sqrt(8.0 / 3)) << name;
    };
    expect_near("x", found.x, expected.x);
    expect_near("B", found.B, expected.B);
    expect_near("C", found.C, expected.C);
    expect_near("step_size", found.step_size, expected.step_size);
  }
}

TEST(StateSpaceDualVjpHopper, GivesTheSameBitsEveryTime) {
  SSM_SKIP_WITHOUT_HOPPER();
  dual_gradient_case<T> of({2, 1000, 5, 64, 1, 128}, plain, 4000);
  of.add({.segments = 4});
  auto const once = of.fetch();
  for (int repeat = 0; repeat < 5; ++repeat) {
    dual_gradient_case<T> again({2, 1000, 5, 64, 1, 128}, plain, 4000);
    again.add({.segments = 4});
    EXPECT_TRUE(again.fetch() == once);
  }
}

}  // namespace
