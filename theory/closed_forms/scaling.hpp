// SPDX-License-Identifier: Apache-2.0
// scaling.hpp: what multiplying eigenvalues, or step sizes, by s does to the energy of a state.
#pragma once

#include <boost/math/tools/toms748_solve.hpp>
#include <cstdint>
#include <optional>

#include "closed_forms/law.hpp"
#include "closed_forms/paper.hpp"

namespace ssm::theory {

// From a zero state, the states that Δ → sΔ leaves are s times those of λ → sλ, for every input and
// at every time: the poles are the same. White input gains therefore differ by s², and their
// elasticities d log E‖h‖²/d log s by 2.

/// λ^s.
template <real_scalar T>
pole<T> scale_decay(pole<T> const& p, T const& s) {
  return pole<T>::with_rate(T(-s * log_decay(p)));
}

/// Δ²/(1 - e^(-2sαΔ)): eigenvalue α → sα. Between 1/s and 1 times what it was.
template <real_scalar T>
T eigenvalue_scaled_gain(T const& rate, T const& step_size, T const& s) {
  return euler_gain(T(s * rate), step_size);
}

/// s²Δ²/(1 - e^(-2sαΔ)): step size Δ → sΔ. Between s and s² times what it was.
template <real_scalar T>
T step_scaled_gain(T const& rate, T const& step_size, T const& s) {
  return euler_gain(rate, T(s * step_size));
}

/// d log E h²/d log s at s = 1 for α → sα, white input, rate αΔ: -x/(e^x - 1), x = 2αΔ; in (-1, 0).
/// For Δ → sΔ it is larger by 2, here and below.
template <real_scalar T>
T elasticity(T const& rate) {
  return T(-1) / phi1(T(T(2) * rate));
}

/// The same `steps` steps after a zero state: -x/(e^x - 1) + tx/(e^(tx) - 1).
template <real_scalar T>
T elasticity(T const& rate, index_t steps) {
  T const x = T(2) * rate, tx = T(2 * steps) * rate;
  if (x >= T(1)) return T(1) / phi1(tx) - T(1) / phi1(x);
  // y/(e^y - 1) = 1 - y φ1'(-y)/φ1(-y), so that the ones cancel before rounding does
  auto const defect = [](T const& y) { return T(y * phi1_slope(T(-y)) / phi1(T(-y))); };
  return defect(x) - defect(tx);
}

/// Stationary, for an AR(1) input of correlation ρ: -x/(e^x - 1) - 2yλρ/(1 - λ²ρ²), y = αΔ,
/// λ = e^-y. Below -1 for some y as soon as ρ > √2 - 1: then scaling the step disturbs less.
template <real_scalar T>
T ar1_elasticity(T const& rate, T const& correlation) {
  pole<T> const p = pole<T>::with_rate(rate);
  T const sum = p.gap + p.value * (T(1) + correlation);
  T const difference = p.gap + p.value * (T(1) - correlation);
  return elasticity(rate) - T(2) * rate * p.value * correlation / (sum * difference);
}

/// Stationary, for a constant input: -2y/(e^y - 1), y = αΔ; -2 for slow modes, which scaling the
/// step leaves as they are.
template <real_scalar T>
T constant_elasticity(T const& rate) {
  return T(-2) / phi1(rate);
}

/// The rate 1.2564312086261697 at which constant_elasticity is -1: e^y = 1 + 2y, and
/// y = -1/2 - W_-1(-e^(-1/2)/2).
template <real_scalar T = double>
T constant_elasticity_balance() {
  T y(1.3);  // to the right of the root of a convex function: Newton falls to it
  for (int i = 0; i < 12; ++i) {
    T const grown = ssm::expm1(y);
    y -= (grown - T(2) * y) / (grown - T(1));
  }
  return y;
}

/// The s with which α → sα keeps, in the stationary state, the energy that `trained` steps left:
/// log(1 - 1/S)/(2 log λ), S the gain after `trained` steps. At least 1.
template <real_scalar T>
T matching_eigenvalue_factor(pole<T> const& p, index_t trained) {
  return ssm::log1p(T(T(-1) / state_gain(p, T(trained)))) / (T(2) * log_decay(p));
}

/// Root of a function that changes sign between low and high.
template <class T, class F>
T root_between(F const& f, T const& low, T const& high) {
  T const at_low = f(low), at_high = f(high);
  if (at_low == T(0) || low == high) return low;
  if (at_high == T(0)) return high;
  std::uintmax_t iterations = 200;
  auto const enough = boost::math::tools::eps_tolerance<T>(std::numeric_limits<T>::digits - 2);
  auto const [below, above] =
      boost::math::tools::toms748_solve(f, low, high, at_low, at_high, enough, iterations);
  return (below + above) / T(2);
}

/// The same after `longer` steps in place of infinitely many.
template <real_scalar T>
T matching_eigenvalue_factor(pole<T> const& p, index_t trained, index_t longer) {
  require<domain_error>(0 < trained && trained <= longer, "matching_eigenvalue_factor: from ",
                        trained, " to ", longer, " steps, expected 0 < trained <= longer");
  T const target = state_gain(p, T(trained));
  return root_between(
      [&](T const& s) { return T(state_gain(scale_decay(p, s), T(longer)) - target); }, T(1),
      matching_eigenvalue_factor(p, trained));
}

/// The s with which Δ → sΔ keeps the energy that `trained` steps left, after `longer` steps or in
/// the stationary state: s²(1 - λ^(2sT))/(1 - λ^2s) = S. At most 1.
template <real_scalar T>
T matching_step_factor(pole<T> const& p, index_t trained, std::optional<index_t> longer = {}) {
  require<domain_error>(0 < trained && (!longer || trained <= *longer),
                        "matching_step_factor: trained on ", trained,
                        " steps, expected more than 0 and no more than `longer`");
  auto const gain = [&](pole<T> const& q) {
    return longer ? state_gain(q, T(*longer)) : stationary_gain(q);
  };
  T const target = state_gain(p, T(trained));
  T const ratio = target / gain(p);  // scaling by s < 1 multiplies the energy by s² to s
  return root_between([&](T const& s) { return T(s * s * gain(scale_decay(p, s)) - target); },
                      ratio, T(ssm::sqrt(ratio)));
}

}  // namespace ssm::theory
