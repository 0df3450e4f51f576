// SPDX-License-Identifier: Apache-2.0
// spsa_problem.hpp: noisy losses whose minimum is known, and what counts as having found it.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "ssm/random.hpp"

namespace ssm::bench {

/// A loss, and the standard deviation of the noise that each evaluation adds.
struct noisy_loss {
  std::function<double(std::span<double const>)> exact;
  double noise = 0;

  double operator()(std::span<double const> x, random_stream const& draw) const {
    return exact(x) + noise * draw.normal(0);
  }
};

struct spsa_problem {
  noisy_loss loss{};
  std::vector<double> start;
  double start_loss = 0;  ///< above the minimum, which is 0
};

/// Σ h_i (x_i - x*_i)²/2 from x = 1: x* uniform in [0.25, 1.75], curvatures h in proportion to
/// 1 … 10, evenly spaced in logarithm, of the given sum; noise in units of the loss at the start.
inline spsa_problem noisy_quadratic(std::size_t factors, double curvature, double noise,
                                    std::uint64_t seed) {
  std::vector<double> h(factors), best(factors);
  random_stream{seed}.fill_uniform(best);
  double sum = 0;
  for (std::size_t i = 0; i < factors; ++i) {
    best[i] = 0.25 + 1.5 * best[i];
    h[i] = std::pow(10.0, static_cast<double>(i) / static_cast<double>(factors - 1));
    sum += h[i];
  }
  for (double& each : h) each *= curvature / sum;
  spsa_problem problem;
  problem.start.assign(factors, 1.0);
  problem.loss.exact = [h = std::move(h), best = std::move(best)](std::span<double const> x) {
    double loss = 0;
    for (std::size_t i = 0; i < x.size(); ++i) loss += h[i] * (x[i] - best[i]) * (x[i] - best[i]);
    return loss / 2;
  };
  problem.start_loss = problem.loss.exact(problem.start);
  problem.loss.noise = noise * problem.start_loss;
  return problem;
}

/// |Bx|² + 0.1 Σ(Bx)_i³ + 0.01 Σ(Bx)_i⁴ from x = 1, pB the upper triangle of ones; minimum 0 at 0.
/// Source    Spall 2003, Introduction to stochastic search and optimization, example 6.6
inline spsa_problem skewed_quartic(std::size_t factors, double noise) {
  spsa_problem problem;
  problem.start.assign(factors, 1.0);
  problem.loss.noise = noise;
  problem.loss.exact = [](std::span<double const> x) {
    double loss = 0, row = 0;
    for (std::size_t i = x.size(); i-- > 0;) {
      row += x[i] / static_cast<double>(x.size());  // (Bx)_i
      loss += row * row + 0.1 * row * row * row + 0.01 * row * row * row * row;
    }
    return loss;
  };
  problem.start_loss = problem.loss.exact(problem.start);
  return problem;
}

}  // namespace ssm::bench
