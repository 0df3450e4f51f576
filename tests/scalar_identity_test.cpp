// SPDX-License-Identifier: Apache-2.0
// scalar_identity_test.cpp: heads and groups against the diagonal system they stand for.
#include "ssm/scalar_identity.hpp"

#include <gtest/gtest.h>

#include <Eigen/Core>
#include <cmath>
#include <complex>
#include <cstdint>
#include <string>

#include "ssm/diagonal.hpp"
#include "ssm/scan.hpp"
#include "support/random_tensor.hpp"
#include "support/scalar_identity_problem.hpp"
#include "support/text.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

template <class Rule>
class ScalarIdentity : public ::testing::Test {};
using rules = ::testing::Types<zero_order_hold, mamba_hold, bilinear, forward_euler>;
TYPED_TEST_SUITE(ScalarIdentity, rules);

TYPED_TEST(ScalarIdentity, MapsAreThoseOfTheDiagonalSystemItStandsFor) {
  using W = complex50;
  for (layout const size : {layout{2, 3, 4, 3, 2, 2}, layout{1, 2, 4, 1, 4, 3},
                            layout{1, 2, 3, 2, 1, 1}, layout{1, 2, 1, 5, 1, 2}}) {
    auto const p = random_problem<W>(size, 800);
    auto const all = p.spelled_out();
    auto const recurrence = recurrence_of<TypeParam>(p);
    EXPECT_EQ(recurrence.shape(),
              (scan_shape{size.batch, size.length, size.channels(), size.states}));
    for_each_position(all.B.extents(), [&](auto const& position) {
      auto const [b, t, c, n] = position.value;
      auto const found = recurrence.at(b, t, c)(n);
      auto const expected = discretize(TypeParam{}, all.step_size(b, t, c), all.eigenvalue(c, n),
                                       all.B(b, t, c, n), all.x(b, t, c));
      EXPECT_EQ(found.decay, expected.decay) << to_string(position);
      EXPECT_LT(magnitude(W(found.drive - expected.drive)), 1e-48) << to_string(position);
    });
  }
}

template <class Rule, scalar T>
void expect_states_in_working_precision() {
  for (index_t const length : {0, 1, 4, 5, 6, 31}) {
    auto const p =
        random_problem<T>({2, length, 2, 2, 1, 2}, static_cast<std::uint64_t>(810 + length));
    map_errors const maps(Rule{}, ssm::test::widened(p.spelled_out()));
    auto const reference = reference_scan(maps.decay, maps.drive, ssm::test::widened(p.initial),
                                          maps.decay_error, maps.drive_error);
    for (index_t const chunk : {1, 5, 100}) {
      auto const found = run(parallel{2, chunk}, recurrence_of<Rule>(p), p.initial);
      EXPECT_TRUE(is_within(1, found, reference.states, reference.bound(eps_per_step<T>)))
          << "chunk " << chunk << ", seed " << 810 + length;
    }
  }
}

TYPED_TEST(ScalarIdentity, StatesAreWithinTheRoundingOfMapsAndStepsFrom50Digits) {
  expect_states_in_working_precision<TypeParam, float>();
}

TEST(ScalarIdentityComplex, StatesAreWithinTheRoundingOfMapsAndStepsFrom50Digits) {
  expect_states_in_working_precision<zero_order_hold, std::complex<double>>();
}

TYPED_TEST(ScalarIdentity, StepOfSizeZeroHoldsTheStateExactly) {
  auto p = random_problem<double>({2, 5, 2, 3, 1, 2}, 820);
  for (double& step : p.step_size) step = 0;
  auto const found = run(parallel{1, 100}, recurrence_of<TypeParam>(p), p.initial);
  EXPECT_TRUE(has_same_bits(found, materialized(p.initial.view().broadcast(1, 5))));
}

TYPED_TEST(ScalarIdentity, StridedAndBroadcastViewsGiveTheBitsOfContiguousOnes) {
  using T = double;
  auto p = random_problem<T>({2, 7, 4, 2, 2, 3}, 830);
  auto const shared = p.step_size.view().select(2, 1).broadcast(2, 4);  // one Δ for all heads
  auto const step = materialized(shared);
  p.step_size = step;
  auto const expected = run(parallel{1, 3}, recurrence_of<TypeParam>(p), p.initial);
  scattered const step_size(p.step_size), x(p.x);
  scattered const eigenvalue(p.eigenvalue);
  scattered const B(p.B);
  scalar_identity<TypeParam, T> const strided{
      .step_size = step_size, .eigenvalue = eigenvalue, .B = B, .x = x};
  EXPECT_TRUE(has_same_bits(run(parallel{1, 3}, strided, p.initial), expected));
  auto const twin = random_problem<T>({2, 7, 4, 2, 2, 3}, 830);
  auto broadcast = recurrence_of<TypeParam>(p);
  broadcast.step_size = twin.step_size.view().select(2, 1).broadcast(2, 4);
  EXPECT_TRUE(has_same_bits(run(parallel{1, 3}, broadcast, p.initial), expected));
}

// Of one head: Y = M X with M = L ∘ (C Bᵀ), L_ts = Π_{k=s+1..t} decay_k (Dao & Gu, eq. 16), B
// times the drive's Δ. All channels of a head share M.
TEST(ScalarIdentityDense, OutputOfAHeadIsTheMaskedProductOfCAndBTimesItsInputs) {
  using T = double;
  index_t const length = 13, states = 4, head_dim = 3;
  auto p = random_problem<T>({1, length, 1, head_dim, 1, states}, 880);
  auto const C = random_tensor<T>({1, length, 1, states}, 881);
  for (T& h : p.initial) h = 0;
  auto y = poisoned<T>({1, length, head_dim});
  contract<T> const readout{C.view().select(2, 0).broadcast(2, head_dim), y};
  scan(parallel{1, 4}, recurrence_of<mamba_hold>(p), readout, p.initial);

  Eigen::MatrixXd mask = Eigen::MatrixXd::Zero(length, length), scores = mask, sizes = mask;
  Eigen::MatrixXd X(length, head_dim);
  for (index_t t = 0; t < length; ++t) {
    for (index_t c = 0; c < head_dim; ++c) X(t, c) = p.x(0, t, c);
    double product = 1;
    for (index_t s = t; s >= 0; --s) {
      mask(t, s) = product * p.step_size(0, s, 0);
      product *= std::exp(p.step_size(0, s, 0) * p.eigenvalue(0));
      for (index_t n = 0; n < states; ++n) {
        scores(t, s) += C(0, t, 0, n) * p.B(0, s, 0, n);
        sizes(t, s) += std::abs(C(0, t, 0, n) * p.B(0, s, 0, n));
      }
    }
  }
  Eigen::MatrixXd const expected = mask.cwiseProduct(scores) * X;
  Eigen::MatrixXd const terms = mask.cwiseProduct(sizes) * X.cwiseAbs();
  // Either way: up to three roundings for each of `length` steps, and the sums over time and state.
  double const bound =
      static_cast<double>(4 * length + states + 4) * std::numeric_limits<T>::epsilon();
  for (index_t t = 0; t < length; ++t)
    for (index_t c = 0; c < head_dim; ++c) {
      EXPECT_NEAR(y(0, t, c), expected(t, c), bound * terms(t, c)) << t << ", " << c;
    }
}

TEST(ScalarIdentityErrors, ViewsThatDisagreeThrowAndAreNamed) {
  using T = double;
  auto const p = random_problem<T>({2, 5, 4, 3, 2, 2}, 890);
  using system = scalar_identity<mamba_hold, T>;
  auto const message = [&](auto const& change) {
    system r = recurrence_of<mamba_hold>(p);
    change(r);
    return message_of<shape_error>([&] { r.shape(); });
  };
  EXPECT_EQ(message([](system&) {}), "no exception");
  EXPECT_EQ(message([](system& r) { r.step_size = r.step_size.slice(1, 0, 4); }),
            "scalar_identity: step_size has shape (2, 4, 4), expected (2, 5, 4) "
            "(batch, time, head)");
  EXPECT_EQ(message([](system& r) { r.B = r.B.slice(0, 0, 1); }),
            "scalar_identity: B has shape (1, 5, 2, 2), expected (2, 5, 2, 2) "
            "(batch, time, group, state)");
  EXPECT_EQ(message([](system& r) { r.x = r.x.slice(2, 0, 11); }),
            "scalar_identity: x has 11 channels, expected a multiple of the 4 heads of eigenvalue");
  EXPECT_EQ(message([](system& r) {
              r.eigenvalue = r.eigenvalue.slice(0, 0, 3);
              r.step_size = r.step_size.slice(2, 0, 3);
            }),
            "scalar_identity: eigenvalue has 3 heads, expected a multiple of the 2 groups of B");
  EXPECT_EQ(message([](system& r) {
              r.eigenvalue = {};
              r.step_size = r.step_size.slice(2, 0, 0);
            }),
            "scalar_identity: x has 12 channels, expected a multiple of the 0 heads of eigenvalue");
  EXPECT_EQ(message([](system& r) { r.B = r.B.slice(2, 0, 0); }),
            "scalar_identity: eigenvalue has 4 heads, expected a multiple of the 0 groups of B");
}

}  // namespace
