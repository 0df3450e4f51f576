// SPDX-License-Identifier: Apache-2.0
#include "compiled/selective_scan.cuh"

#include <gtest/gtest.h>

#include "support/device.cuh"
#include "support/selective_gradient_formula.hpp"
#include "support/selective_scan_vectors.hpp"
#include "support/selective_vjp_device.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;

// The device's functions have at most four times the error that the bound counts: 2^x is right to
// 2^-22.5, softplus to 6 eps, sigmoid to 8.
constexpr double device_functions = 4;

/// The gradients in double precision, and what rounding may add up to in float.
struct gradient_truth {
  selective_gradient<double> expected;
  selective_gradient_bounds<double> bounds;

  explicit gradient_truth(selective_problem<double> const& p)
      : expected{gradient_by_formula(p)}, bounds(p) {}
};

template <class T>
void expect_truth(scan_shape const& shape, index_t groups, selective_options const& options,
                  std::uint64_t seed, device_layout const& layout,
                  gpu::selective_scan_plan const& plan = {}) {
  auto const p = random_selective<T>(shape, groups, options, seed);
  gradient_truth truth(converted_problem<double>(p));
  auto const expect_from = [&](auto has_forward) {
    device_gradients<T> device(p, layout);
    device.template add<has_forward.value>(plan);
    auto found = device.download();
    auto bounds = truth.bounds;
    auto const worst = worst_of(options, found, truth.expected, bounds);
    EXPECT_LE(worst.ratio, device_functions)
        << worst.name << " of " << p.name() << ", segments " << plan.segments << ", padding "
        << layout.padding << ", offset " << layout.offset
        << (layout.axis == dense_axis::time ? ", time dense" : "")
        << (has_forward ? ", checkpoints" : "");
  };
  expect_from(std::false_type{});
  if constexpr (std::is_same_v<T, float>) expect_from(std::true_type{});
}

TEST(SelectiveScanVjp, IsTheFormulaForAnyLength) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 1;
  for (auto const& layout : layouts)
    for (index_t const length : {1, 8, 9, 16, 17, 32, 33, 160, 301}) {
      expect_truth<float>({2, length, 70, 16}, 1, selective_options::all(), seed++, layout);
      expect_truth<float>({2, length, 32, 16}, 2, {}, seed++, layout);
    }
}

TEST(SelectiveScanVjp, IsTheFormulaForAnyNumberOfStates) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 100;
  for (index_t const states : {1, 7, 8, 9, 15, 16, 17, 32, 33, 64, 100, 128, 200, 256}) {
    for (index_t const segments : {1, 3}) {
      expect_truth<float>({1, 128, 21, states}, 3, {}, seed++, {}, {.segments = segments});
    }
  }
}

TEST(SelectiveScanVjp, IsTheFormulaForEveryOption) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (unsigned bits = 0; bits < selective_options::combinations; bits += 5) {
    expect_truth<float>({2, 100, 24, 16}, 3, selective_options::of_bits(bits), 500 + bits,
                        layouts[bits % 6], {.segments = 1 + bits % 4});
  }
}

TEST(SelectiveScanVjp, IsTheFormulaForAnyNumberOfSegments) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 2000;
  for (auto const& layout : layouts)
    for (index_t const segments : {1, 2, 3, 5, 8, 13}) {
      expect_truth<float>({1, 411, 70, 16}, 2, {}, seed++, layout, {.segments = segments});
      expect_truth<float>({1, 411, 70, 16}, 2, selective_options::all(), seed++, layout,
                          {.segments = segments, .negligible = 0.0f});
    }
  // The last segment has fewer steps than one of the walks through it.
  for (auto const& layout : layouts) {
    expect_truth<float>({1, 390, 70, 16}, 2, {}, seed++, layout, {.segments = 3});
  }
}

TEST(SelectiveScanVjp, TakesSixteenBits) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 3000;
  for (auto const& layout : layouts)
    for (index_t const length : {1, 16, 77, 304}) {
      expect_truth<bfloat16>({2, length, 40, 16}, 1, {}, seed++, layout);
      expect_truth<float16>({2, length, 40, 16}, 1, {}, seed++, layout, {.segments = 3});
    }
}

// To zeros, then to what is there: twice the same is exact.
TEST(SelectiveScanVjp, AddsTheSameBitsAgain) {
  SSM_SKIP_WITHOUT_DEVICE();
  auto const options = selective_options::all();
  auto const p = random_selective<bfloat16>({3, 333, 200, 16}, 2, options, 4000);
  device_gradients<bfloat16> device(p, {});
  device.add<false>({.segments = 4});
  auto once = device.download();
  device.add<false>({.segments = 4});
  auto const twice = device.download();
  for_each_gradient(
      options,
      [](std::string const& name, auto& found, auto const&) {
        if (name == "initial") return;  // stored, not added
        for (auto& each : found) each *= 2;
      },
      once, twice);
  expect_same_bits(twice, once);
}

TEST(SelectiveScanVjp, StoresOverWhatIsThere) {
  SSM_SKIP_WITHOUT_DEVICE();
  auto const options = selective_options::all();
  for (auto const& layout : layouts) {
    auto const p = random_selective<float16>({2, 77, 40, 33}, 2, options, 4500);
    device_gradients<float16> device(p, layout);
    device.add<false>({.segments = 2});
    auto const once = device.download();
    device.run<false>({.segments = 2}, gpu::accumulate::no);
    expect_same_bits(device.download(), once);
  }
}

/// One number for a layer, a channel or a state: the sum of what its elements would have got.
TEST(SelectiveScanVjp, SumsWhereStridesAreZero) {
  SSM_SKIP_WITHOUT_DEVICE();
  auto const options = selective_options::all();
  auto const p = random_selective<float>({2, 90, 150, 16}, 1, options, 5000);
  gradient_truth truth(converted_problem<double>(p));
  index_array<2> const extents{150, 16};
  for (auto const strides : {index_array<2>{0, 0}, {1, 0}, {0, 1}}) {
    device_gradients<float> device(p, {});
    auto sums = on_device(tensor<float, 1>({5 * 150}));
    auto const sum = [&](int i) { return sums.view().data_handle() + i * 150; };
    auto to = device.gradients();
    auto const in = device.problem.inputs();
    to.eigenvalue = {sum(0), extents, strides};
    to.scaling.linear = {sum(1), extents, strides}, to.scaling.power = {sum(2), extents, strides};
    to.D = {sum(3), {150}, {strides[0]}}, to.scaling.step = {sum(4), {150}, {strides[0]}};
    auto const start = on_device(p.initial);
    auto cotangent = on_device(p.final_cotangent);
    auto const bytes = gpu::selective_scan_vjp_workspace(
        in, start.view(), device.y_cotangent.view(), cotangent.view(), to);
    gpu::tensor<std::byte, 1> memory({}, {static_cast<index_t>(bytes)});
    gpu::selective_scan_vjp({}, in, start.view(), device.y_cotangent.view(), cotangent.view(), to,
                            memory.view());
    auto const found = on_host(sums);
    auto const expect = [&](int i, auto const& terms, auto const& bounds, char const* name) {
      tensor<double, 1> expected({150}), bound({150});
      for_each_position(terms.extents(), [&](auto const& at) {
        index_t place = at[0] * strides[0];
        if constexpr (std::is_same_v<std::decay_t<decltype(at)>, index_array<2>>) {
          place += at[1] * strides[1];
        }
        expected(place) += ssm::test::at(terms.view(), at);
        bound(place) += std::abs(ssm::test::at(bounds.view(), at));
      });
      double const eps = std::numeric_limits<float>::epsilon();
      for (index_t k = 0; k < 150; ++k) {
        EXPECT_NEAR(found(i * 150 + k), expected(k),
                    device_functions * eps * (truth.bounds.roundings + 150 * 16) * bound(k))
            << name << ", " << p.name();
      }
    };
    expect(0, truth.expected.eigenvalue, truth.bounds.terms.eigenvalue, "eigenvalue");
    expect(1, truth.expected.linear, truth.bounds.terms.linear, "linear");
    expect(2, truth.expected.power, truth.bounds.terms.power, "power");
    expect(3, truth.expected.D, truth.bounds.terms.D, "D");
    expect(4, truth.expected.step, truth.bounds.terms.step, "step");
  }
}

// Results that were computed elsewhere, in float64.
TEST(SelectiveScanVjp, AndItsForwardAgreeWithTheVectors) {
  SSM_SKIP_WITHOUT_DEVICE();
  auto const file = operator_vectors();
  auto const cases = operator_cases(file, "selective_scan");
  ASSERT_EQ(cases.size(), 5u);
  for (operator_case const& each : cases) {
    SCOPED_TRACE(each.name());
    auto const exact = problem_of<double>(each);
    auto const p = problem_of<float>(each);
    device_gradients<float> device(p, {});
    auto const result = device.problem.run();
    selective_truth const truth(exact);
    EXPECT_LE(worst_ratio(result.y, each.read<double, 3>("out.y"), truth.y_bound),
              device_functions);
    EXPECT_LE(worst_ratio(result.carry, each.read<double, 3>("out.final_state"), truth.carry_bound),
              device_functions);

    device.add<false>();
    auto found = device.download();
    auto expected = gradients_of(each, exact);
    if (!each.contains("grad.h0")) expected.initial = gradient_by_formula(exact).initial;
    selective_gradient_bounds<double> bounds(exact);
    auto const worst = worst_of(exact.options, found, expected, bounds);
    EXPECT_LE(worst.ratio, device_functions) << worst.name;
  }
}

}  // namespace
