// SPDX-License-Identifier: Apache-2.0
#include "ssm/selective_scan.cuh"

#include <gtest/gtest.h>

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
    worst = ratio <= worst ? worst : ratio;
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

constexpr device_layout layouts[] = {{dense_axis::channel, 0, 0}, {dense_axis::time, 0, 0},
                                     {dense_axis::channel, 3, 1}, {dense_axis::time, 5, 1},
                                     {dense_axis::channel, 8, 0}, {dense_axis::time, 8, 0}};

TEST(SelectiveScan, IsTheFormulaForAnyLength) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 1;
  for (auto const& layout : layouts)
    for (index_t const length : {1, 15, 16, 17, 31, 32, 33, 160, 301}) {
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

}  // namespace
