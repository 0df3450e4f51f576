// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "ssm/causal_conv1d.cuh"
#include "ssm/graph.cuh"
#include "support/conv1d_device.cuh"
#include "support/device.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;

constexpr layout const* conv_layouts[] = {
    &columns,      &rows,           &shifted_columns, &shifted_rows,
    &pitched_rows, &spread_columns, &batch_innermost, &rows_from_their_ends};

/// In eps: the slope of SiLU, and the product that it enters.
constexpr int of_slope = 14;

template <class T>
void expect_truth(index_array<3> const& shape, index_t width, conv_options const& options,
                  std::uint64_t seed, layout const& how) {
  gpu::stream const stream;
  auto const p = random_conv<T>(shape, width, options, seed);
  auto const exact = converted_problem<double>(p);
  auto const expected = run_conv_vjp(sequential{}, exact);
  auto const of_inputs = conv_gradient_bounds(exact, double(width + 1), of_slope),
             of_sums = conv_gradient_bounds(exact, double(shape[0] * shape[1]), of_slope);
  auto const found = device_conv_vjp<T>(stream, p, how).run(stream);
  SCOPED_TRACE(p.name() + ", " + how.name);
  EXPECT_LE(worst_ratio(found.x, expected.x, of_inputs.x), 1) << "x";
  EXPECT_LE(worst_ratio(found.weight, expected.weight, of_sums.weight), 1) << "weight";
  EXPECT_LE(worst_ratio(found.bias, expected.bias, of_sums.bias), 1) << "bias";
  if (!options.carry) return;
  EXPECT_LE(worst_ratio(found.initial, expected.initial, of_inputs.initial), 1) << "initial";
}

void expect_same_bits(conv_gradients<float> const& found, conv_gradients<float> const& expected) {
  EXPECT_TRUE(has_same_bits(found.x, expected.x)) << "x";
  EXPECT_TRUE(has_same_bits(found.weight, expected.weight)) << "weight";
  EXPECT_TRUE(has_same_bits(found.bias, expected.bias)) << "bias";
  EXPECT_TRUE(has_same_bits(found.initial, expected.initial)) << "initial";
}

TEST(CausalConv1dVjp, IsTheCpusForEveryWidthAndOption) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 100;
  for (index_t width = 1; width <= 8; ++width)
    for (conv_options const& options : all_conv_options())
      for (layout const* how : {&columns, &rows}) {
        expect_truth<float>({2, 43, 12}, width, options, seed++, *how);
      }
}

TEST(CausalConv1dVjp, IsTheCpusForAnyLengthAndLayout) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 500;
  for (layout const* how : conv_layouts)
    for (index_t const length : {1, 2, 3, 7, 8, 9, 16, 17, 64, 65, 700}) {
      bool const packed = seed % 2 == 0;
      expect_truth<float>({2, length, 20}, 4, {.packed = packed}, seed++, *how);
      expect_truth<float>({3, length, 7}, length % 8 + 1, {.packed = !packed}, seed++, *how);
      expect_truth<bfloat16>({2, length, 24}, 4, {.packed = packed}, seed++, *how);
    }
}

TEST(CausalConv1dVjp, IsTheCpusForManyStepsOrChannels) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 1000;
  for (layout const* how : {&columns, &rows, &shifted_rows}) {
    expect_truth<float>({1, 2049, 130}, 4, {.packed = seed % 2 == 0}, seed, *how);
    expect_truth<bfloat16>({1, 131071, 2}, 4, {}, seed++, *how);
  }
  expect_truth<float16>({3, 5, 5000}, 4, {}, seed++, columns);
  expect_truth<float16>({3000, 5, 4}, 4, {}, seed++, rows);
}

TEST(CausalConv1dVjp, GivesTheSameBitsEveryTime) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const stream;
  auto const p = random_conv<bfloat16>({2, 5000, 40}, 4, {.packed = true}, 3000);
  for (layout const* how : {&columns, &rows, &shifted_columns}) {
    device_conv_vjp<bfloat16> on(stream, p, *how);
    auto const once = on.run(stream);
    for (int repeat = 0; repeat < 5; ++repeat) {
      on.reset(stream);
      expect_same_bits(on.run(stream), once);
    }
  }
}

TEST(CausalConv1dVjp, GradientsAreAddedToWhatIsThere) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const stream;
  auto const p = random_conv<float>({2, 50, 12}, 4, {}, 3100);
  for (layout const* how : {&columns, &rows, &spread_columns}) {
    device_conv_vjp<float> on(stream, p, *how);
    auto const alone = on.run(stream);
    on.reset(stream);
    auto expected = alone;
    auto const start = [&](auto& array, auto& elements) {
      for (float& element : elements) element += 2;
      array.each([&](auto b, auto t, auto c) { array(b, t, c) = 2; });
      array.send(stream);
    };
    start(on.x, expected.x), start(on.weight, expected.weight), start(on.bias, expected.bias);
    expect_same_bits(on.run(stream), expected);
  }
}

TEST(CausalConv1dVjp, GradientsAreStoredOverWhatIsThere) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const stream;
  for (bool const packed : {false, true}) {
    auto const p = random_conv<bfloat16>({2, 50, 12}, 4, {.packed = packed}, 3150);
    for (layout const* how : {&columns, &rows, &shifted_rows, &spread_columns}) {
      auto const added = device_conv_vjp<bfloat16>(stream, p, *how).run(stream);
      device_conv_vjp<bfloat16> on(stream, p, *how);
      for (auto* const array : {&on.x, &on.weight, &on.bias}) array->poison(), array->send(stream);
      auto own = on.poisoned_workspace(stream);
      gpu::causal_conv1d_vjp(stream, on.forward.inputs(), on.forward.carry_view(),
                             on.y_cotangent.view(), on.carry_view(), on.gradients(), own.view(),
                             gpu::accumulate::no);
      expect_same_bits(on.outcome(stream), added);
    }
  }
}

TEST(CausalConv1dVjp, RunsInAGraphAsOftenAsItIsLaunched) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const stream;
  for (index_t const length : {1, 300})
    for (layout const* how : {&columns, &rows}) {
      SCOPED_TRACE(testing::Message() << how->name << ", length " << length);
      auto const p = random_conv<bfloat16>({2, length, 40}, 4, {}, 3170);
      device_conv_vjp<bfloat16> direct(stream, p, *how), on(stream, p, *how);
      auto const expected = direct.run(stream);
      auto const y = direct.forward.run(stream);
      auto own = on.poisoned_workspace(stream);
      gpu::graph const program(stream, [&] {
        on.add(stream, own.view());
        gpu::causal_conv1d(stream, on.forward.inputs(), on.forward.carry_view(),
                           on.forward.y.view());
      });
      for (int launch = 0; launch < 2; ++launch) {
        on.reset(stream), on.forward.reset(stream);
        program.launch(stream);
        expect_same_bits(on.outcome(stream), expected);
        auto const found = on.forward.outcome(stream);
        EXPECT_TRUE(has_same_bits(converted<float>(found.y), converted<float>(y.y)));
        EXPECT_TRUE(has_same_bits(converted<float>(found.carry), converted<float>(y.carry)));
      }
    }
}

TEST(CausalConv1dVjp, WhatIsNotWantedChangesNothing) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const stream;
  auto const p = random_conv<float>({2, 50, 12}, 4, {.packed = true}, 3200);
  for (layout const* how : {&columns, &rows}) {
    auto const all = device_conv_vjp<float>(stream, p, *how).run(stream);
    device_conv_vjp<float> on(stream, p, *how);
    auto const add = [&](auto const& carry, auto const& to) {
      gpu::causal_conv1d_vjp_allocating(stream, on.forward.inputs(), on.forward.carry_view(),
                                        on.y_cotangent.view(), carry, to);
    };
    auto const to = on.gradients();
    add(state_view<float, memory::device>{},
        causal_conv1d_gradients<float, memory::device>{.weight = to.weight});
    add(state_view<float, memory::device>{},
        causal_conv1d_gradients<float, memory::device>{.bias = to.bias});
    add(on.carry_view(), causal_conv1d_gradients<float, memory::device>{.x = to.x});
    auto found = on.outcome(stream);
    // Without a cotangent of the final carry, gradients of weight and bias are the same.
    expect_same_bits(found, all);
  }
}

// In double precision: the sums of the gradients that are not shared.
TEST(CausalConv1dVjp, AStrideOfZeroSums) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const stream;
  index_t const channels = 200, width = 4;
  auto const p = random_conv<float>({2, 50, channels}, width, {}, 3300);
  device_conv_vjp<float> on(stream, p, columns);
  auto const apart = on.run(stream);
  gpu::tensor<float, 1> shared(stream, {channels + width + 1});
  float* const at = shared.view().data_handle();
  auto const fetch = [&] {
    tensor<float, 1> found({channels + width + 1});
    gpu::copy_to_host(stream, std::as_const(shared).view(), found.view());
    stream.wait();
    return found;
  };
  using gradients = causal_conv1d_gradients<float, memory::device>;
  for (bool const over_channels : {false, true}) {
    gpu::check(
        cudaMemsetAsync(at, 0, sizeof(float) * std::size_t(channels + width + 1), stream.get()),
        "cudaMemsetAsync");
    gradients to{.weight = {at, {channels, width}, {over_channels ? 0 : 1, over_channels ? 1 : 0}},
                 .bias = {at + channels + width, {channels}, {0}}};
    gpu::causal_conv1d_vjp_allocating(stream, on.forward.inputs(), on.forward.carry_view(),
                                      on.y_cotangent.view(), {}, to);
    auto const found = fetch();
    auto const expect_sum = [&](float sum, index_t count, auto const& term) {
      double expected = 0, size = 0;
      for (index_t i = 0; i < count; ++i) {
        expected += double(term(i));
        size += std::abs(double(term(i)));
      }
      EXPECT_NEAR(double(sum), expected, 0x1p-24 * double(count) * size);
    };
    expect_sum(found(channels + width), channels, [&](index_t c) { return apart.bias(c); });
    if (over_channels) {
      for (index_t k = 0; k < width; ++k) {
        expect_sum(found(k), channels, [&](index_t c) { return apart.weight(c, k); });
      }
    } else {
      for (index_t c = 0; c < channels; ++c) {
        expect_sum(found(c), width, [&](index_t k) { return apart.weight(c, k); });
      }
    }
  }
}

}  // namespace
