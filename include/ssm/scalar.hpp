// SPDX-License-Identifier: Apache-2.0
// scalar.hpp: which numbers the templates accept, and the real part of their world.
#pragma once

#include <concepts>
#include <limits>
#include <type_traits>

#include "ssm/config.hpp"

namespace ssm {

/// A complex number by shape: std::complex, cuda::std::complex, or anything with the same members.
/// (Multiprecision reals also have real() and imag(); their value_type is themselves.)
template <class T>
concept complex_scalar = requires(T const z) {
  typename T::value_type;
  z.real();
  z.imag();
}
&&!std::same_as<typename T::value_type, T>;

/// float, double, long double, or a user's floating point type with numeric_limits.
template <class T>
concept real_scalar =
    std::numeric_limits<T>::is_specialized && !std::numeric_limits<T>::is_integer &&
    !complex_scalar<T>;

template <class T>
concept scalar = real_scalar<T> || complex_scalar<T>;

namespace detail {

template <class T>
struct real_part_of {
  using type = T;
};

template <complex_scalar T>
struct real_part_of<T> {
  using type = typename T::value_type;
};

}  // namespace detail

/// The real type that belongs to T: double for double and for std::complex<double>.
template <class T>
using real_t = typename detail::real_part_of<std::remove_cv_t<T>>::type;

/// Complex conjugate; a real number is its own. Gradients of real losses use it: for w = a·z the
/// cotangent of z is conjugate(a) times the cotangent of w.
template <scalar T>
SSM_HD constexpr T conjugate(T const& z) {
  if constexpr (complex_scalar<T>) {
    return T(z.real(), -z.imag());
  } else {
    return z;
  }
}

/// Real part; a real number is its own.
template <scalar T>
SSM_HD constexpr real_t<T> real_part(T const& z) {
  if constexpr (complex_scalar<T>) {
    return z.real();
  } else {
    return z;
  }
}

/// |z|^2 without the square root of abs().
template <scalar T>
SSM_HD constexpr real_t<T> squared_magnitude(T const& z) {
  if constexpr (complex_scalar<T>) {
    return z.real() * z.real() + z.imag() * z.imag();
  } else {
    return z * z;
  }
}

}  // namespace ssm
