// SPDX-License-Identifier: Apache-2.0
// affine_map_test.cpp: the laws of the monoid that everything else is made of.
#include "ssm/affine_map.hpp"

#include <gtest/gtest.h>

#include <complex>
#include <cstdint>
#include <numeric>
#include <type_traits>
#include <vector>

#include "support/oracle.hpp"
#include "support/random_tensor.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

template <scalar T>
std::vector<affine_map<T>> random_maps(index_t count, std::uint64_t seed) {
  auto const numbers = random_tensor<T>({count, 2}, seed);
  std::vector<affine_map<T>> maps;
  for (index_t i = 0; i < count; ++i) maps.push_back({numbers(i, 0), numbers(i, 1)});
  return maps;
}

template <scalar T>
affine_map<wide<T>> in_50_digits(affine_map<T> const& map) {
  return {widened(map.decay), widened(map.drive)};
}

/// Σ|terms| of a composition is the same composition of magnitudes.
template <scalar T>
affine_map<digits50> term_sizes(affine_map<T> const& map) {
  return {magnitude(map.decay), magnitude(map.drive)};
}

template <class W>
double difference(affine_map<W> const& a, affine_map<W> const& b) {
  digits50 const sum = magnitude(W(a.decay - b.decay)) + magnitude(W(a.drive - b.drive));
  return sum.convert_to<double>();
}

template <class W>
class AffineMap : public ::testing::Test {};
using wide_scalars = ::testing::Types<digits50, complex50>;
TYPED_TEST_SUITE(AffineMap, wide_scalars);

TYPED_TEST(AffineMap, ThenAppliesTheEarlierMapFirst) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    auto const maps = random_maps<TypeParam>(3, seed);
    TypeParam const h = maps[2].drive;
    TypeParam const found = then{}(maps[0], maps[1])(h);
    TypeParam const expected = maps[1](maps[0](h));
    EXPECT_LT(magnitude(TypeParam(found - expected)), 1e-47) << "seed " << seed;
  }
}

TYPED_TEST(AffineMap, CompositionIsAssociativeTo47Digits) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    auto const m = random_maps<TypeParam>(3, seed);
    auto const left = then{}(then{}(m[0], m[1]), m[2]);
    auto const right = then{}(m[0], then{}(m[1], m[2]));
    EXPECT_LT(difference(left, right), 1e-47) << "seed " << seed;
  }
}

TYPED_TEST(AffineMap, CompositionIsNotCommutative) {
  auto const m = random_maps<TypeParam>(2, 1);
  EXPECT_GT(difference(then{}(m[0], m[1]), then{}(m[1], m[0])), 1e-3);
}

TYPED_TEST(AffineMap, FoldOfASplitEqualsFoldOfTheWholeAtEverySplitPoint) {
  for (index_t const length : {0, 1, 2, 7, 13}) {
    auto const maps = random_maps<TypeParam>(length, static_cast<std::uint64_t>(40 + length));
    auto const fold = [&](index_t from, index_t to) {
      return std::accumulate(maps.begin() + from, maps.begin() + to, affine_map<TypeParam>{},
                             then{});
    };
    for (index_t split = 0; split <= length; ++split) {
      auto const parts = then{}(fold(0, split), fold(split, length));
      EXPECT_LT(difference(parts, fold(0, length)), 1e-47)
          << "length " << length << ", split at " << split << ", seed " << 40 + length;
    }
  }
}

TYPED_TEST(AffineMap, FoldAppliedToAStateEqualsTheStepsOneAfterAnother) {
  index_t const length = 31;
  auto const maps = random_maps<TypeParam>(length, 7);
  TypeParam const start = random_maps<TypeParam>(1, 8)[0].drive;
  TypeParam h = start;
  for (auto const& map : maps) h = map(h);
  auto const whole = std::accumulate(maps.begin(), maps.end(), affine_map<TypeParam>{}, then{});
  EXPECT_LT(magnitude(TypeParam(whole(start) - h)), 1e-46);
}

template <class T>
class AffineMapInWorkingPrecision : public ::testing::Test {};
using working_scalars = ::testing::Types<float, double, std::complex<float>, std::complex<double>>;
TYPED_TEST_SUITE(AffineMapInWorkingPrecision, working_scalars);

TYPED_TEST(AffineMapInWorkingPrecision, IdentityLeavesEveryMapExactlyAsItIs) {
  affine_map<TypeParam> const identity;
  for (auto const& map : random_maps<TypeParam>(50, 3)) {
    EXPECT_EQ(then{}(identity, map), map);
    EXPECT_EQ(then{}(map, identity), map);
    EXPECT_EQ(identity(map.drive), map.drive);
  }
}

// In either order a term passes two compositions, each of which rounds it twice.
TYPED_TEST(AffineMapInWorkingPrecision, BothOrdersOfThreeMapsAreWithinTwoStepsOfRounding) {
  double const k = 2 * eps_per_step<TypeParam>;
  for (std::uint64_t seed = 1; seed <= 1000; ++seed) {
    auto const m = random_maps<TypeParam>(3, seed);
    auto const exact = then{}(then{}(in_50_digits(m[0]), in_50_digits(m[1])), in_50_digits(m[2]));
    auto const terms = then{}(then{}(term_sizes(m[0]), term_sizes(m[1])), term_sizes(m[2]));
    for (auto const& found : {then{}(then{}(m[0], m[1]), m[2]), then{}(m[0], then{}(m[1], m[2]))}) {
      EXPECT_TRUE(is_within(k, found.decay, exact.decay, terms.decay)) << "decay, seed " << seed;
      EXPECT_TRUE(is_within(k, found.drive, exact.drive, terms.drive)) << "drive, seed " << seed;
    }
  }
}

TYPED_TEST(AffineMapInWorkingPrecision, AMapTravelsBetweenThreadsAsTwoPlainNumbers) {
  EXPECT_TRUE(std::is_trivially_copyable_v<affine_map<TypeParam>>);
  EXPECT_EQ(sizeof(affine_map<TypeParam>), 2 * sizeof(TypeParam));
}

TEST(AffineMapType, IsAConstantExpressionAndDeducesItsScalar) {
  constexpr affine_map map{0.5, 3.0};
  static_assert(std::is_same_v<decltype(map), affine_map<double> const>);
  static_assert(map(4.0) == 5.0);
  static_assert(then{}(map, affine_map{2.0, 1.0}) == affine_map{1.0, 7.0});
  static_assert(affine_map<float>{} == affine_map{1.0f, 0.0f});
}

}  // namespace
