// SPDX-License-Identifier: Apache-2.0
// The closed forms of SPSA's estimate against sums over all directions.
#include "closed_forms/spsa.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <vector>

namespace ssm::theory {
namespace {

using numbers = std::vector<double>;

struct moments {
  double mean = 0, variance = 0;
};

/// Over all δ in {-1, 1}^p.
template <class Value>
moments over_all_directions(std::size_t count, Value const& value) {
  int const all = 1 << count;
  numbers delta(count);
  double mean = 0, square = 0;
  for (int bits = 0; bits < all; ++bits) {
    for (std::size_t i = 0; i < count; ++i) delta[i] = (bits >> i & 1) != 0 ? 1 : -1;
    double const v = value(delta);
    mean += v / all;
    square += v * v / all;
  }
  return {mean, square - mean * mean};
}

double dot(numbers const& a, numbers const& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

double const eps = 0x1p-52;
numbers const g{1, -0.5, 0.3, 2, -0.25};
numbers const v{0.5, 1, -2, 0.25, 1.5};

// Sums of 32 terms, each below 100 and rounded some ten times.
double const tolerance = 32 * 100 * eps;

TEST(SpsaClosedForms, BiasIsThatOfTheThirdDerivative) {
  for (std::size_t i = 0; i < g.size(); ++i) {
    for (double const c : {1.0, 0.5}) {
      auto const exact = over_all_directions(g.size(), [&](numbers const& delta) {
        return c * c / 6 * std::pow(dot(v, delta), 3) * delta[i];
      });
      EXPECT_NEAR(spsa_bias(v, c, i), exact.mean, tolerance) << i;
      EXPECT_NEAR(spsa_bias_variance(v, c, i), exact.variance, tolerance * 100) << i;
    }
  }
}

TEST(SpsaClosedForms, VarianceIsThatOfTheOtherSlopes) {
  for (std::size_t i = 0; i < g.size(); ++i) {
    auto const error = [&](numbers const& delta) { return dot(g, delta) * delta[i] - g[i]; };
    auto const exact = over_all_directions(g.size(), error);
    auto const squares = over_all_directions(
        g.size(), [&](numbers const& delta) { return error(delta) * error(delta); });
    EXPECT_NEAR(exact.mean, 0, tolerance);
    EXPECT_NEAR(spsa_variance(g, i, {.c = 0.1}), exact.variance, tolerance) << i;
    EXPECT_NEAR(spsa_square_variance(g, i, {.c = 0.1}), squares.variance, tolerance * 100) << i;
  }
}

// The mean of two directions: δ of 2p entries, the first p of one and the last p of the other.
TEST(SpsaClosedForms, AveragingDividesTheVariance) {
  std::size_t const p = g.size(), i = 2;
  auto const square = [&](numbers const& delta) {
    numbers const a(delta.begin(), delta.begin() + static_cast<std::ptrdiff_t>(p));
    numbers const b(delta.begin() + static_cast<std::ptrdiff_t>(p), delta.end());
    double const error = (dot(g, a) * a[i] + dot(g, b) * b[i]) / 2 - g[i];
    return error * error;
  };
  auto const exact = over_all_directions(2 * p, square);
  spsa_estimate const two{.c = 0.1, .directions = 2};
  EXPECT_NEAR(spsa_variance(g, i, two), exact.mean, tolerance);
  EXPECT_NEAR(spsa_square_variance(g, i, two), exact.variance, tolerance * 100);
}

// Normal noise n of variance s² = σ²/2c² adds s² to the variance, and 2s⁴ + 4s²·(others) to that of
// the square.
TEST(SpsaClosedForms, NoiseEntersByItsVarianceOver2cSquared) {
  spsa_estimate const noisy{.c = 0.1, .noise = 0.2}, quiet{.c = 0.1};
  double const s2 = 0.04 / 0.02;
  double const others = spsa_variance(g, 1, quiet);
  EXPECT_NEAR(spsa_variance(g, 1, noisy), others + s2, tolerance);
  EXPECT_NEAR(spsa_square_variance(g, 1, noisy),
              spsa_square_variance(g, 1, quiet) + 2 * s2 * s2 + 4 * s2 * others, tolerance);
}

TEST(SpsaClosedForms, ClampsHalveWhatIsDividedByTheWholePerturbation) {
  numbers const kept{0.5, 0.75, 1, 0.5, 1};
  for (std::size_t i = 0; i < g.size(); ++i) {
    auto const nominal = over_all_directions(g.size(), [&](numbers const& delta) {
      double sum = 0;
      for (std::size_t j = 0; j < g.size(); ++j) sum += g[j] * kept[j] * delta[j];
      return sum * delta[i];
    });
    EXPECT_NEAR(nominal_mean(g, kept, i), nominal.mean, tolerance);
    EXPECT_NEAR(nominal_variance(g, kept, i), nominal.variance, tolerance);
    EXPECT_NEAR(displacement_variance(g, kept, i), nominal.variance / (kept[i] * kept[i]),
                4 * tolerance);
  }
}

}  // namespace
}  // namespace ssm::theory
