// SPDX-License-Identifier: Apache-2.0
// s4d_convolution_test.cpp: an S4D model as a convolution is the same model as a scan.
#include "ssm/s4d_convolution.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <iostream>

#include "support/oracle.hpp"
#include "support/random_tensor.hpp"
#include "support/s4d_model.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

/// |error|/eps that s4d_convolution may have, from the double twin of a model:
///   y      fft_convolution_bound·‖K‖₂‖x‖₂, what K is off by ((states + 19 + 24)·Σ|terms|, gains
///          at |z| < 0.75 included) times ‖x‖₂, and (22 + states)·Σ|terms| of response and skip;
///   carry  24 + S/16 + length/S + 24 of Σ|terms|.
template <class Rule, scalar T>
struct bounds {
  tensor<digits50, 3> y, carry;

  explicit bounds(s4d_model<T> const& m) : y{m.x.extents()}, carry{m.initial.extents()} {
    index_t const length = m.x.extent(1), states = m.B.extent(1);
    double const scale = complex_scalar<T> ? 2 : 1, n_states = static_cast<double>(states);
    auto const S = static_cast<double>(ssm::detail::decay_powers<Rule, T>::block_of(length));
    double const k_carry = 48 + S / 16 + static_cast<double>(length) / S;
    double const k_y = fft_convolution_bound(length, length) + n_states + 43;
    for_each_position(index_array<2>{m.x.extent(0), m.x.extent(2)}, [&](auto const& lane) {
      auto const [b, c] = lane.value;
      double kernel = 0, input = 0;
      for (index_t l = 0; l < length; ++l) {
        input += double(m.x(b, l, c)) * double(m.x(b, l, c));
        double terms = 0;
        for (index_t n = 0; n < states; ++n)
          terms += scale * double(abs(m.C(c, n))) * weight(m, c, n) * power(m, c, n, l);
        kernel += terms * terms;
      }
      for (index_t t = 0; t < length; ++t) {
        double sum = k_y * std::sqrt(kernel * input);
        for (index_t n = 0; n < states; ++n)
          sum += scale * (22 + n_states) * double(abs(m.C(c, n))) *
                 double(abs(m.initial(b, c, n))) * power(m, c, n, t + 1);
        y(b, t, c) = sum + 2 * std::abs(double(m.D(c)) * double(m.x(b, t, c)));
      }
      for (index_t n = 0; n < states; ++n) {
        double sum = double(abs(m.initial(b, c, n))) * power(m, c, n, length);
        for (index_t t = 0; t < length; ++t)
          sum += weight(m, c, n) * power(m, c, n, length - 1 - t) * std::abs(double(m.x(b, t, c)));
        carry(b, c, n) = k_carry * sum;
      }
    });
  }

 private:
  static T z(s4d_model<T> const& m, index_t c, index_t n) {
    return m.eigenvalue(c, n) * m.step_size(c);
  }
  static double weight(s4d_model<T> const& m, index_t c, index_t n) {
    return double(abs(T(Rule{}.gain(z(m, c, n)) * m.B(c, n)))) * double(m.step_size(c));
  }
  static double power(s4d_model<T> const& m, index_t c, index_t n, index_t l) {
    return std::pow(double(abs(Rule{}.decay(z(m, c, n)))), static_cast<double>(l));
  }
};

template <class Rule>
class S4dConvolution : public ::testing::Test {};
using rules = ::testing::Types<zero_order_hold, mamba_hold, bilinear, forward_euler>;
TYPED_TEST_SUITE(S4dConvolution, rules);

/// The two ways agree within the sum of their bounds, the recurrence's from 50 digits.
template <class Rule, scalar T>
void expect_both_ways() {
  for (index_t const length : {0, 1, 5, 33}) {
    auto const seed = static_cast<std::uint64_t>(1200 + length);
    auto const m = random_s4d<T>({2, length, 3, 4}, seed);
    auto y = poisoned<real_t<T>>({2, length, 3});
    auto carry = m.initial;
    s4d_convolution(parallel{2}, m.template views<Rule>(), m.x, y, carry);
    s4d_reference<Rule, T> const expected(m);
    bounds<Rule, T> const bound(m);
    EXPECT_TRUE(is_within(1, y, expected.y, bound.y)) << "seed " << seed;
    EXPECT_TRUE(is_within(1, carry, expected.final_states, bound.carry)) << "seed " << seed;

    auto scanned = poisoned<real_t<T>>({2, length, 3});
    auto scanned_carry = m.initial;
    s4d_scan(parallel{2}, m.template views<Rule>(), m.x, scanned, scanned_carry);
    auto const both = [](tensor<digits50, 3> a, tensor<digits50, 3> const& b) {
      for (index_t i = 0; i < a.size(); ++i) a.data()[i] += b.data()[i];
      return a;
    };
    EXPECT_TRUE(is_within(1, y, widened(scanned), both(bound.y, expected.y_bound)));
    EXPECT_TRUE(
        is_within(1, carry, widened(scanned_carry), both(bound.carry, expected.final_bound)));
  }
}

TYPED_TEST(S4dConvolution, IsWithinItsBoundOf50DigitsAndOfTheScan) {
  expect_both_ways<TypeParam, float>();
  expect_both_ways<TypeParam, std::complex<double>>();
}

/// Prefill by convolution, then single steps by recurrence: the whole by recurrence.
TYPED_TEST(S4dConvolution, HandsItsStateToTheRecurrence) {
  using T = std::complex<double>;
  index_t const length = 3000, prefill = 2990;
  auto const m = random_s4d<T>({1, length, 2, 8}, 1210);
  auto const system = m.template views<TypeParam>();
  auto expected = poisoned<double>({1, length, 2}), found = expected;
  auto expected_carry = m.initial, carry = m.initial;
  s4d_scan(sequential{}, system, m.x, expected, expected_carry);
  s4d_convolution(sequential{}, system, m.x.view().slice(1, 0, prefill),
                  found.view().slice(1, 0, prefill), carry);
  for (index_t t = prefill; t < length; ++t)
    s4d_scan(sequential{}, system, m.x.view().slice(1, t, 1), found.view().slice(1, t, 1), carry);
  // The scan: a step rounds by 1.62 eps and its decay is off by 4·(|z|/2 + 1.5) < 7.6 eps, of all
  // that has come so far; a drive is off by 14 eps, a readout by 1.62 and states/2.
  bounds<TypeParam, T> const convolution(m);
  double worst = 0;
  for (index_t c = 0; c < 2; ++c) {
    tensor<double, 1> terms({8}), rounding({8});
    for (index_t n = 0; n < 8; ++n) terms(n) = abs(m.initial(0, c, n));
    for (index_t t = 0; t < length; ++t) {
      double allowed = static_cast<double>(convolution.y(0, t, c));
      for (index_t n = 0; n < 8; ++n) {
        T const z = m.eigenvalue(c, n) * m.step_size(c);
        double const decay = abs(TypeParam{}.decay(z));
        double const weight = abs(T(TypeParam{}.gain(z) * m.B(c, n))) * m.step_size(c);
        terms(n) = decay * terms(n) + weight * std::abs(m.x(0, t, c));
        rounding(n) = decay * rounding(n) + terms(n);
        allowed += 2 * abs(m.C(c, n)) * (9.3 * rounding(n) + 20 * terms(n));
      }
      double const difference = std::abs(found(0, t, c) - expected(0, t, c));
      worst = std::max(worst, difference / (2.3e-16 * allowed));
    }
  }
  EXPECT_LE(worst, 1);
  std::cout << "largest difference in its bound: " << worst << '\n';
}

TEST(S4dConvolutionState, IsZeroBeforeAndNotWantedAfterWhereCarryIsEmpty) {
  using T = std::complex<double>;
  auto m = random_s4d<T>({2, 50, 3, 4}, 1220);
  for (T& h : m.initial) h = 0;
  tensor<double, 3> expected(m.x.extents()), found(m.x.extents());
  auto carry = m.initial;
  s4d_convolution(sequential{}, m.views<bilinear>(), m.x, expected, carry);
  s4d_convolution(sequential{}, m.views<bilinear>(), m.x, found);
  EXPECT_TRUE(has_same_bits(found, expected));
}

TEST(S4dConvolutionThreads, AndStridesChangeNoBitAndYMayBeX) {
  using T = std::complex<float>;
  auto const m = random_s4d<T>({2, 50, 5, 3}, 1230);
  auto const system = m.views<zero_order_hold>();
  tensor<float, 3> expected(m.x.extents());
  auto expected_carry = m.initial;
  s4d_convolution(sequential{}, system, m.x, expected, expected_carry);
  for (int const threads : {0, 2, 7}) {
    scattered const y(m.x);
    scattered const carry(m.initial);
    s4d_convolution(parallel{threads}, system, y, y, carry);
    EXPECT_TRUE(has_same_bits(materialized(y.view()), expected));
    EXPECT_TRUE(has_same_bits(materialized(carry.view()), expected_carry));
    EXPECT_EQ(y.overwritten(), 0);
  }
}

// Through y = K * x and the kernel, or back through time: the same gradients. Both are sums of
// fewer than 2·200 terms, the scan's k is 4 + 2·200 and more for complex products (scan_vjp), the
// kernel's below 100; all terms are below 10 in size here.
TEST(S4dConvolutionGradients, AreThoseOfTheScan) {
  using T = std::complex<double>;
  auto m = random_s4d<T>({2, 200, 2, 3}, 1240);
  for (T& h : m.initial) h = 0;
  for (T& h : m.final_cotangent) h = 0;
  auto system = m.views<zero_order_hold>();
  system.D = {};
  tensor<double, 3> scan_x(m.x.extents()), x(m.x.extents());
  tensor<double, 1> scan_step(m.D.extents()), step(m.D.extents());
  tensor<T, 2> scan_lambda(m.B.extents()), lambda(m.B.extents());
  tensor<T, 2> scan_B(m.B.extents()), B(m.B.extents()), scan_C(m.B.extents()), C(m.B.extents());
  s4d_scan_vjp(sequential{}, system, m.x, m.y_cotangent, m.initial, m.final_cotangent,
               {scan_step, scan_lambda, scan_B, scan_C, {}}, scan_x);

  tensor<double, 2> kernel({2, 200}), to_kernel({2, 200});
  s4d_kernel(sequential{}, system, kernel);
  fft_convolution_vjp<double>(sequential{}, kernel, m.x, m.y_cotangent, to_kernel, x);
  s4d_kernel_vjp(sequential{}, system, to_kernel, {step, lambda, B, C, {}});

  double const tolerance = 2.3e-16 * 1000 * 400 * 10;
  auto const expect = [&](char const* name, auto const& found, auto const& expected) {
    for_each_position(found.extents(), [&](auto const& position) {
      EXPECT_LE(abs(at(found.view(), position) - at(expected.view(), position)), tolerance) << name;
    });
  };
  expect("x", x, scan_x);
  expect("step_size", step, scan_step);
  expect("eigenvalue", lambda, scan_lambda);
  expect("B", B, scan_B);
  expect("C", C, scan_C);
}

TEST(S4dConvolutionErrors, WrongShapesThrowAreNamedAndNothingIsWritten) {
  using T = double;
  auto const m = random_s4d<T>({2, 5, 3, 4}, 1250);
  auto const system = m.views<bilinear>();
  auto y = poisoned<T>({2, 5, 3}), carry = poisoned<T>({2, 3, 5});
  auto const message = [&](sequence_view<T const> x, sequence_view<T> to, state_view<T> states) {
    auto const text =
        message_of<shape_error>([&] { s4d_convolution(sequential{}, system, x, to, states); });
    EXPECT_TRUE(is_poisoned(y)) << text;
    EXPECT_TRUE(is_poisoned(carry)) << text;
    return text;
  };
  EXPECT_EQ(message(m.x, y, carry),
            "s4d_convolution: carry has shape (2, 3, 5), expected (2, 3, 4) "
            "(batch, channel, state)");
  EXPECT_EQ(message(m.x, y.view().slice(1, 0, 4), {}),
            "s4d_convolution: y has shape (2, 4, 3), expected (2, 5, 3) (batch, time, channel)");
  EXPECT_EQ(message(m.x, y, carry.view().slice(2, 0, 1).select(2, 0).broadcast(2, 4)),
            "s4d_convolution: carry has stride 0 along axis 2 of extent 4, expected elements of "
            "its own at every position");
  EXPECT_EQ(message(m.x.view().slice(2, 0, 1), y, {}),
            "s4d: x has shape (2, 5, 1), expected (2, 5, 3) (batch, time, channel)");
}

}  // namespace
