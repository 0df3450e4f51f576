// SPDX-License-Identifier: Apache-2.0
// diagonal_test.cpp: scans of diagonal systems under every rule.
#include "ssm/diagonal.hpp"

#include <gtest/gtest.h>

#include <complex>
#include <cstdint>
#include <string>

#include "ssm/scan.hpp"
#include "support/diagonal_problem.hpp"
#include "support/random_tensor.hpp"
#include "support/text.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

template <class Rule>
class Diagonal : public ::testing::Test {};
using rules = ::testing::Types<zero_order_hold, mamba_hold, bilinear, forward_euler>;
TYPED_TEST_SUITE(Diagonal, rules);

TYPED_TEST(Diagonal, MapOfAStepIsTheDiscretizedElement) {
  auto const s = random_system<complex50>({2, 3, 2, 4}, 600);
  auto const recurrence = recurrence_of<TypeParam>(s);
  EXPECT_EQ(recurrence.shape(), (scan_shape{2, 3, 2, 4}));
  for_each_position(s.B.extents(), [&](auto const& position) {
    auto const [b, t, c, n] = position.value;
    EXPECT_EQ(recurrence.at(b, t, c)(n),
              discretize(TypeParam{}, s.step_size(b, t, c), s.eigenvalue(c, n), s.B(b, t, c, n),
                         s.x(b, t, c)));
  });
}

template <class Rule, scalar T>
void expect_states_in_working_precision() {
  for (index_t const length : {0, 1, 4, 5, 6, 31}) {
    auto const s = random_system<T>({2, length, 2, 3}, static_cast<std::uint64_t>(610 + length));
    map_errors const maps(Rule{}, widened(s));
    auto const reference = reference_scan(maps.decay, maps.drive, widened(s.initial),
                                          maps.decay_error, maps.drive_error);
    for (index_t const chunk : {1, 5, 100}) {
      auto const found = run(parallel{2, chunk}, recurrence_of<Rule>(s), s.initial);
      EXPECT_TRUE(is_within(1, found, reference.states, reference.bound(eps_per_step<T>)))
          << "chunk " << chunk << ", seed " << 610 + length;
    }
  }
}

TYPED_TEST(Diagonal, StatesAreWithinTheRoundingOfMapsAndStepsFrom50Digits) {
  expect_states_in_working_precision<TypeParam, float>();
  expect_states_in_working_precision<TypeParam, std::complex<double>>();
}

TYPED_TEST(Diagonal, StepOfSizeZeroHoldsTheStateExactly) {
  auto s = random_system<double>({2, 5, 3, 2}, 620);
  for (double& step : s.step_size) step = 0;
  auto const found = run(parallel{1, 100}, recurrence_of<TypeParam>(s), s.initial);
  auto const expected = materialized(s.initial.view().broadcast(1, 5));
  EXPECT_TRUE(has_same_bits(found, expected));
}

// z = Δλ stays the same number and Δx is four times what it was, both without rounding.
TYPED_TEST(Diagonal, FourTimesTheStepAndAQuarterOfTheEigenvalueScaleTheStateByFour) {
  auto s = random_system<double>({2, 13, 3, 2}, 630);
  auto expected = run(parallel{1, 100}, recurrence_of<TypeParam>(s), s.initial);
  for (double& h : expected) h *= 4;
  for (double& step : s.step_size) step *= 4;
  for (double& lambda : s.eigenvalue) lambda /= 4;
  for (double& h : s.initial) h *= 4;
  EXPECT_TRUE(
      has_same_bits(run(parallel{1, 100}, recurrence_of<TypeParam>(s), s.initial), expected));
}

TYPED_TEST(Diagonal, BroadcastAndStridedViewsGiveTheBitsOfMaterializedOnes) {
  using T = double;
  auto s = random_system<T>({2, 7, 3, 4}, 640);
  auto const shared_B = random_tensor<T>({2, 7, 4}, 641);  // Mamba's: the same for all channels
  auto const B = shared_B.view().broadcast(2, 3);
  s.B = materialized(B);
  auto const expected = run(parallel{1, 3}, recurrence_of<TypeParam>(s), s.initial);
  diagonal<TypeParam, T> const broadcast{
      .step_size = s.step_size, .eigenvalue = s.eigenvalue, .B = B, .x = s.x};
  EXPECT_TRUE(has_same_bits(run(parallel{1, 3}, broadcast, s.initial), expected));

  scattered const step_size(s.step_size), x(s.x);
  scattered const eigenvalue(s.eigenvalue);
  scattered const far_B(s.B);
  diagonal<TypeParam, T> const strided{
      .step_size = step_size, .eigenvalue = eigenvalue, .B = far_B, .x = x};
  EXPECT_TRUE(has_same_bits(run(parallel{1, 3}, strided, s.initial), expected));
}

// h_t = Π_k exp(Δ_k λ) h_0 + Σ_s exp(λ Σ_{k=s+1..t} Δ_k) φ1(Δ_s λ) Δ_s B_s x_s, so y = M x with
// the semiseparable matrix of arXiv:2509.19633, eq. 5, its decays as one exponential of a sum.
TEST(DiagonalDense, ZeroOrderHoldIsTheSemiseparableMatrixOfItsExponentials) {
  using W = complex50;
  scan_shape const shape{1, 7, 1, 3};
  auto const s = random_system<W>(shape, 680);
  auto y = poisoned<digits50>({1, 7, 1});
  auto carry = s.initial;
  scan(chunked{3}, recurrence_of<zero_order_hold>(s), contract<W>{s.C, y}, carry);
  for (index_t t = 0; t < shape.length; ++t) {
    digits50 expected = 0;
    for (index_t n = 0; n < shape.states; ++n) {
      W const lambda = s.eigenvalue(0, n);
      digits50 elapsed = 0;
      for (index_t k = t; k >= 0; --k) {
        digits50 const step = s.step_size(0, k, 0);
        W const input = (exp(W(lambda * step)) - W(1)) / lambda * s.B(0, k, 0, n) * s.x(0, k, 0);
        expected += real_part(W(s.C(0, t, 0, n) * exp(W(lambda * elapsed)) * input));
        elapsed += step;
      }
      expected += real_part(W(s.C(0, t, 0, n) * exp(W(lambda * elapsed)) * s.initial(0, 0, n)));
    }
    EXPECT_LT(magnitude(digits50(y(0, t, 0) - expected)), 1e-46) << "step " << t;
  }
}

TEST(DiagonalDense, NegativeStepUndoesAStepOfZeroOrderHold) {
  auto s = random_system<digits50>({2, 2, 3, 2}, 690);
  for_each_position(s.initial.extents(), [&](auto const& lane) {
    auto const [b, c, n] = lane.value;
    s.step_size(b, 1, c) = -s.step_size(b, 0, c);
    s.x(b, 1, c) = s.x(b, 0, c);
    s.B(b, 1, c, n) = s.B(b, 0, c, n);
  });
  auto const states = run(parallel{1, 100}, recurrence_of<zero_order_hold>(s), s.initial);
  EXPECT_TRUE(is_near(materialized(states.view().select(1, 1)), s.initial, "1e-48"));
}

TEST(DiagonalErrors, ViewsThatDisagreeThrowAndAreNamed) {
  using T = double;
  auto const s = random_system<T>({2, 5, 3, 4}, 720);
  auto const message = [](diagonal<mamba_hold, T> const& r) {
    return message_of<shape_error>([&] { r.shape(); });
  };
  auto r = recurrence_of<mamba_hold>(s);
  EXPECT_EQ(message(r), "no exception");
  r.step_size = s.step_size.view().slice(2, 0, 2);
  EXPECT_EQ(message(r),
            "diagonal: step_size has shape (2, 5, 2), expected (2, 5, 3) (batch, time, channel)");
  r = recurrence_of<mamba_hold>(s);
  r.eigenvalue = s.eigenvalue.view().slice(0, 0, 2);
  EXPECT_EQ(message(r), "diagonal: eigenvalue has shape (2, 4), expected (3, 4) (channel, state)");
  r = recurrence_of<mamba_hold>(s);
  r.B = s.B.view().slice(3, 0, 1);
  EXPECT_EQ(message(r),
            "diagonal: B has shape (2, 5, 3, 1), expected (2, 5, 3, 4) "
            "(batch, time, channel, state)");
  r = recurrence_of<mamba_hold>(s);
  r.x = {};
  EXPECT_EQ(message(r),
            "diagonal: step_size has shape (2, 5, 3), expected (0, 0, 0) (batch, time, channel)");
}

}  // namespace
