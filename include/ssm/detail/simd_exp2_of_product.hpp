// SPDX-License-Identifier: Apache-2.0
// simd_exp2_of_product.hpp: powers of two whose exponent is a product, the decays of a scan.
#pragma once

#include "ssm/detail/simd_exp2.hpp"

namespace ssm::detail {

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
/// z ← 2^(z factor) by a polynomial, each operation for all of them before the next. What comes in
/// is shifted, which costs no more than the product alone: the polynomial is exactly 1 where the
/// shift is, not at an end of its interval, and one instruction takes the fraction, another the
/// integer, of the same number. Eight instructions where a table of sixteenths needs nine, for
/// 0.7 ulp. (Intel's processors add and multiply on the same two ports.)
template <bool InRange, std::size_t Count, class FactorOf>
[[gnu::always_inline]] inline void exp2_of_product_shifted(pack<float, 16> (&z)[Count],
                                                           FactorOf const& factor) {
  constexpr float shift = 0x1.38p-1f;
  // 2^(f - shift) for 0 <= f < 1: 7.8e-8 of it, with rounding 2 ulp
  constexpr float terms[] = {0x1.43460cp-10f, 0x1.81cea8p-8f, 0x1.2bcdacp-5f,
                             0x1.4262b4p-3f,  0x1.d140bap-2f, 0x1.4f9b26p-1f};
  auto const each = [](auto const& body) __attribute__((always_inline)) {
    unrolled<static_cast<int>(Count)>(body);
  };
  pack<float, 16> f[Count], p[Count];
  each([&](auto i) __attribute__((always_inline)) {
    z[i] = multiply_add(z[i], factor(i), shift);
    if (!InRange) z[i] = clamped(z[i], 2 * number_format<float>::safe_exponent);
    keep(z[i]);
  });
  each([&](auto i) __attribute__((always_inline)) {  // z - ⌊z⌋
    asm("vreduceps {$0x09, %1, %0|%0, %1, 0x09}" : "=v"(f[i].v) : "v"(z[i].v));
    p[i] = terms[0];
  });
  unrolled<5>([&](auto k) __attribute__((always_inline)) {
    each([&](auto i) __attribute__((always_inline)) {
      p[i] = multiply_add(p[i], f[i], terms[decltype(k)::value + 1]);
      keep(p[i]);
    });
  });
  each([&](auto i) __attribute__((always_inline)) { z[i] = times_exp2_of_floor(p[i], z[i]); });
}
#endif

/// z_i ← 2^(z_i factor(i)), each operation for all of them before the next; a factor is a pack or
/// a number. InRange: for products up to safe_exponent, where it gives the same bits as without.
/// Accuracy  2 ulp, and |z factor| ulp for the rounding of the product. 2^0 is exactly 1.
/// Special   0, ∞ where not InRange; NaN propagates.
template <bool InRange, class T, int Lanes, std::size_t Count, class FactorOf>
[[gnu::always_inline]] inline void exp2_of_product(pack<T, Lanes> (&z)[Count],
                                                   FactorOf const& factor) {
  if constexpr (has_exp2_table<T, Lanes>) {
    exp2_of_product_shifted<InRange>(z, factor);
  } else {
    unrolled<static_cast<int>(Count)>([&](auto i) __attribute__((always_inline)) {
      z[i] = z[i] * factor(i);
    });
    InRange ? exp2_in_range(z) : exp2(z);
  }
}

}  // namespace ssm::detail
