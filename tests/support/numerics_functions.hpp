// SPDX-License-Identifier: Apache-2.0
// numerics_functions.hpp: the functions of numerics.hpp as values, and points for them.
#pragma once

#include <boost/multiprecision/cpp_bin_float.hpp>
#include <cmath>
#include <complex>
#include <cstdint>
#include <iomanip>
#include <limits>
#include <numbers>
#include <sstream>
#include <string>
#include <vector>

#include "ssm/numerics.hpp"
#include "ssm/random.hpp"

namespace ssm::test {

using boost::multiprecision::cpp_bin_float_50;
using std::numeric_limits;
using complex_50 = std::complex<cpp_bin_float_50>;

template <class T>
inline constexpr T infinity = numeric_limits<T>::infinity();
/// Between these e^x neither overflows nor leaves the normal range.
template <class T>
inline T const log_max = std::nextafter(std::log(numeric_limits<T>::max()), T(0));
template <class T>
inline T const log_min = std::nextafter(std::log(numeric_limits<T>::min()), T(0));

inline constexpr auto phi1 = [](auto z) { return ssm::phi1(z); };
inline constexpr auto phi1_slope = [](auto z) { return ssm::phi1_slope(z); };
inline constexpr auto sigmoid = [](auto x) { return ssm::sigmoid(x); };
inline constexpr auto softplus = [](auto x) { return ssm::softplus(x); };
inline constexpr auto softplus_slope = [](auto x) { return ssm::softplus_slope(x); };
inline constexpr auto softplus_inverse = [](auto x) { return ssm::softplus_inverse(x); };
inline constexpr auto silu = [](auto x) { return ssm::silu(x); };
inline constexpr auto silu_slope = [](auto x) { return ssm::silu_slope(x); };
inline constexpr auto complex_expm1 = [](auto z) { return ssm::expm1(z); };

/// Random numbers, log-uniform in their distance to `center`.
template <class T>
std::vector<std::complex<T>> complex_points(std::complex<double> center, double nearest,
                                            double farthest, int count) {
  std::vector<std::complex<T>> points;
  ssm::random_stream const random{.seed = 2025};
  for (int i = 0; i < count; ++i) {
    double const distance = nearest * std::pow(farthest / nearest, random.uniform(2 * i));
    auto const z = center + std::polar(distance, 2 * std::numbers::pi * random.uniform(2 * i + 1));
    points.push_back({static_cast<T>(z.real()), static_cast<T>(z.imag())});
  }
  return points;
}

template <class T>
std::string digits(T const& x) {
  std::ostringstream text;
  text << std::setprecision(17) << x;
  return text.str();
}

inline cpp_bin_float_50 exactly(float x) {
  return x;
}
inline cpp_bin_float_50 exactly(double x) {
  return x;
}
template <class T>
complex_50 exactly(std::complex<T> z) {
  return {exactly(z.real()), exactly(z.imag())};
}

}  // namespace ssm::test
