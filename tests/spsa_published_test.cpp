// SPDX-License-Identifier: Apache-2.0
// spsa_published_test.cpp: the same loss is left as by the program that Spall published.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <span>
#include <vector>

#include "ssm/optimize/spsa.hpp"

namespace ssm::optimize {
namespace {

/// Gains, noise and what was left of the loss: mean and its standard error over 400 runs of 1000
/// iterations. Spall's spsa_basic_constrained.m of January 2000, the program of his book
/// (Introduction to stochastic search and optimization, 2003), on its skewed quartic of 10 factors
/// from 1, with his c, A and exponents in the first row; run by GNU Octave 7.3.
struct published_result {
  double step, step_exponent, perturbation, perturbation_exponent, noise;
  double left, error;
};

double skewed_quartic(std::span<double const> x) {
  double loss = 0, row = 0;
  for (std::size_t i = x.size(); i-- > 0;) {
    row += x[i] / static_cast<double>(x.size());
    loss += row * row * (1 + row * (0.1 + 0.01 * row));
  }
  return loss;
}

TEST(SpsaPublished, LeavesTheLossThatSpallsProgramLeaves) {
  std::vector<published_result> const results{
      {1, 0.602, 1.9, 0.101, 0.1, 0.00235341, 5.24e-5},
      {1, 0.602, 0.1, 0.101, 0.1, 0.0163656, 3.75e-4},
      {1, 1, 1.9, 0.1666701, 0.1, 0.0101992, 1.63e-4},
      {5, 1, 0.1, 0.1666701, 0.001, 0.00386207, 9.27e-5},
      {1, 0.602, 0.1, 0.101, 0.001, 0.00208379, 4.89e-5},
  };
  std::vector<double> const start(10, 1.0);
  constexpr int runs = 400;
  for (auto const& expected : results) {
    spsa_settings settings{
        .iterations = 1000,
        .step = {.scale = expected.step, .offset = 50, .exponent = expected.step_exponent},
        .perturbation = {.scale = expected.perturbation,
                         .exponent = expected.perturbation_exponent},
        .domain = {.low = -1000, .high = 1000},
        .has_common_random_numbers = false,
        .keeps_factors = false};
    auto const loss = [&](std::span<double const> x, random_stream const& draw) {
      return skewed_quartic(x) + expected.noise * draw.normal(0);
    };
    double sum = 0, squares = 0;
    for (int run = 0; run < runs; ++run) {
      settings.seed = static_cast<std::uint64_t>(run + 1);
      double const left =
          skewed_quartic(spsa(loss, start, settings).factors) / skewed_quartic(start);
      sum += left, squares += left * left;
    }
    double const mean = sum / runs;
    double const error = std::sqrt((squares / runs - mean * mean) / (runs - 1));
    // Two independent means: further apart than this once in 16000 rows.
    EXPECT_NEAR(mean, expected.left, 4 * std::hypot(error, expected.error))
        << "c = " << expected.perturbation << ", alpha = " << expected.step_exponent;
    std::printf("c %g, alpha %g, noise %g: left %.5f +- %.5f, Spall's program %.5f +- %.5f\n",
                expected.perturbation, expected.step_exponent, expected.noise, mean, error,
                expected.left, expected.error);
  }
}

}  // namespace
}  // namespace ssm::optimize
