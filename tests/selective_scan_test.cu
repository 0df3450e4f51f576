// SPDX-License-Identifier: Apache-2.0
#include "compiled/selective_scan.cuh"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

#include "support/device.cuh"
#include "support/selective_scan_truth.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;

/// The first `length` steps of a problem.
selective_problem<double> part_of(selective_problem<double> p, index_t length) {
  auto const cut = [&](auto const& from) {
    auto extents = from.extents();
    extents[1] = length;
    std::remove_cvref_t<decltype(from)> part(extents);
    for_each_position(extents, [&](auto const& at) {
      std::apply([&](auto... i) { part(i...) = from(i...); }, std::to_array(at.value));
    });
    return part;
  };
  p.shape.length = length;
  p.x = cut(p.x), p.step_size = cut(p.step_size), p.gate = cut(p.gate);
  p.B = cut(p.B), p.C = cut(p.C);
  return p;
}

TEST(SelectiveScan, IsTheFormulaForAnyLength) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 1;
  for (auto const& layout : layouts)
    for (index_t const length : {1, 3, 5, 15, 16, 17, 31, 32, 33, 160, 301}) {
      expect_truth<float>({2, length, 130, 16}, 1, selective_options::all(), seed++, layout);
      expect_truth<float>({2, length, 32, 16}, 2, {}, seed++, layout);
    }
}

TEST(SelectiveScan, IsTheFormulaForAnyNumberOfStates) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 100;
  for (index_t const states : {1, 2, 7, 8, 9, 15, 16, 17, 32, 33, 64, 100, 128, 200, 256}) {
    for (index_t const segments : {1, 3}) {
      expect_truth<float>({1, 128, 21, states}, 3, {}, seed++, {}, {.segments = segments});
    }
    expect_truth<float>({3, 2, 21, states}, 3, selective_options::all(), seed++, {});
    expect_truth<bfloat16>({1, 128, 21, states}, 3, {}, seed++, {}, {.segments = 3});
  }
}

TEST(SelectiveScan, IsTheFormulaForEveryOption) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (unsigned bits = 0; bits < selective_options::combinations; bits += 3) {
    expect_truth<float>({2, 100, 24, 16}, 3, selective_options::of_bits(bits), 500 + bits,
                        layouts[bits % 6], {.segments = 1 + bits % 4});
  }
}

TEST(SelectiveScan, IsTheFormulaForAnyNumberOfSegments) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 2000;
  for (auto const& layout : layouts)
    for (index_t const segments : {1, 2, 3, 5, 8, 13}) {
      expect_truth<float>({1, 411, 70, 16}, 2, {}, seed++, layout, {.segments = segments});
      expect_truth<float>({1, 411, 70, 16}, 2, selective_options::all(), seed++, layout,
                          {.segments = segments, .negligible = 0.0f});
    }
}

TEST(SelectiveScan, RoundsOnceToSixteenBits) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 3000;
  for (auto const& layout : layouts)
    for (index_t const length : {1, 16, 77, 300}) {
      expect_truth<bfloat16>({2, length, 40, 16}, 1, {}, seed++, layout);
      expect_truth<float16>({2, length, 40, 16}, 1, {}, seed++, layout, {.segments = 3});
    }
}

TEST(SelectiveScan, GivesTheSameBitsEveryTime) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (auto const& [shape, segments] :
       {std::pair{scan_shape{1, 700, 200, 16}, 5}, std::pair{scan_shape{240, 100, 8, 16}, 0},
        std::pair{scan_shape{230, 50, 72, 16}, 0}}) {
    auto const p = random_selective<float>(shape, 1, {}, 4000);
    device_problem<float> on(p, {});
    auto const once = on.run({.segments = segments});
    for (int repeat = 0; repeat < 10; ++repeat) {
      auto const again = on.run({.segments = segments});
      EXPECT_TRUE(std::equal(once.y.begin(), once.y.end(), again.y.begin()));
      EXPECT_TRUE(std::equal(once.carry.begin(), once.carry.end(), again.carry.begin()));
    }
  }
}

// The state after a part, and the second part from there, are those of the whole: to the last bit
// where parts end between tiles, for nothing else than the states crosses them.
TEST(SelectiveScan, EqualsItsPartsBitForBit) {
  SSM_SKIP_WITHOUT_DEVICE();
  auto const p = random_selective<float>({2, 300, 40, 16}, 2, {}, 5000);
  device_problem<float> on(p, {});
  auto const whole = on.run({.segments = 1});
  for (index_t const cut : {16, 100, 160, 295}) {
    auto carry = on_device(p.initial);
    device_sequence<float> y(tensor<float, 3>(p.x.extents()), dense_axis::channel, 0, 0);
    for (auto const& [first, count] : {std::pair{index_t{0}, cut}, std::pair{cut, 300 - cut}}) {
      auto in = on.inputs();
      in.x = in.x.slice(1, first, count), in.step_size = in.step_size.slice(1, first, count);
      in.gate = in.gate.slice(1, first, count);
      in.B = in.B.slice(1, first, count), in.C = in.C.slice(1, first, count);
      gpu::selective_scan_allocating({}, in, carry.view(), y.view().slice(1, first, count), {},
                                     {.segments = 1});
    }
    auto const parts = y.download();
    EXPECT_TRUE(std::equal(whole.y.begin(), whole.y.end(), parts.begin())) << "cut at " << cut;
  }
}

TEST(SelectiveScan, FollowsNoStateThatHasDecayed) {
  SSM_SKIP_WITHOUT_DEVICE();
  selective_options options;
  options.bias = false;
  auto p = random_selective<float>({1, 4096, 32, 16}, 1, options, 6000);
  for (float& A : p.eigenvalue) A -= 4;  // at least 4 · softplus(-4) = 0.07 a step
  device_problem<float> on(p, {});
  gpu::tensor<unsigned long long, 1> visited({}, {2});
  gpu::check(cudaMemset(visited.view().data_handle(), 0, 16), "cudaMemset");
  auto const all =
      on.run({.segments = 2, .negligible = 0, .visited = visited.view().data_handle()});
  auto const few = on.run({.segments = 2, .visited = visited.view().data_handle() + 1});
  tensor<unsigned long long, 1> counts({2});
  gpu::copy_to_host(
      {}, static_cast<tensor_view<unsigned long long const, 1, memory::device>>(visited.view()),
      counts.view());
  gpu::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  EXPECT_EQ(counts(0), 2048u * 32 * 16);
  EXPECT_LT(counts(1), counts(0) / 4);
  // 2^-32 of a state is far below what rounding leaves of it.
  for (index_t i = 0; i < few.y.size(); ++i) {
    EXPECT_NEAR(few.y.data()[i], all.y.data()[i], 1e-6 * (1 + std::abs(all.y.data()[i])));
  }
}

TEST(SelectiveScan, LeavesTheStatesThatEnterEachBlock) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (auto const& [rows, segments, channels] :
       {std::tuple{1, 0, 16}, std::tuple{1, 1, 10}, std::tuple{1, 2, 10}, std::tuple{1, 2, 16},
        std::tuple{200, 0, 8}, std::tuple{200, 0, 72}}) {
    auto const p = random_selective<float>({rows, 100, channels, 16}, 1, {}, 7000);
    device_problem<float> on(p, {});
    gpu::tensor<float, 4> checkpoints({}, {rows, 13, 16, channels});
    auto carry = on_device(p.initial);
    device_sequence<float> y(tensor<float, 3>(p.x.extents()), dense_axis::channel, 0, 0);
    gpu::selective_scan_allocating({}, on.inputs(), carry.view(), y.view(), checkpoints.view(),
                                   {.segments = segments});
    tensor<float, 4> found({rows, 13, 16, channels});
    gpu::copy_to_host({},
                      static_cast<trajectory_view<float const, memory::device>>(checkpoints.view()),
                      found.view());
    gpu::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    for (index_t block = 0; block < 13; ++block) {
      auto part = converted_problem<double>(p);
      selective_truth<double> truth(part_of(part, gpu::selective_scan_checkpoint_steps * block));
      for_each_position(truth.carry.extents(), [&](auto const& at) {
        auto const [b, c, n] = at.value;
        double const bound = device_functions * 0x1p-23 * truth.carry_bound(b, c, n) + 1e-30;
        EXPECT_NEAR(static_cast<double>(found(b, block, n, c)), truth.carry(b, c, n), bound);
      });
    }
  }
}

}  // namespace
