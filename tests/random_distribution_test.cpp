// SPDX-License-Identifier: Apache-2.0
// random_distribution_test.cpp: uniforms are uniform, normals normal, streams independent.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

#include "ssm/random.hpp"

namespace {

using ssm::index_t;
using ssm::random_stream;

constexpr random_stream stream{.seed = 0x243F6A8885A308D3, .id = 0x13198A2E03707344};
constexpr int sample_size = 1'000'000;

std::vector<double> normals(random_stream const& from) {
  std::vector<double> sample(sample_size);
  from.fill_normal(sample);
  return sample;
}

std::vector<double> uniforms(random_stream const& from) {
  std::vector<double> sample(sample_size);
  from.fill_uniform(sample);
  return sample;
}

// ---- distribution -----------------------------------------------------------------------------
// The streams are fixed, so a test passes always or never. The bounds are those that a perfect
// generator would miss with a probability of 1e-4: 3.9 standard errors, and for Kolmogorov and
// Smirnov √n D <= 2.23 (2 exp(-2 · 2.23²) = 1e-4).

constexpr double critical_z = 3.9;
constexpr double critical_ks = 2.23;

/// (mean of the terms - expected) / standard error.
template <class Term>
double z_of_mean(Term term, double expected) {
  double sum = 0;
  double square_sum = 0;
  for (int i = 0; i < sample_size; ++i) {
    double const x = term(static_cast<std::size_t>(i)) - expected;
    sum += x;
    square_sum += x * x;
  }
  return sum / std::sqrt(square_sum);
}

/// √n times the greatest distance between the empirical and the true distribution function.
template <class Distribution>
double kolmogorov_smirnov(std::vector<double> sample, Distribution distribution) {
  std::sort(sample.begin(), sample.end());
  double const n = static_cast<double>(sample.size());
  double distance = 0;
  for (std::size_t k = 0; k < sample.size(); ++k) {
    double const p = distribution(sample[k]);
    double const below = static_cast<double>(k) / n;
    distance = std::max({distance, p - below, below + 1 / n - p});
  }
  return std::sqrt(n) * distance;
}

TEST(RandomDistribution, UniformsAreUniform) {
  std::vector<double> const u = uniforms(stream);
  EXPECT_LE(kolmogorov_smirnov(u, [](double x) { return x; }), critical_ks);
  for (int power : {1, 2, 3, 10}) {
    double const z =
        z_of_mean([&](std::size_t i) { return std::pow(u[i], power); }, 1.0 / (power + 1));
    EXPECT_LE(std::fabs(z), critical_z) << "moment " << power;
  }
}

TEST(RandomDistribution, PairsOfUniformsFillTheUnitSquare) {
  std::vector<double> const u = uniforms(stream);
  constexpr int cells = 16;
  std::vector<int> counts(cells * cells);
  for (std::size_t i = 0; i < u.size(); i += 2)
    ++counts[static_cast<std::size_t>(u[i] * cells) * cells +
             static_cast<std::size_t>(u[i + 1] * cells)];
  double const expected = sample_size / 2.0 / (cells * cells);
  double chi_square = 0;
  for (int count : counts) chi_square += (count - expected) * (count - expected) / expected;
  // 5e-5 and 1 - 5e-5 quantiles at 255 degrees of freedom.
  EXPECT_GE(chi_square, 176.4);
  EXPECT_LE(chi_square, 352.4);
}

TEST(RandomDistribution, EveryBitIsSetHalfOfTheTime) {
  std::vector<int> set(64);
  for (index_t i = 0; i < 100'000; ++i)
    for (std::size_t b = 0; b < 64; ++b) set[b] += static_cast<int>(stream.bits(i) >> b & 1);
  for (int count : set)  // one of 64 beyond 4.8 standard errors: 1e-4
    EXPECT_LE(std::fabs(count - 50'000), 4.8 * std::sqrt(25'000));
}

TEST(RandomDistribution, SignsAreBalanced) {
  EXPECT_LE(
      std::fabs(z_of_mean([](std::size_t i) { return stream.sign(static_cast<index_t>(i)); }, 0.0)),
      critical_z);
}

TEST(RandomDistribution, NormalsAreNormal) {
  std::vector<double> const x = normals(stream);
  EXPECT_LE(
      kolmogorov_smirnov(x, [](double t) { return 0.5 * std::erfc(-t / std::numbers::sqrt2); }),
      critical_ks);
  double const moments[] = {1, 0, 1, 0, 3, 0, 15};
  for (int power = 1; power <= 6; ++power) {
    double const z =
        z_of_mean([&](std::size_t i) { return std::pow(x[i], power); }, moments[power]);
    EXPECT_LE(std::fabs(z), critical_z) << "moment " << power;
  }
}

TEST(RandomDistribution, NormalsHaveTheRightTails) {
  std::vector<double> const x = normals(stream);
  for (double t : {2.0, 3.0, 4.0}) {
    double const p = std::erfc(t / std::numbers::sqrt2);
    auto const count =
        std::count_if(x.begin(), x.end(), [t](double v) { return std::fabs(v) > t; });
    double const z = (static_cast<double>(count) - sample_size * p) / std::sqrt(sample_size * p);
    EXPECT_LE(std::fabs(z), critical_z) << count << " of " << sample_size << " beyond " << t;
  }
}

/// Products of two sequences of normals, and of their squares, have the mean of independent ones.
void expect_independent(std::vector<double> const& x, std::vector<double> const& y, std::size_t lag,
                        char const* what) {
  std::size_t const n = x.size();
  double const z = z_of_mean([&](std::size_t i) { return x[i] * y[(i + lag) % n]; }, 0);
  EXPECT_LE(std::fabs(z), critical_z) << what << ", lag " << lag;
  double const z_of_squares = z_of_mean(
      [&](std::size_t i) { return (x[i] * x[i] - 1) * (y[(i + lag) % n] * y[(i + lag) % n] - 1); },
      0);
  EXPECT_LE(std::fabs(z_of_squares), critical_z) << what << ", squares, lag " << lag;
}

TEST(RandomDistribution, NormalsOfOneStreamAreIndependent) {
  std::vector<double> const x = normals(stream);
  for (std::size_t lag : {1u, 2u, 3u, 128u}) expect_independent(x, x, lag, "same stream");
}

TEST(RandomDistribution, StreamsAreIndependent) {
  std::vector<double> const x = normals({.seed = 0, .id = 0});
  expect_independent(x, normals({.seed = 0, .id = 1}), 0, "next id");
  expect_independent(x, normals({.seed = 1, .id = 0}), 0, "next seed");
  expect_independent(x, normals({.seed = std::uint64_t{1} << 32, .id = 0}), 0, "high seed word");
  expect_independent(x, normals(random_stream{}.child(0)), 0, "parent and child");
  expect_independent(normals(random_stream{}.child(0)), normals(random_stream{}.child(1)), 0,
                     "siblings");
}

}  // namespace
