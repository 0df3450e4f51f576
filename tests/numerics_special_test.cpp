// SPDX-License-Identifier: Apache-2.0
// numerics_special_test.cpp: special values, and names beside those of the standard library.
#include <gtest/gtest.h>

#include <boost/multiprecision/cpp_bin_float.hpp>
#include <cmath>
#include <complex>
#include <limits>

#include "ssm/numerics.hpp"

namespace {

template <class T>
class NumericsSpecial : public testing::Test {};
using real_types = testing::Types<float, double>;
TYPED_TEST_SUITE(NumericsSpecial, real_types);

TYPED_TEST(NumericsSpecial, SpecialValuesAreAsDocumented) {
  using T = TypeParam;
  T const inf = std::numeric_limits<T>::infinity();
  T const nan = std::numeric_limits<T>::quiet_NaN();
  EXPECT_EQ(ssm::phi1(T(0)), 1);
  EXPECT_EQ(ssm::phi1(-T(0)), 1);
  EXPECT_EQ(ssm::phi1(-inf), 0);
  EXPECT_TRUE(std::isnan(ssm::phi1(inf)));
  EXPECT_EQ(ssm::phi1_slope(T(0)), T(0.5));
  EXPECT_EQ(ssm::phi1_slope(-T(0)), T(0.5));
  EXPECT_EQ(ssm::phi1_slope(-inf), 0);
  EXPECT_TRUE(std::isnan(ssm::phi1_slope(inf)));
  EXPECT_EQ(ssm::sigmoid(T(0)), T(0.5));
  EXPECT_EQ(ssm::sigmoid(-inf), 0);
  EXPECT_EQ(ssm::sigmoid(inf), 1);
  EXPECT_EQ(ssm::softplus(T(0)), std::log(T(2)));
  EXPECT_EQ(ssm::softplus(-inf), 0);
  EXPECT_EQ(ssm::softplus(inf), inf);
  EXPECT_EQ(ssm::softplus(T(1e4)), T(1e4));
  EXPECT_EQ(ssm::softplus_inverse(T(0)), -inf);
  EXPECT_EQ(ssm::softplus_inverse(inf), inf);
  EXPECT_TRUE(std::isnan(ssm::softplus_inverse(T(-1))));
  EXPECT_TRUE(std::isnan(ssm::softplus_inverse(-inf)));
  EXPECT_EQ(ssm::silu(T(0)), 0);
  EXPECT_EQ(ssm::silu(inf), inf);
  EXPECT_TRUE(std::isnan(ssm::silu(-inf)));
  EXPECT_EQ(ssm::silu_slope(T(0)), T(0.5));
  EXPECT_TRUE(std::isnan(ssm::silu_slope(inf)));
  EXPECT_TRUE(std::isnan(ssm::silu_slope(-inf)));
  EXPECT_EQ(ssm::log_add_exp(-inf, T(3)), 3);
  EXPECT_EQ(ssm::log_add_exp(T(3), -inf), 3);
  EXPECT_EQ(ssm::log_add_exp(-inf, -inf), -inf);
  EXPECT_EQ(ssm::log_add_exp(inf, T(3)), inf);
  EXPECT_EQ(ssm::log_add_exp(inf, -inf), inf);
  EXPECT_EQ(ssm::log_add_exp(inf, inf), inf);
  EXPECT_TRUE(std::isnan(ssm::log_add_exp(nan, inf)));
  EXPECT_TRUE(std::isnan(ssm::log_add_exp(inf, nan)));
  EXPECT_TRUE(std::isnan(ssm::phi1(nan)) && std::isnan(ssm::phi1_slope(nan)) &&
              std::isnan(ssm::sigmoid(nan)) && std::isnan(ssm::softplus(nan)) &&
              std::isnan(ssm::softplus_inverse(nan)) && std::isnan(ssm::silu(nan)) &&
              std::isnan(ssm::silu_slope(nan)));
  EXPECT_EQ(ssm::phi1(std::complex<T>(0)), T(1));
  EXPECT_EQ(ssm::phi1_slope(std::complex<T>(0)), T(0.5));
  EXPECT_EQ(ssm::expm1(std::complex<T>(0)), T(0));
  EXPECT_EQ(ssm::expm1(std::complex<T>(-inf, 1)), T(-1));
  EXPECT_EQ(ssm::phi1(std::complex<T>(-inf, 1)), T(0));
  EXPECT_EQ(ssm::phi1_slope(std::complex<T>(-inf, 1)), T(0));
  EXPECT_TRUE(std::isnan(ssm::expm1(std::complex<T>(-1, inf)).real()));
  EXPECT_TRUE(std::isnan(ssm::phi1(std::complex<T>(-1, inf)).real()));
  EXPECT_TRUE(std::isnan(ssm::phi1_slope(std::complex<T>(-1, inf)).real()));
}

TYPED_TEST(NumericsSpecial, ComplexFunctionsOfRealNumbersAreTheRealOnes) {
  using T = TypeParam;
  for (T x : {T(-80), T(-3), T(-0.5), T(-1e-20), T(1e-20), T(0.7), T(30)}) {
    EXPECT_EQ(ssm::expm1(std::complex<T>(x)), ssm::expm1(x));
    EXPECT_EQ(ssm::phi1(std::complex<T>(x)), ssm::phi1(x));
    EXPECT_NEAR(ssm::phi1_slope(std::complex<T>(x)).real() / ssm::phi1_slope(x), 1,
                4 * std::numeric_limits<T>::epsilon());
    EXPECT_EQ(ssm::phi1_slope(std::complex<T>(x)).imag(), 0);
  }
}

TEST(NumericsNames, AreNotAmbiguousBesideThoseOfTheStandardLibrary) {
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
  boost::multiprecision::cpp_bin_float_50 const x = 0.3;
  EXPECT_EQ(exp(x), ssm::exp(x));
  EXPECT_EQ(expm1(x), ssm::expm1(x));
}

}  // namespace
