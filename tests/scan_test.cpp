// SPDX-License-Identifier: Apache-2.0
// scan_test.cpp: one recurrence under every policy, in both directions, in pieces and whole.
#include "ssm/scan.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "support/oracle.hpp"
#include "support/random_tensor.hpp"
#include "support/scan_problem.hpp"
#include "support/text.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

template <class T>
class Scan : public ::testing::Test {};
using scalars = ::testing::Types<float, double, long double, std::complex<float>,
                                 std::complex<double>, digits50, complex50>;
TYPED_TEST_SUITE(Scan, scalars);

TYPED_TEST(Scan, EveryPolicyIsWithinTheStatedBoundOf50DigitsForEverySize) {
  index_t const chunk = 5;
  for (scan_shape const s :
       {scan_shape{2, 0, 3, 2}, scan_shape{2, 1, 3, 2}, scan_shape{2, 4, 3, 2},
        scan_shape{2, 5, 1, 3}, scan_shape{1, 6, 2, 1}, scan_shape{1, 31, 3, 2},
        scan_shape{0, 6, 2, 1}, scan_shape{1, 6, 0, 1}, scan_shape{1, 6, 2, 0}}) {
    auto const p = random_problem<TypeParam>(s, static_cast<std::uint64_t>(100 + 10 * s.length));
    for (direction const order : directions) {
      SCOPED_TRACE(text("length ", s.length, order == direction::forward ? "" : ", backward"));
      expect_within_bound(run(sequential{}, p.recurrence(), p.initial, order), p, order);
      expect_within_bound(run(chunked{chunk}, p.recurrence(), p.initial, order), p, order);
      expect_within_bound(run(parallel{2, chunk}, p.recurrence(), p.initial, order), p, order);
      expect_within_bound(run(parallel{}, p.recurrence(), p.initial, order), p, order);
    }
  }
}

template <class T>
class ScanPieces : public ::testing::Test {};
using working_scalars = ::testing::Types<float, double, std::complex<double>>;
TYPED_TEST_SUITE(ScanPieces, working_scalars);

TYPED_TEST(ScanPieces, ChunkedEqualsSequentialWithinTheBoundForEveryChunkLength) {
  index_t const length = 17;
  auto const p = random_problem<TypeParam>({2, length, 2, 3}, 200);
  for (direction const order : directions) {
    for (index_t chunk = 1; chunk <= length + 3; ++chunk) {
      SCOPED_TRACE(text("chunk ", chunk));
      expect_within_bound(run(chunked{chunk}, p.recurrence(), p.initial, order), p, order);
    }
  }
}

TYPED_TEST(ScanPieces, ChunkNotShorterThanTheSequenceIsSequentialBitForBit) {
  auto const p = random_problem<TypeParam>({2, 17, 2, 3}, 210);
  auto const expected = run(sequential{}, p.recurrence(), p.initial);
  for (index_t const chunk : {index_t{17}, index_t{18}, std::numeric_limits<index_t>::max()}) {
    SCOPED_TRACE(text("chunk ", chunk));
    expect_same_bits(run(chunked{chunk}, p.recurrence(), p.initial), expected, p.seed);
    expect_same_bits(run(parallel{2, chunk}, p.recurrence(), p.initial), expected, p.seed);
  }
}

TYPED_TEST(ScanPieces, ParallelEqualsChunkedBitForBitForEveryChunkAndThreadCount) {
  index_t const length = 13;
  auto const p = random_problem<TypeParam>({2, length, 3, 2}, 220);
  for (direction const order : directions) {
    for (index_t chunk = 1; chunk <= length + 3; ++chunk) {
      auto const expected = run(chunked{chunk}, p.recurrence(), p.initial, order);
      for (int const threads : {1, 2, 3, 7}) {
        SCOPED_TRACE(text("chunk ", chunk, ", threads ", threads));
        expect_same_bits(run(parallel{threads, chunk}, p.recurrence(), p.initial, order), expected,
                         p.seed);
      }
    }
  }
}

TYPED_TEST(ScanPieces, DefaultChunksGiveTheSameBitsForAnyThreadCountWhetherTimeIsCutOrNot) {
  for (scan_shape const s : {scan_shape{1, 5003, 2, 2}, scan_shape{2, 1031, 40, 1}}) {
    index_t const chunk = ssm::detail::plan(parallel{}, s.batch * s.channels, s.length).chunk;
    EXPECT_EQ(chunk < s.length, s.length == 5003) << "only the long, narrow problem is cut";
    auto const p = slow_problem<TypeParam>(s, 230);
    auto const expected = run(parallel{1, 0}, p.recurrence(), p.initial);
    for (int const threads : {0, 2, 3, 7}) {
      SCOPED_TRACE(text("length ", s.length, ", threads ", threads));
      expect_same_bits(run(parallel{threads, 0}, p.recurrence(), p.initial), expected, p.seed);
    }
  }
}

TYPED_TEST(ScanPieces, OneCallEqualsACallForEachPartAtEverySplitBitForBit) {
  index_t const length = 11;
  auto const p = random_problem<TypeParam>({2, length, 3, 2}, 240);
  for (direction const order : directions) {
    auto const expected = run(sequential{}, p.recurrence(), p.initial, order);
    for (index_t split = 0; split <= length; ++split) {
      SCOPED_TRACE(text("split at ", split));
      outcome<TypeParam> found{poisoned<TypeParam>({2, length, 3, 2}), p.initial};
      auto const part = [&](index_t first, index_t count) {
        scan(sequential{},
             linear_recurrence<TypeParam>{p.decay.view().slice(1, first, count),
                                          p.drive.view().slice(1, first, count)},
             store_states<TypeParam>{found.states.view().slice(1, first, count)},
             found.final_states.view(), order);
      };
      if (order == direction::forward) {
        part(0, split);
        part(split, length - split);
      } else {
        part(split, length - split);
        part(0, split);
      }
      expect_same_bits(found, expected, p.seed);
    }
  }
}

TYPED_TEST(ScanPieces, OneCallEqualsSingleStepsBitForBit) {
  index_t const length = 23;
  auto const p = random_problem<TypeParam>({2, length, 3, 2}, 250);
  auto const expected = run(sequential{}, p.recurrence(), p.initial);
  outcome<TypeParam> found{poisoned<TypeParam>({2, length, 3, 2}), p.initial};
  for (index_t t = 0; t < length; ++t) {
    scan(sequential{},
         linear_recurrence<TypeParam>{p.decay.view().slice(1, t, 1), p.drive.view().slice(1, t, 1)},
         store_states<TypeParam>{found.states.view().slice(1, t, 1)}, found.final_states.view());
  }
  expect_same_bits(found, expected, p.seed);
}

TYPED_TEST(ScanPieces, BackwardEqualsForwardOverReversedViewsBitForBit) {
  auto const p = random_problem<TypeParam>({2, 13, 3, 2}, 260);
  linear_recurrence<TypeParam> const mirrored{p.decay.view().reversed(1),
                                              p.drive.view().reversed(1)};
  for (index_t const chunk : {1, 5, 13, 14}) {
    auto const backward = run(chunked{chunk}, p.recurrence(), p.initial, direction::backward);
    auto forward = run(chunked{chunk}, mirrored, p.initial);
    forward.states = materialized(forward.states.view().reversed(1));
    expect_same_bits(backward, forward, p.seed);
  }
}

TYPED_TEST(ScanPieces, StridedViewsGiveTheBitsOfContiguousOnesAndNothingBetweenIsWritten) {
  using T = TypeParam;
  auto const p = random_problem<T>({2, 13, 3, 4}, 270);
  scattered const decay(p.decay), drive(p.drive), states(poisoned<T>({2, 13, 3, 4}));
  scattered const carry(p.initial);
  for (index_t const chunk : {5, 13}) {
    auto const expected = run(chunked{chunk}, p.recurrence(), p.initial);
    for_each_position(p.initial.extents(), [&](auto const& lane) {
      at(carry.view(), lane) = at(p.initial.view(), lane);
    });
    scan(chunked{chunk}, linear_recurrence<T>{decay, drive}, store_states<T>{states}, carry);
    expect_same_bits({materialized(states.view()), materialized(carry.view())}, expected, p.seed);
    EXPECT_EQ(states.overwritten(), 0);
    EXPECT_EQ(carry.overwritten(), 0);
  }
}

TYPED_TEST(ScanPieces, StrideZeroEqualsTheMaterializedBroadcastBitForBit) {
  using T = TypeParam;
  auto const p = random_problem<T>({2, 13, 3, 4}, 280);
  auto const shared_decay =
      p.decay.view().select(1, 0).select(0, 0).broadcast(0, 13).broadcast(0, 2);
  auto const shared_drive = p.drive.view().select(2, 1).broadcast(2, 3);
  auto const decay = materialized(shared_decay), drive = materialized(shared_drive);
  for (index_t const chunk : {5, 13}) {
    expect_same_bits(
        run(chunked{chunk}, linear_recurrence<T>{shared_decay, shared_drive}, p.initial),
        run(chunked{chunk}, linear_recurrence<T>{decay, drive}, p.initial), p.seed);
  }
}

TYPED_TEST(ScanPieces, LengthZeroLeavesTheCarryAsItIs) {
  auto const p = random_problem<TypeParam>({2, 0, 3, 2}, 290);
  for (direction const order : directions) {
    EXPECT_EQ(run(sequential{}, p.recurrence(), p.initial, order).final_states, p.initial);
    EXPECT_EQ(run(chunked{4}, p.recurrence(), p.initial, order).final_states, p.initial);
    EXPECT_EQ(run(parallel{3, 0}, p.recurrence(), p.initial, order).final_states, p.initial);
  }
}

TYPED_TEST(ScanPieces, NaNReachesLaterStepsOfItsOwnLaneAndStateOnly) {
  using T = TypeParam;
  index_t const length = 13;
  auto const clean = random_problem<T>({2, length, 3, 2}, 300);
  for (bool const in_drive : {true, false}) {
    for (index_t const where : {0, 4, 5, 12}) {
      auto p = clean;
      (in_drive ? p.drive : p.decay)(1, where, 2, 0) = not_a_number<T>();
      for (direction const order : directions) {
        for (index_t const chunk : {1, 5, 13}) {
          auto const found = run(chunked{chunk}, p.recurrence(), p.initial, order);
          auto const expected = run(chunked{chunk}, clean.recurrence(), p.initial, order);
          for_each_position(found.states.extents(), [&](auto const& position) {
            auto const [b, t, c, n] = position.value;
            bool const is_after = order == direction::forward ? t >= where : t <= where;
            bool const reached = b == 1 && c == 2 && n == 0 && is_after;
            T const h = at(found.states.view(), position);
            EXPECT_EQ(h != h, reached) << to_string(position) << ", chunk " << chunk;
            if (!reached) {
              EXPECT_TRUE(is_same(h, at(expected.states.view(), position))) << to_string(position);
            }
          });
        }
      }
    }
  }
}

TYPED_TEST(ScanPieces, NaNInTheCarryStaysInItsLaneAndState) {
  auto p = random_problem<TypeParam>({2, 13, 3, 2}, 310);
  p.initial(0, 1, 1) = not_a_number<TypeParam>();
  auto const found = run(chunked{5}, p.recurrence(), p.initial);
  for_each_position(found.states.extents(), [&](auto const& position) {
    auto const [b, t, c, n] = position.value;
    TypeParam const h = at(found.states.view(), position);
    EXPECT_EQ(h != h, b == 0 && c == 1 && n == 1) << to_string(position);
  });
}

// The sum of n numbers rounds the first of them n times: the bound grows with the distance a
// term has come, and 2 eps of the terms would not hold.
TEST(ScanAccuracy, ErrorOfALongSumGrowsWithItsLengthAndStaysWithinTheStatedBound) {
  index_t const length = 20011;
  problem<float> p = random_problem<float>({1, length, 1, 1}, 320);
  for (float& decay : p.decay) decay = 1;
  for (float& drive : p.drive) drive = 0.1f;
  for (index_t const chunk : {index_t{1}, index_t{142}, length}) {
    auto const found = run(chunked{chunk}, p.recurrence(), p.initial);
    expect_within_bound(found, p, direction::forward);
  }
  auto const reference = p.reference();
  EXPECT_FALSE(is_within(2, run(sequential{}, p.recurrence(), p.initial).states, reference.states,
                         reference.terms));
}

TEST(ScanAccuracy, OverflowingProductOfDecaysMakesZeroStatesNaNOnlyWhereTimeIsCut) {
  tensor<double, 4> decay({1, 8, 1, 1}), drive({1, 8, 1, 1});
  for (index_t t = 0; t < 8; ++t) decay(0, t, 0, 0) = t % 4 < 2 ? 1e200 : 1e-200;
  linear_recurrence<double> const recurrence{decay, drive};
  tensor<double, 3> const zero({1, 1, 1});
  EXPECT_EQ(run(sequential{}, recurrence, zero).final_states(0, 0, 0), 0);
  EXPECT_TRUE(std::isnan(run(chunked{4}, recurrence, zero).final_states(0, 0, 0)));
}

TEST(ScanAccuracy, LongSequenceIsWithinTheBoundWhereverTimeIsCut) {
  auto const p = slow_problem<double>({1, 10007, 1, 2}, 330);
  for (index_t const chunk : {101, 1024, 10006, 10007}) {
    expect_within_bound(run(parallel{2, chunk}, p.recurrence(), p.initial), p, direction::forward);
  }
  expect_within_bound(run(parallel{}, p.recurrence(), p.initial, direction::backward), p,
                      direction::backward);
}

}  // namespace
