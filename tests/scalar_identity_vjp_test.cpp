// SPDX-License-Identifier: Apache-2.0
// scalar_identity_vjp_test.cpp: the gradient of heads and groups against that of the diagonal
// system.
#include <gtest/gtest.h>

#include <complex>
#include <cstdint>
#include <string>
#include <type_traits>

#include "ssm/scalar_identity.hpp"
#include "ssm/scan.hpp"
#include "support/random_tensor.hpp"
#include "support/scalar_identity_problem.hpp"
#include "support/text.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

template <class Rule>
class ScalarIdentityVjp : public ::testing::Test {};
using rules = ::testing::Types<zero_order_hold, mamba_hold, bilinear, forward_euler>;
TYPED_TEST_SUITE(ScalarIdentityVjp, rules);

template <class Rule, class W>
void expect_gradients_of_differences() {
  for (direction const order : directions) {
    auto p = random_problem<W>({1, 3, 4, 2, 2, 2}, 840);
    auto const found = run_vjp<Rule>(parallel{1, 2}, p, order);
    auto const of_loss = [&] { return loss<Rule>(p, order); };
    char const* const tolerance = "1e-28";
    EXPECT_TRUE(is_near(found.step_size, gradient_by_differences(p.step_size, of_loss), tolerance));
    EXPECT_TRUE(
        is_near(found.eigenvalue, gradient_by_differences(p.eigenvalue, of_loss), tolerance));
    EXPECT_TRUE(is_near(found.B, gradient_by_differences(p.B, of_loss), tolerance));
    EXPECT_TRUE(is_near(found.x, gradient_by_differences(p.x, of_loss), tolerance));
    EXPECT_TRUE(is_near(found.initial, gradient_by_differences(p.initial, of_loss), tolerance));
  }
}

TYPED_TEST(ScalarIdentityVjp, EveryGradientIsThatOfDifferencesIn50Digits) {
  expect_gradients_of_differences<TypeParam, digits50>();
  expect_gradients_of_differences<TypeParam, complex50>();
}

/// Σ|terms| for each head and group: the sum over what the diagonal system has for each channel.
template <class Rule, class W>
struct head_terms {
  tensor<digits50, 3> step_size;
  tensor<digits50, 1> eigenvalue;
  tensor<digits50, 4> B;
  gradient_terms of_channels;

  head_terms(problem<W> const& p, direction order)
      : step_size{p.step_size.extents()},
        eigenvalue{p.eigenvalue.extents()},
        B{p.B.extents()},
        of_channels(Rule{}, p.spelled_out(), order) {
    for_each_position(p.x.extents(), [&](auto const& position) {
      auto const [b, t, c] = position.value;
      step_size(b, t, p.head(c)) += of_channels.step_size(b, t, c);
      for (index_t n = 0; n < p.size.states; ++n) {
        B(b, t, p.group(c), n) += of_channels.B(b, t, c, n);
      }
    });
    for_each_position(of_channels.eigenvalue.extents(), [&](auto const& position) {
      auto const [c, n] = position.value;
      eigenvalue(p.head(c)) += of_channels.eigenvalue(c, n);
    });
  }
};

/// As in diagonal_test: 4 and 2 for each step of scan_vjp, 3 for each discretized step (12 if
/// complex), and half an eps for each term of the longest sum, that over a head and all times.
template <class Rule, scalar T>
void expect_gradients_in_working_precision() {
  for (index_t const length : {0, 1, 4, 5, 6, 13}) {
    layout const size{2, length, 4, 2, 2, 2};
    auto const p = random_problem<T>(size, static_cast<std::uint64_t>(850 + length));
    double const rule = complex_scalar<T> ? 12 : 3;
    auto const steps = static_cast<double>(length);
    double const sum =
        static_cast<double>(size.batch * length * size.head_dim * size.states + size.channels()) /
        2;
    double const k = 4 + 2 * rule + (2 + rule) * steps + sum;
    for (direction const order : directions) {
      auto const expected = run_vjp<Rule>(parallel{1, 100}, widened(p), order);
      head_terms<Rule, wide<T>> const terms(widened(p), order);
      for (index_t const chunk : {1, 5, 100}) {
        SCOPED_TRACE(text("length ", length, ", chunk ", chunk, ", seed ", 850 + length));
        auto const found = run_vjp<Rule>(parallel{2, chunk}, p, order);
        EXPECT_TRUE(is_within(k, found.step_size, expected.step_size, terms.step_size))
            << "step_size";
        EXPECT_TRUE(is_within(k, found.eigenvalue, expected.eigenvalue, terms.eigenvalue))
            << "eigenvalue";
        EXPECT_TRUE(is_within(k, found.B, expected.B, terms.B)) << "B";
        EXPECT_TRUE(is_within(k, found.x, expected.x, terms.of_channels.x)) << "x";
        EXPECT_TRUE(is_within(k, found.C, expected.C, terms.of_channels.C)) << "C";
        EXPECT_TRUE(is_within(k, found.initial, expected.initial, terms.of_channels.initial))
            << "initial";
      }
    }
  }
}

TYPED_TEST(ScalarIdentityVjp, EveryGradientIsWithinItsBoundOf50DigitsForEverySize) {
  expect_gradients_in_working_precision<TypeParam, double>();
}

TEST(ScalarIdentityComplex, EveryGradientIsWithinItsBoundOf50DigitsForEverySize) {
  expect_gradients_in_working_precision<zero_order_hold, std::complex<double>>();
}

TEST(ScalarIdentityGradient, ThreadsChangeNoBit) {
  auto const p = random_problem<double>({2, 37, 4, 2, 2, 2}, 860);
  for (direction const order : directions) {
    auto const expected = run_vjp<mamba_hold>(parallel{1, 5}, p, order);
    for (int const threads : {2, 3, 7}) {
      auto const found = run_vjp<mamba_hold>(parallel{threads, 5}, p, order);
      SCOPED_TRACE(text("threads ", threads));
      EXPECT_TRUE(has_same_bits(found.step_size, expected.step_size));
      EXPECT_TRUE(has_same_bits(found.eigenvalue, expected.eigenvalue));
      EXPECT_TRUE(has_same_bits(found.B, expected.B));
      EXPECT_TRUE(has_same_bits(found.x, expected.x));
      EXPECT_TRUE(has_same_bits(found.C, expected.C));
      EXPECT_TRUE(has_same_bits(found.initial, expected.initial));
    }
  }
}

TEST(ScalarIdentityGradient, IsAddedToWhatIsThereAndSummedOverStrideZero) {
  using W = digits50;
  auto const p = random_problem<W>({2, 5, 4, 2, 2, 3}, 870);
  auto const once = run_vjp<bilinear>(parallel{1, 100}, p, direction::forward);
  auto B = once.B;                    // twice the gradient
  tensor<W, 2> step_size({2, 4}, 1);  // 1 and its sum over time
  tensor<W, 1> eigenvalue({1});       // its sum over heads
  auto carry = p.final_cotangent;
  scan_vjp(
      parallel{2, 2}, recurrence_of<bilinear>(p), contract_vjp<W>{p.C, p.y_cotangent, {}},
      p.initial, carry,
      {step_size.view().broadcast(1, 5), tensor_view<W, 1>{eigenvalue.data(), {4}, {0}}, B, {}});
  for_each_position(B.extents(), [&](auto const& position) {
    W const expected = 2 * at(once.B.view(), position);
    EXPECT_LT(magnitude(W(at(B.view(), position) - expected)), 1e-46) << to_string(position);
  });
  tensor<W, 2> expected_step({2, 4}, 1);
  W expected_eigenvalue = 0;
  for_each_position(once.step_size.extents(), [&](auto const& position) {
    auto const [b, t, head] = position.value;
    expected_step(b, head) += once.step_size(b, t, head);
  });
  for (W const& g : once.eigenvalue) expected_eigenvalue += g;
  EXPECT_TRUE(is_near(step_size, expected_step, "1e-46"));
  EXPECT_LT(magnitude(W(eigenvalue(0) - expected_eigenvalue)), 1e-46);
  EXPECT_TRUE(is_near(carry, once.initial, "1e-46"));
}

TEST(ScalarIdentityErrors, GradientsOfWrongShapeThrowAreNamedAndNothingIsWritten) {
  using T = double;
  auto const p = random_problem<T>({2, 5, 4, 3, 2, 2}, 900);
  auto of_channels = poisoned<T>({2, 5, 12}), carry = poisoned<T>({2, 12, 2});
  auto of_states = poisoned<T>({2, 5, 12, 2});
  auto wrong_eigenvalue = poisoned<T>({12});
  using gradient = scalar_identity<mamba_hold, T>::gradient;
  auto const message = [&](gradient const& to) {
    auto const found = message_of<shape_error>([&] {
      scan_vjp(parallel{}, recurrence_of<mamba_hold>(p), discard_vjp<T>{}, p.initial, carry, to);
    });
    EXPECT_TRUE(is_poisoned(of_channels)) << found;
    EXPECT_TRUE(is_poisoned(carry)) << found;
    return found;
  };
  EXPECT_EQ(message({of_channels, {}, {}, of_channels}),
            "scalar_identity: gradient.step_size has shape (2, 5, 12), expected (2, 5, 4) "
            "(batch, time, head)");
  EXPECT_EQ(message({{}, wrong_eigenvalue, {}, of_channels}),
            "scalar_identity: gradient.eigenvalue has shape (12), expected (4) (head)");
  EXPECT_EQ(message({{}, {}, of_states, of_channels}),
            "scalar_identity: gradient.B has shape (2, 5, 12, 2), expected (2, 5, 2, 2) "
            "(batch, time, group, state)");
  EXPECT_EQ(message({{}, {}, {}, of_channels.view().slice(2, 0, 4)}),
            "scalar_identity: gradient.x has shape (2, 5, 4), expected (2, 5, 12) "
            "(batch, time, channel)");
}

}  // namespace
