// SPDX-License-Identifier: Apache-2.0
// discretize.hpp: how a continuous system h' = λh + Bx becomes a step of size Δ.
#pragma once

#include <concepts>

#include "ssm/affine_map.hpp"
#include "ssm/config.hpp"
#include "ssm/numerics.hpp"
#include "ssm/scalar.hpp"

namespace ssm {

/// A rule turns z = Δλ into a step  h ← decay(z)·h + Δ·gain(z)·B·x.
/// Slopes are derivatives in z; with them the gradient of every scan follows, so a new rule is
/// these four functions. Rules are empty values; λ may be real or complex.
/// Units     Δ in seconds of the continuous system, λ in 1/s, z without unit.
/// Accuracy  that of numerics.hpp, plus one rounding for each operation written below.
/// Source    Gu, Goel & Ré 2021, arXiv:2111.00396, section 2 (bilinear); Gu & Dao 2023,
///           arXiv:2312.00752, eq. 4 (zero-order hold) and their code (mamba_hold).
template <class Rule, class T = double>
concept discretization_rule = requires(Rule const rule, T const z) {
  { rule.decay(z) } -> std::same_as<T>;
  { rule.gain(z) } -> std::same_as<T>;
  { rule.decay_slope(z) } -> std::same_as<T>;
  { rule.gain_slope(z) } -> std::same_as<T>;
};

/// Exact for an input held constant during the step: e^z and (e^z - 1)/z.
struct zero_order_hold {
  template <scalar T>
  SSM_HD T decay(T const& z) const {
    return exp(z);
  }
  template <scalar T>
  SSM_HD T gain(T const& z) const {
    return phi1(z);
  }
  template <scalar T>
  SSM_HD T decay_slope(T const& z) const {
    return exp(z);
  }
  template <scalar T>
  SSM_HD T gain_slope(T const& z) const {
    return phi1_slope(z);
  }
};

/// What Mamba computes: the exact decay e^z, but Euler's input gain 1. First order in Δ.
struct mamba_hold {
  template <scalar T>
  SSM_HD T decay(T const& z) const {
    return exp(z);
  }
  template <scalar T>
  SSM_HD constexpr T gain(T const&) const {
    return T(1);
  }
  template <scalar T>
  SSM_HD T decay_slope(T const& z) const {
    return exp(z);
  }
  template <scalar T>
  SSM_HD constexpr T gain_slope(T const&) const {
    return T(0);
  }
};

/// Tustin's rule: (1 + z/2)/(1 - z/2) and 1/(1 - z/2). Second order, stable for Re z < 0.
struct bilinear {
  template <scalar T>
  SSM_HD constexpr T decay(T const& z) const {
    return (T(1) + z / T(2)) / (T(1) - z / T(2));
  }
  template <scalar T>
  SSM_HD constexpr T gain(T const& z) const {
    return T(1) / (T(1) - z / T(2));
  }
  template <scalar T>
  SSM_HD constexpr T decay_slope(T const& z) const {
    T const g = gain(z);
    return g * g;
  }
  template <scalar T>
  SSM_HD constexpr T gain_slope(T const& z) const {
    T const g = gain(z);
    return g * g / T(2);
  }
};

/// 1 + z and 1. First order; unstable for |1 + z| > 1.
struct forward_euler {
  template <scalar T>
  SSM_HD constexpr T decay(T const& z) const {
    return T(1) + z;
  }
  template <scalar T>
  SSM_HD constexpr T gain(T const&) const {
    return T(1);
  }
  template <scalar T>
  SSM_HD constexpr T decay_slope(T const&) const {
    return T(1);
  }
  template <scalar T>
  SSM_HD constexpr T gain_slope(T const&) const {
    return T(0);
  }
};

/// One discretized step, h ← decay(Δλ)·h + Δ·gain(Δλ)·B·x.
template <class Rule, scalar T>
SSM_HD constexpr affine_map<T> discretize(Rule const& rule, real_t<T> step_size,
                                          T const& eigenvalue, T const& B, real_t<T> const& x) {
  T const z = step_size * eigenvalue;
  return {rule.decay(z), rule.gain(z) * B * (step_size * x)};
}

/// The gradients of one discretized step.
template <scalar T>
struct step_gradient {
  real_t<T> step_size;
  T eigenvalue;
  T B;
  real_t<T> x;
};

/// Pull the gradient `adjoint` of a step's drive, met with the state `before` that step, back to
/// the inputs of discretize(). For complex numbers a gradient is ∂/∂Re + i·∂/∂Im.
template <class Rule, scalar T>
SSM_HD constexpr step_gradient<T> discretize_vjp(Rule const& rule, real_t<T> step_size,
                                                 T const& eigenvalue, T const& B,
                                                 real_t<T> const& x, T const& before,
                                                 T const& adjoint) {
  T const z = step_size * eigenvalue;
  T const gain_B = rule.gain(z) * B;
  T const to_z =
      adjoint *
      conjugate(T(rule.decay_slope(z) * before + rule.gain_slope(z) * B * (step_size * x)));
  return {.step_size = real_part(T(to_z * conjugate(eigenvalue) + adjoint * conjugate(gain_B) * x)),
          .eigenvalue = to_z * step_size,
          .B = adjoint * conjugate(rule.gain(z)) * (step_size * x),
          .x = real_part(T(adjoint * conjugate(gain_B))) * step_size};
}

}  // namespace ssm
