// SPDX-License-Identifier: Apache-2.0
// half_test.cpp: conversions of the 16-bit storage types, over every pattern and every boundary.
#include "ssm/detail/half.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

namespace {

using ssm::bfloat16;
using ssm::float16;

struct bfloat16_layout {
  using type = bfloat16;
  static constexpr int fraction_bits = 7;
  static constexpr int bias = 127;
};
struct float16_layout {
  using type = float16;
  static constexpr int fraction_bits = 10;
  static constexpr int bias = 15;
};

std::uint32_t pattern_of(float value) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

float float_of(std::uint32_t bits) {
  float value = 0;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

template <class Layout>
class Half : public testing::Test {
 public:
  using half = typename Layout::type;
  static constexpr unsigned infinity = 0x7fffu >> Layout::fraction_bits << Layout::fraction_bits;

  // The definition of the format, in double, by fields.
  static double value_of(unsigned pattern) {
    int const fraction = static_cast<int>(pattern & ((1u << Layout::fraction_bits) - 1));
    int const exponent = static_cast<int>((pattern & 0x7fffu) >> Layout::fraction_bits);
    int const hidden = exponent == 0 ? 0 : 1 << Layout::fraction_bits;
    int const scale = (exponent == 0 ? 1 : exponent) - Layout::bias - Layout::fraction_bits;
    double const magnitude = std::ldexp(fraction + hidden, scale);
    return (pattern & 0x8000u) != 0 ? -magnitude : magnitude;
  }

  static unsigned rounded(float value) { return half(value).bits; }
  static float widened(unsigned pattern) {
    return static_cast<float>(half::from_bits(static_cast<std::uint16_t>(pattern)));
  }

  // The nearest pattern by search among the non-negative ones; ties to the even pattern. Infinity
  // stands for the number one step above the largest finite one, as IEEE 754 rounds.
  static unsigned nearest(double magnitude) {
    unsigned low = 0;
    unsigned high = infinity;
    while (high - low > 1) {
      unsigned const middle = (low + high) / 2;
      (value_of(middle) <= magnitude ? low : high) = middle;
    }
    double const below = magnitude - value_of(low);
    double const above = value_of(high) - magnitude;
    if (below == above) return low % 2 == 0 ? low : high;
    return below < above ? low : high;
  }
};

using layouts = testing::Types<bfloat16_layout, float16_layout>;
TYPED_TEST_SUITE(Half, layouts, );

TYPED_TEST(Half, IsTrivialStorageOfTwoBytes) {
  using storage = typename TypeParam::type;
  static_assert(std::is_trivial_v<storage> && std::is_standard_layout_v<storage>);
  static_assert(sizeof(storage) == 2 && alignof(storage) == 2);
  static_assert(!std::is_convertible_v<storage, float> && !std::is_convertible_v<float, storage>);
  static_assert(static_cast<float>(storage(1.5f)) == 1.5f);
  static_assert(storage{}.bits == 0);
}

TYPED_TEST(Half, EveryPatternWidensToItsExactValue) {
  for (unsigned pattern = 0; pattern < 0x10000u; ++pattern) {
    float const found = this->widened(pattern);
    unsigned const magnitude = pattern & 0x7fffu;
    ASSERT_EQ(std::signbit(found), (pattern & 0x8000u) != 0) << "pattern " << pattern;
    if (magnitude > this->infinity) {
      ASSERT_TRUE(std::isnan(found)) << "pattern " << pattern;
    } else if (magnitude == this->infinity) {
      ASSERT_TRUE(std::isinf(found)) << "pattern " << pattern;
    } else {
      ASSERT_EQ(static_cast<double>(found), this->value_of(pattern)) << "pattern " << pattern;
    }
  }
}

TYPED_TEST(Half, EveryPatternSurvivesTheRoundTrip) {
  unsigned const quiet = 1u << (TypeParam::fraction_bits - 1);
  for (unsigned pattern = 0; pattern < 0x10000u; ++pattern) {
    bool const is_nan = (pattern & 0x7fffu) > this->infinity;
    unsigned const expected = is_nan ? pattern | quiet : pattern;
    ASSERT_EQ(this->rounded(this->widened(pattern)), expected) << "pattern " << pattern;
  }
}

TYPED_TEST(Half, RoundsToNearestEvenAroundEveryMidpoint) {
  for (unsigned pattern = 0; pattern < this->infinity; ++pattern) {
    // Exact in float: a midpoint needs one fraction bit more than the storage type.
    auto const middle =
        static_cast<float>((this->value_of(pattern) + this->value_of(pattern + 1)) / 2);
    unsigned const even = pattern % 2 == 0 ? pattern : pattern + 1;
    float const before = float_of(pattern_of(middle) - 1);
    float const after = float_of(pattern_of(middle) + 1);
    ASSERT_EQ(this->rounded(middle), even) << "above pattern " << pattern;
    ASSERT_EQ(this->rounded(before), pattern) << "above pattern " << pattern;
    ASSERT_EQ(this->rounded(after), pattern + 1) << "above pattern " << pattern;
    ASSERT_EQ(this->rounded(-middle), even | 0x8000u) << "above pattern " << pattern;
  }
}

TYPED_TEST(Half, RandomFloatsRoundToTheNearestPattern) {
  constexpr unsigned seed = 20240601;
  std::mt19937 random{seed};
  for (int trial = 0; trial < 200000; ++trial) {
    std::uint32_t const bits = random() & 0x7fff'ffffu;
    if (bits >= 0x7f80'0000u) continue;
    float const value = float_of(bits);
    double const ceiling = this->value_of(this->infinity);
    unsigned const expected =
        static_cast<double>(value) >= ceiling ? this->infinity : this->nearest(value);
    ASSERT_EQ(this->rounded(value), expected) << "float " << value << ", seed " << seed;
    ASSERT_EQ(this->rounded(-value), expected | 0x8000u) << "float " << value << ", seed " << seed;
  }
}

TYPED_TEST(Half, KeepsInfinityAndTheSignOfZero) {
  float const infinite = std::numeric_limits<float>::infinity();
  EXPECT_EQ(this->rounded(infinite), this->infinity);
  EXPECT_EQ(this->rounded(-infinite), this->infinity | 0x8000u);
  EXPECT_EQ(this->rounded(0.0f), 0u);
  EXPECT_EQ(this->rounded(-0.0f), 0x8000u);
}

TYPED_TEST(Half, EveryNanStaysNan) {
  // The lowest payload bits alone would round to infinity if NaN were treated as a number.
  std::vector<std::uint32_t> const payloads = {1u, 0x1fffu, 0xffffu, 0x40'0000u, 0x7f'ffffu};
  for (std::uint32_t const payload : payloads) {
    for (std::uint32_t const sign : {0u, 0x8000'0000u}) {
      unsigned const found = this->rounded(float_of(sign | 0x7f80'0000u | payload));
      EXPECT_GT(found & 0x7fffu, this->infinity) << "payload " << payload;
      EXPECT_EQ(found & 0x8000u, sign >> 16) << "payload " << payload;
    }
  }
}

TEST(HalfBounds, LargestFloatOverflowsToInfinityInBoth) {
  float const largest = std::numeric_limits<float>::max();
  EXPECT_EQ(bfloat16(largest).bits, 0x7f80u);
  EXPECT_EQ(float16(largest).bits, 0x7c00u);
  EXPECT_EQ(float16(65519.996f).bits, 0x7bffu);
  EXPECT_EQ(float16(65520.0f).bits, 0x7c00u);
}

TEST(HalfBounds, SmallestPositiveNumbersRoundToEven) {
  EXPECT_EQ(float16(0x1p-24f).bits, 1u);
  EXPECT_EQ(float16(0x1p-25f).bits, 0u);  // a tie, and 0 is even
  EXPECT_EQ(float16(0x1.8p-24f).bits, 2u);
  EXPECT_EQ(float16(0x1.ffcp-15f).bits, 0x400u);  // the last tie below the normal numbers
  EXPECT_EQ(bfloat16(std::numeric_limits<float>::denorm_min()).bits, 0u);
}

TEST(Accumulator, IsFloatForHalvesAndTheTypeItselfForOthers) {
  static_assert(std::is_same_v<ssm::accumulator_t<bfloat16>, float>);
  static_assert(std::is_same_v<ssm::accumulator_t<float16>, float>);
  static_assert(std::is_same_v<ssm::accumulator_t<float>, float>);
  static_assert(std::is_same_v<ssm::accumulator_t<double>, double>);
}

}  // namespace
