// SPDX-License-Identifier: Apache-2.0
// double_word.hpp: a number kept as the unevaluated sum of two, for twice the digits.
#pragma once

#include <cmath>  // std::fma
#include <concepts>
#include <limits>
#include <type_traits>

#include "ssm/scalar.hpp"

namespace ssm::detail {

/// hi + lo with |lo| at most half an ulp of hi. With u = eps/2 the relative error is at most 3u² of
/// a sum of equal signs, 3u²·(|a| + |b|) of any, 5u² of a product and 15u² of a quotient, as long
/// as no lo falls below the smallest normal number; it is exact where the result fits.
/// Source  Joldes, Muller & Popescu 2017, Tight and rigorous error bounds for basic building
///         blocks of double-word arithmetic, algorithms 6, 10 and 17.
template <std::floating_point R>
struct double_word {
  R hi = R(0);
  R lo = R(0);

  constexpr double_word() = default;
  constexpr double_word(R value) : hi{value} {}
  constexpr double_word(R high, R low) : hi{high}, lo{low} {}
  constexpr double_word(int value) : hi{static_cast<R>(value)} {}

  /// Any index: its nearest number and what that leaves.
  static constexpr double_word from(index_t value) {
    R const high = static_cast<R>(value);
    return {high, static_cast<R>(value - static_cast<index_t>(high))};
  }

  constexpr double_word operator-() const { return {-hi, -lo}; }
  constexpr double_word& operator+=(double_word const& b) { return *this = *this + b; }
  constexpr double_word& operator-=(double_word const& b) { return *this = *this + -b; }
  constexpr double_word& operator*=(double_word const& b) { return *this = *this * b; }
  constexpr double_word& operator/=(double_word const& b) { return *this = *this / b; }

  friend constexpr double_word operator+(double_word const& a, double_word const& b) {
    double_word const s = two_sum(a.hi, b.hi), t = two_sum(a.lo, b.lo);
    double_word const v = fast_two_sum(s.hi, s.lo + t.hi);
    return fast_two_sum(v.hi, t.lo + v.lo);
  }
  friend constexpr double_word operator-(double_word const& a, double_word const& b) {
    return a + -b;
  }
  friend double_word operator*(double_word const& a, double_word const& b) {
    R const product = a.hi * b.hi;
    R const rest = std::fma(a.hi, b.hi, -product);
    return fast_two_sum(product, rest + (a.hi * b.lo + a.lo * b.hi));
  }
  friend double_word operator/(double_word const& a, double_word const& b) {
    R const quotient = a.hi / b.hi;
    double_word const rest = a - b * double_word(quotient);
    return fast_two_sum(quotient, rest.hi / b.hi);
  }
  friend constexpr bool operator==(double_word const&, double_word const&) = default;

 private:
  static constexpr double_word two_sum(R a, R b) {
    R const s = a + b, rounded_b = s - a;
    return {s, (a - (s - rounded_b)) + (b - rounded_b)};
  }
  static constexpr double_word fast_two_sum(R a, R b) {  // |a| >= |b|, or a is 0
    R const s = a + b;
    return {s, b - (s - a)};
  }
};

/// The type with twice the digits of R; a number that is not built in has enough and stays itself.
template <class R>
struct twice_of {
  using type = R;
  static R from(index_t value) { return static_cast<R>(value); }
  static R rounded(R const& value) { return value; }
  static R rest(R const&) { return R(0); }
};

template <std::floating_point R>
struct twice_of<R> {
  using type = double_word<R>;
  static type from(index_t value) { return type::from(value); }
  static R rounded(type const& value) { return value.hi; }
  static R rest(type const& value) { return value.lo; }
};

}  // namespace ssm::detail

/// Makes it a real_scalar, so that discretization rules made of + - * / take it.
template <class R>
struct std::numeric_limits<ssm::detail::double_word<R>> : std::numeric_limits<R> {};
