// SPDX-License-Identifier: Apache-2.0
// adam_test.cpp: Adam and AdamW against their formulas written down once more, and their gradient
// against differences and against what SPSA estimates.
#include "ssm/optimize/adam.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "ssm/optimize/spsa.hpp"

namespace ssm::optimize {
namespace {

using factors = std::vector<double>;

/// A loss whose third derivatives are not 0: Σ_i e^{x_i} - i x_i + x_i x_{i+1}/4.
double loss(std::span<double const> x, std::span<double> gradient) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    auto const slope = static_cast<double>(i + 1);
    sum += std::exp(x[i]) - slope * x[i];
    gradient[i] = std::exp(x[i]) - slope;
  }
  for (std::size_t i = 0; i + 1 < x.size(); ++i) {
    sum += x[i] * x[i + 1] / 4;
    gradient[i] += x[i + 1] / 4;
    gradient[i + 1] += x[i] / 4;
  }
  return sum;
}

double value(std::span<double const> x) {
  factors unused(x.size());
  return loss(x, unused);
}

TEST(Adam, GradientAgreesWithDifferences) {
  factors const x{0.3, 1.1, -0.4};
  factors gradient(3);
  loss(x, gradient);
  double const h = 1e-5;
  for (std::size_t i = 0; i < 3; ++i) {
    factors up = x, down = x;
    up[i] += h;
    down[i] -= h;
    // h²/6 of the third derivative e^x < 3.1, and losses below 8 that round by 8 eps each
    double const tolerance = 3.1 * h * h / 6 + 8 * 8 * 0x1p-52 / h;
    EXPECT_NEAR((value(up) - value(down)) / (2 * h), gradient[i], tolerance) << i;
  }
}

// Over all directions SPSA's estimate has the mean ∇L + c²/6 (T_iii + 3 Σ T_ijj) + O(c⁴); here only
// T_iii = e^x is not 0, and the next term is c⁴/120 e^x.
TEST(Adam, GradientIsWhatSpsaEstimatesOnAverage) {
  factors const x{0.3, 1.1, -0.4};
  factors gradient(3), mean(3);
  loss(x, gradient);
  double const c = 0.1;
  for (int bits = 0; bits < 8; ++bits) {
    perturbed_pair pair{x, x};
    for (std::size_t i = 0; i < 3; ++i) {
      double const shift = (bits >> i & 1) != 0 ? c : -c;
      pair.plus[i] += shift;
      pair.minus[i] -= shift;
    }
    pair.add_gradient(value(pair.plus) - value(pair.minus), 1.0 / 8, mean);
  }
  for (std::size_t i = 0; i < 3; ++i) {
    double const bias = c * c / 6 * std::exp(x[i]);
    EXPECT_NEAR(mean[i] - gradient[i], bias, c * c * c * c / 120 * 1.01 * std::exp(x[i]) + 1e-13);
  }
}

/// The formulas of the papers, element by element, as torch writes them.
factors reference(factors x, adam_settings const& s) {
  factors m(x.size()), v(x.size()), g(x.size());
  for (int t = 1; t <= s.iterations; ++t) {
    loss(x, g);
    double const norm = std::sqrt(std::inner_product(g.begin(), g.end(), g.begin(), 0.0));
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (norm > s.largest_gradient) g[i] *= s.largest_gradient / norm;
      if (s.is_decoupled) {
        x[i] *= 1 - s.rate * s.weight_decay;
      } else {
        g[i] += s.weight_decay * x[i];
      }
      m[i] = s.mean_decay * m[i] + (1 - s.mean_decay) * g[i];
      v[i] = s.square_decay * v[i] + (1 - s.square_decay) * g[i] * g[i];
      double const m_hat = m[i] / (1 - std::pow(s.mean_decay, t));
      double const v_hat = v[i] / (1 - std::pow(s.square_decay, t));
      x[i] = std::max(x[i] - s.rate * m_hat / (std::sqrt(v_hat) + s.epsilon), s.domain.low);
    }
  }
  return x;
}

TEST(Adam, IsTheAlgorithmOfThePaperWithClampAndDecay) {
  factors const start{0.5, 1.5, 0.9};
  for (bool const is_decoupled : {true, false}) {
    for (double const clip : {0.3, std::numeric_limits<double>::infinity()}) {
      adam_settings const settings{.iterations = 40,
                                   .rate = 0.05,
                                   .weight_decay = 0.1,
                                   .is_decoupled = is_decoupled,
                                   .largest_gradient = clip,
                                   .domain = {.low = 0.3}};
      auto const found = adam(loss, start, settings);
      auto const expected = reference(start, settings);
      for (std::size_t i = 0; i < 3; ++i) {
        // 40 steps of 0.05 whose operands round; the map contracts, so errors add up at most
        EXPECT_NEAR(found.factors[i], expected[i], 40 * 0.05 * 64 * 0x1p-52) << i;
      }
      EXPECT_EQ(found.factors[0], 0.3);  // at the clamp
      EXPECT_EQ(found.evaluations, 40);
    }
  }
}

TEST(Adam, FirstStepIsTheRateWhateverTheScale) {
  auto const scaled = [](double by) {
    return [by](std::span<double const> x, std::span<double> g) {
      double const v = loss(x, g);
      for (double& each : g) each *= by;
      return by * v;
    };
  };
  factors const start{0.5, 1.5, 0.9};
  for (double const by : {1e-3, 1e3}) {
    auto const found = adam(scaled(by), start, {.iterations = 1, .rate = 0.01, .epsilon = 1e-30});
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_NEAR(std::abs(found.factors[i] - start[i]), 0.01, 1e-15) << by;
    }
  }
}

// In logarithms Adam sees the loss of u = log x, so it must do what it does on e^u.
TEST(Adam, LogarithmsAreAChangeOfVariables) {
  factors const start{0.5, 1.5, 0.9};
  adam_settings settings{.iterations = 30, .domain = {.is_logarithmic = true}};
  auto const found = adam(loss, start, settings);
  auto const of_logarithms = [](std::span<double const> u, std::span<double> g) {
    factors x(u.size());
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::exp(u[i]);
    double const v = loss(x, g);
    for (std::size_t i = 0; i < x.size(); ++i) g[i] *= x[i];
    return v;
  };
  settings.domain = {};
  factors logarithms;
  for (double const v : start) logarithms.push_back(std::log(v));
  auto const same = adam(of_logarithms, logarithms, settings);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(found.factors[i], std::exp(same.factors[i]));
}

TEST(Adam, RunThatIsCopiedGoesOnToTheSameBits) {
  factors const start{0.5, 1.5, 0.9};
  adam_settings const settings{.iterations = 20};
  auto const whole = adam(loss, start, settings);
  adam_run first(start, settings);
  for (int k = 0; k < 9; ++k) first.advance(loss);
  adam_run second = first;
  EXPECT_EQ(finish(loss, second).factors, whole.factors);
}

TEST(Adam, AGradientThatIsNotFiniteEndsTheRunAndKeepsTheIterate) {
  auto const f = [](std::span<double const> x, std::span<double> g) {
    double const v = loss(x, g);
    if (x[0] < 0.2) g[1] = std::numeric_limits<double>::infinity();
    return v;
  };
  auto const found = adam(f, factors{0.5, 1.5, 0.9}, {.iterations = 1000});
  EXPECT_EQ(found.status, status::not_finite);
  EXPECT_LT(found.not_finite_at[0], 0.2);
  EXPECT_EQ(found.factors, found.not_finite_at);
}

TEST(Adam, BadSettingsAreRefusedByName) {
  auto const refuse = [](adam_settings const& settings) {
    try {
      adam(loss, factors{1, 1}, settings);
    } catch (domain_error const& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(refuse({.rate = 0}), "adam: rate is 0, expected a finite one above 0");
  EXPECT_EQ(refuse({.mean_decay = 1}), "adam: mean_decay is 1, expected one in [0, 1)");
  EXPECT_EQ(refuse({.domain = {.low = 2}}), "adam: factor 0 starts at 1, below the clamp at 2");
}

}  // namespace
}  // namespace ssm::optimize
