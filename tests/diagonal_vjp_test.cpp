// SPDX-License-Identifier: Apache-2.0
// diagonal_vjp_test.cpp: gradients of diagonal systems under every rule.
#include <gtest/gtest.h>

#include <algorithm>
#include <complex>
#include <cstdint>
#include <string>
#include <type_traits>

#include "ssm/diagonal.hpp"
#include "ssm/scan.hpp"
#include "support/diagonal_problem.hpp"
#include "support/random_tensor.hpp"
#include "support/text.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

template <class Rule>
class DiagonalVjp : public ::testing::Test {};
using rules = ::testing::Types<zero_order_hold, mamba_hold, bilinear, forward_euler>;
TYPED_TEST_SUITE(DiagonalVjp, rules);

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

TYPED_TEST(DiagonalVjp, EveryGradientIsThatOfDifferencesIn50Digits) {
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

TYPED_TEST(DiagonalVjp, EveryGradientIsWithinItsBoundOf50DigitsForEverySize) {
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

TYPED_TEST(DiagonalVjp, ThreadsChangeNoBitOfAnyGradient) {
  auto const s = random_system<double>({2, 37, 3, 2}, 670);
  for (direction const order : directions) {
    auto const expected = run_vjp<TypeParam>(parallel{1, 5}, s, order);
    for (int const threads : {2, 3, 7}) {
      SCOPED_TRACE(text("threads ", threads));
      expect_same_bits(run_vjp<TypeParam>(parallel{threads, 5}, s, order), expected);
    }
  }
}

TEST(DiagonalVjpSums, GradientOfABroadcastInputIsTheSumOverItsCopies) {
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

TEST(DiagonalVjpSums, GradientsAreAddedToWhatIsThere) {
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

TEST(DiagonalVjpErrors, GradientsOfWrongShapeThrowAreNamedAndNothingIsWritten) {
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
