// SPDX-License-Identifier: Apache-2.0
// selective_scan_truth.cuh: gpu::selective_scan beside the formula in double precision.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <type_traits>

#include "support/selective_scan_device.cuh"

namespace ssm::test {

// The device's functions have at most four times the error that the bound counts: 2^x is right to
// 2^-22.5, softplus to 6 eps, the gate to 8.
inline constexpr double device_functions = 4;

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

}  // namespace ssm::test
