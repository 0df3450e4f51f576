// SPDX-License-Identifier: Apache-2.0
// simd_exp2.hpp: powers of two on packs, the exponential that every step of a scan begins with.
#pragma once

#include <cstdint>
#include <iterator>
#include <type_traits>

#include "ssm/detail/simd.hpp"

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

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
/// Whether exp2_by_table does it: AVX-512 has a register for the table and takes sixteen lanes from
/// it at once. (clang refuses its registers in what could be compiled without them.)
template <class T, int Lanes>
inline constexpr bool has_exp2_table = std::is_same_v<T, float> && (Lanes == 16);

/// p 2^⌊n⌋
[[gnu::always_inline]] inline pack<float, 16> times_exp2_of_floor(pack<float, 16> const& p,
                                                                  pack<float, 16> const& n) {
  pack<float, 16> result;
  asm("vscalefps {%2, %1, %0|%0, %1, %2}" : "=v"(result.v) : "v"(p.v), "v"(n.v));
  return result;
}

/// 2^(i/16)
alignas(64) inline constexpr float sixteenths[] = {
    0x1p+0f,        0x1.0b5586p+0f, 0x1.172b84p+0f, 0x1.2387a6p+0f, 0x1.306fep+0f,  0x1.3dea64p+0f,
    0x1.4bfdaep+0f, 0x1.5ab07ep+0f, 0x1.6a09e6p+0f, 0x1.7a1148p+0f, 0x1.8ace54p+0f, 0x1.9c4918p+0f,
    0x1.ae89fap+0f, 0x1.c199bep+0f, 0x1.d5818ep+0f, 0x1.ea4afap+0f};

/// z ← 2^z for any finite z, each operation for all of them before the next: what is left below a
/// sixteenth needs two terms less than below a half.
template <std::size_t Count>
[[gnu::always_inline]] inline void exp2_by_table(pack<float, 16> (&z)[Count]) {
  constexpr float terms[] = {5.55021353e-2f, 2.40234286e-1f, 6.93147182e-1f};  // 1.6e-9 of 2^r
  constexpr float rounder = 0x1.8p19f;  // leaves four bits below the point
  auto const each = [](auto const& body) __attribute__((always_inline)) {
    unrolled<static_cast<int>(Count)>(body);
  };
  auto const table = pack<float, 16>::load(sixteenths);
  pack<float, 16> shifted[Count], n[Count], power[Count], p[Count];
  each([&](auto i) __attribute__((always_inline)) {
    keep(z[i]);
    shifted[i] = z[i] + rounder;
    keep(shifted[i]);
  });
  each([&](auto i) __attribute__((always_inline)) {
    n[i] = shifted[i] - rounder;
    keep(n[i]);
  });
  each([&](auto i) __attribute__((always_inline)) {
    asm("vpermps {%2, %1, %0|%0, %1, %2}" : "=v"(power[i].v) : "v"(shifted[i].v), "vm"(table.v));
    z[i] = z[i] - n[i];
    keep(z[i]);
    p[i] = terms[0];
  });
  unrolled<2>([&](auto k) __attribute__((always_inline)) {
    each([&](auto i) __attribute__((always_inline)) {
      p[i] = multiply_add(p[i], z[i], terms[decltype(k)::value + 1]);
      keep(p[i]);
    });
  });
  each([&](auto i) __attribute__((always_inline)) {
    p[i] *= z[i];
    keep(p[i]);
  });
  each([&](auto i) __attribute__((always_inline)) {
    p[i] = multiply_add(power[i], p[i], power[i]);
    keep(p[i]);
  });
  each([&](auto i) __attribute__((always_inline)) { z[i] = times_exp2_of_floor(p[i], n[i]); });
}

[[gnu::always_inline]] inline pack<float, 16> exp2_by_table(pack<float, 16> const& z) {
  pack<float, 16> one[] = {z};
  exp2_by_table(one);
  return one[0];
}
#else
template <class T, int Lanes>
inline constexpr bool has_exp2_table = false;
#endif

/// 2^z for |z| <= safe_exponent; elsewhere anything. 2^0 is exactly 1.
/// Accuracy  1 ulp.
template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> exp2_in_range(pack<T, Lanes> const& power) {
  using format = number_format<T>;
  pack<T, Lanes> z = power;
  keep(z);
  if constexpr (has_exp2_table<T, Lanes>) {
    return exp2_by_table(z);
  } else {
    pack<T, Lanes> const shifted = z + format::rounder;
    pack<T, Lanes> const r = z - (shifted - format::rounder);
    auto const p = multiply_add(polynomial(r, format::exp2_terms), r, T(1));
    auto const exponent = same_bits<bits_pack<T, Lanes>>(shifted).v << format::fraction_bits;
    bits_pack<T, Lanes> const sum = same_bits<bits_pack<T, Lanes>>(p).v + exponent;
    return same_bits<pack<T, Lanes>>(sum);
  }
}

/// The same of several packs, each operation for all of them before the next: without a table it is
/// a chain so long that a processor does not look far enough ahead to overlap one with another.
template <class T, int Lanes, std::size_t Count>
[[gnu::always_inline]] inline void exp2_in_range(pack<T, Lanes> (&z)[Count]) {
  using format = number_format<T>;
  constexpr int terms = static_cast<int>(std::size(format::exp2_terms));
  auto const each = [](auto const& body) __attribute__((always_inline)) {
    unrolled<static_cast<int>(Count)>(body);
  };
  if constexpr (has_exp2_table<T, Lanes>) {
    exp2_by_table(z);
  } else {
    pack<T, Lanes> shifted[Count], r[Count], p[Count];
    each([&](auto i) __attribute__((always_inline)) {
      keep(z[i]);
      shifted[i] = z[i] + format::rounder;
      keep(shifted[i]);
    });
    each([&](auto i) __attribute__((always_inline)) {
      r[i] = z[i] - (shifted[i] - format::rounder);
      keep(r[i]);
      p[i] = format::exp2_terms[0];
    });
    unrolled<terms>([&](auto k) __attribute__((always_inline)) {
      constexpr int next = decltype(k)::value + 1;
      constexpr T term = next < terms ? format::exp2_terms[next % terms] : T(1);
      each([&](auto i) __attribute__((always_inline)) {
        p[i] = multiply_add(p[i], r[i], term);
        keep(p[i]);
      });
    });
    each([&](auto i) __attribute__((always_inline)) {
      auto const exponent = same_bits<bits_pack<T, Lanes>>(shifted[i]).v << format::fraction_bits;
      bits_pack<T, Lanes> const sum = same_bits<bits_pack<T, Lanes>>(p[i]).v + exponent;
      z[i] = same_bits<pack<T, Lanes>>(sum);
    });
  }
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
  if constexpr (has_exp2_table<T, Lanes>) {
    return exp2_by_table(z);
  } else {
    constexpr T rounder = format::rounder;
    pack<T, Lanes> const n = (z + rounder) - rounder;
    pack<T, Lanes> const r = z - n;
    return times_power_of_two(multiply_add(polynomial(r, format::exp2_terms), r, T(1)), n);
  }
}

/// The same of several packs.
template <class T, int Lanes, std::size_t Count>
[[gnu::always_inline]] inline void exp2(pack<T, Lanes> (&z)[Count]) {
  unrolled<static_cast<int>(Count)>([&](auto i) __attribute__((always_inline)) {
    if constexpr (has_exp2_table<T, Lanes>) {
      z[i] = clamped(z[i], 2 * number_format<T>::safe_exponent);
    } else {
      z[i] = exp2(z[i]);
    }
  });
  if constexpr (has_exp2_table<T, Lanes>) exp2_by_table(z);
}

}  // namespace ssm::detail
