// SPDX-License-Identifier: Apache-2.0
// spsa.hpp: mean and variance of SPSA's estimate of a gradient, exactly.
#pragma once

#include <cstddef>
#include <span>

#include "ssm/config.hpp"

namespace ssm::theory {

// δ has independent entries ±1. For L = gᵀu + uᵀHu/2 + (vᵀu)³/6 with u = x - x_0, H symmetric,
// half the difference of L(x_0 ± cδ) is c gᵀδ + c³ (vᵀδ)³/6: H cancels. The third derivatives of L
// are v_i v_j v_k. From cumulants of vᵀδ, 0 but for κ2 = Σv², κ4 = -2Σv⁴, κ6 = 16Σv⁶:
//   E δ_i (vᵀδ)³ = v_i (3Σv² - 2v_i²),   E (vᵀδ)⁶ = 15(Σv²)³ - 30 Σv² Σv⁴ + 16 Σv⁶.

/// Σ v_i^power
inline double power_sum(std::span<double const> v, int power) {
  double sum = 0;
  for (double const each : v) {
    double term = 1;
    for (int k = 0; k < power; ++k) term *= each;
    sum += term;
  }
  return sum;
}

/// E ĝ_i - g_i = c²/6 (T_iii + 3 Σ_{j≠i} T_ijj), T the third derivatives.
/// Source    Spall 1992, IEEE TAC 37, proof of lemma 1
inline double spsa_bias(std::span<double const> v, double c, std::size_t i) {
  return c * c / 6 * v[i] * (3 * power_sum(v, 2) - 2 * v[i] * v[i]);
}

/// Var of ĝ_i - gᵀδ δ_i, the part of the estimate that the third derivatives add.
inline double spsa_bias_variance(std::span<double const> v, double c, std::size_t i) {
  double const v2 = power_sum(v, 2), v4 = power_sum(v, 4), v6 = power_sum(v, 6);
  double const sixth = 15 * v2 * v2 * v2 - 30 * v2 * v4 + 16 * v6;
  double const bias = spsa_bias(v, c, i);
  return c * c * c * c / 36 * sixth - bias * bias;
}

/// How an estimate is made: `noise` is the standard deviation of a loss where the two sides draw
/// apart, 0 where they share their noise.
struct spsa_estimate {
  double c = 0.1;
  double noise = 0;
  index_t directions = 1;
};

/// Var ĝ_i = (Σ_{j≠i} g_j² + σ²/2c²)/q of a quadratic with gradient g, q directions.
inline double spsa_variance(std::span<double const> g, std::size_t i, spsa_estimate const& how) {
  double const others = power_sum(g, 2) - g[i] * g[i];
  return (others + how.noise * how.noise / (2 * how.c * how.c)) /
         static_cast<double>(how.directions);
}

/// Var (ĝ_i - g_i)², for normal noise. One direction gives Σ_{j≠i} g_j δ_j + n, whose fourth
/// cumulant is -2Σ_{j≠i} g_j⁴; of a mean of q it is 1/q³ of that, and E S⁴ = κ4 + 3κ2².
inline double spsa_square_variance(std::span<double const> g, std::size_t i,
                                   spsa_estimate const& how) {
  double const second = spsa_variance(g, i, how);
  double const q = static_cast<double>(how.directions);
  double const own = g[i] * g[i];
  double const fourth = -2 * (power_sum(g, 4) - own * own) / (q * q * q);
  return fourth + 2 * second * second;
}

/// A perturbation that a clamp has shortened: x₊ - x₋ = 2c δ_i kept_i with kept_i in [1/2, 1]. The
/// difference over 2cδ_i, as public scripts have it, is Σ_j kept_j g_j δ_j δ_i: mean kept_i g_i.
inline double nominal_mean(std::span<double const> g, std::span<double const> kept, std::size_t i) {
  return kept[i] * g[i];
}

inline double nominal_variance(std::span<double const> g, std::span<double const> kept,
                               std::size_t i) {
  double sum = 0;
  for (std::size_t j = 0; j < g.size(); ++j) {
    if (j != i) sum += kept[j] * g[j] * kept[j] * g[j];
  }
  return sum;
}

/// Over x₊ - x₋ it has mean g_i, and this variance.
inline double displacement_variance(std::span<double const> g, std::span<double const> kept,
                                    std::size_t i) {
  return nominal_variance(g, kept, i) / (kept[i] * kept[i]);
}

}  // namespace ssm::theory
