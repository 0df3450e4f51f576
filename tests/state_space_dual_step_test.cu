// SPDX-License-Identifier: Apache-2.0
// state_space_dual_step_test.cu: the kernel of Mamba-2's operator for single tokens and a few.
#include <gtest/gtest.h>

#include "support/device.cuh"
#include "support/state_space_dual_device.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;

/// The problem by the step kernel alone, so that no other is compiled here.
template <class T>
ssd_result<T> run_steps(dual_case<T>& of, dual_layout const& how = {}) {
  auto const in = of.device_inputs();
  dual_array<T, 4> y(of.p.x.extents(), how);
  dual_array<float, 4> carry(of.p.initial, how);
  auto const p = gpu::detail::state_space_dual_problem<T>(in, carry.view(), y.view(), {}, {});
  EXPECT_TRUE(gpu::detail::is_few_steps(p));
  gpu::detail::run_dual_steps({}, p);
  ssd_result<T> result{y.fetch(), carry.fetch()};
  EXPECT_EQ(y.overwritten() + carry.overwritten(), 0) << of.name();
  return result;
}

template <class T>
void expect_steps(ssd_sizes const& sizes, dual_options const& options, std::uint64_t seed,
                  dual_layout const& how = {}) {
  dual_case<T> of(sizes, options, seed, how);
  EXPECT_LE(worst_ratio(run_steps(of, how), of), 1.0) << of.name() << ", " << how.name;
}

TEST(StateSpaceDualStep, IsTheDefinitionForEveryOption) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (unsigned bits = 0; bits < dual_options::combinations; bits += 3) {
    index_t const length = 1 + bits % 8;
    expect_steps<float>({2, length, 4, 16, 2, 16}, dual_options::of_bits(bits), 20000 + bits,
                        dual_layouts[bits % 4]);
  }
}

TEST(StateSpaceDualStep, IsTheDefinitionForAnySize) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 21000;
  for (index_t const states : {0, 1, 5, 16, 17, 64, 100, 128, 132, 200, 256}) {
    for (index_t const head_dim : {1, 3, 24, 64, 65, 128}) {
      ++seed;
      expect_steps<float>({2, 2, 6, head_dim, 3, states}, {}, seed, dual_layouts[seed % 4]);
    }
  }
}

// Many rows are taken four at a time, and twice by a warp.
TEST(StateSpaceDualStep, IsTheDefinitionForManyRows) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 22000;
  for (auto const& how : dual_layouts) {
    expect_steps<float>({76, 1, 12, 37, 2, 16}, {}, seed++, how);
    expect_steps<float>({10, 2, 12, 37, 2, 128}, {}, seed++, how);
    expect_steps<float>({10, 1, 12, 37, 2, 200}, {}, seed++, how);
    expect_steps<bfloat16>({7, 1, 10, 64, 1, 128}, {}, seed++, how);
    expect_steps<float16>({7, 1, 10, 64, 1, 128}, {}, seed++, how);
  }
}

// Steps are launched one behind the other: those of many rows are placed while the one before runs.
TEST(StateSpaceDualStep, EqualsItsTokensBitForBit) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (index_t const batch : {2, 48}) {
    dual_case<float> of({batch, 8, 4, 64, 2, 128}, {}, 23000);
    auto const whole = run_steps(of);
    auto in = of.device_inputs();
    dual_array<float, 4> y(of.p.x.extents(), {}), carry(of.p.initial, {});
    for (index_t t = 0; t < 8; ++t) {
      auto one = in;
      one.x = in.x.slice(1, t, 1), one.step_size = in.step_size.slice(1, t, 1);
      one.gate = in.gate.slice(1, t, 1);
      one.B = in.B.slice(1, t, 1), one.C = in.C.slice(1, t, 1);
      gpu::detail::run_dual_steps({}, gpu::detail::state_space_dual_problem<float>(
                                          one, carry.view(), y.view().slice(1, t, 1), {}, {}));
    }
    auto const tokens = y.fetch();
    auto const last = carry.fetch();
    EXPECT_TRUE(std::equal(whole.y.begin(), whole.y.end(), tokens.begin()));
    EXPECT_TRUE(std::equal(whole.carry.begin(), whole.carry.end(), last.begin()));
  }
}

}  // namespace
