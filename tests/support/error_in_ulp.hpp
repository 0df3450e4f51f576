// SPDX-License-Identifier: Apache-2.0
// error_in_ulp.hpp: how far a computed number is from the exact one, in units of the last place.
#pragma once

#include <algorithm>
#include <boost/multiprecision/cpp_bin_float.hpp>
#include <cmath>
#include <complex>
#include <limits>

namespace ssm::test {

/// |found - exact| in units of the last place of T at a number of size `magnitude` (gradual
/// underflow included). `Exact` is a wider type than T. Infinite if only one of the two is a
/// number, or if they are different infinities; a `found` of ±infinity is right from where the
/// largest T ends on.
template <class T, class Exact>
double error_in_ulp_at(Exact const& magnitude, T found, Exact const& exact) {
  using std::abs, std::frexp, std::isfinite, std::isnan, std::ldexp;
  double const unlike = std::numeric_limits<double>::infinity();
  if (std::isnan(found) || isnan(exact)) return std::isnan(found) && isnan(exact) ? 0 : unlike;
  Exact const largest = Exact(std::numeric_limits<T>::max());
  bool const overflows = abs(exact) > largest;
  if (std::isinf(found)) return overflows && (found > 0) == (exact > 0) ? 0 : unlike;
  if (!isfinite(exact)) return unlike;
  int exponent = std::numeric_limits<T>::min_exponent;
  if (magnitude != 0) {
    frexp(magnitude, &exponent);
    exponent = std::max(exponent, std::numeric_limits<T>::min_exponent);
  }
  Exact const difference = abs(Exact(Exact(found) - exact));
  return static_cast<double>(ldexp(difference, std::numeric_limits<T>::digits - exponent));
}

/// |found - exact| in units of the last place of T at `exact`.
template <class T, class Exact>
double error_in_ulp(T found, Exact const& exact) {
  return error_in_ulp_at(exact, found, exact);
}

/// |found - exact| in units of the last place of T at |exact|: one component of a complex number
/// that is small beside the other has fewer correct digits, as in any complex product.
template <class T, class Exact>
double error_in_ulp(std::complex<T> const& found, std::complex<Exact> const& exact) {
  Exact const size = abs(exact);
  return std::hypot(error_in_ulp_at(size, found.real(), exact.real()),
                    error_in_ulp_at(size, found.imag(), exact.imag()));
}

}  // namespace ssm::test
