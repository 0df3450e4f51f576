// SPDX-License-Identifier: Apache-2.0
// numerics.hpp: elementary functions that keep their digits, with slopes and stated error bounds.
#pragma once

#include <cmath>
#include <complex>  // std::exp and friends of complex numbers, found by the forwards below
#include <limits>

#include "ssm/config.hpp"
#include "ssm/scalar.hpp"

namespace ssm {

// The only calls of the standard library's elementary functions. Any number type whose own
// namespace defines them works too; these templates give way to a more specialized overload, so
// `using namespace ssm` next to `using namespace std` makes no call ambiguous.

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

/// e^z - 1 of a complex number, without the cancellation of exp(z) - 1 near 0.
template <complex_scalar T>
SSM_HD T expm1(T const& z) {
  using R = real_t<T>;
  R const growth = expm1(z.real());
  R const half = R(0.5) * z.imag();
  R const s = sin(half);
  // e^x cos y - 1 = expm1(x) - 2 e^x sin²(y/2),  e^x sin y = 2 e^x sin(y/2) cos(y/2)
  R const chord = R(2) * (growth + R(1)) * s;
  return T(growth - chord * s, chord * cos(half));
}

/// φ1(z) = (e^z - 1)/z, the average of e^(t z) for t from 0 to 1; φ1(0) = 1.
template <scalar T>
SSM_HD T phi1(T const& z) {
  if (z == T(0)) return T(1);
  return expm1(z) / z;
}

namespace detail {

/// The number of terms after which a series with terms below 1/k! has reached `digits` bits.
SSM_HD constexpr int exponential_series_length(int digits) {
  double remainder = 4;
  for (int bit = 0; bit < digits; ++bit) remainder *= 2;
  int k = 0;
  while (remainder > 1) remainder /= ++k;
  return k;
}

}  // namespace detail

/// d/dz φ1(z) = (z e^z - e^z + 1)/z², the average of t e^(t z); 1/2 at 0.
template <scalar T>
SSM_HD T phi1_slope(T const& z) {
  using R = real_t<T>;
  if (squared_magnitude(z) <= R(1)) {
    // Σ z^k / (k! (k+2)), each term the one before times z (k+2) / ((k+1) (k+3))
    constexpr int length = detail::exponential_series_length(std::numeric_limits<R>::digits);
    T sum = T(1);
    for (int k = length; k >= 0; --k) {
      R const ratio = R(k + 2) / R((k + 1) * (k + 3));
      sum = T(1) + z * ratio * sum;
    }
    return R(0.5) * sum;
  }
  T const w = T(1) / z;
  return w * (w + (T(1) - w) * exp(z));
}

/// σ(x) = 1/(1 + e^-x).
template <real_scalar T>
SSM_HD T sigmoid(T const& x) {
  T const e = exp(T(-abs(x)));
  return (x < T(0) ? e : T(1)) / (T(1) + e);
}

/// log(1 + e^x), the smooth maximum of 0 and x: Mamba's map from a projection to a step size.
template <real_scalar T>
SSM_HD T softplus(T const& x) {
  return (x < T(0) ? T(0) : x) + log1p(exp(T(-abs(x))));
}

/// d/dx softplus(x) = σ(x).
template <real_scalar T>
SSM_HD T softplus_slope(T const& x) {
  return sigmoid(x);
}

/// The x with softplus(x) = y, for y > 0.
template <real_scalar T>
SSM_HD T softplus_inverse(T const& y) {
  return y + log(T(-expm1(T(-y))));
}

/// x σ(x).
template <real_scalar T>
SSM_HD T silu(T const& x) {
  return x * sigmoid(x);
}

/// d/dx silu(x) = σ(x) (1 + x σ(-x)).
template <real_scalar T>
SSM_HD T silu_slope(T const& x) {
  return sigmoid(x) * (T(1) + x * sigmoid(T(-x)));
}

/// log(e^a + e^b) without overflow.
template <real_scalar T>
SSM_HD T log_add_exp(T const& a, T const& b) {
  if (a == b) return a + log(T(2));  // also both infinite, where a - b is not a number
  return (a < b ? b : a) + log1p(exp(T(-abs(T(a - b)))));
}

}  // namespace ssm
