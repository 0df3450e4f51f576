// SPDX-License-Identifier: Apache-2.0
// diagonal_test.cpp: scans of diagonal systems under every rule, their gradients, their errors.
#include "ssm/diagonal.hpp"

#include <gtest/gtest.h>

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

/// Stable for every rule: |z| < 0.75 and Re z < 0.
template <scalar T>
diagonal_system<T> random_system(scan_shape const& s, std::uint64_t seed) {
  auto eigenvalue = random_tensor<T>({s.channels, s.states}, seed, -1.5, 0);
  if constexpr (complex_scalar<T>) {
    for (T& lambda : eigenvalue) lambda = T(lambda.real(), lambda.imag() + real_t<T>(0.75));
  }
  auto const sequence = [&](std::uint64_t k, double low, double high) {
    return random_tensor<real_t<T>>({s.batch, s.length, s.channels}, seed + k, low, high);
  };
  auto const trajectory = [&](std::uint64_t k) {
    return random_tensor<T>({s.batch, s.length, s.channels, s.states}, seed + k);
  };
  auto const state = [&](std::uint64_t k) {
    return random_tensor<T>({s.batch, s.channels, s.states}, seed + k);
  };
  return {sequence(1, 0.1, 0.5), sequence(2, -1, 1), sequence(3, -1, 1), eigenvalue,
          trajectory(4),         trajectory(5),      state(6),           state(7)};
}

template <class Rule, scalar T>
diagonal<Rule, T> recurrence_of(diagonal_system<T> const& s) {
  return {.step_size = s.step_size, .eigenvalue = s.eigenvalue, .B = s.B, .x = s.x};
}

template <recurrence R>
tensor<typename R::value_type, 4> run(parallel policy, R const& recurrence,
                                      tensor<typename R::value_type, 3> carry,
                                      direction order = direction::forward) {
  auto const [batch, length, channels, states] = recurrence.shape();
  auto result = poisoned<typename R::value_type>({batch, length, channels, states});
  scan(policy, recurrence, store_states<typename R::value_type>{result}, carry.view(), order);
  return result;
}

/// The gradients of all inputs, C and the initial state.
template <scalar T>
struct gradients {
  tensor<real_t<T>, 3> step_size, x;
  tensor<T, 2> eigenvalue;
  tensor<T, 4> B, C;
  tensor<T, 3> initial;
};

template <class Rule, scalar T>
gradients<T> run_vjp(parallel policy, diagonal_system<T> const& s, direction order) {
  using real = real_t<T>;
  gradients<T> to{tensor<real, 3>(s.x.extents()),       tensor<real, 3>(s.x.extents()),
                  tensor<T, 2>(s.eigenvalue.extents()), tensor<T, 4>(s.B.extents()),
                  tensor<T, 4>(s.B.extents()),          s.final_cotangent};
  typename diagonal<Rule, T>::gradient const gradient{to.step_size, to.eigenvalue, to.B, to.x};
  scan_vjp(policy, recurrence_of<Rule>(s), contract_vjp<T>{s.C, s.y_cotangent, to.C}, s.initial,
           to.initial, gradient, order);
  return to;
}

template <class Rule, scalar T>
real_t<T> loss(diagonal_system<T> const& s, direction order) {
  tensor<real_t<T>, 3> y(s.x.extents());
  tensor<T, 3> carry = s.initial;
  scan(parallel{1, 100}, recurrence_of<Rule>(s), contract<T>{s.C, y}, carry, order);
  return inner_product(s.y_cotangent, y) + inner_product(s.final_cotangent, carry);
}

std::string text(auto const&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

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

template <class Rule, class W>
void expect_gradients_of_differences() {
  for (direction const order : directions) {
    auto s = random_system<W>({2, 3, 2, 2}, 650);
    auto const found = run_vjp<Rule>(parallel{1, 2}, s, order);
    auto const of_loss = [&] { return loss<Rule>(s, order); };
    char const* const tolerance = "1e-28";
    EXPECT_TRUE(is_near(found.step_size, gradient_by_differences(s.step_size, of_loss), tolerance));
    EXPECT_TRUE(
        is_near(found.eigenvalue, gradient_by_differences(s.eigenvalue, of_loss), tolerance));
    EXPECT_TRUE(is_near(found.B, gradient_by_differences(s.B, of_loss), tolerance));
    EXPECT_TRUE(is_near(found.x, gradient_by_differences(s.x, of_loss), tolerance));
    EXPECT_TRUE(is_near(found.C, gradient_by_differences(s.C, of_loss), tolerance));
    EXPECT_TRUE(is_near(found.initial, gradient_by_differences(s.initial, of_loss), tolerance));
  }
}

TYPED_TEST(Diagonal, EveryGradientIsThatOfDifferencesIn50Digits) {
  expect_gradients_of_differences<TypeParam, digits50>();
  expect_gradients_of_differences<TypeParam, complex50>();
}

/// scan_vjp: 4 for a single step and 2 for each that a term travels. A rule's decay adds the half
/// eps of z, which |z f'/f| <= 3 amplifies, and three roundings for each step, its gain and slopes
/// as much once more; and a gradient is a sum over batch and time or over states.
template <scalar T>
double gradient_bound(scan_shape const& s) {
  double const rule = complex_scalar<T> ? 12 : 3;
  double const sum = static_cast<double>(std::max(s.batch * s.length, s.states)) / 2;
  return 4 + 2 * rule + (2 + rule) * static_cast<double>(s.length) + sum;
}

template <class Rule, scalar T>
void expect_gradients_in_working_precision() {
  for (index_t const length : {0, 1, 4, 5, 6, 13}) {
    scan_shape const shape{2, length, 2, 3};
    auto const s = random_system<T>(shape, static_cast<std::uint64_t>(660 + length));
    double const k = gradient_bound<T>(shape);
    for (direction const order : directions) {
      auto const expected = run_vjp<Rule>(parallel{1, 100}, widened(s), order);
      gradient_terms const terms(Rule{}, widened(s), order);
      for (index_t const chunk : {1, 5, 100}) {
        SCOPED_TRACE(text("length ", length, ", chunk ", chunk, ", seed ", 660 + length));
        auto const found = run_vjp<Rule>(parallel{2, chunk}, s, order);
        EXPECT_TRUE(is_within(k, found.step_size, expected.step_size, terms.step_size))
            << "step_size";
        EXPECT_TRUE(is_within(k, found.eigenvalue, expected.eigenvalue, terms.eigenvalue))
            << "eigenvalue";
        EXPECT_TRUE(is_within(k, found.B, expected.B, terms.B)) << "B";
        EXPECT_TRUE(is_within(k, found.x, expected.x, terms.x)) << "x";
        EXPECT_TRUE(is_within(k, found.C, expected.C, terms.C)) << "C";
        EXPECT_TRUE(is_within(k, found.initial, expected.initial, terms.initial)) << "initial";
      }
    }
  }
}

TYPED_TEST(Diagonal, EveryGradientIsWithinItsBoundOf50DigitsForEverySize) {
  expect_gradients_in_working_precision<TypeParam, double>();
  expect_gradients_in_working_precision<TypeParam, std::complex<double>>();
}

template <scalar T>
void expect_same_bits(gradients<T> const& found, gradients<T> const& expected) {
  EXPECT_TRUE(has_same_bits(found.step_size, expected.step_size)) << "step_size";
  EXPECT_TRUE(has_same_bits(found.eigenvalue, expected.eigenvalue)) << "eigenvalue";
  EXPECT_TRUE(has_same_bits(found.B, expected.B)) << "B";
  EXPECT_TRUE(has_same_bits(found.x, expected.x)) << "x";
  EXPECT_TRUE(has_same_bits(found.C, expected.C)) << "C";
  EXPECT_TRUE(has_same_bits(found.initial, expected.initial)) << "initial";
}

TYPED_TEST(Diagonal, ThreadsChangeNoBitOfAnyGradient) {
  auto const s = random_system<double>({2, 37, 3, 2}, 670);
  for (direction const order : directions) {
    auto const expected = run_vjp<TypeParam>(parallel{1, 5}, s, order);
    for (int const threads : {2, 3, 7}) {
      SCOPED_TRACE(text("threads ", threads));
      expect_same_bits(run_vjp<TypeParam>(parallel{threads, 5}, s, order), expected);
    }
  }
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

TEST(DiagonalSums, GradientOfABroadcastInputIsTheSumOverItsCopies) {
  using W = complex50;
  scan_shape const shape{2, 5, 3, 2};
  auto s = random_system<W>(shape, 700);
  auto const step_size = random_tensor<digits50>({2, 5}, 701, 0.1, 0.5);  // for all channels
  auto const B = random_tensor<W>({3, 2}, 702);                           // for all times
  s.step_size = materialized(step_size.view().broadcast(2, 3));
  s.B = materialized(B.view().broadcast(0, 5).broadcast(0, 2));
  auto const full = run_vjp<bilinear>(parallel{1, 100}, s, direction::forward);

  tensor<digits50, 2> to_step_size({2, 5});
  tensor<W, 2> to_B({3, 2});
  diagonal<bilinear, W> const recurrence{.step_size = step_size.view().broadcast(2, 3),
                                         .eigenvalue = s.eigenvalue,
                                         .B = B.view().broadcast(0, 5).broadcast(0, 2),
                                         .x = s.x};
  auto carry = s.final_cotangent;
  scan_vjp(
      parallel{2, 2}, recurrence, contract_vjp<W>{s.C, s.y_cotangent, {}}, s.initial, carry,
      {to_step_size.view().broadcast(2, 3), {}, to_B.view().broadcast(0, 5).broadcast(0, 2), {}});

  tensor<digits50, 2> step_size_sum({2, 5});
  tensor<W, 2> B_sum({3, 2});
  for_each_position(full.B.extents(), [&](auto const& position) {
    auto const [b, t, c, n] = position.value;
    if (n == 0) step_size_sum(b, t) += full.step_size(b, t, c);
    B_sum(c, n) += full.B(b, t, c, n);
  });
  EXPECT_TRUE(is_near(to_step_size, step_size_sum, "1e-46"));
  EXPECT_TRUE(is_near(to_B, B_sum, "1e-46"));
  EXPECT_TRUE(is_near(carry, full.initial, "1e-46"));
}

TEST(DiagonalSums, GradientsAreAddedToWhatIsThere) {
  auto const s = random_system<digits50>({2, 5, 3, 2}, 710);
  auto const once = run_vjp<bilinear>(parallel{1, 2}, s, direction::forward);
  auto twice = once;
  twice.initial = s.final_cotangent;
  scan_vjp(parallel{1, 2}, recurrence_of<bilinear>(s),
           contract_vjp<digits50>{s.C, s.y_cotangent, twice.C}, s.initial, twice.initial,
           {twice.step_size, twice.eigenvalue, twice.B, twice.x});
  auto const doubled = [](auto gradient) {
    for (digits50& g : gradient) g *= 2;
    return gradient;
  };
  EXPECT_TRUE(is_near(twice.step_size, doubled(once.step_size), "1e-47"));
  EXPECT_TRUE(is_near(twice.eigenvalue, doubled(once.eigenvalue), "1e-47"));
  EXPECT_TRUE(is_near(twice.B, doubled(once.B), "1e-47"));
  EXPECT_TRUE(is_near(twice.x, doubled(once.x), "1e-47"));
  EXPECT_TRUE(is_near(twice.C, doubled(once.C), "1e-47"));
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

TEST(DiagonalErrors, GradientsOfWrongShapeThrowAreNamedAndNothingIsWritten) {
  using T = double;
  auto const s = random_system<T>({2, 5, 3, 4}, 730);
  auto sequence = poisoned<T>({2, 5, 3}), carry = poisoned<T>({2, 3, 4});
  auto wrong_sequence = poisoned<T>({2, 5, 1});
  auto wrong_eigenvalue = poisoned<T>({4, 3});
  auto wrong_B = poisoned<T>({2, 5, 3, 1});
  using gradient = diagonal<mamba_hold, T>::gradient;
  auto const message = [&](gradient const& to) {
    auto const found = message_of<shape_error>([&] {
      scan_vjp(sequential{}, recurrence_of<mamba_hold>(s), discard_vjp<T>{}, s.initial, carry, to);
    });
    EXPECT_TRUE(is_poisoned(sequence)) << found;
    EXPECT_TRUE(is_poisoned(carry)) << found;
    return found;
  };
  EXPECT_EQ(message({wrong_sequence, {}, {}, sequence}),
            "diagonal: gradient.step_size has shape (2, 5, 1), expected (2, 5, 3) "
            "(batch, time, channel)");
  EXPECT_EQ(message({sequence, wrong_eigenvalue, {}, {}}),
            "diagonal: gradient.eigenvalue has shape (4, 3), expected (3, 4) (channel, state)");
  EXPECT_EQ(message({sequence, {}, wrong_B, {}}),
            "diagonal: gradient.B has shape (2, 5, 3, 1), expected (2, 5, 3, 4) "
            "(batch, time, channel, state)");
  EXPECT_EQ(message({sequence, {}, {}, wrong_sequence}),
            "diagonal: gradient.x has shape (2, 5, 1), expected (2, 5, 3) (batch, time, channel)");
}

}  // namespace
