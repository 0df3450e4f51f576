// SPDX-License-Identifier: Apache-2.0
// estimator.hpp: how well a simulation can know a gain: variances and burn-in.
#pragma once

#include <boost/math/special_functions/expint.hpp>
#include <boost/math/special_functions/lambert_w.hpp>
#include <concepts>

#include "closed_forms/law.hpp"
#include "closed_forms/paper.hpp"
#include "closed_forms/spectra.hpp"

namespace ssm::theory {

// Variance of one replicate, in units of W², of estimators that all have mean E g_t (in W): λ_i
// from the law, B with independent N(0, σ²) entries and x from N(0, I), h after `steps` steps from
// zero, or stationary where none are given. All follow from E|b|^4 = m(m+2)σ^4.

/// Var f(λ) without the cancellation of E f² - (E f)².
template <spectral_law Law, class F>
real_of<Law> variance(Law const& law, real_of<Law> const& mean, F const& f) {
  using T = real_of<Law>;
  return law.mean([&](pole<T> const& p) { return power(T(f(p) - mean), 2); });
}

/// ‖h‖²/W: (3(1 + 2/m) E g² - (E g)²)/d + 2(d-1)/(dm) E (1 - λλ')^-2. The last term, of states that
/// share their input, does not fall with d.
template <real_spectral_law Law, std::convertible_to<index_t>... Steps>
real_of<Law> energy_variance(Law const& law, dimensions const& size, Steps... steps) {
  using T = real_of<Law>;
  T const d = T(size.states), m = T(size.inputs);
  T const mean = gain_moment(law, 1, steps...);
  T const square = gain_moment(law, 2, steps...);
  T const own = (T(3) * (T(1) + T(2) / m) * square - mean * mean) / d;
  if (size.states == 1) return own;
  return own + T(2) * (d - T(1)) / (d * m) * square_cross_gain(law, steps...);
}

/// E[‖h‖² | λ, B]/W, averaged over the input: ((1 + 2/m) E g² - (E g)²)/d.
template <spectral_law Law, std::convertible_to<index_t>... Steps>
real_of<Law> energy_variance_given_B(Law const& law, dimensions const& size, Steps... steps) {
  using T = real_of<Law>;
  T const d = T(size.states), m = T(size.inputs);
  T const mean = gain_moment(law, 1, steps...);
  return ((T(1) + T(2) / m) * gain_moment(law, 2, steps...) - mean * mean) / d;
}

/// E[‖h‖² | λ]/W = Σ g(λ_i)/d, averaged over the input and B: Var g/d.
template <spectral_law Law, std::convertible_to<index_t>... Steps>
real_of<Law> energy_variance_given_decays(Law const& law, dimensions const& size, Steps... steps) {
  using T = real_of<Law>;
  if (sizeof...(Steps) == 0) require_tail(law, 2, "energy_variance_given_decays");
  auto const gain_of = [&](pole<T> const& p) { return gain(p, steps...); };
  return variance(law, gain_moment(law, 1, steps...), gain_of) / T(size.states);
}

/// The same with the control variate λ g(λ), whose mean is known: what stays random is
/// (1 - λ) g = (1 - λ^2t)/(1 + λ), so the variance is at most 1/(4d), the heavy tail gone for every
/// law. For λ uniform, stationary, it is (1/((1+a)(1+b)) - (E 1/(1+λ))²)/d <= 1/(16 d).
template <spectral_law Law, std::convertible_to<index_t>... Steps>
real_of<Law> control_variate_variance(Law const& law, dimensions const& size, Steps... steps) {
  using T = real_of<Law>;
  auto const random_part = [&](pole<T> const& p) { return T(p.gap * gain(p, steps...)); };
  return variance(law, T(law.mean(random_part)), random_part) / T(size.states);
}

/// ‖h‖²/W where all states share one decay, as in a head of Mamba-2:
/// (1 + 2/m)(1 + 2/d) E g² - (E g)², which does not fall with d.
template <spectral_law Law, std::convertible_to<index_t>... Steps>
real_of<Law> shared_decay_variance(Law const& law, dimensions const& size, Steps... steps) {
  using T = real_of<Law>;
  T const d = T(size.states), m = T(size.inputs);
  T const mean = gain_moment(law, 1, steps...);
  return (T(1) + T(2) / m) * (T(1) + T(2) / d) * gain_moment(law, 2, steps...) - mean * mean;
}

/// Mean of h² over `steps` stationary steps of one channel, in units of its input energy squared:
/// (2g²/T)((1+q)/(1-q) - 2q(1-q^T)/(T(1-q)²)), q = λ². Never averages over λ.
/// Accuracy  8 eps (1 + 1/(T(1 - λ))).
template <real_scalar T>
T time_average_variance(pole<T> const& decay, index_t steps) {
  T const t = T(steps), g = stationary_gain(decay), q = decay.value * decay.value;
  // Σ_{|k|<T} (T - |k|) q^k = T(1+q)/(1-q) - 2q(1-q^T)/(1-q)²
  T const correlated = (T(1) + q) * g - T(2) * q * state_gain(decay, t) * g / t;
  return T(2) * g * g / t * correlated;
}

/// E1(x) = ∫ e^-s/s ds from x to infinity.
template <real_scalar T>
T exponential_integral(T const& x) {
  return boost::math::expint(1, x);
}

/// The x with E1(x) = y > 0, by Newton from the left: E1 is convex and decreasing.
/// Accuracy  4 eps (1 + y e^x), the last being the condition number.
template <real_scalar T>
T exponential_integral_inverse(T const& y) {
  require<domain_error>(y > T(0), "exponential_integral_inverse: the value is ", y,
                        ", expected more than 0");
  // Both are below: E1(x) > e^-x/(x+1), and E1(x) > -γ - log x.
  T const from_tail = boost::math::lambert_w0(T(boost::math::constants::e<T>() / y)) - T(1);
  T const from_origin = ssm::exp(T(-boost::math::constants::euler<T>() - y));
  T x = from_tail > from_origin ? from_tail : from_origin;
  for (int i = 0; i < 100; ++i) {
    T const step = (exponential_integral(x) - y) * x * ssm::exp(x);
    x += step;
    if (ssm::abs(step) <= T(2) * std::numeric_limits<T>::epsilon() * x) break;
  }
  return x;
}

/// Steps after which the gain of a uniform law surely is within `bias` (in W) of its limit:
/// E1^-1(2(b-a) bias)/(-2 log b), since R_t <= E1(-2t log b)/(2(b-a)).
/// The bias e·M1 gives the relaxation time, η·printed_error the burn-in of a test of the paper, and
/// printed_error itself the trap: where a run that is too short confirms the printed value.
template <real_scalar T>
T steps_until(uniform_law<T> const& law, T const& bias) {
  require_tail(law, 1, "steps_until");
  return exponential_integral_inverse(T(T(2) * law.width() * bias)) / (T(-2) * log_decay(law.high));
}

/// A larger bound in one Lambert W: W0(1/(2(b-a) bias))/(-2 log b), since E1(x) < e^-x/x.
template <real_scalar T>
T steps_until_at_most(uniform_law<T> const& law, T const& bias) {
  require_tail(law, 1, "steps_until_at_most");
  return boost::math::lambert_w0(T(T(1) / (T(2) * law.width() * bias))) /
         (T(-2) * log_decay(law.high));
}

/// The first step at which remaining_gain is at most `bias`, by bisection: exact, for every law.
template <spectral_law Law>
index_t burn_in(Law const& law, real_of<Law> const& bias) {
  require<domain_error>(bias > real_of<Law>(0), "burn_in: the bias is ", bias,
                        ", expected more than 0");
  index_t low = -1, high = 1;  // low: too early
  while (remaining_gain(law, high) > bias) {
    low = high;
    require<domain_error>(high < index_t{1} << 60, "burn_in: more than 2^60 steps");
    high *= 2;
  }
  while (high - low > 1) {
    index_t const middle = low + (high - low) / 2;
    (remaining_gain(law, middle) > bias ? low : high) = middle;
  }
  return high;
}

}  // namespace ssm::theory
