// SPDX-License-Identifier: Apache-2.0
#include "compiled/linear_scan.cuh"

#include <gtest/gtest.h>

#include "support/device.cuh"
#include "support/linear_scan_problem.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;
using step = gpu::detail::linear_step;
using complex64 = std::complex<float>;

template <class Test>
void for_all_types(Test const& test) {
  for_types<float, double, bfloat16, float16, complex64>(test);
}

TEST(LinearScan, OfRowsGivesTheStatesOfTheRecurrence) {
  SSM_SKIP_WITHOUT_DEVICE();
  for_all_types([](auto type) {
    using T = typename decltype(type)::type;
    index_t const tile = rows_tile_length<T, step>;
    std::uint64_t seed = 1;
    for (auto const order : both_ways)
      for (auto const& how : {rows, shifted_rows, pitched_rows}) {
        for (index_t const length : {0, 1, 31, 32, 33, 1009}) {
          for (index_t const batch : {1, 7, 300}) {
            expect_states<T>(
                linear_case{.shape = {batch, length, 1}, .order = order, .seed = seed++}.all(how));
          }
        }
        for (index_t const length :
             {tile - 1, tile, tile + 1, 2 * tile, 2 * tile + 8, 4 * tile, index_t{10007}}) {
          for (index_t const channels : {1, 7}) {
            expect_states<T>(
                linear_case{.shape = {1, length, channels}, .order = order, .seed = seed++}.all(
                    how));
          }
        }
      }
  });
}

TEST(LinearScan, OfColumnsGivesTheStatesOfTheRecurrence) {
  SSM_SKIP_WITHOUT_DEVICE();
  for_all_types([](auto type) {
    using T = typename decltype(type)::type;
    std::uint64_t seed = 1;
    for (auto const order : both_ways)
      for (auto const& how : {columns, shifted_columns, wide_columns, spread_columns})
        for (index_t const channels : {1, 2, 7, 8, 16, 32, 33, 100}) {
          index_t const tile = columns_tile_length<T, step>(channels);
          for (index_t const length :
               {index_t{0}, index_t{1}, index_t{31}, tile - 1, tile, tile + 1, 2 * tile + 33}) {
            expect_states<T>(
                linear_case{.shape = {1, length, channels}, .order = order, .seed = seed++}.all(
                    how));
          }
        }
  });
}

// Decays of size 1 remember all, and drives are integers, so every sum is exact: the states must be
// those of the recurrence to the last bit, wherever time is cut.
TEST(LinearScan, CarriesStatesOverGroupsAndBlocksOfTiles) {
  SSM_SKIP_WITHOUT_DEVICE();
  for_all_types([](auto type) {
    using T = typename decltype(type)::type;
    index_t const tile = rows_tile_length<T, step>;
    for (auto const order : both_ways) {
      linear_case of{.shape = {}, .order = order, .kind = gates::units};
      for (auto const& how : {rows, shifted_rows, pitched_rows}) {
        of.shape = {3, 67 * tile + 5, 1};
        expect_states<T>(of.all(how));
        of.shape = {1, 2, 40 * tile / 2};  // short rows, no look-back
        expect_states<T>(of.all(how));
      }
      for (index_t const channels : {3, 33}) {
        of.shape = {2, 70 * columns_tile_length<T, step>(channels) + 3, channels};
        expect_states<T>(of.all(columns));
      }
      of.shape = {1, 40 * columns_tile_length<T, step>(32) + 3, 384};
      expect_states<T>(of.all(columns));
      of.shape = {1, 530 * columns_tile_length<T, step>(32) + 3, 32};
      expect_states<T>(of.all(columns));
      // One piece of memory, a multiple of 16 bytes or not; of 5 and 10 some lanes have none.
      for (index_t const channels : {5, 7, 10, 16}) {
        of.shape = {1, 70003, channels};
        expect_states<T>(of.all(columns));
      }
    }
  });
  for (auto const order : both_ways) {
    linear_case of{.shape = {1, 2051 * rows_tile_length<float, step> + 7, 1},
                   .order = order,
                   .kind = gates::units};
    for (auto const& how : {rows, pitched_rows}) expect_states<float>(of.all(how));
    of.shape = {1, 4000003, 3};  // blocks of a team that have no channel
    expect_states<float>(of.all(columns));
    of.shape = {1, 700 * columns_tile_length<float, step>(1) + 7, 1};
    expect_states<float>(of.all(rows_from_their_ends));
  }
}

// As before, for rows that need nothing of each other: more of them than blocks, each of a few
// tiles. With 5 steps more than two tiles every row begins at another place in 16 bytes.
TEST(LinearScan, CarriesStatesAlongManyRowsAndManyBandsOfChannels) {
  SSM_SKIP_WITHOUT_DEVICE();
  for_types<float, bfloat16, complex64>([](auto type) {
    using T = typename decltype(type)::type;
    for (auto const order : both_ways) {
      linear_case of{.shape = {}, .order = order, .kind = gates::units};
      for (index_t const more : {5, 8}) {
        of.shape = {500, 2 * rows_tile_length<T, step> + more, 1};
        expect_states<T>(of.all(rows));
      }
      for (auto const& how : {shifted_rows, pitched_rows}) expect_states<T>(of.all(how));
      for (index_t const channels : {4104, 10504}) {
        of.shape = {1, 3 * columns_tile_length<T, step>(channels) + 5, channels};
        expect_states<T>(of.all(columns));
      }
      of = {.shape = {3, 203, 3512}, .order = order};
      for (auto const& how : {columns, wide_columns}) expect_states<T>(of.all(how));
    }
  });
}

// Blocks draw parts of rows where there are thousands of tiles, and hand on states.
TEST(LinearScan, HandsStatesFromPartToPartOfRows) {
  SSM_SKIP_WITHOUT_DEVICE();
  linear_case of{.shape = {600, 7 * rows_tile_length<float, step> + 5, 1}, .kind = gates::units};
  for (auto const& how : {rows, pitched_rows}) expect_states<float>(of.all(how));
  of.shape[1] = 7 * rows_tile_length<complex64, step> + 8;
  of.order = direction::backward;
  expect_states<complex64>(of.all(rows));
}

TEST(LinearScan, KeepsTermsOfManyTiles) {
  SSM_SKIP_WITHOUT_DEVICE();
  for_types<float, double, complex64>([](auto type) {
    using T = typename decltype(type)::type;
    for (auto const order : both_ways) {
      linear_case of{.shape = {}, .order = order, .kind = gates::slow};
      of.shape = {2, 35 * rows_tile_length<T, step>, 1};
      for (auto const& how : {rows, shifted_rows}) expect_states<T>(of.all(how));
      of.shape = {1, 300 * columns_tile_length<T, step>(33), 33};
      expect_states<T>(of.all(columns));
    }
  });
}

TEST(LinearScan, TakesLayoutsOfEveryKindAndOfEachArrayItsOwn) {
  SSM_SKIP_WITHOUT_DEVICE();
  for_types<float, bfloat16>([](auto type) {
    using T = typename decltype(type)::type;
    for (auto const order : both_ways)
      for (index_t const length : {33, 5003}) {
        linear_case of{.shape = {3, length, 5}, .order = order};
        for (auto const& how : {rows, rows_apart, rows_from_their_ends, columns, batch_innermost}) {
          expect_states<T>(of.all(how));
          of.carry = how;
          expect_states<T>(of.all(how));
          of.carry = spread_columns;
          expect_states<T>(of.all(how));
        }
        of.decay = rows, of.drive = shifted_rows, of.states = pitched_rows;
        expect_states<T>(of);
        of.decay = columns, of.drive = rows, of.states = wide_columns;
        expect_states<T>(of);
      }
  });
}

TEST(LinearScan, TakesDecaysThatAreBroadcast) {
  SSM_SKIP_WITHOUT_DEVICE();
  for_types<float, bfloat16>([](auto type) {
    using T = typename decltype(type)::type;
    for (auto const order : both_ways)
      for (auto const& decay : {same_for_all_steps, same_for_all_channels, constant})
        for (auto const& how : {rows, columns}) {
          linear_case of{.shape = {2, 4099, 33}, .order = order};
          of = of.all(how);
          of.decay = decay;
          expect_states<T>(of);
          of.shape[0] = 1;
          expect_states<T>(of);
        }
  });
}

TEST(LinearScan, NeedsNoInitialOrFinalState) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (auto const order : both_ways)
    for (bool const initial : {false, true})
      for (bool const final : {false, true})
        for (auto const& how : {rows, pitched_rows, columns})
          for (index_t const length : {0, 5, 10007}) {
            linear_case const of{.shape = {2, length, 3},
                                 .order = order,
                                 .has_initial = initial,
                                 .has_final = final};
            expect_states<float>(of.all(how));
          }
}

TEST(LinearScan, MayStoreStatesWhereDecayOrDriveWas) {
  SSM_SKIP_WITHOUT_DEVICE();
  for_types<float, bfloat16>([](auto type) {
    using T = typename decltype(type)::type;
    for (auto const order : both_ways)
      for (auto const& how : {rows, shifted_rows, pitched_rows, columns, spread_columns})
        for (index_t const length : {33, 40009}) {
          linear_case of{.shape = {1, length, 5}, .order = order};
          of.place = of.in_drive;
          expect_states<T>(of.all(how));
          of.place = of.in_decay;
          expect_states<T>(of.all(how));
        }
  });
}

/// States and the final one, with initial 5, decays 2, 3, -1 and drives 1, 10, 4.
std::vector<float> states_of_three_steps(direction order) {
  gpu::stream const stream;
  linear_problem<float> problem(stream, {.shape = {1, 3, 1}, .order = order});
  float const decay[] = {2, 3, -1}, drive[] = {1, 10, 4};
  for (index_t t = 0; t < 3; ++t) {
    problem.decay(0, t, 0) = decay[t];
    problem.drive(0, t, 0) = drive[t];
  }
  problem.initial(0, 0, 0) = 5;
  problem.run(stream);
  return {problem.states(0, 0, 0), problem.states(0, 1, 0), problem.states(0, 2, 0),
          problem.final(0, 0, 0)};
}

TEST(LinearScan, RunsStepsInTheOrderOfTime) {
  SSM_SKIP_WITHOUT_DEVICE();
  EXPECT_EQ(states_of_three_steps(direction::forward), (std::vector<float>{11, 43, -39, -39}));
  EXPECT_EQ(states_of_three_steps(direction::backward), (std::vector<float>{15, 7, -1, 15}));
}

}  // namespace
