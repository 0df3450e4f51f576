// SPDX-License-Identifier: Apache-2.0
#include "ssm/numerics.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <iomanip>
#include <numbers>
#include <sstream>
#include <string>
#include <vector>

#include "ssm/random.hpp"
#include "support/error_in_ulp.hpp"

namespace {

using boost::multiprecision::cpp_bin_float_100;
using boost::multiprecision::cpp_bin_float_50;
using std::numeric_limits;
using complex_50 = std::complex<cpp_bin_float_50>;

template <class T>
constexpr T infinity = numeric_limits<T>::infinity();
/// Between these e^x neither overflows nor leaves the normal range.
template <class T>
T const log_max = std::nextafter(std::log(numeric_limits<T>::max()), T(0));
template <class T>
T const log_min = std::nextafter(std::log(numeric_limits<T>::min()), T(0));

// ---- the functions under test, as values ------------------------------------------------------

constexpr auto phi1 = [](auto z) { return ssm::phi1(z); };
constexpr auto phi1_slope = [](auto z) { return ssm::phi1_slope(z); };
constexpr auto sigmoid = [](auto x) { return ssm::sigmoid(x); };
constexpr auto softplus = [](auto x) { return ssm::softplus(x); };
constexpr auto softplus_slope = [](auto x) { return ssm::softplus_slope(x); };
constexpr auto softplus_inverse = [](auto x) { return ssm::softplus_inverse(x); };
constexpr auto silu = [](auto x) { return ssm::silu(x); };
constexpr auto silu_slope = [](auto x) { return ssm::silu_slope(x); };
constexpr auto expm1 = [](auto z) { return ssm::expm1(z); };

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

/// Random numbers, log-uniform in their distance to `center`.
template <class T>
std::vector<std::complex<T>> complex_points(std::complex<double> center, double nearest,
                                            double farthest, int count) {
  std::vector<std::complex<T>> points;
  ssm::random_stream const random{.seed = 2025};
  for (int i = 0; i < count; ++i) {
    double const distance = nearest * std::pow(farthest / nearest, random.uniform(2 * i));
    auto const z = center + std::polar(distance, 2 * std::numbers::pi * random.uniform(2 * i + 1));
    points.push_back({static_cast<T>(z.real()), static_cast<T>(z.imag())});
  }
  return points;
}

template <class T>
std::string digits(T const& x) {
  std::ostringstream text;
  text << std::setprecision(17) << x;
  return text.str();
}

// ---- how they are compared --------------------------------------------------------------------

cpp_bin_float_50 exactly(float x) {
  return x;
}
cpp_bin_float_50 exactly(double x) {
  return x;
}
template <class T>
complex_50 exactly(std::complex<T> z) {
  return {exactly(z.real()), exactly(z.imag())};
}

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
  for (auto const& points : complex_regions<TypeParam>()) expect_error_below(5, points, expm1);
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

// ---- the reference itself ---------------------------------------------------------------------

/// Expect the template at 50 digits to give 47 of a formula that loses up to half of 100.
template <class Function, class Formula>
void expect_formula(Function f, Formula formula, std::vector<double> const& points) {
  for (double x : points) {
    auto const found = cpp_bin_float_100(f(cpp_bin_float_50(x)));
    auto const expected = cpp_bin_float_100(formula(cpp_bin_float_100(x)));
    EXPECT_LE(abs(found - expected), 1e-47 * abs(expected)) << "x = " << digits(x);
  }
}

TEST(Numerics, FiftyDigitsAgreeWithTheDefinitionsAtAHundred) {
  std::vector<double> points;
  ssm::random_stream const random{.seed = 7};
  for (int i = 0; i < 60; i += 2) {
    double const size = std::exp2(26 * random.uniform(i) - 20);  // from 1e-6 to 64
    points.push_back(random.sign(i + 1) * size);
  }
  expect_formula(
      phi1, [](auto x) { return (exp(x) - 1) / x; }, points);
  expect_formula(
      phi1_slope, [](auto x) { return (x * exp(x) - exp(x) + 1) / (x * x); }, points);
  expect_formula(
      sigmoid, [](auto x) { return 1 / (1 + exp(-x)); }, points);
  expect_formula(
      softplus_slope, [](auto x) { return 1 / (1 + exp(-x)); }, points);
  expect_formula(
      softplus, [](auto x) { return log(1 + exp(x)); }, points);
  expect_formula(
      silu, [](auto x) { return x / (1 + exp(-x)); }, points);
  auto const with_b = [](auto a) { return ssm::log_add_exp(a, decltype(a)(3)); };
  expect_formula(
      with_b, [](auto a) { return log(exp(a) + exp(decltype(a)(3))); }, points);
  for (double& y : points) y = std::fabs(y);
  expect_formula(
      softplus_inverse, [](auto y) { return log(exp(y) - 1); }, points);
}

TEST(Numerics, ComplexFiftyDigitsAgreeWithTheDefinitionsAtAHundred) {
  using complex_100 = std::complex<cpp_bin_float_100>;
  auto const expect_close = [](complex_50 found, complex_100 expected, std::complex<double> z) {
    complex_100 const wide{cpp_bin_float_100(found.real()), cpp_bin_float_100(found.imag())};
    // The sine at 50 digits loses as many near π as its argument comes close.
    EXPECT_LE(abs(wide - expected), 1e-43 * abs(expected)) << "z = " << digits(z);
  };
  for (auto const& points : {complex_points<double>(0, 1e-6, 20, 40),
                             complex_points<double>({0, 2 * std::numbers::pi}, 1e-6, 1, 20)})
    for (std::complex<double> z : points) {
      complex_50 const z50 = exactly(z);
      complex_100 const z100{z.real(), z.imag()};
      complex_100 const e = exp(z100);
      complex_100 const one{1};
      expect_close(expm1(z50), e - one, z);
      expect_close(phi1(z50), (e - one) / z100, z);
      expect_close(phi1_slope(z50), (z100 * e - e + one) / (z100 * z100), z);
    }
}

TEST(Numerics, SlopesAreTheDerivatives) {
  cpp_bin_float_50 const h = 1e-15;
  auto const expect_slope = [&](auto f, auto slope, double x0) {
    auto const x = cpp_bin_float_50(x0);
    cpp_bin_float_50 const difference = (f(x + h) - f(x - h)) / (2 * h);  // h² = 1e-30
    EXPECT_LE(abs(difference - slope(x)), 1e-28) << "x = " << x0;
  };
  for (double x : {-40.0, -7.3, -2.0, -1.9, -0.6, -1e-3, 0.0, 1e-9, 0.4, 1.99, 2.01, 3.7, 5.0}) {
    expect_slope(phi1, phi1_slope, x);
    expect_slope(softplus, softplus_slope, x);
    expect_slope(silu, silu_slope, x);
    // A complex-differentiable function has the same slope along any direction.
    complex_50 const z{x, 1.3};
    complex_50 const step{0, h};
    complex_50 const difference = (phi1(z + step) - phi1(z - step)) / (step + step);
    EXPECT_LE(abs(difference - phi1_slope(z)), 1e-28) << "z = " << digits(z);
  }
}

// ---- special values ---------------------------------------------------------------------------

TYPED_TEST(RealNumerics, SpecialValuesAreAsDocumented) {
  using T = TypeParam;
  T const inf = infinity<T>;
  T const nan = numeric_limits<T>::quiet_NaN();
  EXPECT_EQ(phi1(T(0)), 1);
  EXPECT_EQ(phi1(-T(0)), 1);
  EXPECT_EQ(phi1(-inf), 0);
  EXPECT_TRUE(std::isnan(phi1(inf)));
  EXPECT_EQ(phi1_slope(T(0)), T(0.5));
  EXPECT_EQ(phi1_slope(-T(0)), T(0.5));
  EXPECT_EQ(phi1_slope(-inf), 0);
  EXPECT_TRUE(std::isnan(phi1_slope(inf)));
  EXPECT_EQ(sigmoid(T(0)), T(0.5));
  EXPECT_EQ(sigmoid(-inf), 0);
  EXPECT_EQ(sigmoid(inf), 1);
  EXPECT_EQ(softplus(T(0)), std::log(T(2)));
  EXPECT_EQ(softplus(-inf), 0);
  EXPECT_EQ(softplus(inf), inf);
  EXPECT_EQ(softplus(T(1e4)), T(1e4));
  EXPECT_EQ(softplus_inverse(T(0)), -inf);
  EXPECT_EQ(softplus_inverse(inf), inf);
  EXPECT_TRUE(std::isnan(softplus_inverse(T(-1))));
  EXPECT_TRUE(std::isnan(softplus_inverse(-inf)));
  EXPECT_EQ(silu(T(0)), 0);
  EXPECT_EQ(silu(inf), inf);
  EXPECT_TRUE(std::isnan(silu(-inf)));
  EXPECT_EQ(silu_slope(T(0)), T(0.5));
  EXPECT_TRUE(std::isnan(silu_slope(inf)));
  EXPECT_TRUE(std::isnan(silu_slope(-inf)));
  EXPECT_EQ(ssm::log_add_exp(-inf, T(3)), 3);
  EXPECT_EQ(ssm::log_add_exp(T(3), -inf), 3);
  EXPECT_EQ(ssm::log_add_exp(-inf, -inf), -inf);
  EXPECT_EQ(ssm::log_add_exp(inf, T(3)), inf);
  EXPECT_EQ(ssm::log_add_exp(inf, -inf), inf);
  EXPECT_EQ(ssm::log_add_exp(inf, inf), inf);
  EXPECT_TRUE(std::isnan(ssm::log_add_exp(nan, inf)));
  EXPECT_TRUE(std::isnan(ssm::log_add_exp(inf, nan)));
  EXPECT_TRUE(std::isnan(phi1(nan)) && std::isnan(phi1_slope(nan)) && std::isnan(sigmoid(nan)) &&
              std::isnan(softplus(nan)) && std::isnan(softplus_inverse(nan)) &&
              std::isnan(silu(nan)) && std::isnan(silu_slope(nan)));
  EXPECT_EQ(phi1(std::complex<T>(0)), T(1));
  EXPECT_EQ(phi1_slope(std::complex<T>(0)), T(0.5));
  EXPECT_EQ(expm1(std::complex<T>(0)), T(0));
  EXPECT_EQ(expm1(std::complex<T>(-inf, 1)), T(-1));
  EXPECT_EQ(phi1(std::complex<T>(-inf, 1)), T(0));
  EXPECT_EQ(phi1_slope(std::complex<T>(-inf, 1)), T(0));
  EXPECT_TRUE(std::isnan(expm1(std::complex<T>(-1, inf)).real()));
  EXPECT_TRUE(std::isnan(phi1(std::complex<T>(-1, inf)).real()));
  EXPECT_TRUE(std::isnan(phi1_slope(std::complex<T>(-1, inf)).real()));
}

TYPED_TEST(RealNumerics, ComplexFunctionsOfRealNumbersAreTheRealOnes) {
  using T = TypeParam;
  for (T x : {T(-80), T(-3), T(-0.5), T(-1e-20), T(1e-20), T(0.7), T(30)}) {
    EXPECT_EQ(expm1(std::complex<T>(x)), expm1(x));
    EXPECT_EQ(phi1(std::complex<T>(x)), phi1(x));
    EXPECT_NEAR(phi1_slope(std::complex<T>(x)).real() / phi1_slope(x), 1,
                4 * numeric_limits<T>::epsilon());
    EXPECT_EQ(phi1_slope(std::complex<T>(x)).imag(), 0);
  }
}

// ---- names ------------------------------------------------------------------------------------

TEST(Numerics, NamesAreNotAmbiguousBesideThoseOfTheStandardLibrary) {
  using namespace std;
  using namespace ssm;
  EXPECT_EQ(exp(1.0f), std::exp(1.0f));
  EXPECT_EQ(log(2.0), std::log(2.0));
  EXPECT_EQ(sqrt(2.0L), std::sqrt(2.0L));
  EXPECT_EQ(abs(-2.5), 2.5);
  EXPECT_EQ(log1p(0.1), std::log1p(0.1));
  EXPECT_EQ(sin(0.1) + cos(0.1), std::sin(0.1) + std::cos(0.1));
  complex<double> const z{0.3, -0.4};
  EXPECT_EQ(exp(z), std::exp(z));
  EXPECT_EQ(ssm::log(z), std::log(z));
  EXPECT_EQ(ssm::sqrt(z), std::sqrt(z));
  EXPECT_EQ(ssm::abs(z), 0.5);
  cpp_bin_float_50 const x = 0.3;
  EXPECT_EQ(exp(x), ssm::exp(x));
  EXPECT_EQ(expm1(x), ssm::expm1(x));
}

}  // namespace
