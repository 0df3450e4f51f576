// SPDX-License-Identifier: Apache-2.0
// scaling.hpp: what multiplying eigenvalues, or step sizes, by s does to the energy of a state.
#pragma once

#include "closed_forms/law.hpp"
#include "closed_forms/paper.hpp"
#include "ssm/spectrum_analysis.hpp"

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

/// d log E h²/d log s at s = 1 for α → sα, stationary, for an AR(1) input of correlation ρ:
/// -x/(e^x - 1) - 2yλρ/(1 - λ²ρ²), x = 2y, y = αΔ, λ = e^-y. For white input that is
/// ssm::gain_elasticity; for Δ → sΔ it is larger by 2, here and below. Below -1 for some y as soon
/// as ρ > √2 - 1: then scaling the step disturbs less.
template <real_scalar T>
T ar1_elasticity(T const& rate, T const& correlation) {
  pole<T> const p = pole<T>::with_rate(rate);
  T const sum = p.gap + p.value * (T(1) + correlation);
  T const difference = p.gap + p.value * (T(1) - correlation);
  return gain_elasticity(rate) - T(2) * rate * p.value * correlation / (sum * difference);
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

}  // namespace ssm::theory
