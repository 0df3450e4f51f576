// SPDX-License-Identifier: Apache-2.0
// simd_exp2_of_product_test.cpp: powers of two whose exponent is a product, with each instruction
// set.
#include "ssm/detail/simd_exp2_of_product.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>

#include "support/pack_function.hpp"

namespace ssm::test {
namespace {

/// 2^(0.7 x), whatever else is computed beside it.
constexpr float product_factor = 0.7f;

template <bool InRange>
struct exp2_of_product {
  template <class Pack>
  [[gnu::always_inline]] static Pack call(Pack const& x) {
    using real = typename Pack::value_type;
    Pack z[] = {-x, x};
    detail::exp2_of_product<InRange>(
        z, [](auto) __attribute__((always_inline)) { return real(product_factor); });
    return z[1];
  }
};

TEST(SimdExp2OfProduct, IsWithinItsBoundForFloatsOfEverySize) {
  auto const truth = [](double x) { return std::exp2(double(product_factor) * x); };
  for (float const limit :
       {0.f, 0.01f, 1.f, 30.f, 178.f}) {  // 1/2 ulp of z is |z| log 2 ulp of 2^z
    double const bound = 2 + std::log(2.) * double(product_factor * limit);
    expect_ulp(bound, exp2_of_product<false>{}, truth, limit);
    expect_ulp(bound, exp2_of_product<true>{}, truth, limit);
  }
}

template <class T>
void expect_special_values() {
  T const inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  for (auto const set : all_sets) {
    auto const at = [&](auto function, T x) {
      block<T> same;
      same.fill(x);
      return evaluate(set, same, function)[17];
    };
    EXPECT_EQ(at(exp2_of_product<false>{}, inf), inf);
    EXPECT_EQ(at(exp2_of_product<false>{}, -inf), T(0));
    EXPECT_EQ(at(exp2_of_product<false>{}, T(0)), T(1));
    EXPECT_EQ(at(exp2_of_product<true>{}, T(0)), T(1));
    EXPECT_TRUE(std::isnan(at(exp2_of_product<false>{}, nan)));
  }
}

TEST(SimdExp2OfProduct, SpecialValuesAreThoseOfTheScalars) {
  expect_special_values<float>();
  expect_special_values<double>();
}

TEST(SimdExp2OfProduct, FormForARangeHasTheSameBitsThere) {
  for (auto const set : all_sets) {
    block<float> x;
    for (int k = 0; k < 1000; ++k) {
      for (std::size_t i = 0; i < x.size(); ++i) {
        x[i] = 125.f * std::sin(0.37f * static_cast<float>(64 * k) + static_cast<float>(i));
      }
      EXPECT_EQ(evaluate(set, x, exp2_of_product<false>{}),
                evaluate(set, x, exp2_of_product<true>{}));
    }
  }
}

}  // namespace
}  // namespace ssm::test
