// SPDX-License-Identifier: Apache-2.0
// Channels innermost and hundreds of them: teams of blocks walk bands of channels, of 16 bits as
// wide as a line of memory.
#include "compiled/linear_scan.cuh"

#include <gtest/gtest.h>

#include "support/device.cuh"
#include "support/linear_scan_problem.cuh"
#include "support/linear_scan_vjp_problem.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;

// Of tiles of 128 and of 192 steps; fewer are no work for teams.
constexpr index_t tile_steps = 384, few_steps = 16 * tile_steps;

// The last band lacks channels. 4 or 5 blocks a team: the last round may be whole, or have tiles of
// one step, or none.
TEST(LinearScanOfTeams, TakesAnyLengthInWideBands) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 1;
  for (index_t const length : {few_steps, few_steps + tile_steps + 1, few_steps + 421}) {
    auto const order = both_ways[seed % 2];
    linear_case const of{.shape = {1, length, 1528}, .order = order, .seed = seed++};
    expect_states<bfloat16>(of.all(columns));
    expect_gradients<bfloat16>(of.all(columns));
  }
  linear_case const of{.shape = {3, few_steps + 3, 512}, .seed = seed};
  expect_states<float16>(of.all(columns));
}

// A few bands, of which each has several teams: of 8 blocks, and of 4, the last band lacks
// channels.
TEST(LinearScanOfTeams, ChainsThemInWideBands) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 11;
  for (index_t const channels : {128, 248, 512}) {
    for (index_t const length : {11 * few_steps, 11 * few_steps + 3 * tile_steps + 1}) {
      auto const order = both_ways[seed % 2];
      linear_case const of{.shape = {1, length, channels}, .order = order, .seed = seed++};
      expect_states<bfloat16>(of.all(columns));
      expect_gradients<bfloat16>(of.all(columns));
    }
  }
  linear_case const of{.shape = {2, few_steps + 3, 128}, .seed = seed};
  expect_gradients<float16>(of.all(columns));
}

// More bands than half of the multiprocessors, and fewer than all.
TEST(LinearScanOfTeams, GivesABandToEachBlock) {
  SSM_SKIP_WITHOUT_DEVICE();
  linear_case const of{.shape = {1, few_steps + 9, 4360}, .order = direction::backward};
  expect_states<bfloat16>(of.all(columns));
  expect_gradients<bfloat16>(of.all(columns));
}

TEST(LinearScanOfTeams, MayStoreStatesWhereDecayOrDriveWas) {
  SSM_SKIP_WITHOUT_DEVICE();
  linear_case of{.shape = {1, few_steps + 77, 1528}, .order = direction::backward};
  for (auto const place : {linear_case::in_decay, linear_case::in_drive}) {
    of.place = place;
    expect_states<bfloat16>(of.all(columns));
  }
}

}  // namespace
