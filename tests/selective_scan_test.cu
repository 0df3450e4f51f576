// SPDX-License-Identifier: Apache-2.0
#include "compiled/selective_scan.cuh"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>
#include <utility>

#include "support/device.cuh"
#include "support/selective_scan_device.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;

// The device's functions have at most four times the error that the bound counts: 2^x is right to
// 2^-22.5, softplus to 6 eps, the gate to 8.
constexpr double device_functions = 4;

template <class T>
constexpr double unit_of(double of_float, double of_bfloat16, double of_float16) {
  if (std::is_same_v<T, float>) return of_float;
  return std::is_same_v<T, bfloat16> ? of_bfloat16 : of_float16;
}

/// The largest error over its bound; what is stored in 16 bits is rounded once more.
template <class T>
double worst_of(selective_outcome<T> const& found, selective_problem<T> const& p) {
  auto const wide = converted_problem<double>(p);
  selective_truth<double> truth(wide);
  double const eps = std::numeric_limits<float>::epsilon();
  double const rounding = unit_of<T>(0, 0x1p-8, 0x1p-11);
  double const smallest = unit_of<T>(1e-30, 1e-30, 0x1p-25);  // half of the smallest number
  double worst = 0;
  auto const meet = [&](double value, double expected, double bound) {
    double const ratio = std::abs(value - expected) / bound;
    worst = std::isnan(worst) || ratio <= worst ? worst : ratio;  // NaN is the worst
  };
  for (index_t i = 0; i < found.y.size(); ++i) {
    double const expected = truth.y.data()[i];
    double const bound = device_functions * eps * truth.y_bound.data()[i];
    meet(static_cast<double>(static_cast<float>(found.y.data()[i])), expected,
         bound + rounding * (std::abs(expected) + bound) + smallest);
  }
  for (index_t i = 0; i < found.carry.size(); ++i) {
    meet(static_cast<double>(found.carry.data()[i]), truth.carry.data()[i],
         device_functions * eps * truth.carry_bound.data()[i] + 1e-30);
  }
  return worst;
}

template <class T>
void expect_truth(scan_shape const& shape, index_t groups, selective_options const& options,
                  std::uint64_t seed, device_layout const& layout,
                  gpu::selective_scan_plan const& plan = {}) {
  auto const p = random_selective<T>(shape, groups, options, seed);
  double const worst = worst_of(device_problem<T>(p, layout).run(plan), p);
  EXPECT_LE(worst, 1.0) << p.name() << ", segments " << plan.segments << ", padding "
                        << layout.padding << ", offset " << layout.offset
                        << (layout.axis == dense_axis::time ? ", time dense" : "");
}

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
