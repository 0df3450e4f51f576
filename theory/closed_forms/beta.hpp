// SPDX-License-Identifier: Apache-2.0
// beta.hpp: the Beta law of decays, whose density decides how fast energies relax.
#pragma once

#include <boost/math/quadrature/tanh_sinh.hpp>
#include <boost/math/special_functions/beta.hpp>
#include <boost/math/special_functions/gamma.hpp>
#include <limits>

#include "closed_forms/law.hpp"

namespace ssm::theory {

/// λ a Beta(α, β) variable: the gain is finite only for β > 1, and reached algebraically slowly.
/// Accuracy  gain_moment and remaining_gain to 60 eps for every β > n; mean(f) to 1e-14 for
///           α >= 0.1 and f = O((1 - λ)^-n), β - n >= 0.1 (tanh-sinh quadrature).
template <real_scalar T>
struct beta_law {
  using real = T;
  T alpha, beta;

  static beta_law of(T const& alpha, T const& beta) {
    require<domain_error>(alpha > T(0) && beta > T(0), "beta_law: the parameters are ", alpha,
                          " and ", beta, ", expected both > 0");
    return {alpha, beta};
  }

  template <class F>
  T mean(F const& f) const {
    thread_local boost::math::quadrature::tanh_sinh<T> quadrature;
    // over (-1, 1), where the rule tells the distance to the nearer end without cancellation
    T const sum = quadrature.integrate(
        [&](T const& x, T const& to_end) {
          T const near = ssm::abs(to_end) / T(2);
          pole<T> const p = x < T(0) ? pole<T>{near, T(1) - near} : pole<T>{T(1) - near, near};
          T const log_density = (alpha - T(1)) * log_decay(p) + (beta - T(1)) * ssm::log(p.gap);
          T const term = ssm::exp(log_density) * f(p);
          // f overflows only so near the end that no mass is left, and 0·inf is no number
          return ssm::abs(term) <= std::numeric_limits<T>::max() ? term : T(0);
        },
        T(std::numeric_limits<T>::epsilon() * T(16)));
    return sum / (T(2) * boost::math::beta(alpha, beta));
  }
  pole<T> sample(T const& u) const {
    T gap(0);
    T const value = boost::math::ibetac_inv(alpha, beta, u, &gap);
    return {value, gap};
  }
  T tail_index() const { return beta; }

  /// E (1-λ²)^-n = 2^-n (α+β-n)_n/(β-n)_n 2F1(n, β-n; α+β-n; 1/2): with 1 + λ = 2(1 - (1-λ)/2) the
  /// factor (1-λ)^-n only lowers β by n. All terms are positive.
  T gain_moment(int n) const {
    T const total = alpha + beta - T(n);
    T factor(1);
    for (int i = 0; i < n; ++i) factor *= (total + T(i)) / (T(2) * (beta - T(n) + T(i)));
    T sum(0), term(1);
    for (int k = 0; term > sum * std::numeric_limits<T>::epsilon() / T(4); ++k) {
      sum += term;
      term *= (T(n) + T(k)) * (beta - T(n) + T(k)) / (T(2) * (total + T(k)) * T(k + 1));
    }
    return factor * sum;
  }

  /// E (1 - λ)^-2.
  T constant_gain() const {
    T const total = alpha + beta;
    return (total - T(1)) * (total - T(2)) / ((beta - T(1)) * (beta - T(2)));
  }

  /// λ^2t only raises α by 2t.
  T remaining_gain(T const& steps) const {
    T const k = T(2) * steps;
    return moment(k) * beta_law{T(alpha + k), beta}.gain_moment(1);
  }

  /// E λ^k = B(α + k, β)/B(α, β).
  T moment(T const& k) const {
    if (k == T(0)) return T(1);
    return boost::math::tgamma_delta_ratio(T(alpha + k), beta) /
           boost::math::tgamma_delta_ratio(alpha, beta);
  }
};

}  // namespace ssm::theory
