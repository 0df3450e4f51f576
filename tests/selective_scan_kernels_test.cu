// SPDX-License-Identifier: Apache-2.0
// gpu::selective_scan by each of its kernels, which shapes choose.
#include "compiled/selective_scan.cuh"

#include <gtest/gtest.h>

#include "support/device.cuh"
#include "support/selective_scan_truth.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;

// Few rows and many, with eigenvalues for several rows of a batch.
TEST(SelectiveScan, IsTheFormulaForAFewSteps) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 2500;
  for (index_t const batch : {1, 300}) {
    for (auto const& layout : layouts) {
      expect_truth<float>({batch, 3, 120, 16}, 3, selective_options::all(), seed++, layout);
    }
    for (index_t const states : {1, 6, 20, 128, 132, 256}) {
      expect_truth<float>({batch, 1, 15, states}, 1, {}, seed++, {});
    }
    for (unsigned bits = 0; bits < selective_options::combinations; bits += batch == 1 ? 17 : 97) {
      expect_truth<float>({batch, 2, 112, 16}, 1, selective_options::of_bits(bits), seed++, {});
    }
    expect_truth<bfloat16>({batch, 1, 112, 16}, 1, {}, seed++, {});
  }
}

// In segments that are not long a tile of 16 that is short beside what has been walked is summed by
// moments: up to power 5 from about 240 steps on, up to 3 from 1400; with inputs of 16 bits from 60
// and 170, up to 2 from 500.
TEST(SelectiveScan, IsTheFormulaWhereTheFirstPassGoesFar) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 2700;
  for (auto const& layout : layouts) {
    expect_truth<float>({1, 3900, 40, 16}, 1, {}, seed++, layout, {.segments = 2});
    expect_truth<float>({1, 1700, 20, 24}, 2, {}, seed++, layout, {.segments = 3});
    expect_truth<float16>({1, 1700, 40, 16}, 1, {}, seed++, layout, {.segments = 2});
    expect_truth<bfloat16>({1, 3300, 24, 16}, 3, {}, seed++, layout, {.segments = 2});
    expect_truth<bfloat16>({1, 16700, 8, 20}, 1, {}, seed++, layout, {.segments = 2});
  }
  expect_truth<float>({1, 16800, 12, 16}, 1, {}, seed++, {}, {.segments = 2});
}

// Steps that are all small, of which Δ is found in fewer instructions, or all but one, and the
// second half of the states decayed where tiles are far.
template <class T>
void expect_truth_of_small_steps(bool is_one_large, std::uint64_t seed,
                                 device_layout const& layout) {
  auto p = random_selective<T>({1, 3300, 40, 16}, 1, {}, seed);
  for (auto& each : p.step_size) each = T(static_cast<float>(each) - 3);
  if (is_one_large) p.step_size(0, 1000, 3) = T(2.0f);
  for (index_t c = 0; c < 40; ++c)
    for (index_t n = 8; n < 16; ++n) p.eigenvalue(c, n) -= 4;
  EXPECT_LE(worst_of(device_problem<T>(p, layout).run({.segments = 2}), p), 1.0) << p.name();
}
TEST(SelectiveScan, IsTheFormulaWhereStepsAreSmall) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 2800;
  for (auto const& layout : layouts)
    for (bool const is_one_large : {false, true}) {
      expect_truth_of_small_steps<float>(is_one_large, seed++, layout);
      expect_truth_of_small_steps<bfloat16>(is_one_large, seed++, layout);
      expect_truth_of_small_steps<float16>(is_one_large, seed++, layout);
    }
}

// Few channels and steps, in one launch. Rows along time may begin anywhere.
TEST(SelectiveScan, IsTheFormulaWhereWarpsHandOnStates) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 2950;
  for (auto const axis : {dense_axis::channel, dense_axis::time}) {
    for (unsigned bits = 0; bits < selective_options::combinations; bits += 5) {
      expect_truth<float>({2, 100, 24, 16}, 3, selective_options::of_bits(bits), seed++, {axis});
    }
    for (index_t const channels : {8, 1000, 1552}) {
      for (index_t const length : {9, 64, 65, 192, 330}) {
        expect_truth<float>({1, length, channels, 16}, 1, {}, seed++, {axis});
      }
      expect_truth<bfloat16>({1, 150, channels, 16}, 1, selective_options::all(), seed++, {axis});
      expect_truth<float16>({1, 150, channels, 16}, 1, {}, seed++, {axis});
    }
    expect_truth<float>({1, 4090, 8, 16}, 1, selective_options::all(), seed++, {axis});
  }
  for (index_t const offset : {0, 1, 2, 5, 7}) {
    device_layout const layout{dense_axis::time, 2 * offset + 1, offset};
    for (index_t const channels : {1, 3, 510, 1051}) {
      expect_truth<float>({1, 131, channels, 16}, 1, {}, seed++, layout);
      expect_truth<bfloat16>({1, 191, channels, 16}, 1, selective_options::all(), seed++, layout);
    }
    expect_truth<float16>({2, 127, 21, 16}, 3, {}, seed++, layout);
  }
}

// As many as keep the device busy uncut (of 132 multiprocessors): in blocks of half as many
// channels, two for each with porters or three without, or in two of all channels.
TEST(SelectiveScan, IsTheFormulaForManyRows) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 2900;
  expect_truth<float>({120, 136, 72, 16}, 1, selective_options::all(), seed++, {});
  for (auto const axis : {dense_axis::channel, dense_axis::time}) {
    expect_truth<float>({240, 136, 8, 12}, 1, {}, seed++, {axis, 0, 0});
    expect_truth<bfloat16>({240, 136, 16, 16}, 1, {}, seed++, {axis, 8, 0});
    expect_truth<bfloat16>({240, 9, 16, 16}, 1, {}, seed++, {axis, 8, 0});
    expect_truth<float>({300, 40, 8, 16}, 1, {}, seed++, {axis, 0, 0});
    expect_truth<bfloat16>({230, 56, 72, 16}, 1, {}, seed++, {axis, 0, 0});
  }
  expect_truth<float>({240, 100, 8, 16}, 1, selective_options::all(), seed++, {});
  for (auto const& layout : {device_layout{dense_axis::time, 0, 0}, {dense_axis::time, 3, 5}}) {
    expect_truth<float>({240, 65, 8, 16}, 1, {}, seed++, layout);
    expect_truth<bfloat16>({240, 65, 8, 16}, 1, selective_options::all(), seed++, layout);
    expect_truth<float16>({230, 39, 72, 16}, 1, {}, seed++, layout);
    expect_truth<float>({230, 39, 72, 16}, 1, selective_options::all(), seed++, layout);
  }
  expect_truth<float>({230, 50, 72, 16}, 1, selective_options::all(), seed++, {});
}

// More than a multiprocessor takes one by one: up to four blocks of channels run in one block, the
// last of which has fewer.
TEST(SelectiveScan, IsTheFormulaWhereSquadsShareABlock) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 2970;
  for (auto const& layout : layouts)
    for (index_t const segments : {1, 2, 3}) {
      expect_truth<float>({45, 100, 24, 16}, 3, {}, seed++, layout, {.segments = segments});
    }
  for (index_t const states : {7, 30, 100}) {
    expect_truth<float>({135, 70, 8, states}, 1, {}, seed++, {}, {.segments = 3});
  }
  expect_truth<bfloat16>({45, 100, 24, 16}, 3, selective_options::all(), seed++, {},
                         {.segments = 3});
}

}  // namespace
