// SPDX-License-Identifier: Apache-2.0
// spectra_test.cpp: laws of decays against their densities in 50 digits.
#include "closed_forms/spectra.hpp"

#include <gtest/gtest.h>

#include <array>
#include <boost/math/quadrature/tanh_sinh.hpp>
#include <boost/math/special_functions/digamma.hpp>
#include <boost/math/special_functions/expint.hpp>
#include <cmath>
#include <vector>

#include "closed_forms/beta.hpp"
#include "closed_forms/law.hpp"
#include "support/oracle.hpp"

namespace {

using namespace ssm;
using namespace ssm::theory;
using ssm::test::digits50, ssm::test::is_within;

using decay = pole<double>;

::testing::AssertionResult is_near(double found, digits50 const& expected, double eps) {
  return is_within(eps, found, expected, digits50(abs(expected)));
}

uniform_law<double> uniform(double a, double b) {
  return uniform_law<double>::between(decay::at(a), decay::at(b));
}
uniform_law<double> uniform_up_to(double a, double gap) {
  return uniform_law<double>::between(decay::at(a), decay::below_one(gap));
}

/// ∫ f from low to high in 50 digits, by another rule than the laws use.
template <class F>
digits50 integral50(F const& f, digits50 const& low, digits50 const& high) {
  static boost::math::quadrature::tanh_sinh<digits50> rule;
  digits50 const width = high - low;
  auto const over_unit = [&](digits50 const& s) { return digits50(f(digits50(low + s * width))); };
  return width * rule.integrate(over_unit, digits50(0), digits50(1), digits50(1e-24));
}

// dλ/(1 - λ²) = du for λ = tanh u: the means of (1 - λ²)^-n are those of cosh^2n u du.
TEST(Uniform, GainMomentsEqualQuadratureOverTheDensity) {
  for (auto const& [a, gap] : std::vector<std::array<double, 2>>{
           {0, 0.999}, {0, 0.5}, {0.25, 0.1}, {0.9, 1e-3}, {0, 1e-6}, {0.5, 1e-12}}) {
    auto const law = uniform_up_to(a, gap);
    digits50 const A(a), B(1 - digits50(gap));
    for (int n = 1; n <= 4; ++n) {
      digits50 const expected =
          integral50([&](digits50 const& u) { return pow(cosh(u), 2 * n - 2); }, atanh(A),
                     atanh(B)) /
          (B - A);
      EXPECT_TRUE(is_near(gain_moment(law, n), expected, n < 4 ? 8 : 64))
          << a << " " << gap << " " << n;
    }
  }
}

TEST(Uniform, CrossGainEqualsQuadratureOverTheDensity) {
  for (auto const& [a, gap] :
       std::vector<std::array<double, 2>>{{0, 0.5}, {0.9, 1e-3}, {0, 1e-6}, {0.5, 1e-12}}) {
    digits50 const A(a), B(1 - digits50(gap));
    // ∫ (1 - λλ')^-2 dλ' = (b - a)/((1 - λa)(1 - λb))
    digits50 const expected = integral50(
                                  [&](digits50 const& u) {
                                    digits50 const x = tanh(u);
                                    return (1 - x * x) / ((1 - x * A) * (1 - x * B));
                                  },
                                  atanh(A), atanh(B)) /
                              (B - A);
    EXPECT_TRUE(is_near(square_cross_gain(uniform_up_to(a, gap)), expected, 8)) << a << " " << gap;
  }
}

TEST(Uniform, NarrowLawIsAPoint) {
  for (double const value : {0.0, 0.3, 0.5, 0.999, 1 - 1e-9}) {
    point_law<double> const point{decay::at(value)};
    for (double const width : {0.0, 1e-300, 1e-17, 1e-14}) {
      auto const law = uniform(value, value + width);
      for (int n = 1; n <= 3; ++n) {
        EXPECT_NEAR(gain_moment(law, n) / gain_moment(point, n), 1,
                    2e-15 + n * 2 * law.width() / law.high.gap);
      }
      EXPECT_NEAR(square_cross_gain(law) / square_cross_gain(point), 1,
                  2e-15 + 4 * law.width() / law.high.gap);
      EXPECT_NEAR(mean_state_gain(law, 9) / mean_state_gain(point, 9), 1, 2e-15 + 16 * law.width());
      EXPECT_NEAR(law.moment(5), point.moment(5), 2e-15 + 5 * law.width());
    }
  }
}

TEST(Uniform, StateGainUpToOneIsADigammaAndGrowsLogarithmically) {
  auto const law = uniform(0, 1);
  for (index_t const t : {1, 2, 3, 17, 2048, 1 << 20}) {
    double const exact =
        (boost::math::digamma(static_cast<double>(t) + 0.5) - boost::math::digamma(0.5)) / 2;
    EXPECT_NEAR(mean_state_gain(law, t), exact, 2e-15 * exact) << t;
  }
}

TEST(Uniform, RemainingGainKeepsItsDigitsWhereTheDifferenceHasNone) {
  struct sample {
    double b;
    int steps;
  };
  for (auto const& at : {sample{0.9, 300}, sample{0.999, 40000}}) {
    digits50 const b(at.b);
    int const twice = 2 * at.steps;
    // λ = b e^(-s/2t)
    auto const integrand = [&](digits50 const& s) {
      digits50 const x = b * exp(digits50(-s / twice));
      return digits50(pow(x, twice) / (1 - x * x) * x / twice);
    };
    digits50 const expected = integral50(integrand, 0, 120) / b;
    EXPECT_LT(expected, 1e-27);
    EXPECT_TRUE(is_near(remaining_gain(uniform(0, at.b), at.steps), expected, 400)) << at.b;
  }
}

// The part of the law that still remembers may be as thin as 1/t.
TEST(Uniform, RemainingGainSeesTheThinnestLayer) {
  for (double const gap : {1e-6, 1e-12, 1e-15}) {
    auto const law = uniform_up_to(0, gap);
    auto const steps = static_cast<index_t>(3 / gap);
    // R_t = (E1(2tu) + O(u))/2, u = -log b
    double const rate = -log_decay(law.high);
    double const expected = boost::math::expint(1, 2 * static_cast<double>(steps) * rate) / 2;
    EXPECT_NEAR(remaining_gain(law, steps) / expected, 1, 1e-12 + 3 * gap) << gap;
  }
}

TEST(LogUniform, MeansEqualQuadratureOverTheRate) {
  for (auto const& [slow, fast] : std::vector<std::array<double, 2>>{
           {1e-3, 16e-3}, {0.5, 30}, {1e-9, 1.6e-8}, {0.1, 0.1001}}) {
    auto const law = log_uniform_law<double>::of_rates(slow, fast);
    digits50 const low(slow), high(fast);
    for (int n = 1; n <= 3; ++n) {
      digits50 const expected =
          integral50([&](digits50 const& r) { return pow(-expm1(-2 * r), -n); }, low, high) /
          (high - low);
      EXPECT_TRUE(is_near(gain_moment(law, n), expected, 16)) << slow << " " << fast << " " << n;
    }
    // E over the second rate: ∫ (1 - e^-(r+s))^-2 ds is log expm1(x) - 1/expm1(x) at x = r + s
    auto const inner = [](digits50 const& x) { return digits50(log(expm1(x)) - 1 / expm1(x)); };
    digits50 const expected =
        integral50([&](digits50 const& r) { return inner(r + high) - inner(r + low); }, low, high) /
        ((high - low) * (high - low));
    EXPECT_TRUE(is_near(square_cross_gain(law), expected, 16)) << slow << " " << fast;
  }
}

TEST(Beta, MeansEqualQuadratureOverTheDensity) {
  for (auto const& [alpha, beta] :
       std::vector<std::array<double, 2>>{{1, 4}, {5, 3.5}, {0.5, 6.25}, {40, 9}}) {
    auto const law = beta_law<double>::of(alpha, beta);
    digits50 const p(alpha), q(beta), whole = boost::math::beta(p, q);
    for (int n = 1; n <= 3; ++n) {
      digits50 const expected = integral50(
                                    [&](digits50 const& x) {
                                      return pow(x, p - 1) * pow(1 - x, q - 1 - n) * pow(1 + x, -n);
                                    },
                                    0, 1) /
                                whole;
      EXPECT_TRUE(is_near(gain_moment(law, n), expected, 60)) << alpha << " " << beta << " " << n;
    }
    digits50 const constant = (p + q - 1) * (p + q - 2) / ((q - 1) * (q - 2));
    EXPECT_TRUE(is_near(constant_gain(law), constant, 8));
    EXPECT_TRUE(is_near(law.mean([](auto const& d) { return 1 / (d.gap * d.gap); }), constant, 60));
  }
}

TEST(Beta, GainJustAboveTheDivergenceIsItsResidue) {
  for (double const excess : {1e-3, 1e-6, 1e-12}) {
    auto const law = beta_law<double>::of(5, 1 + excess);
    EXPECT_NEAR(mean_stationary_gain(law) * 2 * (law.beta - 1) / 5, 1, 2 * excess + 1e-15);
  }
}

TEST(Beta, MeansOfAlmostSingularDensitiesAreExact) {
  for (double const alpha : {0.1, 1.0, 30.0}) {
    for (double const beta : {0.1, 0.7, 1.1, 30.0}) {
      auto const law = beta_law<double>::of(alpha, beta);
      EXPECT_NEAR(law.mean([](auto const&) { return 1.0; }), 1, 2e-14) << alpha << " " << beta;
      EXPECT_NEAR(law.mean([](auto const& p) { return p.gap; }) * (alpha + beta) / beta, 1, 2e-14);
      if (beta > 1) {
        EXPECT_NEAR(
            law.mean([](auto const& p) { return 1 / p.gap; }) * (beta - 1) / (alpha + beta - 1), 1,
            2e-14)
            << alpha << " " << beta;
      }
    }
  }
}

TEST(Beta, RelaxesAlgebraically) {
  auto const law = beta_law<double>::of(2, 1.5);
  // R_t ~ Γ(α+β)/(2 Γ(α)(β-1)) (2t)^(1-β)
  double const t = 1e8;
  double const expected = std::tgamma(3.5) / std::tgamma(2.0) / std::sqrt(2 * t);
  EXPECT_NEAR(remaining_gain(law, 100000000) / expected, 1, 1e-7);
}

}  // namespace
