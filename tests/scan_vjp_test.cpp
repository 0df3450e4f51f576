// SPDX-License-Identifier: Apache-2.0
// scan_vjp_test.cpp: the gradient of scan against differences in 50 digits, under every policy.
#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <cstdint>
#include <type_traits>

#include "ssm/scan.hpp"
#include "support/oracle.hpp"
#include "support/random_tensor.hpp"
#include "support/scan_vjp_problem.hpp"
#include "support/text.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

template <class Readout>
class ScanVjp : public ::testing::Test {};
using readouts = ::testing::Types<only_final_states, all_states, contraction, energy>;
TYPED_TEST_SUITE(ScanVjp, readouts);

template <class Readout, class W>
void expect_gradients_of_differences() {
  for (direction const order : directions) {
    problem<W> p = random_problem<W>({2, 5, 2, 2}, 400);
    auto const found = run_vjp<Readout>(chunked{2}, p, order);
    auto const of_loss = [&] { return loss<Readout>(p, order); };
    char const* const tolerance = "1e-28";
    EXPECT_TRUE(is_near(found.decay, gradient_by_differences(p.decay, of_loss), tolerance));
    EXPECT_TRUE(is_near(found.drive, gradient_by_differences(p.drive, of_loss), tolerance));
    EXPECT_TRUE(is_near(found.initial, gradient_by_differences(p.initial, of_loss), tolerance));
    if (std::is_same_v<Readout, contraction>) {
      EXPECT_TRUE(is_near(found.C, gradient_by_differences(p.C, of_loss), tolerance));
    }
  }
}

TYPED_TEST(ScanVjp, EveryGradientIsThatOfDifferencesIn50Digits) {
  expect_gradients_of_differences<TypeParam, digits50>();
  expect_gradients_of_differences<TypeParam, complex50>();
}

template <class Readout, scalar T>
void expect_working_precision() {
  for (index_t const length : {0, 1, 4, 5, 6, 31}) {
    auto const p = random_problem<T>({2, length, 2, 3}, static_cast<std::uint64_t>(410 + length));
    double const k = 4 + 2.0 * Readout::travels * static_cast<double>(length);
    for (direction const order : directions) {
      auto const expected = run_vjp<Readout>(sequential{}, widened(p), order);
      auto const terms = run_vjp<Readout>(sequential{}, term_sizes(p), order);
      auto const check = [&](gradients<T> const& found, char const* policy) {
        SCOPED_TRACE(text(policy, ", length ", length, ", seed ", p.seed));
        EXPECT_TRUE(is_within(k, found.decay, expected.decay, terms.decay)) << "decay";
        EXPECT_TRUE(is_within(k, found.drive, expected.drive, terms.drive)) << "drive";
        EXPECT_TRUE(is_within(k, found.C, expected.C, terms.C)) << "C";
        EXPECT_TRUE(is_within(k, found.initial, expected.initial, terms.initial)) << "initial";
      };
      check(run_vjp<Readout>(sequential{}, p, order), "sequential");
      check(run_vjp<Readout>(chunked{1}, p, order), "chunked{1}");
      check(run_vjp<Readout>(chunked{5}, p, order), "chunked{5}");
      check(run_vjp<Readout>(parallel{2, 5}, p, order), "parallel{2, 5}");
      check(run_vjp<Readout>(parallel{}, p, order), "parallel{}");
    }
  }
}

TYPED_TEST(ScanVjp, EveryPolicyIsWithinTheStatedBoundOf50DigitsForEverySize) {
  expect_working_precision<TypeParam, float>();
  expect_working_precision<TypeParam, double>();
  expect_working_precision<TypeParam, std::complex<double>>();
}

TYPED_TEST(ScanVjp, ThreadsChangeNoBitOfAnyGradient) {
  auto const p = random_problem<double>({2, 37, 3, 2}, 420);
  auto long_lane = random_problem<double>({1, 2503, 1, 2}, 421);
  for (double& decay : long_lane.decay) decay = 1 - 1e-3 * std::abs(decay);  // carries matter
  for (direction const order : directions) {
    auto const expected = run_vjp<TypeParam>(chunked{5}, p, order);
    auto const long_expected = run_vjp<TypeParam>(parallel{1, 0}, long_lane, order);
    for (int const threads : {1, 2, 3, 7}) {
      SCOPED_TRACE(text("threads ", threads));
      expect_same_bits(run_vjp<TypeParam>(parallel{threads, 5}, p, order), expected);
      expect_same_bits(run_vjp<TypeParam>(parallel{threads, 0}, long_lane, order), long_expected);
    }
  }
}

/// One channel of a problem.
template <scalar T>
problem<T> lane_of(problem<T> const& p, index_t c) {
  auto const trajectory = [&](tensor<T, 4> const& from) {
    return materialized(from.view().slice(2, c, 1));
  };
  auto const state = [&](tensor<T, 3> const& from) {
    return materialized(from.view().slice(1, c, 1));
  };
  return {p.seed,
          trajectory(p.decay),
          trajectory(p.drive),
          trajectory(p.C),
          trajectory(p.states_cotangent),
          state(p.initial),
          state(p.final_cotangent),
          materialized(p.y_cotangent.view().slice(2, c, 1))};
}

template <scalar T>
gradients<T> lane_of(gradients<T> const& g, index_t c) {
  return {materialized(g.decay.view().slice(2, c, 1)), materialized(g.drive.view().slice(2, c, 1)),
          materialized(g.C.view().slice(2, c, 1)), materialized(g.initial.view().slice(1, c, 1))};
}

// One channel alone fits in one block. Blocks pass the state on as steps do, so no bit changes.
TYPED_TEST(ScanVjp, SeveralBlocksOfTimeGiveTheBitsOfOne) {
  scan_shape const s{1, 9, 1024, 256};
  ASSERT_EQ(ssm::detail::gradient_block(s), 4) << "3 blocks are expected";
  auto const p = random_problem<float>(s, 430);
  for (direction const order : directions) {
    auto const blocks = run_vjp<TypeParam>(parallel{2, 4}, p, order);
    for (index_t const c : {0, 500, 1023}) {
      SCOPED_TRACE(text("channel ", c, ", seed ", p.seed));
      expect_same_bits(lane_of(blocks, c), run_vjp<TypeParam>(sequential{}, lane_of(p, c), order));
    }
  }
}

// Σ over time in three blocks: the terms are those of the full gradient, added in another order.
TEST(ScanVjpSums, SumOverTimeRunsThroughAllBlocks) {
  scan_shape const s{1, 9, 1024, 256};
  auto const p = random_problem<float>(s, 440);
  auto const full = run_vjp<contraction>(parallel{2, 4}, p);
  tensor<float, 3> decay({s.batch, s.channels, s.states}), drive = decay;
  auto carry = p.final_cotangent;
  scan_vjp(parallel{2, 4}, p.recurrence(), contract_vjp<float>{p.C, p.y_cotangent, {}}, p.initial,
           carry, {decay.view().broadcast(1, s.length), drive.view().broadcast(1, s.length)});
  for (index_t const c : {0, 500, 1023}) {
    for (index_t n = 0; n < s.states; ++n) {
      digits50 decay_sum = 0, decay_terms = 0, drive_sum = 0, drive_terms = 0;
      for (index_t t = 0; t < s.length; ++t) {
        decay_sum += full.decay(0, t, c, n);
        decay_terms += magnitude(full.decay(0, t, c, n));
        drive_sum += full.drive(0, t, c, n);
        drive_terms += magnitude(full.drive(0, t, c, n));
      }
      EXPECT_TRUE(is_within(4.5, decay(0, c, n), decay_sum, decay_terms)) << c << ", " << n;
      EXPECT_TRUE(is_within(4.5, drive(0, c, n), drive_sum, drive_terms)) << c << ", " << n;
    }
  }
}

TEST(ScanVjpSums, GradientOfABroadcastInputIsTheSumOverItsCopies) {
  using W = complex50;
  scan_shape const s{2, 7, 3, 2};
  auto p = random_problem<W>(s, 450);
  auto const shared_decay = random_tensor<W>({3, 2}, 451, -0.7, 0.7);  // (channel, state)
  auto const shared_drive = random_tensor<W>({2, 7, 2}, 452);          // (batch, time, state)
  auto const shared_C = random_tensor<W>({2, 7, 2}, 453);
  auto const decay = shared_decay.view().broadcast(0, s.length).broadcast(0, s.batch);
  auto const drive = shared_drive.view().broadcast(2, s.channels);
  auto const C = shared_C.view().broadcast(2, s.channels);
  p.decay = materialized(decay);
  p.drive = materialized(drive);
  p.C = materialized(C);
  auto const full = run_vjp<contraction>(sequential{}, p);

  tensor<W, 2> to_decay({3, 2});
  tensor<W, 3> to_drive({2, 7, 2}), to_C({2, 7, 2}), carry = p.final_cotangent;
  scan_vjp(chunked{3}, linear_recurrence<W>{decay, drive},
           contract_vjp<W>{C, p.y_cotangent, to_C.view().broadcast(2, s.channels)}, p.initial,
           carry,
           {to_decay.view().broadcast(0, s.length).broadcast(0, s.batch),
            to_drive.view().broadcast(2, s.channels)});

  tensor<W, 2> decay_sum({3, 2});
  tensor<W, 3> drive_sum({2, 7, 2}), C_sum({2, 7, 2});
  for_each_position(full.decay.extents(), [&](auto const& position) {
    auto const [b, t, c, n] = position.value;
    decay_sum(c, n) += full.decay(b, t, c, n);
    drive_sum(b, t, n) += full.drive(b, t, c, n);
    C_sum(b, t, n) += full.C(b, t, c, n);
  });
  EXPECT_TRUE(is_near(to_decay, decay_sum, "1e-46"));
  EXPECT_TRUE(is_near(to_drive, drive_sum, "1e-46"));
  EXPECT_TRUE(is_near(to_C, C_sum, "1e-46"));
  EXPECT_TRUE(is_near(carry, full.initial, "1e-46"));
}

TEST(ScanVjpSums, GradientsAreAddedToWhatIsThere) {
  using W = digits50;
  auto const p = random_problem<W>({2, 5, 3, 2}, 460);
  auto const gradient = run_vjp<contraction>(sequential{}, p);
  auto const start = random_tensor<W>({2, 5, 3, 2}, 461);
  gradients<W> to{start, start, start, p.final_cotangent};
  scan_vjp(parallel{2, 2}, p.recurrence(), contract_vjp<W>{p.C, p.y_cotangent, to.C}, p.initial,
           to.initial, {to.decay, to.drive});
  for_each_position(start.extents(), [&](auto const& position) {
    auto const expect_sum = [&](tensor<W, 4> const& found, tensor<W, 4> const& added) {
      W const before = at(start.view(), position), sum = before + at(added.view(), position);
      EXPECT_LT(magnitude(W(at(found.view(), position) - sum)), 1e-46) << to_string(position);
    };
    expect_sum(to.decay, gradient.decay);
    expect_sum(to.drive, gradient.drive);
    expect_sum(to.C, gradient.C);
  });
}

}  // namespace
