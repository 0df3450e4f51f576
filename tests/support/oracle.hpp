// SPDX-License-Identifier: Apache-2.0
// oracle.hpp: what a result should be, how far rounding may take it from there, and the verdict.
#pragma once

#include <gtest/gtest.h>

#include <boost/multiprecision/cpp_bin_float.hpp>
#include <cmath>
#include <complex>
#include <limits>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include "ssm/execution.hpp"
#include "ssm/scalar.hpp"
#include "ssm/tensor.hpp"
#include "ssm/tensor_view.hpp"
#include "support/random_tensor.hpp"

namespace ssm::test {

using digits50 = boost::multiprecision::cpp_bin_float_50;
using complex50 = std::complex<digits50>;

template <scalar T>
using wide = std::conditional_t<complex_scalar<T>, complex50, digits50>;

/// The same number in 50 digits.
template <scalar T>
wide<T> widened(T const& z) {
  if constexpr (complex_scalar<T>) {
    return {digits50(z.real()), digits50(z.imag())};
  } else {
    return digits50(z);
  }
}

template <scalar T, int Rank>
tensor<wide<T>, Rank> widened(tensor<T, Rank> const& from) {
  tensor<wide<T>, Rank> result(from.extents());
  for_each_position(from.extents(), [&](auto const& position) {
    at(result.view(), position) = widened(at(from.view(), position));
  });
  return result;
}

/// |z| in 50 digits.
template <scalar T>
digits50 magnitude(T const& z) {
  if constexpr (complex_scalar<T>) {
    return boost::multiprecision::sqrt(squared_magnitude(widened(z)));
  } else {
    return boost::multiprecision::abs(widened(z));
  }
}

template <scalar T, int Rank>
tensor<digits50, Rank> magnitude(tensor<T, Rank> const& from) {
  tensor<digits50, Rank> result(from.extents());
  for_each_position(from.extents(), [&](auto const& position) {
    at(result.view(), position) = magnitude(at(from.view(), position));
  });
  return result;
}

template <scalar T>
digits50 epsilon() {
  return digits50(std::numeric_limits<real_t<T>>::epsilon());
}

/// What one multiplication and one addition may add to the error of a sum of terms, in
/// eps·Σ|terms|: half an eps each. The error of a complex product is at most √5/2 eps of it
/// (Brent, Percival & Zimmermann 2007, Error bounds on complex floating-point multiplication).
template <scalar T>
inline constexpr double eps_per_step = complex_scalar<T> ? 1.62 : 1.0;

/// |found - expected| <= k·eps·terms everywhere. The message names the worst element.
template <scalar T, int Rank>
::testing::AssertionResult is_within(double k, tensor<T, Rank> const& found,
                                     tensor<wide<T>, Rank> const& expected,
                                     tensor<digits50, Rank> const& terms) {
  if (found.extents() != expected.extents() || found.extents() != terms.extents()) {
    return ::testing::AssertionFailure()
           << "shapes differ: found " << to_string(found.extents()) << ", expected "
           << to_string(expected.extents()) << ", terms " << to_string(terms.extents());
  }
  digits50 worst = -1;
  index_array<Rank> where{};
  index_t failures = 0;
  for_each_position(found.extents(), [&](auto const& position) {
    digits50 const error =
        magnitude(wide<T>(widened(at(found.view(), position)) - at(expected.view(), position)));
    digits50 const unit = epsilon<T>() * at(terms.view(), position);
    bool const holds = error <= k * unit;  // false for NaN
    digits50 size = error == 0 ? digits50(0) : digits50(error / unit);
    if (error != 0 && !(size >= 0)) size = std::numeric_limits<digits50>::infinity();  // unit 0
    if (!holds) ++failures;
    if (size > worst) {
      worst = size;
      where = position;
    }
  });
  if (failures == 0) return ::testing::AssertionSuccess();
  std::ostringstream text;
  text.precision(20);
  text << failures << " of " << found.size() << " elements are off by more than " << k
       << " eps of the terms; shape " << to_string(found.extents()) << ", worst at "
       << to_string(where) << ": expected " << at(expected.view(), where) << ", found "
       << at(found.view(), where) << ", error " << worst.convert_to<double>() << " eps of "
       << at(terms.view(), where);
  return ::testing::AssertionFailure() << text.str();
}

/// The same for a single number.
template <scalar T>
::testing::AssertionResult is_within(double k, T const& found, wide<T> const& expected,
                                     digits50 const& terms) {
  return is_within(k, tensor<T, 1>({1}, found), tensor<wide<T>, 1>({1}, expected),
                   tensor<digits50, 1>({1}, terms));
}

/// Equal, the sign of zero included; a NaN equals a NaN.
template <scalar T>
bool is_same(T const& a, T const& b) {
  if constexpr (complex_scalar<T>) {
    return is_same(a.real(), b.real()) && is_same(a.imag(), b.imag());
  } else if constexpr (std::is_floating_point_v<T>) {
    return (a == b && std::signbit(a) == std::signbit(b)) || (a != a && b != b);
  } else {
    return a == b || (a != a && b != b);
  }
}

/// Bit for bit.
template <scalar T, int Rank>
::testing::AssertionResult has_same_bits(tensor<T, Rank> const& found,
                                         tensor<T, Rank> const& expected) {
  if (found.extents() != expected.extents()) {
    return ::testing::AssertionFailure() << "shapes differ: found " << to_string(found.extents())
                                         << ", expected " << to_string(expected.extents());
  }
  index_t failures = 0;
  index_array<Rank> where{};
  for_each_position(found.extents(), [&](auto const& position) {
    if (is_same(at(found.view(), position), at(expected.view(), position))) return;
    if (failures++ == 0) where = position;
  });
  if (failures == 0) return ::testing::AssertionSuccess();
  std::ostringstream text;
  text.precision(20);
  text << failures << " of " << found.size() << " elements differ; shape "
       << to_string(found.extents()) << ", first at " << to_string(where) << ": expected "
       << at(expected.view(), where) << ", found " << at(found.view(), where) << ", difference "
       << at(found.view(), where) - at(expected.view(), where);
  return ::testing::AssertionFailure() << text.str();
}

template <scalar T, int Rank>
::testing::AssertionResult is_poisoned(tensor<T, Rank> const& output) {
  for (T const& element : output) {
    if (element == element) {
      return ::testing::AssertionFailure() << "an output of shape " << to_string(output.extents())
                                           << " holds " << element << ", expected NaN everywhere";
    }
  }
  return ::testing::AssertionSuccess();
}

/// The message of the Error that `call` throws.
template <class Error, class Call>
std::string message_of(Call const& call) {
  try {
    call();
  } catch (Error const& error) {
    return error.what();
  } catch (std::exception const& error) {
    return std::string("another exception: ") + error.what();
  }
  return "no exception";
}

/// h_t = decay_t h_{t-1} + drive_t by its definition in 50 digits, first step first, with what
/// the rounding of a lower precision may add up to.
template <class W>
struct reference_trajectory {
  tensor<W, 4> states;            ///< h_t
  tensor<digits50, 4> terms;      ///< Σ|terms| of h_t
  tensor<digits50, 4> rounding;   ///< Σ|terms|, each times the number of steps that rounded it
  tensor<digits50, 4> inherited;  ///< what errors in the maps themselves become
  tensor<W, 3> final_states;
  tensor<digits50, 3> final_terms, final_rounding, final_inherited;

  /// The bound of |error|/eps when a step rounds by `per_step` and maps are off by their errors.
  tensor<digits50, 4> bound(double per_step) const { return sum(per_step, rounding, inherited); }
  tensor<digits50, 3> final_bound(double per_step) const {
    return sum(per_step, final_rounding, final_inherited);
  }

 private:
  template <int Rank>
  static tensor<digits50, Rank> sum(double k, tensor<digits50, Rank> const& a,
                                    tensor<digits50, Rank> const& b) {
    tensor<digits50, Rank> result(a.extents());
    for_each_position(a.extents(), [&](auto const& position) {
      at(result.view(), position) = k * at(a.view(), position) + at(b.view(), position);
    });
    return result;
  }
};

/// decay_error and drive_error are how far the maps of the tested precision may be off, in eps.
template <class W>
reference_trajectory<W> reference_scan(tensor<W, 4> const& decay, tensor<W, 4> const& drive,
                                       tensor<W, 3> const& initial,
                                       tensor<digits50, 4> const& decay_error,
                                       tensor<digits50, 4> const& drive_error) {
  auto const shape = drive.extents();
  tensor<digits50, 4> const zero(shape);
  tensor<digits50, 3> const none(initial.extents());
  reference_trajectory<W> r{drive, zero, zero, zero, initial, magnitude(initial), none, none};
  for_each_position(initial.extents(), [&](auto const& lane) {
    auto const [b, c, n] = lane.value;
    W& h = r.final_states(b, c, n);
    digits50& terms = r.final_terms(b, c, n);
    digits50& rounding = r.final_rounding(b, c, n);
    digits50& inherited = r.final_inherited(b, c, n);
    for (index_t t = 0; t < shape[1]; ++t) {
      digits50 const a = magnitude(decay(b, t, c, n));
      inherited = a * inherited + decay_error(b, t, c, n) * terms + drive_error(b, t, c, n);
      h = decay(b, t, c, n) * h + drive(b, t, c, n);
      terms = a * terms + magnitude(drive(b, t, c, n));
      rounding = a * rounding + terms;
      r.states(b, t, c, n) = h;
      r.terms(b, t, c, n) = terms;
      r.rounding(b, t, c, n) = rounding;
      r.inherited(b, t, c, n) = inherited;
    }
  });
  return r;
}

template <class W>
reference_trajectory<W> reference_scan(tensor<W, 4> const& decay, tensor<W, 4> const& drive,
                                       tensor<W, 3> const& initial) {
  tensor<digits50, 4> const exact(drive.extents());
  return reference_scan(decay, drive, initial, exact, exact);
}

/// The gradient of a real loss by central differences in 50 digits, ∂/∂Re + i·∂/∂Im of every
/// element; loss() must read `variable`. Its error is about 1e-33 times the third derivative.
template <class W, int Rank, class Loss>
tensor<W, Rank> gradient_by_differences(tensor<W, Rank>& variable, Loss const& loss) {
  digits50 const step("1e-16");
  tensor<W, Rank> result(variable.extents());
  auto const along = [&](W& element, W const& direction) {
    W const here = element;
    element = here + direction * step;
    digits50 const up = loss();
    element = here - direction * step;
    digits50 const down = loss();
    element = here;
    return digits50((up - down) / (2 * step));
  };
  for_each_position(variable.extents(), [&](auto const& position) {
    W& element = at(variable.view(), position);
    if constexpr (complex_scalar<W>) {
      auto const real = along(element, W(1));
      at(result.view(), position) = W(real, along(element, W(0, 1)));
    } else {
      at(result.view(), position) = along(element, W(1));
    }
  });
  return result;
}

/// |found - expected| <= tolerance everywhere, both in 50 digits.
template <class W, int Rank>
::testing::AssertionResult is_near(tensor<W, Rank> const& found, tensor<W, Rank> const& expected,
                                   char const* tolerance) {
  digits50 const unit = digits50(tolerance) / epsilon<W>();
  return is_within(1, found, expected, tensor<digits50, Rank>(found.extents(), unit));
}

/// Re(conj(cotangent) · value), summed over all elements.
template <scalar T, int Rank>
real_t<T> inner_product(tensor<T, Rank> const& cotangent, tensor<T, Rank> const& value) {
  real_t<T> sum(0);
  for_each_position(value.extents(), [&](auto const& position) {
    sum += real_part(T(conjugate(at(cotangent.view(), position)) * at(value.view(), position)));
  });
  return sum;
}

}  // namespace ssm::test
