// SPDX-License-Identifier: Apache-2.0
// discretize_test.cpp: rules against their definitions, and their slopes.
#include "ssm/discretize.hpp"

#include <gtest/gtest.h>

#include <complex>
#include <cstdint>
#include <string>
#include <vector>

#include "support/oracle.hpp"
#include "support/random_tensor.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

/// decay, gain and their slopes as the textbook has them, for z that is not 0.
struct definition {
  template <class W>
  static W decay(zero_order_hold, W const& z) {
    return exp(z);
  }
  template <class W>
  static W gain(zero_order_hold, W const& z) {
    return (exp(z) - W(1)) / z;
  }
  template <class W>
  static W decay(mamba_hold, W const& z) {
    return exp(z);
  }
  template <class W>
  static W gain(mamba_hold, W const&) {
    return W(1);
  }
  template <class W>
  static W decay(bilinear, W const& z) {
    return (W(2) + z) / (W(2) - z);
  }
  template <class W>
  static W gain(bilinear, W const& z) {
    return W(2) / (W(2) - z);
  }
  template <class W>
  static W decay(forward_euler, W const& z) {
    return W(1) + z;
  }
  template <class W>
  static W gain(forward_euler, W const&) {
    return W(1);
  }
};

/// z = Δλ of the sizes that models have, from 1e-10 to 10, in the left half plane or near it.
template <scalar T>
std::vector<T> arguments() {
  std::vector<T> zs;
  auto const numbers = random_tensor<T>({200}, 31);
  for (index_t i = 0; i < numbers.size(); ++i) {
    double const size = std::pow(10.0, 1 - static_cast<double>(i % 12));
    T z = numbers(i) * static_cast<real_t<T>>(size);
    if (real_part(z) > real_t<T>(1)) z = -z;
    zs.push_back(z);
  }
  return zs;
}

template <class W>
W central_difference(auto const& function, W const& z) {
  digits50 const step("1e-16");
  W const difference = function(W(z + W(step))) - function(W(z - W(step)));
  return difference / W(2 * step);
}

template <class Rule>
class Rules : public ::testing::Test {};
using rules = ::testing::Types<zero_order_hold, mamba_hold, bilinear, forward_euler>;
TYPED_TEST_SUITE(Rules, rules);

template <class Rule, class W>
void expect_definition_in_50_digits() {
  Rule const rule;
  for (auto const& in_double :
       arguments<std::conditional_t<complex_scalar<W>, std::complex<double>, double>>()) {
    W const z = widened(in_double);
    // The textbook's (e^z - 1)/z cancels as many digits as z has zeros: 11 at most.
    digits50 const tolerance("1e-37");
    EXPECT_LT(magnitude(W(rule.decay(z) - definition::decay(rule, z))), tolerance) << z;
    EXPECT_LT(magnitude(W(rule.gain(z) - definition::gain(rule, z))), tolerance) << z;
  }
}

TYPED_TEST(Rules, DecayAndGainAreTheTextbooksForRealAndComplexArguments) {
  expect_definition_in_50_digits<TypeParam, digits50>();
  expect_definition_in_50_digits<TypeParam, complex50>();
}

template <class Rule, class W>
void expect_slopes_of_differences() {
  Rule const rule;
  for (auto const& in_double :
       arguments<std::conditional_t<complex_scalar<W>, std::complex<double>, double>>()) {
    W const z = widened(in_double);
    // Half the step squared times a third derivative that is at most 1e6 e^1, and 1e-50 / step.
    digits50 const tolerance("1e-26");
    W const decay = central_difference<W>([&](W const& at) { return rule.decay(at); }, z);
    W const gain = central_difference<W>([&](W const& at) { return rule.gain(at); }, z);
    EXPECT_LT(magnitude(W(rule.decay_slope(z) - decay)), tolerance) << "decay_slope at " << z;
    EXPECT_LT(magnitude(W(rule.gain_slope(z) - gain)), tolerance) << "gain_slope at " << z;
  }
}

TYPED_TEST(Rules, SlopesAreThoseOfDifferencesIn50Digits) {
  expect_slopes_of_differences<TypeParam, digits50>();
  expect_slopes_of_differences<TypeParam, complex50>();
}

/// One rounding, or one error of the elementary function, for each operation: the worst rule has
/// four of them. A complex quotient or product counts for three.
template <class Rule, class T>
void expect_working_precision(double k) {
  Rule const rule;
  for (T const& z : arguments<T>()) {
    wide<T> const w = widened(z);
    auto const expect = [&](char const* name, T const& found, wide<T> const& exact,
                            digits50 const& size) {
      EXPECT_TRUE(is_within(k, found, exact, size)) << name << " at " << z;
    };
    // 1 + z loses digits where it is small beside its terms.
    digits50 const decay_size = magnitude(rule.decay(w)) + magnitude(T(z * rule.decay_slope(z)));
    expect("decay", rule.decay(z), rule.decay(w), decay_size);
    expect("gain", rule.gain(z), rule.gain(w), magnitude(rule.gain(w)));
    expect("decay_slope", rule.decay_slope(z), rule.decay_slope(w), magnitude(rule.decay_slope(w)));
    expect("gain_slope", rule.gain_slope(z), rule.gain_slope(w), magnitude(rule.gain_slope(w)));
  }
}

TYPED_TEST(Rules, WorkingPrecisionIsWithinOneRoundingForEachOperation) {
  expect_working_precision<TypeParam, float>(4);
  expect_working_precision<TypeParam, double>(4);
  expect_working_precision<TypeParam, std::complex<float>>(12);
  expect_working_precision<TypeParam, std::complex<double>>(12);
}

TYPED_TEST(Rules, StepOfSizeZeroHoldsTheStateExactly) {
  auto const numbers = random_tensor<double>({20, 4}, 33);
  for (index_t i = 0; i < 20; ++i) {
    auto const step = discretize(TypeParam{}, 0.0, numbers(i, 0), numbers(i, 1), numbers(i, 2));
    EXPECT_EQ(step(numbers(i, 3)), numbers(i, 3));
  }
}

TYPED_TEST(Rules, AreRulesForEveryScalarAndOccupyNothing) {
  EXPECT_TRUE((discretization_rule<TypeParam, float>));
  EXPECT_TRUE((discretization_rule<TypeParam, long double>));
  EXPECT_TRUE((discretization_rule<TypeParam, std::complex<float>>));
  EXPECT_TRUE((discretization_rule<TypeParam, digits50>));
  EXPECT_TRUE((discretization_rule<TypeParam, complex50>));
  EXPECT_TRUE(std::is_empty_v<TypeParam>);
}

TEST(Rules, StableRulesDecayInTheLeftHalfPlaneAndEulerGrowsBeyondItsCircle) {
  for (auto z : arguments<std::complex<double>>()) {
    if (z.real() > 0) z = -z;
    EXPECT_LE(std::abs(zero_order_hold{}.decay(z)), 1) << z;
    EXPECT_LE(std::abs(bilinear{}.decay(z)), 1 + 1e-15) << z;
  }
  EXPECT_GT(std::abs(forward_euler{}.decay(-2.5)), 1);
}

/// The loss Re(conj(adjoint) · h) of one step from `before`, as a function of its inputs.
template <class Rule, class W>
struct one_step {
  digits50 step_size, x;
  W eigenvalue, B, before, adjoint;

  digits50 loss() const {
    W const h = discretize(Rule{}, step_size, eigenvalue, B, x)(before);
    return real_part(W(conjugate(adjoint) * h));
  }
  /// ∂loss/∂Re + i ∂loss/∂Im of one member.
  template <class M>
  M difference(M one_step::*member) const {
    auto const along = [&](M const& direction) {
      digits50 const step("1e-16");
      one_step up = *this, down = *this;
      up.*member += direction * step;
      down.*member -= direction * step;
      return digits50((up.loss() - down.loss()) / (2 * step));
    };
    if constexpr (complex_scalar<M>) {
      return {along(M(1)), along(M(0, 1))};
    } else {
      return along(M(1));
    }
  }
};

template <class Rule, class W>
void expect_step_gradient() {
  for (std::uint64_t seed = 1; seed <= 25; ++seed) {
    auto const real = widened(random_tensor<double>({2}, seed, 0.1, 1));
    auto const z =
        random_tensor<std::conditional_t<complex_scalar<W>, std::complex<double>, double>>(
            {4}, seed + 100, -1.5, 0.5);
    one_step<Rule, W> const step{real(0),       real(1),       widened(z(0)),
                                 widened(z(1)), widened(z(2)), widened(z(3))};
    step_gradient<W> const found = discretize_vjp(Rule{}, step.step_size, step.eigenvalue, step.B,
                                                  step.x, step.before, step.adjoint);
    using M = one_step<Rule, W>;
    digits50 const tolerance("1e-28");
    EXPECT_LT(magnitude(digits50(found.step_size - step.difference(&M::step_size))), tolerance)
        << "step_size, seed " << seed;
    EXPECT_LT(magnitude(W(found.eigenvalue - step.difference(&M::eigenvalue))), tolerance)
        << "eigenvalue, seed " << seed;
    EXPECT_LT(magnitude(W(found.B - step.difference(&M::B))), tolerance) << "B, seed " << seed;
    EXPECT_LT(magnitude(digits50(found.x - step.difference(&M::x))), tolerance)
        << "x, seed " << seed;
  }
}

TYPED_TEST(Rules, GradientOfAStepIsThatOfDifferencesIn50Digits) {
  expect_step_gradient<TypeParam, digits50>();
  expect_step_gradient<TypeParam, complex50>();
}

}  // namespace
