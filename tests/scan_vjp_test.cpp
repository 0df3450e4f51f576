// SPDX-License-Identifier: Apache-2.0
// scan_vjp_test.cpp: the gradient of scan against differences in 50 digits, under every policy.
#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <cstdint>
#include <sstream>
#include <string>
#include <type_traits>

#include "ssm/scan.hpp"
#include "support/oracle.hpp"
#include "support/random_tensor.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

constexpr direction directions[] = {direction::forward, direction::backward};

/// A stable recurrence, what reads it, and the cotangents that arrive.
template <scalar T>
struct problem {
  std::uint64_t seed;
  tensor<T, 4> decay, drive, C, states_cotangent;
  tensor<T, 3> initial, final_cotangent;
  tensor<real_t<T>, 3> y_cotangent;  // of the contraction or of the energy

  linear_recurrence<T> recurrence() const { return {decay, drive}; }
};

template <scalar T>
problem<T> random_problem(scan_shape const& s, std::uint64_t seed) {
  double const side = complex_scalar<T> ? 0.7 : 1;
  auto const trajectory = [&](std::uint64_t k, double size) {
    return random_tensor<T>({s.batch, s.length, s.channels, s.states}, seed + k, -size, size);
  };
  auto const state = [&](std::uint64_t k) {
    return random_tensor<T>({s.batch, s.channels, s.states}, seed + k);
  };
  return {seed,
          trajectory(1, side),
          trajectory(2, 1),
          trajectory(3, 1),
          trajectory(4, 1),
          state(5),
          state(6),
          random_tensor<real_t<T>>({s.batch, s.length, s.channels}, seed + 7)};
}

template <scalar T>
problem<wide<T>> widened(problem<T> const& p) {
  using ssm::test::widened;
  return {p.seed,
          widened(p.decay),
          widened(p.drive),
          widened(p.C),
          widened(p.states_cotangent),
          widened(p.initial),
          widened(p.final_cotangent),
          widened(p.y_cotangent)};
}

/// Every gradient is a sum of products of these numbers with factors 1 or 2, so the gradient of
/// the problem of their magnitudes is Σ|terms|.
template <scalar T>
problem<digits50> term_sizes(problem<T> const& p) {
  return {p.seed,
          magnitude(p.decay),
          magnitude(p.drive),
          magnitude(p.C),
          magnitude(p.states_cotangent),
          magnitude(p.initial),
          magnitude(p.final_cotangent),
          magnitude(p.y_cotangent)};
}

template <scalar T>
struct gradients {
  tensor<T, 4> decay, drive, C;
  tensor<T, 3> initial;
};

// What is read out, the loss in terms of it, and the vjp of the readout.

struct only_final_states {
  template <scalar T>
  static real_t<T> loss(problem<T> const& p, auto const& run) {
    (void)p;
    run(discard{});
    return real_t<T>(0);
  }
  template <scalar T>
  static discard_vjp<T> vjp(problem<T> const&, gradients<T>&) {
    return {};
  }
  static constexpr int travels = 1;
};

struct all_states {
  template <scalar T>
  static real_t<T> loss(problem<T> const& p, auto const& run) {
    tensor<T, 4> states(p.drive.extents());
    run(store_states<T>{states});
    return inner_product(p.states_cotangent, states);
  }
  template <scalar T>
  static store_states_vjp<T> vjp(problem<T> const& p, gradients<T>&) {
    return {p.states_cotangent};
  }
  static constexpr int travels = 1;
};

struct contraction {
  template <scalar T>
  static real_t<T> loss(problem<T> const& p, auto const& run) {
    tensor<real_t<T>, 3> y(p.y_cotangent.extents());
    run(contract<T>{p.C, y});
    return inner_product(p.y_cotangent, y);
  }
  template <scalar T>
  static contract_vjp<T> vjp(problem<T> const& p, gradients<T>& to) {
    return {p.C, p.y_cotangent, to.C};
  }
  static constexpr int travels = 1;
};

/// The state is in the cotangent too, so a term may travel the whole way twice.
struct energy {
  template <scalar T>
  static real_t<T> loss(problem<T> const& p, auto const& run) {
    tensor<real_t<T>, 3> e(p.y_cotangent.extents());
    run(squared_norm<T>{e});
    return inner_product(p.y_cotangent, e);
  }
  template <scalar T>
  static squared_norm_vjp<T> vjp(problem<T> const& p, gradients<T>&) {
    return {p.y_cotangent};
  }
  static constexpr int travels = 2;
};

template <class Readout, scalar T>
real_t<T> loss(problem<T> const& p, direction order) {
  tensor<T, 3> carry = p.initial;
  auto const read = Readout::loss(
      p, [&](auto const& readout) { scan(sequential{}, p.recurrence(), readout, carry, order); });
  return read + inner_product(p.final_cotangent, carry);
}

template <class Readout, class Policy, scalar T>
gradients<T> run_vjp(Policy policy, problem<T> const& p, direction order = direction::forward) {
  auto const shape = p.drive.extents();
  gradients<T> to{tensor<T, 4>(shape), tensor<T, 4>(shape), tensor<T, 4>(shape), p.final_cotangent};
  auto const readout = Readout::vjp(p, to);
  scan_vjp(policy, p.recurrence(), readout, p.initial, to.initial, {to.decay, to.drive}, order);
  return to;
}

template <scalar T>
void expect_same_bits(gradients<T> const& found, gradients<T> const& expected) {
  EXPECT_TRUE(has_same_bits(found.decay, expected.decay)) << "decay";
  EXPECT_TRUE(has_same_bits(found.drive, expected.drive)) << "drive";
  EXPECT_TRUE(has_same_bits(found.C, expected.C)) << "C";
  EXPECT_TRUE(has_same_bits(found.initial, expected.initial)) << "initial";
}

std::string text(auto const&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

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

TEST(ScanVjpViews, EmptyGradientsAreSkippedAndTheOthersKeepTheirBits) {
  auto const p = random_problem<double>({2, 13, 3, 2}, 470);
  auto const all = run_vjp<contraction>(chunked{5}, p);
  auto const with = [&](bool decay, bool drive, bool C) {
    gradients<double> to = run_vjp<contraction>(chunked{5}, p);
    for (double& g : to.decay) g = 0;
    for (double& g : to.drive) g = 0;
    for (double& g : to.C) g = 0;
    to.initial = p.final_cotangent;
    using view = trajectory_view<double>;
    scan_vjp(chunked{5}, p.recurrence(),
             contract_vjp<double>{p.C, p.y_cotangent, C ? to.C.view() : view{}}, p.initial,
             to.initial, {decay ? to.decay.view() : view{}, drive ? to.drive.view() : view{}});
    if (decay) {
      EXPECT_TRUE(has_same_bits(to.decay, all.decay));
    }
    if (drive) {
      EXPECT_TRUE(has_same_bits(to.drive, all.drive));
    }
    if (C) {
      EXPECT_TRUE(has_same_bits(to.C, all.C));
    }
    EXPECT_TRUE(has_same_bits(to.initial, all.initial));
  };
  for (int wanted = 0; wanted < 8; ++wanted) {
    SCOPED_TRACE(text("wanted ", wanted));
    with((wanted & 1) != 0, (wanted & 2) != 0, (wanted & 4) != 0);
  }
}

TEST(ScanVjpViews, StridedViewsGiveTheBitsOfContiguousOnesAndNothingBetweenIsWritten) {
  using T = double;
  auto const p = random_problem<T>({2, 7, 3, 2}, 480);
  auto const expected = run_vjp<contraction>(chunked{3}, p);
  scattered const decay(p.decay), drive(p.drive), C(p.C);
  scattered const initial(p.initial), y_cotangent(p.y_cotangent), carry(p.final_cotangent);
  tensor<T, 4> const zero({2, 7, 3, 2});
  scattered const to_decay(zero), to_drive(zero), to_C(zero);
  scan_vjp(chunked{3}, linear_recurrence<T>{decay, drive}, contract_vjp<T>{C, y_cotangent, to_C},
           initial, carry, {to_decay, to_drive});
  expect_same_bits({materialized(to_decay.view()), materialized(to_drive.view()),
                    materialized(to_C.view()), materialized(carry.view())},
                   expected);
  EXPECT_EQ(to_decay.overwritten() + to_drive.overwritten() + to_C.overwritten(), 0);
  EXPECT_EQ(carry.overwritten(), 0);
}

TEST(ScanVjpViews, LengthZeroPassesTheCotangentOnAndAddsNothing) {
  auto const p = random_problem<double>({2, 0, 3, 2}, 490);
  for (direction const order : directions) {
    EXPECT_EQ(run_vjp<contraction>(parallel{}, p, order).initial, p.final_cotangent);
  }
}

TEST(ScanVjpErrors, WrongShapeOrSettingThrowsNamesItAndWritesNothing) {
  using T = double;
  auto const p = random_problem<T>({2, 6, 3, 4}, 500);
  tensor<T, 3> const short_state({2, 3, 3}, 0.5);
  tensor<T, 3> carry({2, 3, 4}, not_a_number<T>()), short_carry({2, 2, 4}, not_a_number<T>());
  tensor<T, 4> gradient({2, 6, 3, 4}, not_a_number<T>()), wrong({2, 5, 3, 4}, not_a_number<T>());
  auto const expect = [&](std::string const& message, auto const& call) {
    EXPECT_EQ(message_of<shape_error>(call), message);
    for (auto const& output : {gradient, wrong}) EXPECT_TRUE(is_poisoned(output)) << message;
    for (auto const& output : {carry, short_carry}) EXPECT_TRUE(is_poisoned(output)) << message;
  };
  using gradient_views = linear_recurrence<T>::gradient;
  auto const r = p.recurrence();
  contract_vjp<T> const readout{p.C, p.y_cotangent, gradient};
  gradient_views const to{gradient, gradient};
  expect("scan_vjp: initial has shape (2, 3, 3), expected (2, 3, 4) (batch, channel, state)",
         [&] { scan_vjp(sequential{}, r, readout, short_state, carry, to); });
  expect(
      "scan_vjp: carry_cotangent has shape (2, 2, 4), expected (2, 3, 4) "
      "(batch, channel, state)",
      [&] { scan_vjp(sequential{}, r, readout, p.initial, short_carry, to); });
  expect(
      "linear_recurrence: gradient.decay has shape (2, 5, 3, 4), expected (2, 6, 3, 4) "
      "(batch, time, channel, state)",
      [&] {
        scan_vjp(sequential{}, r, readout, p.initial, carry, {wrong, gradient});
      });
  expect(
      "linear_recurrence: gradient.drive has shape (2, 5, 3, 4), expected (2, 6, 3, 4) "
      "(batch, time, channel, state)",
      [&] {
        scan_vjp(sequential{}, r, readout, p.initial, carry, {gradient, wrong});
      });
  expect(
      "contract_vjp: C_gradient has shape (2, 5, 3, 4), expected (2, 6, 3, 4) "
      "(batch, time, channel, state)",
      [&] {
        contract_vjp<T> const bad{p.C, p.y_cotangent, wrong};
        scan_vjp(sequential{}, r, bad, p.initial, carry, to);
      });
  expect(
      "contract_vjp: y_cotangent has shape (2, 5, 3), expected (2, 6, 3) "
      "(batch, time, channel)",
      [&] {
        contract_vjp<T> const bad{p.C, p.y_cotangent.view().slice(1, 0, 5), gradient};
        scan_vjp(sequential{}, r, bad, p.initial, carry, to);
      });
  expect(
      "store_states_vjp: cotangent has shape (2, 5, 3, 4), expected (2, 6, 3, 4) "
      "(batch, time, channel, state)",
      [&] {
        store_states_vjp<T> const bad{p.C.view().slice(1, 0, 5)};
        scan_vjp(sequential{}, r, bad, p.initial, carry, to);
      });
  expect(
      "squared_norm_vjp: cotangent has shape (2, 5, 3), expected (2, 6, 3) "
      "(batch, time, channel)",
      [&] {
        squared_norm_vjp<T> const bad{p.y_cotangent.view().slice(1, 0, 5)};
        scan_vjp(sequential{}, r, bad, p.initial, carry, to);
      });
  expect("chunked: length is -1, expected at least 1",
         [&] { scan_vjp(chunked{-1}, r, readout, p.initial, carry, to); });
}

}  // namespace
