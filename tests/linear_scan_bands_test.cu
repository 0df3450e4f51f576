// SPDX-License-Identifier: Apache-2.0
// Channels innermost and thousands of them: blocks walk bands of channels through all of time.
#include "compiled/linear_scan.cuh"

#include <gtest/gtest.h>

#include "support/device.cuh"
#include "support/linear_scan_problem.cuh"
#include "support/linear_scan_vjp_problem.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;
using complex64 = std::complex<float>;
using step = gpu::detail::linear_step;

template <class T>
constexpr index_t box_steps = gpu::detail::band_stage<T, step, 1>::steps;

template <class T>
void expect_scan_and_gradient(linear_case const& of) {
  expect_states<T>(of);
  expect_gradients<T>(of);
}

TEST(LinearScanOfBands, TakesAnyLengthAndNumberOfChannels) {
  SSM_SKIP_WITHOUT_DEVICE();
  for_types<float, bfloat16>([](auto type) {
    using T = typename decltype(type)::type;
    index_t const box = box_steps<T>;
    std::uint64_t seed = 1;
    for (auto const order : both_ways) {
      for (index_t const length : {index_t{1}, index_t{2}, box - 1, box, box + 1, 3 * box + 5}) {
        linear_case const of{.shape = {1, length, 5128}, .order = order, .seed = seed++};
        expect_scan_and_gradient<T>(of.all(columns));
      }
      linear_case of{.shape = {3, 2 * box + 3, 2056}, .order = order, .seed = seed++};
      for (auto const& how : {columns, wide_columns}) expect_scan_and_gradient<T>(of.all(how));
      of.has_initial = of.has_final = false;
      expect_scan_and_gradient<T>(of.all(columns));
    }
  });
}

// Decays of size 1 and integers: exact in any order. Here blocks keep together, and some of them
// have a band less than others.
TEST(LinearScanOfBands, KeepsTogether) {
  SSM_SKIP_WITHOUT_DEVICE();
  index_t const length = gpu::detail::few_band_steps + 37;
  linear_case of{.shape = {1, length, 5128}, .kind = gates::units};
  expect_scan_and_gradient<bfloat16>(of.all(columns));
  of.order = direction::backward;
  expect_scan_and_gradient<float>(of.all(columns));
  of.shape[2] = 265 * gpu::detail::band_channels<1> - 8;
  expect_states<float>(of.all(columns));
}

// Channels whose count is odd, so that rows begin anywhere: from a multiple of 16 bytes on, from
// another element on, and each array in its own way.
constexpr index_t odd = 73 * gpu::detail::band_channels<4> - 93;
constexpr layout odd_columns{"columns of odd pitch from element 1 on",
                             [](index_t, index_t l, index_t c) {
                               return index_array<3>{l * (c + 2), c + 2, 1};
                             },
                             1};
constexpr layout even_columns{"columns of even pitch from element 1 on",
                              [](index_t, index_t l, index_t c) {
                                return index_array<3>{l * (c + 5), c + 5, 1};
                              },
                              1};

TEST(LinearScanOfBands, TakesRowsThatBeginAnywhere) {
  SSM_SKIP_WITHOUT_DEVICE();
  for_types<float, complex64, bfloat16>([](auto type) {
    using T = typename decltype(type)::type;
    index_t const box = box_steps<gpu::detail::element_t<T>>;
    std::uint64_t seed = 1;
    for (auto const order : both_ways) {
      for (index_t const length : {index_t{1}, box - 1, 3 * box + 5}) {
        linear_case const of{.shape = {1, length, odd}, .order = order, .seed = seed++};
        expect_scan_and_gradient<T>(of.all(columns));
      }
      linear_case of{.shape = {2, 2 * box, odd}, .order = order, .seed = seed++};
      expect_scan_and_gradient<T>(of.all(columns));
      of.decay = columns, of.drive = odd_columns, of.states = even_columns;
      expect_scan_and_gradient<T>(of);
      of.shape[1] += 3;  // batches begin anywhere, too
      of.has_initial = of.has_final = false;
      expect_scan_and_gradient<T>(of);
    }
  });
}

TEST(LinearScanOfBands, TakesStepsThatLieTheOtherWayRound) {
  SSM_SKIP_WITHOUT_DEVICE();
  constexpr layout from_the_end{"columns from the last step on", [](index_t, index_t l, index_t c) {
                                  return index_array<3>{l * c, -c, 1};
                                }};
  for (index_t const channels : {index_t{5128}, odd}) {
    linear_case of{.shape = {1, 2 * box_steps<float> + 3, channels}};
    expect_scan_and_gradient<float>(of.all(from_the_end));
    of.decay = from_the_end, of.drive = of.states = columns;  // not all of them
    expect_scan_and_gradient<float>(of);
  }
}

TEST(LinearScanOfBands, KeepsTogetherWhereRowsBeginAnywhere) {
  SSM_SKIP_WITHOUT_DEVICE();
  linear_case of{.shape = {1, gpu::detail::few_band_steps + 37, odd}, .kind = gates::units};
  expect_scan_and_gradient<bfloat16>(of.all(odd_columns));
  of.order = direction::backward;
  expect_scan_and_gradient<float>(of.all(columns));
  of.shape[2] = 265 * gpu::detail::band_channels<4> - 7;
  expect_states<float>(of.all(columns));
}

TEST(LinearScanOfBands, MayStoreStatesWhereDecayOrDriveWas) {
  SSM_SKIP_WITHOUT_DEVICE();
  linear_case of{.shape = {1, 7 * box_steps<float> + 3, 5128}};
  for (auto const place : {linear_case::in_decay, linear_case::in_drive}) {
    of.place = place;
    for (index_t const channels : {index_t{5128}, odd}) {
      of.shape[2] = channels;
      expect_states<float>(of.all(columns));
      expect_states<bfloat16>(of.all(columns));
    }
  }
}

}  // namespace
