// SPDX-License-Identifier: Apache-2.0
// linear_scan_numbers.cuh: decays and drives for raw scans, repeated by a seed, and their values.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <type_traits>

#include "ssm/detail/half.hpp"
#include "ssm/random.hpp"
#include "ssm/scalar.hpp"
#include "support/guarded_array.cuh"

namespace ssm::test {

template <class T>
using exact_t = std::conditional_t<complex_scalar<T>, std::complex<double>, double>;

template <class T>
exact_t<T> exactly(T const& stored) {
  if constexpr (complex_scalar<T>) {
    return {stored.real(), stored.imag()};
  } else {
    return static_cast<accumulator_t<T>>(stored);
  }
}

template <class T>
T rounded(exact_t<T> const& exact) {
  if constexpr (complex_scalar<T>) {
    return T(static_cast<real_t<T>>(exact.real()), static_cast<real_t<T>>(exact.imag()));
  } else {
    return static_cast<T>(static_cast<accumulator_t<T>>(exact));
  }
}

/// As ssm::conjugate, of numbers of the host alone.
inline double conjugated(double value) {
  return value;
}
inline std::complex<double> conjugated(std::complex<double> const& value) {
  return std::conj(value);
}

template <class T>
char const* type_name() {
  if (std::is_same_v<T, bfloat16>) return "bfloat16";
  if (std::is_same_v<T, float16>) return "float16";
  if (complex_scalar<T>) return sizeof(T) == 8 ? "complex<float>" : "complex<double>";
  return sizeof(T) == 4 ? "float" : "double";
}

enum class gates {
  random,  ///< of size u, uniform on (0, 1), in any direction
  slow,    ///< of size 1 - 8u/length; drives are mostly 0, so that sums are not all rounding
  units    ///< 1 and -1 (and i and -i), drives small integers: all sums are exact in any order
};

template <class T>
exact_t<T> draw_decay(gates kind, random_stream const& stream, index_t length, index_t i) {
  double const u = stream.uniform(2 * i), v = stream.uniform(2 * i + 1);
  double const size = kind == gates::units  ? 1
                      : kind == gates::slow ? 1 - std::min(1.0, 8 * u / static_cast<double>(length))
                                            : u;
  auto const quarter = static_cast<int>(4 * v);
  if constexpr (complex_scalar<T>) {
    double const re[] = {1, 0, -1, 0}, im[] = {0, 1, 0, -1};
    if (kind == gates::units) return {re[quarter], im[quarter]};
    return std::polar(size, 6.28 * v);
  } else {
    return quarter < 2 ? size : -size;
  }
}

template <class T>
exact_t<T> draw_drive(gates kind, random_stream const& stream, index_t i) {
  if (kind == gates::slow && i % 61 != 0) return 0;
  auto const part = [&](index_t k) {
    double const u = 2 * stream.uniform(2 * i + k) - 1;
    return kind == gates::units ? std::round(3 * u) : u;
  };
  if constexpr (complex_scalar<T>) {
    return {part(0), part(1)};
  } else {
    return part(0);
  }
}

template <class T>
void fill_decays(guarded<T>& to, gates kind, std::uint64_t seed, index_t length) {
  index_t i = 0;
  random_stream const stream{seed, 1};
  to.each([&](index_t b, index_t t, index_t c) {
    to(b, t, c) = rounded<T>(draw_decay<T>(kind, stream, length, i++));
  });
}
template <class T>
void fill_drives(guarded<T>& to, gates kind, std::uint64_t seed, std::uint64_t id) {
  index_t i = 0;
  random_stream const stream{seed, id};
  to.each([&](index_t b, index_t t, index_t c) {
    to(b, t, c) = rounded<T>(draw_drive<T>(kind, stream, i++));
  });
}

}  // namespace ssm::test
