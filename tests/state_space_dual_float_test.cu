// SPDX-License-Identifier: Apache-2.0
// state_space_dual_float_test.cu: Mamba-2's operator on floats, exactly and rounded to 11 bits.
#include <gtest/gtest.h>

#include "support/device.cuh"
#include "support/state_space_dual_device.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;

TEST(StateSpaceDualFloat, IsTheDefinitionForAnyLength) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 10000;
  for (index_t const length : {1, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 300}) {
    for (auto const& how : dual_layouts) {
      expect_definition<float>({2, length, 3, 32, 1, 16}, {}, seed++, how);
    }
  }
  for (index_t const length : {2047, 2048, 2049}) {
    expect_definition<float>({1, length, 2, 32, 2, 16}, {}, seed++);
  }
  expect_definition<float>({1, 131071, 1, 16, 1, 16}, {}, seed++);
}

TEST(StateSpaceDualFloat, IsTheDefinitionForAnySize) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 10100;
  for (bool const exact : {true, false}) {
    for (index_t const states : {0, 1, 16, 17, 64, 100, 128, 200, 256}) {
      expect_definition<float>({1, 100, 2, 64, 1, states}, {}, seed++, {}, {.exact = exact});
    }
    expect_definition<float>({2, 3, 2, 64, 1, 0}, {}, seed++, {}, {.exact = exact});
    for (index_t const head_dim : {1, 8, 24, 64, 80, 128}) {
      expect_definition<float>({1, 100, 5, head_dim, 1, 33}, {}, seed++, {},
                               {.segments = 1, .exact = exact});
    }
  }
}

TEST(StateSpaceDualFloat, IsTheDefinitionForEveryOption) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (unsigned bits = 0; bits < dual_options::combinations; bits += 7) {
    index_t const segments = 1 + bits % 3;
    expect_definition<float>({1, 300, 4, 16, 2, 16}, dual_options::of_bits(bits), 10500 + bits,
                             dual_layouts[bits % 4], {.segments = segments});
  }
}

// A decay of 2^-160 and less leaves nothing, and disturbs no decay after it.
TEST(StateSpaceDualFloat, ForgetsAndGoesOn) {
  SSM_SKIP_WITHOUT_DEVICE();
  dual_case<float> of({1, 200, 2, 32, 1, 16}, {}, 11000);
  for (index_t t = 7; t < 200; t += 31) of.p.step_size(0, t, t % 2) = 1e4f;
  of.step_size = dual_array<float, 3>(of.p.step_size, {});
  EXPECT_LE(worst_ratio(of.run({}, {.segments = 2}), of), 1.0) << of.name();
}

}  // namespace
