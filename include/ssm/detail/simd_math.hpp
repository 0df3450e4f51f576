// SPDX-License-Identifier: Apache-2.0
// simd_math.hpp: the elementary functions of numerics.hpp on packs, without branches.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "ssm/detail/simd.hpp"
#include "ssm/numerics.hpp"

namespace ssm::detail {

// Polynomials are minimax (Remez, 50 digits). Accuracy in ulp as in numerics.hpp, measured by
// tests/simd_math_test.cpp over all floats; the bounds hold with and without fused multiply-add.

/// What a number's bits need: adding `rounder` rounds to an integer, which is then in the low bits
/// and can be moved to the exponent.
template <class T>
struct number_format;

template <>
struct number_format<float> {
  using bits = std::int32_t;
  using word = std::uint32_t;
  static constexpr float rounder = 0x1.8p23f;
  static constexpr int fraction_bits = 23;
  static constexpr float safe_exponent = 125;  ///< 2^±this times a factor in [1/2, 2] is normal
  static constexpr float log2_e = 0x1.715476p+0f;
  static constexpr float ln2_high = 0x1.62e4p-1f;  // 15 bits: n·ln2_high is exact for |n| < 512
  static constexpr float ln2_low = 0x1.7f7d1cp-20f;
  // (2^r - 1)/r for |r| <= 1/2: 2.6e-9 of 2^r
  static constexpr float exp2_terms[] = {1.5594685601e-4f, 1.3406646968e-3f, 9.6176929382e-3f,
                                         5.5503105425e-2f, 2.4022652783e-1f, 6.9314721497e-1f};
  // (e^r - 1 - r)/r² for |r| <= log(2)/2: 3.1e-9 of e^r
  static constexpr float exp_terms[] = {1.38145978e-3f, 8.36871724e-3f, 4.16683881e-2f,
                                        1.66665206e-1f, 4.99999934e-1f};
};

template <>
struct number_format<double> {
  using bits = std::int64_t;
  using word = std::uint64_t;
  static constexpr double rounder = 0x1.8p52;
  static constexpr int fraction_bits = 52;
  static constexpr double safe_exponent = 1021;
  static constexpr double log2_e = 0x1.71547652b82fep+0;
  static constexpr double ln2_high = 0x1.62e42fefa38p-1;  // 42 bits
  static constexpr double ln2_low = 0x1.ef35793c7673p-45;
  // 5.7e-20 of 2^r
  static constexpr double exp2_terms[] = {
      2.5855247339640386895e-11, 4.4572398029110786994e-10, 7.0548148276932840234e-9,
      1.017804752796333419e-7,   1.3215487003436769051e-6,  1.5252733864852724312e-5,
      1.5403530393171796966e-4,  1.3333558146381730341e-3,  9.6181291076285612618e-3,
      5.5504108664821733783e-2,  2.402265069591007114e-1,   6.9314718055994530798e-1};
  // 5.3e-20 of e^r
  static constexpr double exp_terms[] = {
      2.0826625454656563676e-9, 2.5112037449946093489e-8, 2.7557581857075437921e-7,
      2.7557234860210332524e-6, 2.4801586926617800419e-5, 1.9841269896385478129e-4,
      1.3888888889115639267e-3, 8.333333333317033605e-3,  4.1666666666666094246e-2,
      1.6666666666666683421e-1, 5.0000000000000000439e-1};
};

/// The largest |x| of each lane so far. NaN counts as larger than any number: bits are compared.
template <class T, int Lanes>
struct largest_magnitude {
  using bits_pack = pack<typename number_format<T>::bits, Lanes>;
  bits_pack bits{0};

  [[gnu::always_inline]] void include(pack<T, Lanes> const& x) {
    bits_pack magnitude;
    __builtin_memcpy(&magnitude, &x, sizeof x);
    magnitude.v &= std::numeric_limits<typename number_format<T>::bits>::max();
    bits = larger(magnitude, bits);
  }
  [[gnu::always_inline]] pack<T, Lanes> value() const {
    pack<T, Lanes> result;
    __builtin_memcpy(&result, &bits, sizeof bits);
    return result;
  }
};

/// Horner's rule, the highest power first.
template <class T, int Lanes, int Count>
[[gnu::always_inline]] inline pack<T, Lanes> polynomial(pack<T, Lanes> const& r,
                                                        T const (&terms)[Count]) {
  pack<T, Lanes> sum(terms[0]);
  unrolled<Count - 1>([&](auto i) __attribute__((always_inline)) {
    sum = multiply_add(sum, r, terms[decltype(i)::value + 1]);
  });
  return sum;
}

template <class T, int Lanes>
using bits_pack = pack<typename number_format<T>::word, Lanes>;

template <class T>
inline constexpr typename number_format<T>::word bits_of_one =
    __builtin_bit_cast(typename number_format<T>::word, T(1));

template <class To, class From>
[[gnu::always_inline]] inline To same_bits(From const& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

/// Whether no lane is larger than `limit` or NaN.
template <class T, int Lanes>
[[gnu::always_inline]] inline bool all_at_most(pack<T, Lanes> const& x, T limit) {
  constexpr int words = sizeof(x) / sizeof(std::uint64_t);
  auto const found = same_bits<pack<std::uint64_t, words>>(decltype(x.v <= limit)(x.v <= limit));
  std::uint64_t all = ~std::uint64_t{0};
  for (int i = 0; i < words; ++i) all &= found.v[i];
  return all == ~std::uint64_t{0};
}

/// 2^z for |z| <= safe_exponent; elsewhere anything. 2^0 is exactly 1.
/// Accuracy  1 ulp.
template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> exp2_in_range(pack<T, Lanes> const& power) {
  using format = number_format<T>;
  pack<T, Lanes> z = power;
  keep(z);
  pack<T, Lanes> const shifted = z + format::rounder;
  pack<T, Lanes> const r = z - (shifted - format::rounder);
  auto const p = multiply_add(polynomial(r, format::exp2_terms), r, T(1));
  auto const exponent = same_bits<bits_pack<T, Lanes>>(shifted).v << format::fraction_bits;
  bits_pack<T, Lanes> const sum = same_bits<bits_pack<T, Lanes>>(p).v + exponent;
  return same_bits<pack<T, Lanes>>(sum);
}

/// p·2^n for an integer n with |n| <= 2·safe_exponent, gradual underflow and overflow included.
template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> times_power_of_two(pack<T, Lanes> const& p,
                                                                pack<T, Lanes> const& n) {
  using format = number_format<T>;
  constexpr T rounder = format::rounder;
  auto const power = [&](pack<T, Lanes> const& k) __attribute__((always_inline)) {
    auto const integer = same_bits<bits_pack<T, Lanes>>(k + rounder).v;
    bits_pack<T, Lanes> const bits = (integer << format::fraction_bits) + bits_of_one<T>;
    return same_bits<pack<T, Lanes>>(bits);
  };
  pack<T, Lanes> const half = (n * T(0.5) + rounder) - rounder;
  return p * power(half) * power(n - half);
}

/// z within ±limit; NaN stays.
template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> clamped(pack<T, Lanes> const& z, T limit) {
  return larger(pack<T, Lanes>(-limit), smaller(pack<T, Lanes>(limit), z));
}

/// 2^z, where |z| <= safe_exponent the same bits as exp2_in_range.
/// Accuracy  1 ulp.
/// Special   0, ∞; NaN propagates.
template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> exp2(pack<T, Lanes> const& unlimited) {
  using format = number_format<T>;
  pack<T, Lanes> z = clamped(unlimited, 2 * format::safe_exponent);
  keep(z);
  constexpr T rounder = format::rounder;
  pack<T, Lanes> const n = (z + rounder) - rounder;
  pack<T, Lanes> const r = z - n;
  return times_power_of_two(multiply_add(polynomial(r, format::exp2_terms), r, T(1)), n);
}

/// The p of e^x = p 2^n; `shifted` is n, rounded from x log2 e, moved up by `rounder`. (g++ takes a
/// struct of two packs apart in memory.)
template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> scaled_exp(pack<T, Lanes> const& x,
                                                        pack<T, Lanes>& shifted) {
  using format = number_format<T>;
  shifted = multiply_add(x, format::log2_e, format::rounder);
  pack<T, Lanes> const n = shifted - format::rounder;
  pack<T, Lanes> r = multiply_add(n, -format::ln2_high, x);
  r = multiply_add(n, -format::ln2_low, r);
  return multiply_add(polynomial(r, format::exp_terms), r * r, r) + T(1);
}

/// e^x for |x| <= safe_exponent·log 2, elsewhere anything.
/// Accuracy  1 ulp.
template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> exp_in_range(pack<T, Lanes> const& x) {
  pack<T, Lanes> shifted;
  auto const p = scaled_exp(x, shifted);
  auto const exponent = same_bits<bits_pack<T, Lanes>>(shifted).v
                        << number_format<T>::fraction_bits;
  bits_pack<T, Lanes> const sum = same_bits<bits_pack<T, Lanes>>(p).v + exponent;
  return same_bits<pack<T, Lanes>>(sum);
}

/// e^x, where exp_in_range is right the same bits.
/// Accuracy  1 ulp.
/// Special   0, ∞; NaN propagates.
template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> exp(pack<T, Lanes> const& x) {
  using format = number_format<T>;
  pack<T, Lanes> shifted;
  auto const p = scaled_exp(clamped(x, T(1.38) * format::safe_exponent), shifted);
  return times_power_of_two(p, shifted - format::rounder);
}

/// (log(1 + e) - e)/e² for e in [0, 1], to 5.1e-9 of log(1 + e). In powers of e - 1/2, whose terms
/// fall fast, so that rounding them costs little.
template <int Lanes>
[[gnu::always_inline]] inline pack<float, Lanes> log1p_tail(pack<float, Lanes> const& e) {
  constexpr float terms[] = {-3.318457036e-3f, 6.930685863e-3f,  -1.017770996e-2f,
                             1.665698873e-2f,  -2.890499894e-2f, 5.108905884e-2f,
                             -9.323185608e-2f, 1.792248862e-1f,  -3.781395594e-1f};
  return polynomial(e - 0.5f, terms);
}

/// f of every lane, one after another.
template <class T, int Lanes, class Function>
[[gnu::always_inline]] inline pack<T, Lanes> for_each_lane(pack<T, Lanes> const& x,
                                                           Function const& f) {
  pack<T, Lanes> result;
  for (int i = 0; i < Lanes; ++i) result.v[i] = f(T(x.v[i]));
  return result;
}

/// |x| up to which softplus_in_range is right.
template <class T>
inline constexpr T softplus_range = T(0.69) * number_format<T>::safe_exponent;

/// -|x|, by its sign bit alone: g++ makes three instructions of a comparison.
template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> minus_size(pack<T, Lanes> const& x) {
  auto bits = same_bits<bits_pack<T, Lanes>>(x);
  bits.v |= ~(~typename number_format<T>::word(0) >> 1);
  return same_bits<pack<T, Lanes>>(bits);
}

/// e^-|x|. InRange: for |x| <= softplus_range, elsewhere anything.
template <bool InRange, class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> exp_of_minus_size(pack<T, Lanes> const& x) {
  return InRange ? exp_in_range(minus_size(x)) : exp(minus_size(x));
}

/// log(1 + e^x) given e = e^-|x|. InRange: for |x| <= softplus_range, elsewhere anything.
template <bool InRange, class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> softplus_given(pack<T, Lanes> const& x,
                                                            pack<T, Lanes> const& e) {
  if constexpr (std::is_same_v<T, float>) {
    // max(x, 0) + e + e² tail, with what rounding takes from the first sum given to the last.
    pack<T, Lanes> const hinge = larger(x, pack<T, Lanes>(T(0)));
    pack<T, Lanes> const sum = hinge + e, taken = sum - hinge;
    pack<T, Lanes> const lost = (hinge - (sum - taken)) + (e - taken);
    pack<T, Lanes> const result = sum + multiply_add(log1p_tail(e), e * e, lost);
    if (InRange) return result;
    return where_greater(x, pack<T, Lanes>(softplus_range<T>), x, result);  // infinity among them
  } else {
    return for_each_lane(x, [](T const& lane) { return ssm::softplus(lane); });
  }
}

/// log(1 + e^x), where softplus_in_range is right the same bits.
/// Accuracy  2 ulp.
/// Special   0, ∞; NaN propagates.
template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> softplus(pack<T, Lanes> const& x) {
  return softplus_given<false>(x, exp_of_minus_size<false>(x));
}

/// log(1 + e^x) for |x| <= softplus_range, elsewhere anything.
/// Accuracy  2 ulp.
template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> softplus_in_range(pack<T, Lanes> const& x) {
  return softplus_given<true>(x, exp_of_minus_size<true>(x));
}

/// 1/(1 + e^-x) given e = e^-|x|.
template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> sigmoid_given(pack<T, Lanes> const& x,
                                                           pack<T, Lanes> const& e) {
  // e for negative x, otherwise 1 (where x·max < 1, e is 1)
  pack<T, Lanes> const one(T(1));
  return larger(e, smaller(one, x * std::numeric_limits<T>::max())) / (one + e);
}

/// 1/(1 + e^-x).
/// Accuracy  3 ulp.
/// Special   0, 1; NaN propagates.
template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> sigmoid(pack<T, Lanes> const& x) {
  return sigmoid_given(x, exp_of_minus_size<false>(x));
}

/// x/(1 + e^-x).
/// Accuracy  4 ulp for x >= -softplus_range; below, where |silu| < 4e-36 in float, its value there.
/// Special   ∞ at ∞; NaN propagates.
template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> silu(pack<T, Lanes> const& x) {
  pack<T, Lanes> const lowest(-softplus_range<T>), bounded = larger(lowest, x);
  return bounded / (exp_in_range(larger(lowest, -bounded)) + T(1));
}

}  // namespace ssm::detail
