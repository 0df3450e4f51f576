// SPDX-License-Identifier: Apache-2.0
// numerics.hpp: elementary functions that keep their digits, with slopes and stated error bounds.
#pragma once

#include <cmath>
#include <complex>  // its exp, log, sqrt and abs, which the forwards below call
#include <limits>

#include "ssm/config.hpp"
#include "ssm/scalar.hpp"

namespace ssm {

// Accuracy is stated in units of the last place (ulp) of the result, at every finite argument,
// subnormal ones and results included, for standard functions that are right to 1 ulp. (CUDA's in
// float are right to 2: add 1 ulp.) The error of a complex result is in the ulp of its modulus.
// Special lists f(-∞), f(+∞) and what else is not obvious; a complex real part of -∞ gives the
// same. NaN propagates, and an infinite imaginary part gives NaN. Tested by tests/numerics_test.cpp
// against the same templates at 50 digits.

// The only calls of the standard elementary functions. A number type that brings its own in its
// namespace works too. An overload made for one type is preferred to these templates, so that
// `using namespace ssm` beside `using namespace std` makes no call ambiguous.

template <scalar T>
SSM_HD T exp(T const& z) {
  using std::exp;
  return exp(z);
}

template <scalar T>
SSM_HD T log(T const& z) {
  using std::log;
  return log(z);
}

template <scalar T>
SSM_HD T sqrt(T const& z) {
  using std::sqrt;
  return sqrt(z);
}

template <scalar T>
SSM_HD real_t<T> abs(T const& z) {
  using std::abs;
  return abs(z);
}

template <real_scalar T>
SSM_HD T log1p(T const& x) {
  using std::log1p;
  return log1p(x);
}

template <real_scalar T>
SSM_HD T sin(T const& x) {
  using std::sin;
  return sin(x);
}

template <real_scalar T>
SSM_HD T cos(T const& x) {
  using std::cos;
  return cos(x);
}

template <real_scalar T>
SSM_HD T expm1(T const& x) {
  using std::expm1;
  return expm1(x);
}

/// e^z - 1 of a complex number, also near 0 and 2πi k, where exp(z) - 1 cancels.
/// Accuracy  5 ulp.
template <complex_scalar T>
SSM_HD T expm1(T const& z) {
  using R = real_t<T>;
  // e^x cos y - 1 = expm1(x) - 2 e^x sin²(y/2),  e^x sin y = 2 e^x sin(y/2) cos(y/2)
  R const growth = expm1(z.real());
  R const half = R(0.5) * z.imag();
  R const s = sin(half);
  R const chord = R(2) * (growth + R(1)) * s;
  return T(growth - chord * s, chord * cos(half));
}

/// φ1(z) = (e^z - 1)/z, the mean of e^(tz) over t in [0, 1].
/// Accuracy  2 ulp; complex 7 ulp.
/// Special   0, NaN (∞/∞); φ1(0) = 1; ∞ as soon as e^x overflows.
template <scalar T>
SSM_HD T phi1(T const& z) {
  if (z == T(0)) return T(1);
  return expm1(z) / z;
}

namespace detail {

/// How many terms of Σ z^k / (k+2)! count to `digits` bits where |z| <= 2.
SSM_HD constexpr int phi2_series_length(int digits) {
  double term = 4;  // in units of the last place, with two bits to spare
  for (int bit = 0; bit < digits; ++bit) term *= 2;
  int k = 0;
  for (; term > 1; ++k) term *= 2.0 / (k + 3);
  return k;
}

/// φ2(z) = (e^z - 1 - z)/z² = Σ z^k / (k+2)! for |z| <= 2. With Re z >= 0 no digits cancel.
template <scalar T>
SSM_HD T phi2_series(T const& z) {
  using R = real_t<T>;
  constexpr int length = phi2_series_length(std::numeric_limits<R>::digits);
  T sum = T(1);
  for (int k = length; k > 0; --k) sum = T(1) + z * (R(1) / R(k + 2)) * sum;
  return R(0.5) * sum;
}

}  // namespace detail

/// d/dz φ1(z) = (1 + (z - 1) e^z)/z², the mean of t e^(tz) over t in [0, 1]; 1/2 at 0.
/// Accuracy  4 ulp; complex 6 ulp of |1/z²| + |e^z/z| where |z| > 2 (there are zeros, the first
///           at -2.1 ± 7.5i), 6 ulp elsewhere.
/// Special   0, NaN; ∞ as soon as e^x overflows.
template <scalar T>
SSM_HD T phi1_slope(T const& z) {
  using R = real_t<T>;
  if (squared_magnitude(z) <= R(4)) {
    // φ1'(z) = e^z φ2(-z) = 1 + (z - 1) φ2(z)
    if (real_part(z) < R(0)) return exp(z) * detail::phi2_series(T(-z));
    return T(1) + (z - T(1)) * detail::phi2_series(z);
  }
  T const w = T(1) / z;
  return w * (w + (T(1) - w) * exp(z));
}

/// σ(x) = 1/(1 + e^-x).
/// Accuracy  3 ulp.
/// Special   0, 1.
template <real_scalar T>
SSM_HD T sigmoid(T const& x) {
  T const e = exp(T(-abs(x)));
  return (x < T(0) ? e : T(1)) / (T(1) + e);
}

/// log(1 + e^x), a smooth max(x, 0): Mamba's map from a projection to a step size.
/// Accuracy  2 ulp.
/// Special   0, ∞.
template <real_scalar T>
SSM_HD T softplus(T const& x) {
  return (x > T(0) ? x : T(0)) + log1p(exp(T(-abs(x))));
}

/// d/dx log(1 + e^x) = σ(x).
template <real_scalar T>
SSM_HD T softplus_slope(T const& x) {
  return sigmoid(x);
}

/// The x with softplus(x) = y: log(e^y - 1).
/// Accuracy  2 ulp of max(|x|, 1); x has a zero at y = log 2.
/// Special   NaN, ∞; -∞ at 0, NaN for y < 0.
template <real_scalar T>
SSM_HD T softplus_inverse(T const& y) {
  return y + log(T(-expm1(T(-y))));
}

/// x σ(x).
/// Accuracy  4 ulp; |x| times the smallest subnormal number where e^x is below the normal range.
/// Special   NaN (∞·0), ∞.
template <real_scalar T>
SSM_HD T silu(T const& x) {
  return x * sigmoid(x);
}

/// d/dx x σ(x) = σ(x) (1 + x σ(-x)).
/// Accuracy  4 ulp of σ(x) (1 + |x| σ(-x)); there is a zero at -1.28. As silu below the normal
///           range.
/// Special   NaN, NaN (∞·0).
template <real_scalar T>
SSM_HD T silu_slope(T const& x) {
  return sigmoid(x) * (T(1) + x * sigmoid(T(-x)));
}

/// log(e^a + e^b), also where e^a or e^b overflows.
/// Accuracy  2 ulp of the largest of |a|, |b| and the result.
/// Special   -∞ is the neutral element, ∞ absorbs every number.
template <real_scalar T>
SSM_HD T log_add_exp(T const& a, T const& b) {
  if (a == b) return a + log(T(2));  // infinities among them, whose difference is NaN
  return (a < b ? b : a) + log1p(exp(T(-abs(T(a - b)))));
}

}  // namespace ssm
