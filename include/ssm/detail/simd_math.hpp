// SPDX-License-Identifier: Apache-2.0
// simd_math.hpp: the elementary functions of numerics.hpp on packs, without branches.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "ssm/detail/simd.hpp"
#include "ssm/detail/simd_exp2.hpp"
#include "ssm/numerics.hpp"

namespace ssm::detail {

// Polynomials are minimax (Remez, 50 digits). Accuracy in ulp as in numerics.hpp, measured by
// tests/simd_math_test.cpp over all floats; the bounds hold with and without fused multiply-add.

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

/// Whether all bits are set.
template <int Words>
[[gnu::always_inline]] inline bool all_set(pack<std::uint64_t, Words> const& x) {
  if constexpr (Words == 2) {
    return (x.v[0] & x.v[1]) == ~std::uint64_t{0};
  } else {
    constexpr int half = Words / 2;
    return [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
      return all_set(
          pack<std::uint64_t, half>(shuffled<i...>(x, x).v & shuffled<(half + i)...>(x, x).v));
    }
    (std::make_integer_sequence<int, half>{});
  }
}

/// Whether no lane is larger than `limit` or NaN.
template <class T, int Lanes>
[[gnu::always_inline]] inline bool all_at_most(pack<T, Lanes> const& x, T limit) {
  constexpr int words = sizeof(x) / sizeof(std::uint64_t);
  return all_set(same_bits<pack<std::uint64_t, words>>(decltype(x.v <= limit)(x.v <= limit)));
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
  auto const slope = multiply_add(polynomial(r, format::exp_terms), r, T(1));
  return multiply_add(slope, r, T(1));
}

/// e^x for |x| <= safe_exponent·log 2, elsewhere anything.
/// Accuracy  1.1 ulp.
template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> exp_in_range(pack<T, Lanes> const& x) {
  pack<T, Lanes> shifted;
  auto const p = scaled_exp(x, shifted);
  if constexpr (has_exp2_table<T, Lanes>) {
    return times_exp2_of_floor(p, shifted - number_format<T>::rounder);
  } else {
    auto const exponent = same_bits<bits_pack<T, Lanes>>(shifted).v
                          << number_format<T>::fraction_bits;
    bits_pack<T, Lanes> const sum = same_bits<bits_pack<T, Lanes>>(p).v + exponent;
    return same_bits<pack<T, Lanes>>(sum);
  }
}

/// e^x, where exp_in_range is right the same bits.
/// Accuracy  1.1 ulp.
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
    // max(x, 0) + log(1 + e)
    pack<T, Lanes> const hinge = larger(x, pack<T, Lanes>(T(0))),
                         result = hinge + multiply_add(log1p_tail(e), e * e, e);
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
