// SPDX-License-Identifier: Apache-2.0
// numerics_test.cpp: how far each function is from 50 digits.
#include "ssm/numerics.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <cstdint>
#include <cstring>
#include <numbers>
#include <vector>

#include "ssm/random.hpp"
#include "support/error_in_ulp.hpp"
#include "support/numerics_functions.hpp"

namespace {

using namespace ssm::test;

// ---- where they are tested --------------------------------------------------------------------

/// Both signs of random numbers: uniform to ±8, and log-uniform over all magnitudes of T and over
/// those near 1. Then the places where a formula changes, an exponential under- or overflows, or
/// T ends, with their neighbours.
template <class T>
std::vector<T> real_points(int count) {
  std::vector<T> points;
  ssm::random_stream const random{.seed = 2024};
  auto const add = [&](T x) {
    points.push_back(x);
    points.push_back(-x);
  };
  double const lowest = std::log2(static_cast<double>(numeric_limits<T>::denorm_min()));
  double const highest = numeric_limits<T>::max_exponent;
  for (int i = 0; i < count; i += 3) {
    add(T(8) * static_cast<T>(random.uniform(i)));
    add(static_cast<T>(std::exp2(lowest + (highest - 1 - lowest) * random.uniform(i + 1))));
    add(static_cast<T>(std::exp2(20 * random.uniform(i + 2) - 10)));
  }
  for (T x : {T(0), std::log(T(2)), T(1), T(2), log_max<T>, log_min<T>,
              std::log(numeric_limits<T>::denorm_min()), T(1e4), numeric_limits<T>::min(),
              numeric_limits<T>::epsilon(), numeric_limits<T>::max()}) {
    add(x);
    add(std::nextafter(x, T(0)));
    add(std::nextafter(x, infinity<T>));
  }
  return points;
}

// ---- how they are compared --------------------------------------------------------------------

template <class T>
double error_of(std::complex<T> found, complex_50 exact, cpp_bin_float_50 unit) {
  auto const ulp_at = [&](auto part, auto exact_part) {
    return ssm::test::error_in_ulp_at(unit, part, exact_part);
  };
  return std::hypot(ulp_at(found.real(), exact.real()), ulp_at(found.imag(), exact.imag()));
}

template <class T>
double error_of(T found, cpp_bin_float_50 exact, cpp_bin_float_50 unit) {
  return ssm::test::error_in_ulp_at(unit, found, exact);
}

/// Expect f(x), computed in T, within `bound` ulp of f(x) at 50 digits for all points; the ulp is
/// that of unit(x, f(x)).
template <class T, class Function, class Unit>
void expect_error_below(double bound, std::vector<T> const& points, Function f, Unit unit) {
  double worst = 0;
  T at{};
  for (T const& x : points) {
    auto const exact = f(exactly(x));
    double const error = error_of(f(x), exact, unit(exactly(x), exact));
    if (!(error <= worst)) {
      worst = error;
      at = x;
    }
  }
  EXPECT_LE(worst, bound) << "at x = " << digits(at) << ", found " << digits(f(at)) << ", expected "
                          << digits(f(exactly(at))) << ", " << points.size() << " points";
}

template <class T, class Function>
void expect_error_below(double bound, std::vector<T> const& points, Function f) {
  expect_error_below(bound, points, f,
                     [](auto const&, auto const& exact) { return cpp_bin_float_50(abs(exact)); });
}

constexpr int count = 1500;

template <class T>
class RealNumerics : public testing::Test {};
using real_types = testing::Types<float, double>;
TYPED_TEST_SUITE(RealNumerics, real_types);

// ---- accuracy ---------------------------------------------------------------------------------

/// The points in [lowest, highest].
template <class T>
std::vector<T> points_in(T lowest, T highest) {
  std::vector<T> points;
  for (T x : real_points<T>(count))
    if (lowest <= x && x <= highest) points.push_back(x);
  return points;
}

TYPED_TEST(RealNumerics, Phi1IsWithin2Ulp) {
  expect_error_below(2, points_in(-infinity<TypeParam>, log_max<TypeParam>), phi1);
}

TYPED_TEST(RealNumerics, Phi1SlopeIsWithin4Ulp) {
  expect_error_below(4, points_in(-infinity<TypeParam>, log_max<TypeParam>), phi1_slope);
}

TYPED_TEST(RealNumerics, SigmoidIsWithin3Ulp) {
  expect_error_below(3, real_points<TypeParam>(count), sigmoid);
}

TYPED_TEST(RealNumerics, SoftplusIsWithin2Ulp) {
  expect_error_below(2, real_points<TypeParam>(count), softplus);
}

TYPED_TEST(RealNumerics, SoftplusInverseIsWithin2UlpOfTheLargerOf1AndItself) {
  auto const positive = points_in(numeric_limits<TypeParam>::denorm_min(), infinity<TypeParam>);
  expect_error_below(2, positive, softplus_inverse, [](auto const&, auto const& exact) {
    return cpp_bin_float_50(abs(exact) < 1 ? 1 : abs(exact));
  });
}

TYPED_TEST(RealNumerics, SiluIsWithin4Ulp) {
  expect_error_below(4, points_in(log_min<TypeParam>, infinity<TypeParam>), silu);
}

TYPED_TEST(RealNumerics, SiluSlopeIsWithin4UlpOfItsTerms) {
  expect_error_below(4, points_in(log_min<TypeParam>, infinity<TypeParam>), silu_slope,
                     [](cpp_bin_float_50 const& x, auto const&) {
                       return cpp_bin_float_50(sigmoid(x) + abs(x) * sigmoid(x) * sigmoid(-x));
                     });
}

TYPED_TEST(RealNumerics, SiluAndItsSlopeUnderflowGradually) {
  using T = TypeParam;
  for (T x = log_min<T>; x > T(1.1) * log_min<T>; x *= T(1.001)) {
    auto const bound = abs(exactly(x)) * numeric_limits<T>::denorm_min();
    EXPECT_LE(abs(exactly(silu(x)) - silu(exactly(x))), bound) << x;
    EXPECT_LE(abs(exactly(silu_slope(x)) - silu_slope(exactly(x))), bound) << x;
  }
}

TYPED_TEST(RealNumerics, LogAddExpIsWithin2UlpOfTheLargestNumberInvolved) {
  for (float b : {0.0f, -0.5f, -0.6931472f, 30.0f, -1e4f}) {
    auto const with_b = [b](auto a) { return ssm::log_add_exp(a, decltype(a)(b)); };
    expect_error_below(2, real_points<TypeParam>(count / 3), with_b,
                       [b](cpp_bin_float_50 const& a, cpp_bin_float_50 const& exact) {
                         return std::max({abs(a), abs(exactly(b)), abs(exact)});
                       });
  }
}

/// Near 0, around the unit circle, farther, with many turns, and near 2πi k, where e^z = 1 again.
template <class T>
std::vector<std::vector<std::complex<T>>> complex_regions() {
  int const each = count / 10;
  return {complex_points<T>(0, 1e-12, 1, each),
          complex_points<T>(0, 0.5, 4, each),
          complex_points<T>(0, 2, 60, each),
          complex_points<T>({-20, 1000}, 0.1, 20, each),
          complex_points<T>({0, 2 * std::numbers::pi}, 1e-8, 1, each),
          complex_points<T>({0, 2000 * std::numbers::pi}, 1e-4, 1, each)};
}

TYPED_TEST(RealNumerics, ComplexExpm1IsWithin5Ulp) {
  for (auto const& points : complex_regions<TypeParam>())
    expect_error_below(5, points, complex_expm1);
}

TYPED_TEST(RealNumerics, ComplexPhi1IsWithin7Ulp) {
  for (auto const& points : complex_regions<TypeParam>()) expect_error_below(7, points, phi1);
}

TYPED_TEST(RealNumerics, ComplexPhi1SlopeIsWithin6UlpOfItsTerms) {
  for (auto const& points : complex_regions<TypeParam>())
    expect_error_below(6, points, phi1_slope, [](complex_50 const& z, complex_50 const& exact) {
      auto const size = abs(z);
      return size > 2 ? cpp_bin_float_50((1 / size + exp(z.real())) / size) : abs(exact);
    });
}

/// The error of f in float against f in double, at every `stride`-th float in [lowest, highest], in
/// ulp of max(|f(x)|, least_unit). 50 digits are too slow for so many; the error of double is
/// 2^-29 of the one measured.
template <class Function>
double worst_over_floats(Function f, float lowest, float highest, double least_unit = 0) {
  constexpr std::uint64_t stride = 10007;  // a prime: all mantissas and exponents
  double worst = 0;
  for (std::uint64_t bits = 0; bits < std::uint64_t{1} << 32; bits += stride) {
    auto const word = static_cast<std::uint32_t>(bits);
    float x;
    std::memcpy(&x, &word, sizeof x);
    if (!(lowest <= x && x <= highest)) continue;
    double const exact = f(double{x});
    double const unit = std::fmax(std::fabs(exact), least_unit);
    double const error = ssm::test::error_in_ulp_at(unit, f(x), exact);
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

TEST(Numerics, BoundsHoldForOneFloatInTenThousand) {
  float const largest = numeric_limits<float>::max();
  EXPECT_LE(worst_over_floats(phi1, -largest, log_max<float>), 2);
  EXPECT_LE(worst_over_floats(phi1_slope, -largest, log_max<float>), 4);
  EXPECT_LE(worst_over_floats(sigmoid, -largest, largest), 3);
  EXPECT_LE(worst_over_floats(softplus, -largest, largest), 2);
  EXPECT_LE(worst_over_floats(silu, log_min<float>, largest), 4);
  EXPECT_LE(worst_over_floats(softplus_inverse, 1e-45f, largest, 1.0), 2);
}

}  // namespace
