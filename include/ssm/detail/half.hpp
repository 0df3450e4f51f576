// SPDX-License-Identifier: Apache-2.0
// half.hpp: the 16-bit storage types, and the type in which their elements are computed with.
#pragma once

#include <cstdint>

#include "ssm/config.hpp"

namespace ssm {

namespace detail {

// __builtin_bit_cast because std::bit_cast is not callable from a kernel.
SSM_HD constexpr std::uint32_t float_bits(float value) {
  return __builtin_bit_cast(std::uint32_t, value);
}
SSM_HD constexpr float float_from_bits(std::uint32_t bits) {
  return __builtin_bit_cast(float, bits);
}

// Drop the low 16 or 13 bits, to nearest, ties to even: just under one half is added, and one
// more unit where the last kept bit is odd. A carry out of the fraction steps the exponent, and
// out of the largest finite number steps to infinity, as it should.
SSM_HD constexpr std::uint32_t round_off(std::uint32_t bits, int dropped) {
  std::uint32_t const below_half = (std::uint32_t{1} << (dropped - 1)) - 1;
  std::uint32_t const last_kept = (bits >> dropped) & 1;
  return (bits + below_half + last_kept) >> dropped;
}

}  // namespace detail

/// The upper half of a float: 8 exponent bits, 7 fraction bits. Storage only: convert to float,
/// compute, convert back. Trivial, so arrays of it may live in shared memory; bfloat16{} is zero.
/// Accuracy  to float: exact. From float: to nearest, ties to even.
/// Special   infinity and the sign of zero are kept; overflow rounds to infinity; NaN stays NaN,
///           quiet, with the upper bits of its payload.
/// Tested    tests/half_test.cpp, all 65536 patterns.
struct bfloat16 {
  std::uint16_t bits;

  bfloat16() = default;

  SSM_HD explicit constexpr bfloat16(float value) : bits{} {
    std::uint32_t const from = detail::float_bits(value);
    bool const is_nan = (from & 0x7fff'ffffu) > 0x7f80'0000u;
    bits = static_cast<std::uint16_t>(is_nan ? (from >> 16) | 0x40u : detail::round_off(from, 16));
  }

  SSM_HD explicit constexpr operator float() const {
    return detail::float_from_bits(std::uint32_t{bits} << 16);
  }

  SSM_HD static constexpr bfloat16 from_bits(std::uint16_t pattern) {
    bfloat16 result{};
    result.bits = pattern;
    return result;
  }
};

/// IEEE 754 binary16: 5 exponent bits, 10 fraction bits, largest finite number 65504, smallest
/// positive 2^-24. Storage only, as bfloat16; the same accuracy and special values.
struct float16 {
  std::uint16_t bits;

  float16() = default;

  SSM_HD explicit constexpr float16(float value) : bits{} {
    std::uint32_t const from = detail::float_bits(value);
    std::uint32_t const sign = (from >> 16) & 0x8000u;
    bits = static_cast<std::uint16_t>(sign | magnitude_bits(from & 0x7fff'ffffu));
  }

  SSM_HD explicit constexpr operator float() const {
    std::uint32_t const sign = (std::uint32_t{bits} & 0x8000u) << 16;
    std::uint32_t const magnitude = bits & 0x7fffu;
    std::uint32_t to = (magnitude << 13) + exponent_shift;
    if (magnitude >= 0x7c00u) {  // infinity and NaN
      to = (magnitude << 13) | 0x7f80'0000u;
    } else if (magnitude < 0x0400u) {  // zero and subnormals, multiples of 2^-24: normal floats
      to = detail::float_bits(static_cast<float>(magnitude) * 0x1p-24f);
    }
    return detail::float_from_bits(sign | to);
  }

  SSM_HD static constexpr float16 from_bits(std::uint16_t pattern) {
    float16 result{};
    result.bits = pattern;
    return result;
  }

 private:
  static constexpr std::uint32_t exponent_shift = (127 - 15) << 23;  // difference of the biases

  // `from` is the pattern of a float without its sign.
  SSM_HD static constexpr std::uint32_t magnitude_bits(std::uint32_t from) {
    if (from > 0x7f80'0000u) return 0x7e00u | ((from >> 13) & 0x3ffu);  // NaN
    if (from >= 0x4780'0000u) return 0x7c00u;                           // 65536 and above
    if (from >= 0x3880'0000u) return detail::round_off(from - exponent_shift, 13);  // from 2^-14
    // In [1/2, 1) floats are 2^-24 apart, as our subnormals are: the sum rounds for us.
    return detail::float_bits(detail::float_from_bits(from) + 0.5f) - detail::float_bits(0.5f);
  }
};

namespace detail {

template <class T>
struct accumulator {
  using type = T;
};
template <>
struct accumulator<bfloat16> {
  using type = float;
};
template <>
struct accumulator<float16> {
  using type = float;
};

}  // namespace detail

/// The type in which elements stored as T are added and multiplied: float for the 16-bit types,
/// T itself for any other. static_cast<accumulator_t<T>>(x) loads, static_cast<T>(y) stores.
template <class T>
using accumulator_t = typename detail::accumulator<T>::type;

}  // namespace ssm
