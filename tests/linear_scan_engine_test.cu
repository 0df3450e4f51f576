// SPDX-License-Identifier: Apache-2.0
// Rows that the copy engine brings where it can: many of them, of thousands of tiles, at multiples
// of 16 bytes.
#include <gtest/gtest.h>

#include "compiled/linear_scan.cuh"
#include "support/device.cuh"
#include "support/linear_scan_vjp_problem.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;
using complex64 = std::complex<float>;

template <class T>
constexpr index_t packet = 16 / sizeof(T);
/// Steps of a tile of the scan and of its gradient.
template <class T>
constexpr index_t scan_tile = 3 * 256 * packet<T>;
template <class T>
constexpr index_t vjp_tile = 256 * packet<T>;

// Of 600 rows, two blocks on each of 132 multiprocessors cut the last 528 into parts of 4, 2, 1 and
// 1 tiles. Decays of size 1 and integer drives: what a part hands on is exact in any order.
TEST(LinearScanEngine, RunsWholeRowsAndPartsOfRows) {
  SSM_SKIP_WITHOUT_DEVICE();
  linear_case of{.shape = {600, 7 * scan_tile<float> + 8, 1}, .kind = gates::units};
  for (auto const& how : {rows, padded_rows}) expect_states<float>(of.all(how));
  of.place = of.in_drive, of.order = direction::backward;
  of.shape[1] = 7 * scan_tile<complex64> + 8;
  expect_states<complex64>(of.all(rows));
}

TEST(LinearScanEngine, RunsTilesOfSeveralRows) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (auto const order : both_ways) {
    linear_case const of{.shape = {20603, scan_tile<complex64> / 5 - 9, 1}, .order = order};
    expect_states<complex64>(of.all(rows));
  }
}

TEST(LinearScanEngine, RunsGradientsOfWholeRowsAndPartsOfRows) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (auto const order : both_ways)
    for (auto const kind : {gates::units, gates::slow}) {
      linear_case of{.shape = {600, 7 * vjp_tile<float> + 8, 1}, .order = order, .kind = kind};
      expect_gradients<float>(of.all(rows));
      of.shape[1] = 7 * vjp_tile<complex64> + 8;
      for (auto const& how : {rows, padded_rows}) expect_gradients<complex64>(of.all(how));
    }
  linear_case const of{.shape = {600, 7 * vjp_tile<bfloat16> + 16, 1}};
  expect_gradients<bfloat16>(of.all(rows));
}

TEST(LinearScanEngine, RunsGradientsOfTilesOfSeveralRows) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (auto const order : both_ways) {
    linear_case const of{.shape = {20603, vjp_tile<float> / 5 - 8, 1}, .order = order};
    expect_gradients<float>(of.all(rows));
  }
}

TEST(LinearScanEngine, RepeatsBitForBit) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const stream;
  linear_case const of{.shape = {600, 7 * scan_tile<float> + 8, 1}, .kind = gates::slow};
  linear_problem<float> first(stream, of.all(rows)), again(stream, of.all(rows));
  first.run(stream);
  first.check();
  for (int run = 0; run < 20; ++run) {
    again.run(stream);
    ASSERT_TRUE(same_bits(first.states, again.states)) << "run " << run;
    ASSERT_TRUE(same_bits(first.final, again.final)) << "run " << run;
  }
}

}  // namespace
