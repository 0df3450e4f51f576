// SPDX-License-Identifier: Apache-2.0
// simd_exp2_of_product.hpp: powers of two whose exponent is a product, the decays of a scan.
#pragma once

#include "ssm/detail/simd_exp2.hpp"

namespace ssm::detail {

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
/// As exp2_by_table, but what is rounded down is z·factor + 1/32, which costs no more than the
/// product alone: one instruction then takes the fraction, and the last one the integer, of the
/// same number. (Intel's processors add and multiply on the same two ports.)
template <bool InRange, std::size_t Count, class FactorOf>
[[gnu::always_inline]] inline void exp2_of_product_by_table(pack<float, 16> (&z)[Count],
                                                            FactorOf const& factor) {
  // 2^(f - 1/32) - 1 for 0 <= f < 1/16, exactly 0 at 1/32: 2.3e-9 of 2^f
  constexpr float terms[] = {0x1.c6ac6ap-5f, 0x1.e157eap-3f, 0x1.5b498p-1f, -0x1.5f134ap-6f};
  pack<float, 16> const rounder(0x1.8p19f);  // leaves four bits below the point
  auto const table = pack<float, 16>::load(sixteenths);
  auto const each = [](auto const& body) __attribute__((always_inline)) {
    unrolled<static_cast<int>(Count)>(body);
  };
  pack<float, 16> shifted[Count], f[Count], p[Count];
  each([&](auto i) __attribute__((always_inline)) {
    z[i] = multiply_add(z[i], factor(i), 0x1p-5f);
    if (!InRange) z[i] = clamped(z[i], 2 * number_format<float>::safe_exponent);
    keep(z[i]);
  });
  each([&](auto i) __attribute__((always_inline)) {  // down: 1/16 ⌊16 z⌋
    asm("vaddps {%{rd-sae%}, %2, %1, %0|%0, %1, %2, %{rd-sae%}}"
        : "=v"(shifted[i].v)
        : "v"(z[i].v), "v"(rounder.v));
  });
  each([&](auto i) __attribute__((always_inline)) {  // z - 1/16 ⌊16 z⌋
    asm("vreduceps {$0x49, %1, %0|%0, %1, 0x49}" : "=v"(f[i].v) : "v"(z[i].v));
    asm("vpermps {%2, %1, %0|%0, %1, %2}" : "=v"(shifted[i].v) : "v"(shifted[i].v), "vm"(table.v));
    p[i] = terms[0];
  });
  unrolled<3>([&](auto k) __attribute__((always_inline)) {
    each([&](auto i) __attribute__((always_inline)) {
      p[i] = multiply_add(p[i], f[i], terms[decltype(k)::value + 1]);
      keep(p[i]);
    });
  });
  each([&](auto i) __attribute__((always_inline)) {
    p[i] = multiply_add(shifted[i], p[i], shifted[i]);
    keep(p[i]);
  });
  each([&](auto i) __attribute__((always_inline)) {  // p 2^⌊z⌋
    asm("vscalefps {%2, %1, %0|%0, %1, %2}" : "=v"(z[i].v) : "v"(p[i].v), "v"(z[i].v));
  });
}
#endif

/// z_i ← 2^(z_i factor(i)), each operation for all of them before the next; a factor is a pack or
/// a number. InRange: for products up to safe_exponent, where it gives the same bits as without.
/// Accuracy  1.3 ulp, and |z factor| ulp for the rounding of the product. 2^0 is exactly 1.
/// Special   0, ∞ where not InRange; NaN propagates.
template <bool InRange, class T, int Lanes, std::size_t Count, class FactorOf>
[[gnu::always_inline]] inline void exp2_of_product(pack<T, Lanes> (&z)[Count],
                                                   FactorOf const& factor) {
  if constexpr (has_exp2_table<T, Lanes>) {
    exp2_of_product_by_table<InRange>(z, factor);
  } else {
    unrolled<static_cast<int>(Count)>([&](auto i) __attribute__((always_inline)) {
      z[i] = z[i] * factor(i);
    });
    InRange ? exp2_in_range(z) : exp2(z);
  }
}

}  // namespace ssm::detail
