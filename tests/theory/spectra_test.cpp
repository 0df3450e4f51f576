// SPDX-License-Identifier: Apache-2.0
// spectra_test.cpp: laws of decays against their densities in 50 digits, and against each other.
#include "closed_forms/spectra.hpp"

#include <gtest/gtest.h>

#include <boost/math/quadrature/tanh_sinh.hpp>
#include <boost/math/special_functions/digamma.hpp>
#include <boost/math/special_functions/expint.hpp>
#include <cmath>
#include <tuple>
#include <vector>

#include "closed_forms/beta.hpp"
#include "closed_forms/law.hpp"
#include "support/oracle.hpp"

namespace {

using namespace ssm;
using namespace ssm::theory;
using ssm::test::digits50, ssm::test::is_within, ssm::test::message_of;

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

/// One law of every kind, easy and hard; those with a stationary state up to the third moment.
auto stationary_laws() {
  return std::tuple{
      point_law<double>{decay{}},
      point_law<double>{decay::below_one(1e-9)},
      uniform(0, 0.5),
      uniform(0.9, 0.999),
      uniform_up_to(0, 1e-9),
      uniform(1e-20, 0.9),
      uniform(0.3, 0.3),
      uniform(0.5, 0.5 + 1e-14),
      log_uniform_law<double>::of_rates(1e-3, 16e-3),
      log_uniform_law<double>::of_rates(0.1, 40),
      log_uniform_law<double>::of_rates(0.2, 0.2),
      beta_law<double>::of(5, 3.2),
      beta_law<double>::of(0.4, 7),
      s4d_real_law<double>::of(16, 0.01),
      ring_law<double>::between(decay::at(0), decay::at(0.9)),
      ring_law<double>::between(decay::at(0.9), decay::below_one(1e-6)),
  };
}

template <class F>
void for_each_law(F const& f) {
  std::apply([&](auto const&... laws) { (f(laws), ...); }, stationary_laws());
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

TEST(Laws, StateGainAndRemainderAddUpToTheStationaryGain) {
  for_each_law([](auto const& law) {
    double const whole = mean_stationary_gain(law);
    for (index_t const t : {0, 1, 2, 3, 17, 1024, 100000}) {
      double const sum = mean_state_gain(law, t) + remaining_gain(law, t);
      EXPECT_NEAR(sum / whole, 1, 2e-14) << typeid(law).name() << " " << t;
    }
  });
}

TEST(Laws, StateGainIsTheSumOfMoments) {
  for_each_law([]<class Law>(Law const& law) {
    double sum = 0;
    for (index_t t = 0; t <= 100; ++t) {
      EXPECT_NEAR(mean_state_gain(law, t), sum, 1e-14 * sum) << typeid(law).name() << " " << t;
      if constexpr (real_spectral_law<Law>) {
        sum += law.moment(2 * static_cast<double>(t));
      } else {  // E|λ|^2k = (b^(2k+2) - a^(2k+2))/((k+1)(b²-a²))
        sum +=
            uniform_law<digits50>::between(pole<digits50>::at(pow(digits50(law.low.value), 2)),
                                           pole<digits50>::at(pow(digits50(1) - law.high.gap, 2)))
                .moment(digits50(t))
                .template convert_to<double>();
      }
    }
  });
}

TEST(Laws, MomentsEqualTheirMeans) {
  for_each_law([]<class Law>(Law const& law) {
    if constexpr (real_spectral_law<Law>) {
      for (double const k : {0.0, 0.5, 1.0, 7.0, 300.0}) {
        double const mean = law.mean([&](auto const& p) { return std::pow(p.value, k); });
        EXPECT_NEAR(law.moment(k), mean, 2e-13 * mean + 1e-300) << typeid(law).name() << " " << k;
      }
    }
  });
}

TEST(Laws, GainMomentsEqualTheirMeans) {
  for_each_law([](auto const& law) {
    for (int n = 1; n <= 3; ++n) {
      double const mean = law.mean([&](auto const& p) { return power(stationary_gain(p), n); });
      double const found = gain_moment(law, n);
      EXPECT_NEAR(found, mean, 1e-12 * found) << typeid(law).name() << " " << n;
    }
  });
}

TEST(Laws, FiniteCrossGainEqualsTheNestedMeanAndTendsToTheStationary) {
  for_each_law([]<class Law>(Law const& law) {
    if constexpr (real_spectral_law<Law>) {
      for (index_t const t : {1, 2, 40}) {
        double const nested = law.mean([&](auto const& p) {
          return law.mean([&](auto const& q) {
            double const product = p.value * q.value;
            return power(geometric_sum(decay{product, one_minus_product(p, q)}, t), 2);
          });
        });
        EXPECT_NEAR(square_cross_gain(law, t) / nested, 1, 1e-13) << typeid(law).name() << " " << t;
      }
      EXPECT_LT(square_cross_gain(law, 40), square_cross_gain(law) * (1 + 1e-12));
    }
  });
  for (auto const& law : {uniform(0, 0.9), uniform(0.5, 0.6)}) {
    EXPECT_NEAR(square_cross_gain(law, 400) / square_cross_gain(law), 1, 1e-13);
  }
  auto const beta = beta_law<double>::of(0.4, 12);
  EXPECT_NEAR(square_cross_gain(beta, 1000) / square_cross_gain(beta), 1, 1e-13);
  auto const mamba = s4d_real_law<double>::of(16, 0.05);
  EXPECT_NEAR(square_cross_gain(mamba, 1000) / square_cross_gain(mamba), 1, 1e-13);
  auto const heads = log_uniform_law<double>::of_rates(0.1, 40);
  EXPECT_NEAR(square_cross_gain(heads, 400) / square_cross_gain(heads), 1, 1e-13);
}

TEST(Laws, ConstantGainIsTheSquareOfAGeometricSum) {
  for_each_law([]<class Law>(Law const& law) {
    if constexpr (real_spectral_law<Law>) {
      for (index_t const t : {1, 2, 30}) {
        double const sum =
            square_of_geometric_sum<double>(t, [&](double s) { return law.moment(s); });
        EXPECT_NEAR(constant_gain(law, t) / sum, 1, 1e-13) << typeid(law).name() << " " << t;
      }
      double const mean = law.mean([](auto const& p) { return 1 / (p.gap * p.gap); });
      EXPECT_NEAR(constant_gain(law) / mean, 1, 1e-12) << typeid(law).name();
    }
  });
}

TEST(Laws, SamplesAreDecaysInOrderWithTheMeanOfTheLaw) {
  for_each_law([]<class Law>(Law const& law) {
    int const n = 20000;
    double sum = 0, before = 2;
    for (int i = 0; i < n; ++i) {
      auto const p = law.sample((i + 0.5) / n);
      EXPECT_NEAR(p.value + p.gap, 1, 3e-16);
      EXPECT_LE(p.value, before);
      before = p.value;
      sum += p.value;
    }
    double const mean = law.mean([](auto const& p) { return p.value; });
    EXPECT_NEAR(sum / n, mean, 1e-4) << typeid(law).name();
  });
}

TEST(Laws, SamplesKeepTheGapsOfSlowModes) {
  EXPECT_DOUBLE_EQ(uniform(0, 1).sample(1e-20).gap, 1e-20);
  EXPECT_DOUBLE_EQ(uniform_up_to(0, 1e-20).sample(1e-20).gap, 2e-20);
  EXPECT_DOUBLE_EQ(log_uniform_law<double>::of_rates(0, 1).sample(1e-20).gap, 1e-20);
  EXPECT_NEAR(beta_law<double>::of(1, 2).sample(1e-20).gap, 1e-10, 1e-23);
  auto const ring = ring_law<double>::between(decay{}, decay::at(1));
  EXPECT_DOUBLE_EQ(ring.sample(1e-20).gap, 0.5e-20);
}

TEST(Laws, GrowthLiesBetweenOneAndTheRatioOfTheTimes) {
  for_each_law([](auto const& law) {
    double const growth = energy_growth(law, 100, 1600);
    EXPECT_GE(growth, 1 - 1e-15);
    EXPECT_LE(growth, 16);
  });
  EXPECT_NEAR(energy_growth(uniform(0, 1), 2048, 65536), 1.3615, 5e-5);
  EXPECT_NEAR(energy_growth(uniform(0, 1 - 1e-4), 2048, 65536), 1.0745, 5e-5);
  EXPECT_NEAR(energy_growth(beta_law<double>::of(2, 1.5), 2048, 65536), 1.0154, 5e-5);
  EXPECT_NEAR(energy_growth(beta_law<double>::of(8, 1.1), 2048, 65536), 1.329, 5e-4);
  EXPECT_NEAR(energy_growth(beta_law<double>::of(2, 0.5), 2048, 65536), 5.724, 5e-4);
  point_law<double> const slow{decay::with_rate(1.0 / 16000)};
  EXPECT_NEAR(energy_growth(slow, 2048, 65536), 4.426, 5e-4);
}

TEST(Laws, WhatDivergesIsRefused) {
  auto const text = [](auto const& call) { return message_of<domain_error>(call); };
  EXPECT_EQ(text([] { gain_moment(beta_law<double>::of(2, 1.5), 2); }),
            "gain_moment: the tail index is 1.5, expected more than 2: decays so near 1 make the "
            "mean infinite");
  EXPECT_NE(text([] { square_cross_gain(uniform(0, 1)); }).find("square_cross_gain: the tail"),
            std::string::npos);
  EXPECT_NE(text([] { remaining_gain(uniform(0, 1), 5); }).find("remaining_gain: the tail"),
            std::string::npos);
  EXPECT_NE(text([] { constant_gain(beta_law<double>::of(1, 2)); }).find("constant_gain: the tail"),
            std::string::npos);
  EXPECT_NE(text([] { mean_stationary_gain(point_law<double>{decay::at(1)}); }).find("index is 0"),
            std::string::npos);
  EXPECT_NE(text([] {
              mean_stationary_gain(log_uniform_law<double>::of_rates(0, 1));
            }).find("index is 1,"),
            std::string::npos);
  EXPECT_EQ(text([] { uniform(0.5, 0.25); }),
            "uniform_law: the decays go from 0.5 to 0.25, expected low <= high");
  EXPECT_EQ(text([] { log_uniform_law<double>::of_rates(-1, 1); }),
            "log_uniform_law: the rates go from -1 to 1, expected 0 <= slow <= fast");
  EXPECT_EQ(text([] { beta_law<double>::of(0, 1); }),
            "beta_law: the parameters are 0 and 1, expected both > 0");
  EXPECT_EQ(text([] { s4d_real_law<double>::of(0, 1); }),
            "s4d_real_law: 0 states at step size 1, expected at least one and 0 or more");
  EXPECT_EQ(text([] { energy_growth(uniform(0, 0.5), 3, 2); }),
            "energy_growth: from 3 to 2 steps, expected 0 < shorter <= longer");
}

}  // namespace
