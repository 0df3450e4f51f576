// SPDX-License-Identifier: Apache-2.0
// input.hpp: gains for inputs that are not white, eigenvalues that are complex, steps that vary.
#pragma once

#include <cmath>

#include "closed_forms/law.hpp"

namespace ssm::theory {

/// Energy of the stationary state of h_t = λ h_{t-1} + x_t for an AR(1) input of unit variance and
/// correlation ρ in (-1, 1): (1 + λρ)/((1 - λρ)(1 - λ²)). ρ < 0 can make it less than 1.
template <real_scalar T>
T ar1_gain(pole<T> const& p, T const& correlation) {
  // 1 ± λρ = (1 - λ) + λ(1 ± ρ)
  return (p.gap + p.value * (T(1) + correlation)) / (p.gap + p.value * (T(1) - correlation)) *
         stationary_gain(p);
}

/// The same `steps` steps after a zero state, the input stationary: s ← λ²s + w, w ← λρw + 1 + λρ
/// from s = 0, w = 1. No division, so λ = ρ needs no care.
/// Accuracy  4·steps·eps/(1 + λρ).
template <real_scalar T>
T ar1_gain(pole<T> const& p, T const& correlation, index_t steps) {
  T const forgotten = one_minus_square(p);
  T const product = p.value * correlation;
  T const sum = p.gap + p.value * (T(1) + correlation);
  T s(0), w(1);
  for (index_t k = 0; k < steps; ++k) {
    s += w - forgotten * s;
    w = product * w + sum;
  }
  return s;
}

/// E of it over a law of decays. For λ uniform, ((2ρ/(1-ρ²)) log((1-ρb)/(1-ρa)) +
/// (1+ρ)/(2(1-ρ)) log((1-a)/(1-b)) + (1-ρ)/(2(1+ρ)) log((1+b)/(1+a)))/(b-a), which cancels for
/// ρ → 1; this is the integral itself.
template <spectral_law Law>
real_of<Law> mean_ar1_gain(Law const& law, real_of<Law> const& correlation) {
  using T = real_of<Law>;
  require_tail(law, 1, "mean_ar1_gain");
  return law.mean([&](pole<T> const& p) { return ar1_gain(p, correlation); });
}

template <spectral_law Law>
real_of<Law> mean_ar1_gain(Law const& law, real_of<Law> const& correlation, index_t steps) {
  using T = real_of<Law>;
  return law.mean([&](pole<T> const& p) { return ar1_gain(p, correlation, steps); });
}

/// E|h|² for λ = r e^(iθ) and an AR(1) input, (1 - ρ²r²)/((1 - r²)(1 - 2ρr cos θ + ρ²r²)): the gain
/// of a resonator. White input, ρ = 0, does not see the phase.
template <real_scalar T>
T complex_ar1_gain(pole<T> const& modulus, T const& phase, T const& correlation) {
  T const sum = modulus.gap + modulus.value * (T(1) + correlation);         // 1 + ρr
  T const difference = modulus.gap + modulus.value * (T(1) - correlation);  // 1 - ρr
  T const half = ssm::sin(T(phase / T(2)));
  // 1 - 2ρr cos θ + ρ²r² = (1 - ρr)² + 4ρr sin²(θ/2)
  T const distance = difference * difference + T(4) * modulus.value * correlation * half * half;
  return sum * difference / distance * stationary_gain(modulus);
}

/// A step size Δ > 0 that never varies.
template <real_scalar T>
struct fixed_step {
  T size;
  pole<T> mean_decay(T const& rate) const { return pole<T>::with_rate(T(rate * size)); }
  T mean_square() const { return size * size; }
};

/// Δ a Gamma(k, θ) variable of mean kθ. softplus of a logistic(0, 1) variable is Gamma(1, 1).
template <real_scalar T>
struct gamma_step {
  T shape, scale;

  /// E e^(-rΔ) = (1 + rθ)^-k, as a pole: with its distance to 1.
  pole<T> mean_decay(T const& rate) const {
    return pole<T>::with_rate(T(shape * ssm::log1p(T(rate * scale))));
  }
  T mean_square() const { return shape * (shape + T(1)) * scale * scale; }
};

/// Δ = softplus(z), z normal: Mamba's step before training, z the projection of a random input.
/// Accuracy  20 eps, mean_decay(r).value to 4 r Δ eps more. The trapezoidal rule converges
/// geometrically: for spacing h the error is
///           e^(-2π²/h²) from the Gaussian and e^(-2π²/(σh)) from the poles of softplus at z = ±iπ.
template <real_scalar T>
struct softplus_normal_step {
  T mean_of_z, deviation;

  template <class F>
  T mean(F const& f) const {
    T const pi = boost::math::constants::pi<T>();
    T const digits = -ssm::log(std::numeric_limits<T>::epsilon());
    T const reach = ssm::sqrt(T(T(2) * digits)) + T(2) * deviation + T(1);
    T const gaussian = pi * ssm::sqrt(T(T(2) / digits)), poles = T(2) * pi * pi / digits;
    T const widest = poles < gaussian * deviation ? T(poles / deviation) : gaussian;
    int count = 1;
    while (T(count) * widest < T(2) * reach) ++count;
    T const spacing = reach / T(count);
    T sum(0);
    for (int i = -count; i <= count; ++i) {
      T const x = T(i) * spacing;
      sum += ssm::exp(T(-x * x / T(2))) * f(T(mean_of_z + deviation * x));
    }
    return sum * spacing / ssm::sqrt(T(T(2) * pi));
  }

  /// E e^(-rΔ) = E σ(-z)^r, as a pole: with its distance to 1.
  pole<T> mean_decay(T const& rate) const {
    return {mean([&](T const& z) { return T(ssm::exp(T(-rate * softplus(z)))); }),
            mean([&](T const& z) { return T(-ssm::expm1(T(-rate * softplus(z)))); })};
  }
  T mean_square() const {
    return mean([](T const& z) { return power(softplus(z), 2); });
  }
};

/// E h² of the stationary h_t = e^(-αΔ_t) h_{t-1} + Δ_t x_t for independent steps and white input:
/// E Δ²/(1 - q), q = E e^(-2αΔ). Never less than at the mean step (Jensen).
template <class Step, real_scalar T>
T random_step_gain(Step const& step, T const& rate) {
  return step.mean_square() / step.mean_decay(T(T(2) * rate)).gap;
}

/// The same `steps` steps after a zero state: E Δ² (1 - q^t)/(1 - q).
template <class Step, real_scalar T>
T random_step_gain(Step const& step, T const& rate, index_t steps) {
  return step.mean_square() * geometric_sum(step.mean_decay(T(T(2) * rate)), steps);
}

}  // namespace ssm::theory
