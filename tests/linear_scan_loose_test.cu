// SPDX-License-Identifier: Apache-2.0
// Rows that begin anywhere in memory, in each array elsewhere, of few steps or many.
#include <gtest/gtest.h>

#include "compiled/linear_scan.cuh"
#include "support/device.cuh"
#include "support/linear_scan_vjp_problem.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;
using complex64 = std::complex<float>;

constexpr layout far_rows{"rows with gaps from element 3 on", pitched_rows.strides, 3};

/// Of 4, 8, ... 256 lanes, of which the last has all of its steps or one; of several tiles.
constexpr index_t lengths[] = {1, 2, 17, 64, 65, 128, 129, 671, 673, 1344, 1345, 2689, 5377, 11001};

linear_case scattered(index_t length, direction order, gates kind = gates::random) {
  linear_case of{.shape = {length < 200 ? 67 : 5, length, 1}, .order = order, .kind = kind};
  of.decay = shifted_rows, of.drive = far_rows, of.states = pitched_rows;
  return of;
}

TEST(LinearScanLoose, RunsRowsThatBeginElsewhereInEachArray) {
  SSM_SKIP_WITHOUT_DEVICE();
  for_types<float, double, bfloat16, float16, complex64>([](auto type) {
    using T = typename decltype(type)::type;
    for (auto const order : both_ways)
      for (index_t const length : lengths) expect_states<T>(scattered(length, order));
  });
}

TEST(LinearScanLoose, RunsGradientsOfRowsThatBeginElsewhereInEachArray) {
  SSM_SKIP_WITHOUT_DEVICE();
  for_types<float, double, bfloat16, complex64>([](auto type) {
    using T = typename decltype(type)::type;
    for (auto const order : both_ways)
      for (index_t const length : lengths) expect_gradients<T>(scattered(length, order));
  });
}

// More rows than there are lanes for at a time, so that each takes several.
TEST(LinearScanLoose, RunsManyRows) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (auto const order : both_ways)
    for (auto const& how : {rows, far_rows}) {
      linear_case of{.shape = {40001, 41, 1}, .order = order, .kind = gates::units};
      expect_states<bfloat16>(of.all(how));
      expect_gradients<float>(of.all(how));
      of.shape = {9001, 131, 1};
      of.has_initial = of.has_final = false;
      expect_states<float>(of.all(how));
      expect_gradients<bfloat16>(of.all(how));
    }
}

TEST(LinearScanLoose, CarriesStatesFromTileToTileOfLongRows) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (auto const order : both_ways) {
    auto of = scattered(25001, order, gates::units);
    of.shape[0] = 331;
    expect_states<float>(of);
    expect_gradients<float>(of);
  }
}

TEST(LinearScanLoose, MayStoreWhereItReads) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (auto const order : both_ways)
    for (auto const place : {linear_case::in_decay, linear_case::in_drive})
      for (index_t const length : {65, 12001}) {
        auto of = scattered(length, order);
        of.place = place;
        expect_states<bfloat16>(of);
        expect_gradients<bfloat16>(of);
      }
}

TEST(LinearScanLoose, RepeatsBitForBit) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const stream;
  auto of = scattered(5377, direction::forward, gates::slow);
  of.shape[0] = 700;
  linear_problem<float> first(stream, of), again(stream, of);
  first.run(stream);
  first.check();
  for (int run = 0; run < 10; ++run) {
    again.run(stream);
    ASSERT_TRUE(same_bits(first.states, again.states)) << "run " << run;
    ASSERT_TRUE(same_bits(first.final, again.final)) << "run " << run;
  }
}

}  // namespace
