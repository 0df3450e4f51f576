// SPDX-License-Identifier: Apache-2.0
// extremes.hpp: the largest gain of many channels, and the law of ‖h‖² where they share a decay.
#pragma once

#include <boost/math/distributions/chi_squared.hpp>
#include <boost/math/special_functions/gamma.hpp>
#include <limits>

#include "closed_forms/law.hpp"
#include "closed_forms/spectra.hpp"

namespace ssm::theory {

/// The value that the largest of `channels` independent gains stays below with this probability.
/// The gain grows with λ, so it is the gain of the decay exceeded with probability 1 - p^(1/n).
/// λ uniform on [0, 1): Fréchet, with median n/(2 log 2).
template <spectral_law Law>
real_of<Law> largest_gain_quantile(Law const& law, index_t channels,
                                   real_of<Law> const& probability) {
  using T = real_of<Law>;
  require<domain_error>(T(0) < probability && probability < T(1) && channels > 0,
                        "largest_gain_quantile: probability ", probability, " and ", channels,
                        " channels, expected one in (0, 1) and at least one");
  return stationary_gain(law.sample(T(-ssm::expm1(T(ssm::log(probability) / T(channels))))));
}

/// The same of the smallest gain, never below 1: the decay exceeded with probability (1 - p)^(1/n).
template <spectral_law Law>
real_of<Law> smallest_gain_quantile(Law const& law, index_t channels,
                                    real_of<Law> const& probability) {
  using T = real_of<Law>;
  require<domain_error>(T(0) < probability && probability < T(1) && channels > 0,
                        "smallest_gain_quantile: probability ", probability, " and ", channels,
                        " channels, expected one in (0, 1) and at least one");
  return stationary_gain(law.sample(T(ssm::exp(T(ssm::log1p(T(-probability)) / T(channels))))));
}

/// Probability that the largest of `channels` gains of a uniform law is at most y:
/// ((√(1 - 1/y) - a)/(b - a))^n.
template <real_scalar T>
T largest_gain_cdf(uniform_law<T> const& law, index_t channels, T const& y) {
  if (y < stationary_gain(law.low)) return T(0);
  if (y >= stationary_gain(law.high)) return T(1);
  T const decay = ssm::sqrt(T(T(1) - T(1) / y));
  T const exceeded = T(1) / (y * (T(1) + decay)) - law.high.gap;  // b - λ
  return ssm::exp(T(T(channels) * ssm::log1p(T(-exceeded / law.width()))));
}

/// P(X Y <= x) for independent X ~ chi²_m, Y ~ chi²_d: where the states of a head share one decay,
/// ‖h‖² = σ² g(λ) X Y, inputs m and states d.
/// Accuracy  20 eps, absolute.
template <real_scalar T>
T product_of_chi_squares_cdf(T const& m, T const& d, T const& x) {
  require<domain_error>(m > T(0) && d > T(0), "product_of_chi_squares_cdf: ", m, " and ", d,
                        " degrees of freedom, expected both > 0");
  if (x <= T(0)) return T(0);
  boost::math::chi_squared_distribution<T> const law(d);
  T const negligible = std::numeric_limits<T>::epsilon() / T(64);
  // E P(X <= x/Y), in log Y
  return integral(
      [&](T const& log_y) {
        T const y = ssm::exp(log_y);
        return T(y * pdf(law, y) * boost::math::gamma_p(T(m / T(2)), T(x / (T(2) * y))));
      },
      T(ssm::log(quantile(law, negligible))), T(ssm::log(quantile(complement(law, negligible)))));
}

}  // namespace ssm::theory
