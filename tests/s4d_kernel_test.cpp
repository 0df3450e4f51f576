// SPDX-License-Identifier: Apache-2.0
// s4d_kernel_test.cpp: kernels of S4D models to length 2^20, against 50 digits, and gradients.
#include "ssm/s4d_kernel.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <complex>
#include <cstdint>
#include <initializer_list>
#include <iostream>
#include <limits>

#include "support/oracle.hpp"
#include "support/random_tensor.hpp"
#include "support/s4d_model.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

/// K_l in 50 digits with powers as exponentials of logarithms, and its bound in eps: s4d_kernel's
/// and, of the gain, that of map_errors.
template <class Rule, scalar T>
struct exact_kernel {
  digits50 value = 0, bound = 0;

  exact_kernel(s4d_model<T> const& model, index_t c, index_t l) {
    using W = wide<T>;
    Rule const rule;
    auto const states = model.B.extent(1);
    double const scale = complex_scalar<T> ? 2 : 1, factor = complex_scalar<T> ? 4 : 1;
    digits50 const delta(model.step_size(c));
    for (index_t n = 0; n < states; ++n) {
      W const z = widened(model.eigenvalue(c, n)) * delta;
      W const power = exp(W(log(W(rule.decay(z))) * digits50(l)));
      W const input = widened(model.B(c, n)) * delta, C = widened(model.C(c, n));
      value += scale * real_part(W(C * rule.gain(z) * input * power));
      digits50 const gain_error =
          factor * (0.5 * magnitude(W(z * rule.gain_slope(z))) + 3 * magnitude(W(rule.gain(z))));
      bound += scale * magnitude(W(C * input * power)) *
               (gain_error + static_cast<double>(states + 19) * magnitude(W(rule.gain(z))));
      // What a power below the normal range may be off by.
      bound += scale * magnitude(W(C * rule.gain(z) * input)) *
               std::numeric_limits<real_t<T>>::min() / epsilon<T>();
    }
  }
};

/// States that last a million steps and turn by up to half a turn each.
template <class Rule, scalar T>
s4d_model<T> slow_model(index_t states, std::uint64_t seed) {
  auto m = random_s4d<T>({1, 0, 1, states}, seed);
  auto const rate = random_tensor<double>({states}, seed + 20, 1e-7, 3e-6);
  auto const angle = random_tensor<double>({states}, seed + 21, 0, 3);
  for (index_t n = 0; n < states; ++n) {
    std::complex<double> const log_decay(-rate(n), complex_scalar<T> ? angle(n) : 0);
    std::complex<double> z = log_decay;  // of a rule whose decay is e^z
    auto const decay = ssm::exp(log_decay);
    if (std::is_same_v<Rule, bilinear>) z = 2.0 * (decay - 1.0) / (decay + 1.0);
    if (std::is_same_v<Rule, forward_euler>) z = decay - 1.0;
    z /= static_cast<double>(m.step_size(0));
    if constexpr (complex_scalar<T>) {
      m.eigenvalue(0, n) = T(z);
    } else {
      m.eigenvalue(0, n) = static_cast<T>(z.real());
    }
  }
  return m;
}

template <class Rule>
class S4dKernel : public ::testing::Test {};
using rules = ::testing::Types<zero_order_hold, mamba_hold, bilinear, forward_euler>;
TYPED_TEST_SUITE(S4dKernel, rules);

/// The largest error in its bound over a few hundred l up to 2^20.
template <class Rule, scalar T>
double worst_of_a_long_kernel(std::uint64_t seed) {
  index_t const length = (index_t{1} << 20) + 1;
  auto const m = slow_model<Rule, T>(3, seed);
  tensor<real_t<T>, 2> kernel({1, length});
  s4d_kernel(parallel{2}, m.template views<Rule>(), kernel);
  double worst = 0;
  for (index_t l = 0; l < length; l = l < 5 ? l + 1 : std::min(l + l / 13 + 1, length - 1)) {
    exact_kernel<Rule, T> const exact(m, 0, l);
    digits50 const error = magnitude(digits50(digits50(kernel(0, l)) - exact.value));
    digits50 const share = error / (epsilon<T>() * exact.bound);
    EXPECT_LE(share, 1) << "l = " << l << ", seed " << seed;
    worst = std::max(worst, share.convert_to<double>());
    if (l == length - 1) break;
  }
  return worst;
}

TYPED_TEST(S4dKernel, KeepsItsDigitsToLength2To20) {
  std::cout << "largest error in its bound: float " << worst_of_a_long_kernel<TypeParam, float>(1)
            << ", double " << worst_of_a_long_kernel<TypeParam, double>(2) << ", complex float "
            << worst_of_a_long_kernel<TypeParam, std::complex<float>>(3) << ", complex double "
            << worst_of_a_long_kernel<TypeParam, std::complex<double>>(4) << '\n';
}

// The same check of the same kernel fails where a decay is multiplied by itself in T.
TYPED_TEST(S4dKernel, RepeatedMultiplicationWouldNotKeepThem) {
  using T = std::complex<float>;
  auto m = slow_model<TypeParam, T>(1, 5);
  T const z = m.eigenvalue(0, 0) * m.step_size(0), decay = TypeParam{}.decay(z);
  index_t const length = index_t{1} << 20;
  T term = m.C(0, 0) * TypeParam{}.gain(z) * m.B(0, 0) * m.step_size(0) * 2.0f;
  for (index_t l = 0; l < length; ++l) term *= decay;
  exact_kernel<TypeParam, T> const exact(m, 0, length);
  EXPECT_GT(magnitude(digits50(digits50(term.real()) - exact.value)),
            100 * epsilon<T>() * exact.bound);
}

template <class Rule, scalar T>
void expect_every_element(std::initializer_list<index_t> lengths) {
  for (index_t const length : lengths) {
    auto const seed = static_cast<std::uint64_t>(1000 + length);
    auto const m = random_s4d<T>({1, 0, 2, 3}, seed);
    auto found = poisoned<real_t<T>>({2, length});
    s4d_kernel(parallel{2}, m.template views<Rule>(), found);
    tensor<digits50, 2> expected(found.extents()), bound(found.extents());
    for_each_position(found.extents(), [&](auto const& position) {
      auto const [c, l] = position.value;
      exact_kernel<Rule, T> const exact(m, c, l);
      expected(c, l) = exact.value;
      bound(c, l) = exact.bound;
    });
    EXPECT_TRUE(is_within(1, found, expected, bound)) << "seed " << seed;
  }
}

TYPED_TEST(S4dKernel, IsWithinItsBoundOf50DigitsForEverySize) {
  expect_every_element<TypeParam, float>({0, 1, 2, 16, 300});
  expect_every_element<TypeParam, std::complex<double>>({17, 33});
}

// In 50 digits the kernel is what the scan makes of an impulse.
template <class Rule, class W>
void expect_impulse_response() {
  auto m = random_s4d<W>({1, 40, 2, 3}, 1010);
  for (auto& x : m.x) x = 0;
  for (index_t c = 0; c < 2; ++c) m.x(0, 0, c) = 1;
  auto system = m.template views<Rule>();
  system.D = {};
  tensor<digits50, 3> y(m.x.extents());
  tensor<W, 3> carry(m.initial.extents());
  tensor<digits50, 2> kernel({2, 40});
  s4d_scan(sequential{}, system, m.x, y, carry);
  auto const transposed = tensor_view<digits50, 2>(kernel.data(), {40, 2}, {1, 40});
  s4d_kernel(sequential{}, system, kernel);
  EXPECT_TRUE(is_near(materialized(transposed), materialized(y.view().select(0, 0)), "1e-46"));
}

TYPED_TEST(S4dKernel, IsTheImpulseResponseOfTheScan) {
  expect_impulse_response<TypeParam, complex50>();
}

template <scalar T>
struct gradients {
  tensor<real_t<T>, 1> step_size;
  tensor<T, 2> eigenvalue, B, C;
};

template <class Rule, scalar T>
gradients<T> run_vjp(int threads, s4d_model<T> const& m, tensor<real_t<T>, 2> const& cotangent) {
  auto const matrix = m.B.extents();
  gradients<T> to{tensor<real_t<T>, 1>(m.D.extents()), tensor<T, 2>(matrix), tensor<T, 2>(matrix),
                  tensor<T, 2>(matrix)};
  s4d_kernel_vjp(parallel{threads}, m.template views<Rule>(), cotangent,
                 {to.step_size, to.eigenvalue, to.B, to.C, {}});
  return to;
}

template <class Rule, class W>
void expect_gradients_of_differences() {
  auto m = random_s4d<W>({1, 0, 2, 2}, 1020);
  for (index_t const length : {0, 1, 18}) {
    auto const cotangent = random_tensor<digits50>({2, length}, 1021);
    auto const found = run_vjp<Rule>(1, m, cotangent);
    auto const loss = [&] {
      tensor<digits50, 2> kernel({2, length});
      s4d_kernel(sequential{}, m.template views<Rule>(), kernel);
      return inner_product(cotangent, kernel);
    };
    auto const expect = [&](char const* name, auto const& gradient, auto& variable) {
      EXPECT_TRUE(is_near(gradient, gradient_by_differences(variable, loss), "1e-27")) << name;
    };
    expect("step_size", found.step_size, m.step_size);
    expect("eigenvalue", found.eigenvalue, m.eigenvalue);
    expect("B", found.B, m.B);
    expect("C", found.C, m.C);
  }
}

TYPED_TEST(S4dKernel, EveryGradientIsThatOfDifferencesIn50Digits) {
  expect_gradients_of_differences<TypeParam, complex50>();
}

TEST(S4dKernelReal, IsTheImpulseResponseOfTheScanAndHasItsGradients) {
  expect_impulse_response<bilinear, digits50>();
  expect_gradients_of_differences<bilinear, digits50>();
}

// Σ_l k_l decay^l of slow decays: to C it is w·M with nothing else, so its error is that of M, 8
// for the weight w (as above), and a product.
TEST(S4dKernelGradient, ToCOfALongKernelIsWithinItsBound) {
  using T = std::complex<double>;
  index_t const length = 10001;
  auto const m = slow_model<bilinear, T>(2, 6);
  auto const cotangent = random_tensor<double>({1, length}, 1030);
  auto const found = run_vjp<bilinear>(2, m, cotangent);
  auto const block = ssm::detail::decay_powers<bilinear, T>::block_of(length);
  double const k = 40 + static_cast<double>(block) / 16 +
                   static_cast<double>(length) / static_cast<double>(block);
  for (index_t n = 0; n < 2; ++n) {
    digits50 const delta(m.step_size(0));
    complex50 const z = widened(m.eigenvalue(0, n)) * delta;
    complex50 const decay = bilinear{}.decay(z), w = bilinear{}.gain(z) * widened(m.B(0, n));
    complex50 moment(0), power(1);
    digits50 terms = 0;
    for (index_t l = 0; l < length; ++l, power *= decay) {
      moment += digits50(cotangent(0, l)) * power;
      terms += magnitude(cotangent(0, l)) * magnitude(power);
    }
    digits50 const slope = magnitude(complex50(z * bilinear{}.gain_slope(z) * widened(m.B(0, n))));
    EXPECT_TRUE(is_within(k, found.C(0, n), conjugate(complex50(w * moment * delta * digits50(2))),
                          2 * delta * terms * (magnitude(w) + slope)));
  }
}

TEST(S4dKernelThreads, ChangeNoBitOfKernelAndGradients) {
  using T = std::complex<float>;
  auto const m = random_s4d<T>({1, 0, 7, 3}, 1040);
  auto const cotangent = random_tensor<float>({7, 100}, 1041);
  tensor<float, 2> expected({7, 100});
  s4d_kernel(sequential{}, m.views<bilinear>(), expected);
  auto const gradient = run_vjp<bilinear>(1, m, cotangent);
  for (int const threads : {2, 5}) {
    tensor<float, 2> found({7, 100});
    s4d_kernel(parallel{threads}, m.views<bilinear>(), found);
    EXPECT_TRUE(has_same_bits(found, expected));
    auto const to = run_vjp<bilinear>(threads, m, cotangent);
    EXPECT_TRUE(has_same_bits(to.step_size, gradient.step_size));
    EXPECT_TRUE(has_same_bits(to.eigenvalue, gradient.eigenvalue));
  }
}

TEST(S4dKernelViews, StridedOnesGiveTheBitsOfContiguousOnesAndGradientsAreAdded) {
  using T = double;
  auto const m = random_s4d<T>({1, 0, 3, 2}, 1050);
  auto const cotangent = random_tensor<T>({3, 33}, 1051);
  tensor<T, 2> expected({3, 33});
  s4d_kernel(sequential{}, m.views<zero_order_hold>(), expected);
  scattered const kernel(expected);
  s4d_kernel(sequential{}, m.views<zero_order_hold>(), kernel);
  EXPECT_TRUE(has_same_bits(materialized(kernel.view()), expected));
  EXPECT_EQ(kernel.overwritten(), 0);

  auto const once = run_vjp<zero_order_hold>(1, m, cotangent);
  tensor<T, 1> shared({1}, T(2));  // one step size for all channels
  s4d_kernel_vjp(parallel{2}, m.views<zero_order_hold>(), cotangent,
                 {tensor_view<T, 1>(shared.data(), {3}, {0}), {}, {}, {}, {}});
  T sum = 2;
  for (index_t c = 0; c < 3; ++c) sum += once.step_size(c);
  EXPECT_NEAR(shared(0), sum, 1e-13);
}

TEST(S4dKernelErrors, WrongShapesThrowAreNamedAndNothingIsWritten) {
  using T = double;
  auto const m = random_s4d<T>({1, 0, 3, 2}, 1060);
  auto kernel = poisoned<T>({2, 9}), matrix = poisoned<T>({3, 2}), wrong = poisoned<T>({2, 3});
  EXPECT_EQ(message_of<shape_error>([&] { s4d_kernel(sequential{}, m.views<bilinear>(), kernel); }),
            "s4d_kernel: kernel has shape (2, 9), expected (3, 9) (channel, length)");
  EXPECT_EQ(message_of<shape_error>([&] {
              s4d_kernel_vjp(sequential{}, m.views<bilinear>(), kernel, {{}, matrix, {}, {}, {}});
            }),
            "s4d_kernel_vjp: kernel_cotangent has shape (2, 9), expected (3, 9) (channel, length)");
  EXPECT_EQ(message_of<shape_error>([&] {
              s4d_kernel_vjp(sequential{}, m.views<bilinear>(), random_tensor<T>({3, 9}, 1),
                             {{}, matrix, wrong, {}, {}});
            }),
            "s4d: gradient.B has shape (2, 3), expected (3, 2) (channel, state)");
  EXPECT_TRUE(is_poisoned(kernel));
  EXPECT_TRUE(is_poisoned(matrix));
}

}  // namespace
