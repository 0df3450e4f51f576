// SPDX-License-Identifier: Apache-2.0
// s4d_test.cpp: initial spectra, S4D models as scans, their gradients and errors.
#include "ssm/s4d.hpp"

#include <gtest/gtest.h>

#include <boost/math/constants/constants.hpp>
#include <complex>
#include <cstdint>

#include "support/oracle.hpp"
#include "support/random_tensor.hpp"
#include "support/s4d_model.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

// π and its product round: 1 eps. (N/π)(N/(2n+1) - 1) is two products, a quotient and π: 2 eps.
template <class R>
void expect_initial_spectra() {
  digits50 const pi = boost::math::constants::pi<digits50>();
  for (index_t const states : {2, 64, 1000}) {
    for (index_t n = 0; n < states / 2; ++n) {
      digits50 const N = states, odd = 2 * n + 1;
      complex50 const lin(-0.5, pi * n), inv(-0.5, N / pi * (N / odd - 1));
      EXPECT_TRUE(is_within(1, s4d_lin<R>(n), lin, magnitude(lin)));
      EXPECT_TRUE(is_within(2, s4d_inv<R>(n, states), inv, magnitude(inv)));
      EXPECT_GT(s4d_inv<R>(n, states).imag(), 0);
    }
  }
}

TEST(S4dSpectra, AreThoseOfThePaperIn50Digits) {
  expect_initial_spectra<float>();
  expect_initial_spectra<double>();
}

template <scalar T>
struct outputs {
  tensor<real_t<T>, 3> y;
  tensor<T, 3> carry;
};

template <class Rule, execution_policy Policy, scalar T>
outputs<T> run(Policy policy, s4d_model<T> const& m) {
  outputs<T> out{poisoned<real_t<T>>({m.x.extent(0), m.x.extent(1), m.x.extent(2)}), m.initial};
  s4d_scan(policy, m.template views<Rule>(), m.x, out.y, out.carry);
  return out;
}

/// The gradients of every input.
template <scalar T>
struct gradients {
  tensor<real_t<T>, 1> step_size, D;
  tensor<T, 2> eigenvalue, B, C;
  tensor<real_t<T>, 3> x;
  tensor<T, 3> initial;
};

template <class Rule, execution_policy Policy, scalar T>
gradients<T> run_vjp(Policy policy, s4d_model<T> const& m) {
  using real = real_t<T>;
  auto const matrix = m.B.extents();
  gradients<T> to{tensor<real, 1>(m.D.extents()),
                  tensor<real, 1>(m.D.extents()),
                  tensor<T, 2>(matrix),
                  tensor<T, 2>(matrix),
                  tensor<T, 2>(matrix),
                  tensor<real, 3>(m.x.extents()),
                  m.final_cotangent};
  s4d_scan_vjp(policy, m.template views<Rule>(), m.x, m.y_cotangent, m.initial, to.initial,
               {to.step_size, to.eigenvalue, to.B, to.C, to.D}, to.x);
  return to;
}

// Every rule and kind of number is tested with diagonal and with s4d_convolution; here two of each.

template <class Rule, scalar T>
void expect_reference() {
  for (index_t const length : {0, 1, 5, 31}) {
    auto const seed = static_cast<std::uint64_t>(900 + length);
    auto const m = random_s4d<T>({2, length, 3, 4}, seed);
    s4d_reference<Rule, T> const expected(m);
    auto const found = run<Rule>(parallel{2, 7}, m);
    EXPECT_TRUE(is_within(1, found.y, expected.y, expected.y_bound)) << "seed " << seed;
    EXPECT_TRUE(is_within(1, found.carry, expected.final_states, expected.final_bound))
        << "seed " << seed;
  }
}

TEST(S4d, ScanIsWithinItsBoundOfTheDefinitionIn50Digits) {
  expect_reference<bilinear, float>();
  expect_reference<zero_order_hold, std::complex<double>>();
}

// The maps taken once a call round in another order than those taken at each step.
TEST(S4d, ScanIsThatOfTheDiagonalRecurrence) {
  using T = std::complex<double>;
  auto const m = random_s4d<T>({2, 31, 3, 4}, 915);
  auto const found = run<zero_order_hold>(chunked{7}, m);
  auto carry = m.initial;
  scan(chunked{7}, m.views<zero_order_hold>().recurrence(m.x), discard{}, carry.view());
  s4d_reference<zero_order_hold, T> const reference(m);
  auto const twice = [](tensor<digits50, 3> bound) {
    for (digits50& b : bound) b *= 2;
    return bound;
  };
  EXPECT_TRUE(is_within(1, found.carry, widened(carry), twice(reference.final_bound)));
}

TEST(S4d, OneCallEqualsItsStepsBitForBit) {
  using T = std::complex<float>;
  auto const m = random_s4d<T>({2, 13, 3, 4}, 920);
  auto const whole_call = run<zero_order_hold>(sequential{}, m);
  auto y = poisoned<float>({2, 13, 3});
  auto carry = m.initial;
  for (index_t t = 0; t < 13; ++t) {
    s4d_scan(sequential{}, m.views<zero_order_hold>(), m.x.view().slice(1, t, 1),
             y.view().slice(1, t, 1), carry);
  }
  EXPECT_TRUE(has_same_bits(y, whole_call.y));
  EXPECT_TRUE(has_same_bits(carry, whole_call.carry));
}

template <class Rule, class W>
void expect_gradients_of_differences() {
  auto m = random_s4d<W>({2, 3, 2, 2}, 930);
  auto const found = run_vjp<Rule>(parallel{1, 2}, m);
  auto const loss = [&] {
    auto const out = run<Rule>(sequential{}, m);
    return inner_product(m.y_cotangent, out.y) + inner_product(m.final_cotangent, out.carry);
  };
  auto const expect = [&](char const* name, auto const& gradient, auto& variable) {
    EXPECT_TRUE(is_near(gradient, gradient_by_differences(variable, loss), "1e-28")) << name;
  };
  expect("step_size", found.step_size, m.step_size);
  expect("eigenvalue", found.eigenvalue, m.eigenvalue);
  expect("B", found.B, m.B);
  expect("C", found.C, m.C);
  expect("D", found.D, m.D);
  expect("x", found.x, m.x);
  expect("initial", found.initial, m.initial);
}

TEST(S4d, EveryGradientIsThatOfDifferencesIn50Digits) {
  expect_gradients_of_differences<bilinear, digits50>();
  expect_gradients_of_differences<zero_order_hold, complex50>();
}

TEST(S4dPairs, AreTheModelWithBothOfEachPair) {
  using W = complex50;
  auto const m = random_s4d<W>({1, 9, 2, 3}, 940);
  s4d_model<W> both = m;
  auto const doubled = [](tensor<W, 2> const& from) {
    tensor<W, 2> result({2, 6});
    for_each_position(result.extents(), [&](auto const& position) {
      auto const [c, n] = position.value;
      result(c, n) = n < 3 ? from(c, n) : conjugate(from(c, n - 3));
    });
    return result;
  };
  both.eigenvalue = doubled(m.eigenvalue);
  both.B = doubled(m.B);
  both.C = doubled(m.C);
  tensor<W, 3> pairs({1, 2, 3}), all({1, 2, 6});
  tensor<digits50, 3> found(m.x.extents()), expected(m.x.extents());
  s4d_scan(sequential{}, m.views<bilinear>(), m.x, found, pairs);
  auto system = both.views<bilinear>();
  system.conjugate_pairs = false;
  s4d_scan(sequential{}, system, m.x, expected, all);
  EXPECT_TRUE(is_near(found, expected, "1e-47"));
}

TEST(S4dViews, StridedOnesGiveTheBitsOfContiguousOnes) {
  using T = std::complex<double>;
  auto const m = random_s4d<T>({2, 9, 3, 4}, 950);
  auto const expected = run<zero_order_hold>(sequential{}, m);
  scattered const step_size(m.step_size), D(m.D);
  scattered const eigenvalue(m.eigenvalue), B(m.B), C(m.C);
  scattered const x(m.x), y(expected.y);
  scattered const carry(m.initial);
  s4d<zero_order_hold, T> const system{.step_size = step_size,
                                       .eigenvalue = eigenvalue,
                                       .B = B,
                                       .C = C,
                                       .D = D,
                                       .conjugate_pairs = true};
  s4d_scan(sequential{}, system, x, y, carry);
  EXPECT_TRUE(has_same_bits(materialized(y.view()), expected.y));
  EXPECT_TRUE(has_same_bits(materialized(carry.view()), expected.carry));
  EXPECT_EQ(y.overwritten(), 0);
  EXPECT_EQ(carry.overwritten(), 0);
}

TEST(S4dThreads, ChangeNoBit) {
  using T = std::complex<double>;
  auto const m = random_s4d<T>({2, 37, 3, 2}, 960);
  auto const expected = run<bilinear>(parallel{1, 5}, m);
  auto const gradient = run_vjp<bilinear>(parallel{1, 5}, m);
  for (int const threads : {2, 7}) {
    auto const found = run<bilinear>(parallel{threads, 5}, m);
    EXPECT_TRUE(has_same_bits(found.y, expected.y));
    EXPECT_TRUE(has_same_bits(found.carry, expected.carry));
    auto const to = run_vjp<bilinear>(parallel{threads, 5}, m);
    EXPECT_TRUE(has_same_bits(to.step_size, gradient.step_size));
    EXPECT_TRUE(has_same_bits(to.eigenvalue, gradient.eigenvalue));
    EXPECT_TRUE(has_same_bits(to.C, gradient.C));
    EXPECT_TRUE(has_same_bits(to.D, gradient.D));
    EXPECT_TRUE(has_same_bits(to.x, gradient.x));
  }
}

TEST(S4dGradients, AreAddedAndThoseNotWantedLeftOut) {
  using W = digits50;
  auto const m = random_s4d<W>({2, 5, 3, 2}, 970);
  auto const once = run_vjp<bilinear>(sequential{}, m);
  tensor<W, 2> to_C(m.C.extents(), W(3));
  tensor<W, 1> shared_D({1}, W(4));  // one number for all channels
  auto carry = m.final_cotangent;
  s4d_scan_vjp(sequential{}, m.views<bilinear>(), m.x, m.y_cotangent, m.initial, carry,
               {{}, {}, {}, to_C, tensor_view<W, 1>(shared_D.data(), {3}, {0})});
  W sum = 4;
  for (W const& g : once.D) sum += g;
  EXPECT_LT(magnitude(W(shared_D(0) - sum)), 1e-46);
  for (W& g : to_C) g -= 3;
  EXPECT_TRUE(is_near(to_C, once.C, "1e-46"));
  EXPECT_TRUE(is_near(carry, once.initial, "1e-46"));
}

TEST(S4dErrors, ViewsThatDisagreeThrowAreNamedAndNothingIsWritten) {
  using T = double;
  auto const m = random_s4d<T>({2, 5, 3, 4}, 980);
  auto y = poisoned<T>({2, 5, 3}), carry = poisoned<T>({2, 3, 4});
  auto const message = [&](s4d<bilinear, T> const& system, sequence_view<T const> x,
                           sequence_view<T> to, state_view<T> states) {
    auto const text =
        message_of<shape_error>([&] { s4d_scan(sequential{}, system, x, to, states); });
    EXPECT_TRUE(is_poisoned(y)) << text;
    EXPECT_TRUE(is_poisoned(carry)) << text;
    return text;
  };
  auto const good = m.views<bilinear>();
  auto bad = good;
  bad.step_size = m.step_size.view().slice(0, 0, 2);
  EXPECT_EQ(message(bad, m.x, y, carry), "s4d: step_size has shape (2), expected (3) (channel)");
  bad = good;
  bad.B = m.B.view().slice(1, 0, 3);
  EXPECT_EQ(message(bad, m.x, y, carry),
            "s4d: B has shape (3, 3), expected (3, 4) (channel, state)");
  bad = good;
  bad.C = m.C.view().slice(0, 0, 1);
  EXPECT_EQ(message(bad, m.x, y, carry),
            "s4d: C has shape (1, 4), expected (3, 4) (channel, state)");
  bad = good;
  bad.D = m.D.view().slice(0, 0, 1);
  EXPECT_EQ(message(bad, m.x, y, carry), "s4d: D has shape (1), expected (3) (channel)");
  bad = good;
  bad.conjugate_pairs = true;
  EXPECT_EQ(message(bad, m.x, y, carry),
            "s4d: conjugate_pairs is set for real eigenvalues, expected complex ones");
  EXPECT_EQ(message(good, m.x.view().slice(2, 0, 2), y, carry),
            "s4d: x has shape (2, 5, 2), expected (2, 5, 3) (batch, time, channel)");
  EXPECT_EQ(message(good, m.x, y.view().slice(1, 0, 4), carry),
            "s4d_scan: y has shape (2, 4, 3), expected (2, 5, 3) (batch, time, channel)");
  EXPECT_EQ(message(good, m.x, y, carry.view().slice(0, 0, 1)),
            "s4d_scan: carry has shape (1, 3, 4), expected (2, 3, 4) (batch, channel, state)");
  EXPECT_EQ(message(good, m.x, y.view().select(1, 0).broadcast(1, 5), carry),
            "s4d_scan: y has stride 0 along axis 1 of extent 5, expected elements of its own at "
            "every position");
}

TEST(S4dErrors, GradientsOfWrongShapeThrowAreNamedAndNothingIsWritten) {
  using T = double;
  auto const m = random_s4d<T>({2, 5, 3, 4}, 990);
  auto matrix = poisoned<T>({3, 4}), wrong = poisoned<T>({4, 3});
  auto carry = poisoned<T>({2, 3, 4});
  auto sequence = poisoned<T>({2, 5, 1});
  auto const message = [&](s4d<bilinear, T>::gradient const& to, sequence_view<T> x) {
    auto const text = message_of<shape_error>([&] {
      s4d_scan_vjp(sequential{}, m.views<bilinear>(), m.x, m.y_cotangent, m.initial, carry, to, x);
    });
    EXPECT_TRUE(is_poisoned(matrix)) << text;
    EXPECT_TRUE(is_poisoned(carry)) << text;
    return text;
  };
  EXPECT_EQ(message({{}, matrix, wrong, {}, {}}, {}),
            "s4d: gradient.B has shape (4, 3), expected (3, 4) (channel, state)");
  EXPECT_EQ(message({{}, matrix, {}, wrong, {}}, {}),
            "s4d: gradient.C has shape (4, 3), expected (3, 4) (channel, state)");
  EXPECT_EQ(message({{}, matrix, {}, {}, {}}, sequence),
            "s4d_scan_vjp: x_gradient has shape (2, 5, 1), expected (2, 5, 3) "
            "(batch, time, channel)");
}

}  // namespace
