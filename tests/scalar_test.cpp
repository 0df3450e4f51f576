// SPDX-License-Identifier: Apache-2.0
// scalar_test.cpp: which types are numbers here, and the few functions real and complex share.
#include "ssm/scalar.hpp"

#include <gtest/gtest.h>

#include <boost/multiprecision/cpp_bin_float.hpp>
#include <complex>
#include <string>
#include <type_traits>

#include "ssm/config.hpp"

namespace {

using namespace ssm;
using digits50 = boost::multiprecision::cpp_bin_float_50;
using complex50 = std::complex<digits50>;

TEST(Scalar, RealNumbersAreFloatingPointTypesOfAnyPrecision) {
  EXPECT_TRUE(real_scalar<float>);
  EXPECT_TRUE(real_scalar<double>);
  EXPECT_TRUE(real_scalar<long double>);
  EXPECT_TRUE(real_scalar<digits50>);
}

TEST(Scalar, IntegersTextAndPointersAreNotNumbers) {
  EXPECT_FALSE(scalar<int>);
  EXPECT_FALSE(scalar<bool>);
  EXPECT_FALSE(scalar<index_t>);
  EXPECT_FALSE(scalar<std::string>);
  EXPECT_FALSE(scalar<float*>);
}

TEST(Scalar, NoTypeIsBothRealAndComplex) {
  EXPECT_TRUE(complex_scalar<std::complex<float>> && !real_scalar<std::complex<float>>);
  EXPECT_TRUE(complex_scalar<complex50> && !real_scalar<complex50>);
  EXPECT_FALSE(complex_scalar<double>);
  EXPECT_FALSE(complex_scalar<digits50>);  // though it has real() and imag()
  EXPECT_TRUE(scalar<std::complex<double>>);
}

TEST(Scalar, RealTypeOfANumberIgnoresComplexAndConst) {
  EXPECT_TRUE((std::is_same_v<real_t<double>, double>));
  EXPECT_TRUE((std::is_same_v<real_t<double const>, double>));
  EXPECT_TRUE((std::is_same_v<real_t<std::complex<float>>, float>));
  EXPECT_TRUE((std::is_same_v<real_t<std::complex<float> const>, float>));
  EXPECT_TRUE((std::is_same_v<real_t<complex50>, digits50>));
  EXPECT_TRUE((std::is_same_v<real_t<digits50>, digits50>));
}

TEST(Scalar, ConjugateChangesTheSignOfTheImaginaryPartAlone) {
  std::complex<double> const z(1.25, -0.75);
  EXPECT_EQ(conjugate(z), std::complex<double>(1.25, 0.75));
  EXPECT_EQ(conjugate(-2.5), -2.5);
  EXPECT_EQ(conjugate(digits50(-2.5)), digits50(-2.5));
}

TEST(Scalar, RealPartOfARealNumberIsTheNumber) {
  EXPECT_EQ(real_part(std::complex<double>(1.25, -0.75)), 1.25);
  EXPECT_EQ(real_part(-2.5f), -2.5f);
}

TEST(Scalar, SquaredMagnitudeIsTheProductWithTheConjugate) {
  std::complex<double> const z(1.25, -0.75);
  EXPECT_EQ(squared_magnitude(z), (z * conjugate(z)).real());
  EXPECT_EQ(squared_magnitude(-2.5), 6.25);
}

TEST(Scalar, FunctionsAreConstantExpressions) {
  static_assert(conjugate(std::complex<double>(1, 2)) == std::complex<double>(1, -2));
  static_assert(real_part(std::complex<double>(1, 2)) == 1);
  static_assert(squared_magnitude(std::complex<double>(3, 4)) == 25);
}

}  // namespace
