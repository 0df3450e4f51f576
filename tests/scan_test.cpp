// SPDX-License-Identifier: Apache-2.0
// scan_test.cpp: one recurrence under every policy, in both directions, in pieces and whole.
#include "ssm/scan.hpp"

#include <gtest/gtest.h>

#include <Eigen/Core>
#include <atomic>
#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "support/oracle.hpp"
#include "support/random_tensor.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

constexpr direction directions[] = {direction::forward, direction::backward};

/// A stable recurrence with random maps: |decay| < 1.
template <scalar T>
struct problem {
  std::uint64_t seed;
  tensor<T, 4> decay, drive;
  tensor<T, 3> initial;

  linear_recurrence<T> recurrence() const { return {decay, drive}; }

  /// Each step's state in 50 digits and the bound of its error, at the time it is visited.
  reference_trajectory<wide<T>> reference(direction order = direction::forward) const {
    if (order == direction::forward) {
      return reference_scan(widened(decay), widened(drive), widened(initial));
    }
    auto const mirrored = [](tensor<T, 4> const& from) {
      return widened(materialized(from.view().reversed(1)));
    };
    auto r = reference_scan(mirrored(decay), mirrored(drive), widened(initial));
    r.states = materialized(r.states.view().reversed(1));
    r.terms = materialized(r.terms.view().reversed(1));
    r.rounding = materialized(r.rounding.view().reversed(1));
    return r;
  }
};

template <scalar T>
problem<T> random_problem(scan_shape const& s, std::uint64_t seed) {
  double const side = complex_scalar<T> ? 0.7 : 1;
  return {seed, random_tensor<T>({s.batch, s.length, s.channels, s.states}, seed, -side, side),
          random_tensor<T>({s.batch, s.length, s.channels, s.states}, seed + 1),
          random_tensor<T>({s.batch, s.channels, s.states}, seed + 2)};
}

/// Decays so near 1 that a state matters for a thousand steps: a wrong carry cannot hide.
template <scalar T>
problem<T> slow_problem(scan_shape const& s, std::uint64_t seed) {
  auto p = random_problem<T>(s, seed);
  for (T& decay : p.decay) decay = T(1) + (decay - T(1)) * real_t<T>(1e-3);
  return p;
}

template <scalar T>
struct outcome {
  tensor<T, 4> states;
  tensor<T, 3> final_states;
};

template <class Policy, recurrence R>
outcome<typename R::value_type> run(Policy policy, R const& recurrence,
                                    tensor<typename R::value_type, 3> const& initial,
                                    direction order = direction::forward) {
  using T = typename R::value_type;
  auto const [batch, length, channels, states] = recurrence.shape();
  outcome<T> result{poisoned<T>({batch, length, channels, states}), initial};
  scan(policy, recurrence, store_states<T>{result.states}, result.final_states.view(), order);
  return result;
}

/// The bound that scan states. (In 50 digits the reference is rounded just as often.)
template <scalar T>
void expect_within_bound(outcome<T> const& found, problem<T> const& p, direction order) {
  double const k = eps_per_step<T> * (std::is_same_v<T, wide<T>> ? 2 : 1);
  auto const reference = p.reference(order);
  EXPECT_TRUE(is_within(k, found.states, reference.states, reference.rounding))
      << "states, seed " << p.seed;
  EXPECT_TRUE(is_within(k, found.final_states, reference.final_states, reference.final_rounding))
      << "final states, seed " << p.seed;
}

template <scalar T>
void expect_same_bits(outcome<T> const& found, outcome<T> const& expected, std::uint64_t seed) {
  EXPECT_TRUE(has_same_bits(found.states, expected.states)) << "states, seed " << seed;
  EXPECT_TRUE(has_same_bits(found.final_states, expected.final_states))
      << "final states, seed " << seed;
}

std::string text(auto const&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

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

// y = M x + N h_0 with M_ts = C_t Π_{k=s+1..t} decay_k gain_s and N_t = C_t Π_{k=0..t} decay_k,
// the lower triangular semiseparable matrix of arXiv:2509.19633, eq. 5.
TEST(ScanDense, ContractionOfTheStatesIsTheSemiseparableMatrixTimesTheInput) {
  using T = double;
  for (index_t const length : {1, 2, 5, 13}) {
    index_t const states = 3;
    auto p = random_problem<T>({1, length, 1, states}, 340);
    auto const gain = random_tensor<T>({length, states}, 341);
    auto const C = random_tensor<T>({1, length, 1, states}, 342);
    auto const x = random_tensor<T>({length}, 343);
    Eigen::MatrixXd M = Eigen::MatrixXd::Zero(length, length), sizes = M;
    Eigen::VectorXd expected = Eigen::VectorXd::Zero(length), terms = expected, input(length);
    for (index_t t = 0; t < length; ++t) input(t) = x(t);
    for (index_t n = 0; n < states; ++n) {
      for (index_t s = 0; s < length; ++s) p.drive(0, s, 0, n) = gain(s, n) * x(s);
      for (index_t t = 0; t < length; ++t) {
        double product = C(0, t, 0, n);
        for (index_t s = t; s >= 0; --s) {
          M(t, s) += product * gain(s, n);
          sizes(t, s) += std::abs(product * gain(s, n));
          product *= p.decay(0, s, 0, n);
        }
        expected(t) += product * p.initial(0, 0, n);
        terms(t) += std::abs(product * p.initial(0, 0, n));
      }
    }
    expected += M * input;
    terms += sizes * input.cwiseAbs();
    // At most two roundings for each of `length` steps and four more in each of the two ways,
    // and the sums over time and state.
    double const bound =
        static_cast<double>(3 * length + states + 4) * std::numeric_limits<T>::epsilon();
    for (index_t const chunk : {index_t{1}, index_t{4}, length}) {
      auto y = poisoned<T>({1, length, 1});
      auto carry = p.initial;
      scan(chunked{chunk}, p.recurrence(), contract<T>{C, y}, carry);
      for (index_t t = 0; t < length; ++t) {
        EXPECT_NEAR(y(0, t, 0), expected(t), bound * terms(t))
            << "length " << length << ", chunk " << chunk << ", step " << t << ", seed 340";
      }
    }
  }
}

/// A recurrence and a readout of a user: counts, and records who was visited when.
struct counting {
  using value_type = double;
  scan_shape extents;

  struct step {
    affine_map<double> operator()(index_t) const { return {1, 1}; }
  };
  step at(index_t, index_t, index_t) const { return {}; }
  scan_shape shape() const { return extents; }
};

struct visit_recorder {
  std::vector<std::atomic<int>>* visits;  // (batch, time, channel)
  std::vector<index_t>* times;            // in the order of finish(), if wanted
  scan_shape extents;

  void require_shape_for(index_t, index_t, index_t, index_t) const {}
  struct collector {
    visit_recorder const& self;
    index_t b, t, c;
    index_t next = 0;
    void operator()(index_t n, double) {
      EXPECT_EQ(n, next);
      ++next;
    }
    void finish() {
      EXPECT_EQ(next, self.extents.states);
      auto const place = (b * self.extents.length + t) * self.extents.channels + c;
      ++(*self.visits)[static_cast<std::size_t>(place)];
      if (self.times != nullptr) self.times->push_back(t);
    }
  };
  collector at(index_t b, index_t t, index_t c) const { return {*this, b, t, c}; }
};

TEST(ScanVisits, EveryStepIsReadOutOnceWithItsStatesInOrderUnderEveryPolicy) {
  scan_shape const s{2, 13, 3, 4};
  for (index_t const chunk : {1, 4, 13, 20}) {
    std::vector<std::atomic<int>> visits(static_cast<std::size_t>(s.batch * s.length * s.channels));
    visit_recorder const recorder{&visits, nullptr, s};
    tensor<double, 3> carry({s.batch, s.channels, s.states}, 0.5);
    scan(parallel{3, chunk}, counting{s}, recorder, carry);
    scan(sequential{}, counting{s}, recorder, carry, direction::backward);
    for (auto const& count : visits) EXPECT_EQ(count, 2) << "chunk " << chunk;
    for (double const h : carry) EXPECT_EQ(h, 26.5);
  }
}

TEST(ScanVisits, BackwardVisitsTheLastStepFirst) {
  scan_shape const s{1, 5, 1, 2};
  for (direction const order : directions) {
    std::vector<std::atomic<int>> visits(5);
    std::vector<index_t> times;
    tensor<double, 3> carry({1, 1, 2});
    scan(sequential{}, counting{s}, visit_recorder{&visits, &times, s}, carry, order);
    EXPECT_EQ(times, order == direction::forward ? (std::vector<index_t>{0, 1, 2, 3, 4})
                                                 : (std::vector<index_t>{4, 3, 2, 1, 0}));
  }
}

TEST(ScanErrors, WrongShapeOrSettingThrowsNamesItAndWritesNothing) {
  using T = double;
  auto const p = random_problem<T>({2, 6, 3, 4}, 350);
  auto const check = [&](std::string const& expected, auto policy, linear_recurrence<T> const& r,
                         index_array<4> const& states_shape, index_array<3> const& carry_shape) {
    tensor<T, 4> states(states_shape, not_a_number<T>());
    tensor<T, 3> carry(carry_shape, not_a_number<T>());
    auto const found =
        message_of<shape_error>([&] { scan(policy, r, store_states<T>{states}, carry.view()); });
    EXPECT_EQ(found, expected);
    EXPECT_TRUE(is_poisoned(states)) << expected;
    EXPECT_TRUE(is_poisoned(carry)) << expected;
  };
  auto const r = p.recurrence();
  check("scan: carry has shape (2, 3, 5), expected (2, 3, 4) (batch, channel, state)", sequential{},
        r, {2, 6, 3, 4}, {2, 3, 5});
  check("scan: carry has shape (3, 2, 4), expected (2, 3, 4) (batch, channel, state)", parallel{},
        r, {2, 6, 3, 4}, {3, 2, 4});
  check(
      "store_states: states has shape (2, 7, 3, 4), expected (2, 6, 3, 4) "
      "(batch, time, channel, state)",
      sequential{}, r, {2, 7, 3, 4}, {2, 3, 4});
  check(
      "linear_recurrence: decay has shape (2, 5, 3, 4), expected (2, 6, 3, 4) "
      "(batch, time, channel, state)",
      sequential{}, {p.decay.view().slice(1, 0, 5), p.drive}, {2, 6, 3, 4}, {2, 3, 4});
  check("chunked: length is 0, expected at least 1", chunked{0}, r, {2, 6, 3, 4}, {2, 3, 4});
  check("parallel: threads is -3, expected 0 (all) or more", parallel{-3, 1}, r, {2, 6, 3, 4},
        {2, 3, 4});
  check("parallel: chunk is -1, expected 0 (from the shape) or more", parallel{1, -1}, r,
        {2, 6, 3, 4}, {2, 3, 4});
}

}  // namespace
