// SPDX-License-Identifier: Apache-2.0
// paper.hpp: what arXiv:2509.19633 ("Mamba Modulation") prints, beside what is true.
#pragma once

#include "closed_forms/law.hpp"
#include "closed_forms/spectra.hpp"

namespace ssm::theory {

/// Sizes of h_t = diag(λ) h_{t-1} + B x_t: B is states × inputs.
struct dimensions {
  index_t states = 1;
  index_t inputs = 1;
};

/// Two readings of "rows of B ~ N(0, (1/√d) I)": the variance of an entry is 1/√d or 1/d.
enum class row_scale { covariance, standard_deviation };

/// Variance of an entry of B.
template <real_scalar T = double>
T entry_variance(dimensions const& size, row_scale reading) {
  T const d = T(size.states);
  return T(1) / (reading == row_scale::covariance ? ssm::sqrt(d) : d);
}

/// W = E‖Bx‖² = d m σ² for white x of unit variance: m√d or m. Every gain here is in units of W.
template <real_scalar T = double>
T input_energy(dimensions const& size, row_scale reading) {
  return T(size.states) * T(size.inputs) * entry_variance<T>(size, reading);
}

/// ‖Bx‖ <= s_B s_x √d for ‖B‖ = s_B and |x_i| <= s_x, x of length d.
/// Source    Lemma 4.1. True; an equality for x = s_x·(±1, ...) along the top singular direction.
template <real_scalar T>
T input_bound(T const& operator_norm, T const& largest_input, T const& input_length) {
  return operator_norm * largest_input * ssm::sqrt(input_length);
}

/// ‖h_t‖ <= λ^t ‖h_0‖ + c (1 - λ^t)/(1 - λ) for the slowest decay λ and ‖B x_t‖ <= c.
template <real_scalar T>
T state_bound(pole<T> const& slowest, T const& input, T const& initial, index_t steps) {
  T const kept = point_law<T>{slowest}.moment(T(steps));
  return kept * initial + geometric_sum(slowest, steps) * input;
}

/// The printed gain of λ uniform on [a, b]: log((1-a²)/(1-b²))/(2(b-a)) = E λ/(1 - λ²).
/// Source    Theorem 4.2, equations (8), (11) and (18). WRONG: equation (16) integrates λ/(1-λ²)
///           in place of 1/(1-λ²). True is mean_stationary_gain, larger by printed_error.
/// Accuracy  8 eps.
template <real_scalar T>
T printed_gain(uniform_law<T> const& law) {
  require_tail(law, 1, "printed_gain");
  T const mean_decay = (law.low.value + law.high.value) / T(2);
  T const B = one_minus_square(law.high);
  return mean_decay * log1p_over_x(T(law.width() * T(2) * mean_decay / B)) / B;
}

/// True minus printed gain, E 1/(1 + λ) = log((1+b)/(1+a))/(b-a): between 1/2 and 1 for every law.
template <real_scalar T>
T printed_error(uniform_law<T> const& law) {
  return law.mean_inverse_sum();
}

/// Printed over true gain: between a and b, always.
template <real_scalar T>
T printed_ratio(uniform_law<T> const& law) {
  return printed_gain(law) / mean_stationary_gain(law);
}

/// The b at which the printed gain of [0, b] is 1, the least that any gain can be: the root
/// 0.91656258310569809 of -log(1 - b²) = 2b.
template <real_scalar T = double>
T printed_reaches_one() {
  T b(0.92);  // to the right of the root of a convex function: Newton falls to it
  for (int i = 0; i < 12; ++i) {
    T const square_gap = (T(1) - b) * (T(1) + b);
    b += (ssm::log(square_gap) + T(2) * b) * square_gap / (T(2) * (b - square_gap));
  }
  return b;
}

/// Mamba, B → ΔB and λ uniform on [0, l]: energy of the state per E‖Bx‖² is Δ² artanh(l)/l.
/// Source    corrects Corollary 4.3.
template <real_scalar T>
T mamba_gain(pole<T> const& largest, T const& step_size) {
  auto const law = uniform_law<T>::between(pole<T>{}, largest);
  return step_size * step_size * mean_stationary_gain(law);
}

/// Corollary 4.3 as printed: Δ/(2l) log(1/(1 - l²)). WRONG in the integral and in the power of Δ.
template <real_scalar T>
T printed_mamba_gain(pole<T> const& largest, T const& step_size) {
  return step_size * printed_gain(uniform_law<T>::between(pole<T>{}, largest));
}

/// Mamba-2, every decay l: Δ²/(1 - l²).
/// Source    corrects Corollary 4.4.
template <real_scalar T>
T mamba2_gain(pole<T> const& decay, T const& step_size) {
  return step_size * step_size * stationary_gain(decay);
}

/// Corollary 4.4 as printed: Δl/(1 - l²). WRONG: equations (20) to (26) differentiate the wrong
/// antiderivative.
template <real_scalar T>
T printed_mamba2_gain(pole<T> const& decay, T const& step_size) {
  return step_size * decay.value * stationary_gain(decay);
}

/// Δ²/(1 - e^(-2αΔ)): h ← e^(-αΔ) h + Δ x, Mamba's rule. Δ → 0 gives 0, αΔ → ∞ gives Δ².
template <real_scalar T>
T euler_gain(T const& rate, T const& step_size) {
  return -step_size * step_size / ssm::expm1(T(T(-2) * rate * step_size));
}

/// tanh(αΔ/2)/α²: h ← e^(-αΔ) h + (1 - e^(-αΔ))/α x, the zero-order hold of equation (3).
template <real_scalar T>
T zero_order_hold_gain(T const& rate, T const& step_size) {
  // tanh(z/2) = (1 - e^-z)/(1 + e^-z)
  T const z = rate * step_size;
  return -ssm::expm1(T(-z)) / ((T(1) + ssm::exp(T(-z))) * rate * rate);
}

/// 1/(2α): dh = -αh dt + dw, white noise in continuous time.
template <real_scalar T>
T ornstein_uhlenbeck_gain(T const& rate) {
  return T(1) / (T(2) * rate);
}

/// Appendix B.4(1) for λ uniform on [a, b], b → 1: -log(1 - b)/(2(1 - a)). True to leading order.
template <real_scalar T>
T leading_gain(uniform_law<T> const& law) {
  require_tail(law, 1, "leading_gain");
  return -ssm::log(law.high.gap) / (T(2) * law.low.gap);
}

/// What leading_gain misses in the limit, log(2(1-a)/(1+a))/(2(1-a)); (log 2)/2 for a = 0.
template <real_scalar T>
T leading_gain_constant(pole<T> const& low) {
  return ssm::log(T(T(2) * low.gap / (T(1) + low.value))) / (T(2) * low.gap);
}

}  // namespace ssm::theory
