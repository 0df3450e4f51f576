// SPDX-License-Identifier: Apache-2.0
// simd_math_test.cpp: elementary functions on packs, against the scalar ones in double, with each
// instruction set.
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "ssm/detail/instruction_set.hpp"
#include "ssm/detail/simd_math.hpp"
#include "support/error_in_ulp.hpp"
#include "support/pack_function.hpp"

namespace ssm::test {
namespace {

#define SSM_PACK_FUNCTION(NAME)                              \
  struct NAME {                                              \
    template <class Pack>                                    \
    [[gnu::always_inline]] static Pack call(Pack const& x) { \
      return detail::NAME(x);                                \
    }                                                        \
  }
SSM_PACK_FUNCTION(exp);
SSM_PACK_FUNCTION(exp2);
SSM_PACK_FUNCTION(exp2_in_range);
SSM_PACK_FUNCTION(exp_in_range);
SSM_PACK_FUNCTION(softplus);
SSM_PACK_FUNCTION(softplus_in_range);
SSM_PACK_FUNCTION(sigmoid);
SSM_PACK_FUNCTION(silu);
#undef SSM_PACK_FUNCTION

/// One of two powers that are computed together.
struct exp2_of_two {
  template <class Pack>
  [[gnu::always_inline]] static Pack call(Pack const& x) {
    Pack z[] = {-x, x};
    detail::exp2_in_range(z);
    return z[1];
  }
};

TEST(SimdMath, ExpIsWithinItsBoundForFloatsOfEverySize) {
  expect_ulp(1.1, exp{}, [](double x) { return std::exp(x); });
}

TEST(SimdMath, Exp2IsWithinItsBoundForFloatsOfEverySize) {
  expect_ulp(1.3, exp2{}, [](double x) { return std::exp2(x); });
  expect_ulp(
      1.3, exp2_in_range{}, [](double x) { return std::exp2(x); }, 125);
}

TEST(SimdMath, SoftplusIsWithinTwoUlpForFloatsOfEverySize) {
  expect_ulp(2, softplus{}, [](double x) { return ssm::softplus(x); });
}

TEST(SimdMath, SigmoidIsWithinThreeUlpForFloatsOfEverySize) {
  expect_ulp(3, sigmoid{}, [](double x) { return ssm::sigmoid(x); });
}

TEST(SimdMath, SiluIsWithinFourUlpWhereItIsNotNegligible) {
  expect_ulp(
      4, silu{}, [](double x) { return ssm::silu(x); }, 86);
  for (auto const set : all_sets) {
    block<float> x;
    x.fill(-std::numeric_limits<float>::max());
    EXPECT_LE(std::abs(evaluate(set, x, silu{})[0]), 4e-36f);
  }
}

TEST(SimdMath, DoublesAgreeWithTheStandardLibrary) {
  for (auto const set : all_sets) {
    for (double scale : {1e-9, 1e-3, 0.7, 5.0, 60.0, 700.0}) {
      block<double> x;
      for (std::size_t i = 0; i < x.size(); ++i) {
        x[i] = scale * (static_cast<double>(i) / 31.7 - 1);
      }
      auto const e = evaluate(set, x, exp{}), two = evaluate(set, x, exp2{}),
                 step = evaluate(set, x, softplus{}), gate = evaluate(set, x, silu{});
      for (std::size_t i = 0; i < x.size(); ++i) {
        // The truth is itself off by up to 1 ulp.
        long double const wide = x[i];
        EXPECT_LE(error_in_ulp(e[i], std::exp(wide)), 1.1) << x[i];
        EXPECT_LE(error_in_ulp(two[i], std::exp2(wide)), 1.4) << x[i];
        EXPECT_LE(error_in_ulp(step[i], ssm::softplus(wide)), 2) << x[i];
        EXPECT_LE(error_in_ulp(gate[i], ssm::silu(wide)), 4) << x[i];
      }
    }
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
    EXPECT_EQ(at(exp{}, inf), inf);
    EXPECT_EQ(at(exp{}, -inf), T(0));
    EXPECT_EQ(at(exp{}, T(0)), T(1));
    EXPECT_EQ(at(exp2{}, inf), inf);
    EXPECT_EQ(at(exp2{}, -inf), T(0));
    EXPECT_EQ(at(exp2{}, T(0)), T(1));
    EXPECT_EQ(at(exp2_in_range{}, T(0)), T(1));
    EXPECT_EQ(at(softplus{}, inf), inf);
    EXPECT_EQ(at(softplus{}, -inf), T(0));
    EXPECT_EQ(at(sigmoid{}, inf), T(1));
    EXPECT_EQ(at(sigmoid{}, -inf), T(0));
    EXPECT_TRUE(std::isnan(at(exp{}, nan)));
    EXPECT_TRUE(std::isnan(at(exp2{}, nan)));
    EXPECT_TRUE(std::isnan(at(softplus{}, nan)));
    EXPECT_TRUE(std::isnan(at(sigmoid{}, nan)));
    EXPECT_TRUE(std::isnan(at(silu{}, nan)));
  }
}

TEST(SimdMath, SpecialValuesAreThoseOfTheScalars) {
  expect_special_values<float>();
  expect_special_values<double>();
}

TEST(SimdMath, FormsForARangeAreTheSameBitsThere) {
  for (auto const set : all_sets) {
    block<float> x;
    for (int k = 0; k < 1000; ++k) {
      for (std::size_t i = 0; i < x.size(); ++i) {
        x[i] = 125.f * std::sin(0.37f * static_cast<float>(64 * k) + static_cast<float>(i));
      }
      EXPECT_EQ(evaluate(set, x, exp2{}), evaluate(set, x, exp2_in_range{}));
      EXPECT_EQ(evaluate(set, x, exp2{}), evaluate(set, x, exp2_of_two{}));
      for (float& element : x) element *= 0.69f;
      EXPECT_EQ(evaluate(set, x, exp{}), evaluate(set, x, exp_in_range{}));
      EXPECT_EQ(evaluate(set, x, softplus{}), evaluate(set, x, softplus_in_range{}));
    }
  }
}

TEST(Simd, HalvesAreConvertedAsTheScalarsAre) {
  auto const check = []<class Half>(Half) {
    for (auto const set : all_sets) {
      for (std::uint32_t first = 0; first < 65536; first += 16) {
        std::array<Half, 16> stored, back;
        std::array<float, 16> loaded;
        for (std::uint32_t i = 0; i < 16; ++i) {
          stored[i] = Half::from_bits(static_cast<std::uint16_t>(first + i));
        }
        detail::dispatch(
            set, [&](auto width) __attribute__((always_inline)) {
              constexpr int lanes = decltype(width)::template lanes<float>;
              for (std::size_t i = 0; i < 16; i += lanes) {
                auto const value = detail::load_as<float, lanes>(&stored[i]);
                value.store(&loaded[i]);
                detail::store_as(value, &back[i]);
              }
            });
        for (std::size_t i = 0; i < 16; ++i) {
          float const expected = static_cast<float>(stored[i]);
          EXPECT_EQ(std::bit_cast<std::uint32_t>(loaded[i]),
                    std::bit_cast<std::uint32_t>(expected));
          EXPECT_EQ(back[i].bits, Half(expected).bits);
        }
      }
    }
  };
  check(bfloat16{});
  check(float16{});
}

TEST(Simd, FloatsAreRoundedToBfloat16AsTheScalarsAre) {
  for (auto const set : all_sets) {
    for (std::uint64_t pattern = 0; pattern < std::uint64_t{1} << 32; pattern += 99991 * 16) {
      std::array<float, 16> x;
      std::array<bfloat16, 16> rounded;
      for (std::uint64_t i = 0; i < 16; ++i) {
        x[i] = std::bit_cast<float>(static_cast<std::uint32_t>(pattern + i * 99991));
      }
      detail::dispatch(
          set, [&](auto width) __attribute__((always_inline)) {
            constexpr int lanes = decltype(width)::template lanes<float>;
            for (std::size_t i = 0; i < 16; i += lanes) {
              detail::store_as(detail::pack<float, lanes>::load(&x[i]), &rounded[i]);
            }
          });
      for (std::size_t i = 0; i < 16; ++i) EXPECT_EQ(rounded[i].bits, bfloat16(x[i]).bits);
    }
  }
}

TEST(Simd, LanesAreSummed) {
  for (auto const set : all_sets) {
    float found = 0;
    int count = 0;
    detail::dispatch(
        set, [&](auto width) __attribute__((always_inline)) {
          constexpr int lanes = decltype(width)::template lanes<float>;
          detail::pack<float, lanes> p(0.f);
          for (int i = 0; i < lanes; ++i) p.v[i] = static_cast<float>(i + 1);
          found = detail::sum_of_lanes(p);
          count = lanes;
        });
    EXPECT_EQ(found, static_cast<float>(count * (count + 1) / 2));
  }
}

template <class T>
void check_sums_of_lanes(instruction_set set) {
  T found[16] = {}, expected[16] = {};
  detail::dispatch(
      set, [&](auto width) __attribute__((always_inline)) {
        constexpr int lanes = decltype(width)::template lanes<T>;
        detail::pack<T, lanes> packs[lanes];
        for (int i = 0; i < lanes; ++i)
          for (int k = 0; k < lanes; ++k) {
            packs[i].v[k] = static_cast<T>((1 << i) + 3 * k);
            expected[i] += packs[i].v[k];
          }
        detail::sums_of_lanes<T, lanes>([&](auto i) __attribute__((always_inline)) {
          return packs[decltype(i)::value];
        }).store(found);
      });
  for (int i = 0; i < 16; ++i) EXPECT_EQ(found[i], expected[i]) << "of pack " << i;
}

TEST(Simd, LanesOfManyPacksAreSummed) {
  for (auto const set : all_sets) {
    check_sums_of_lanes<float>(set);
    check_sums_of_lanes<double>(set);
  }
}

TEST(Simd, OneLaneAboveTheLimitOrNanIsFound) {
  for (auto const set : all_sets) {
    detail::dispatch(
        set, [&](auto width) __attribute__((always_inline)) {
          constexpr int lanes = decltype(width)::template lanes<float>;
          detail::pack<float, lanes> p(1.f);
          EXPECT_TRUE(detail::all_at_most(p, 1.f));
          for (int i = 0; i < lanes; ++i) {
            for (float const bad : {1.5f, std::numeric_limits<float>::quiet_NaN()}) {
              p.v[i] = bad;
              EXPECT_FALSE(detail::all_at_most(p, 1.f)) << "lane " << i;
            }
            p.v[i] = 1.f;
          }
        });
  }
}

}  // namespace
}  // namespace ssm::test
