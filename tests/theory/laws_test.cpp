// SPDX-License-Identifier: Apache-2.0
// laws_test.cpp: what holds for every law of decays.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "closed_forms/beta.hpp"
#include "closed_forms/law.hpp"
#include "closed_forms/spectra.hpp"
#include "support/oracle.hpp"

namespace {

using namespace ssm;
using namespace ssm::theory;
using ssm::test::digits50, ssm::test::is_within, ssm::test::message_of;

using decay = pole<double>;

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
