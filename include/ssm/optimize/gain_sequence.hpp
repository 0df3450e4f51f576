// SPDX-License-Identifier: Apache-2.0
// gain_sequence.hpp: how large the k-th step and perturbation are, and which sizes converge.
#pragma once

#include <cmath>  // isfinite
#include <numbers>

#include "ssm/config.hpp"
#include "ssm/error.hpp"
#include "ssm/numerics.hpp"

namespace ssm::optimize {

/// scale · cos(2πk/cosine_period) / (k + 1 + offset)^exponent for k = 0, 1, 2, …: Spall's a_k and
/// c_k, whose own k begins at 1. Exponent 0 is a constant; period 0 leaves the cosine out.
struct gain_sequence {
  double scale = 1;
  double offset = 0;
  double exponent = 0;
  double cosine_period = 0;

  double operator()(index_t k) const {
    double const at = static_cast<double>(k);
    double gain = scale;
    if (exponent != 0) gain *= ssm::exp(-exponent * ssm::log(at + 1 + offset));
    if (cosine_period != 0) gain *= ssm::cos(2 * std::numbers::pi * at / cosine_period);
    return gain;
  }

  friend bool operator==(gain_sequence const&, gain_sequence const&) = default;
};

/// Throw domain_error unless SPSA converges with steps a/(k+1+A)^α and perturbations c/(k+1)^γ:
///   a, c > 0, A >= 0, α <= 1, γ > 0   a_k and c_k fall to 0 while the steps add up to infinity
///   α - γ > 1/2                       Σ (a_k/c_k)² is finite: the noise averages out
///   α - 2γ > 0, 3γ - α/2 >= 0         the error is asymptotically normal, of order k^-(α-2γ)/2
/// The usual 0.602 and 0.101 are nearly the smallest that pass, the best for finite k.
/// Source    Spall 1992, Multivariate stochastic approximation using a simultaneous perturbation
///           gradient approximation, IEEE TAC 37, assumption A1 and proposition 2;
///           Spall 1998, Implementation of the simultaneous perturbation algorithm, IEEE TAES 34.
inline void require_convergent(gain_sequence const& step, gain_sequence const& perturbation) {
  auto const each = [](gain_sequence const& gain, char const* name) {
    require<domain_error>(gain.scale > 0 && std::isfinite(gain.scale), "spsa: ", name,
                          " has scale ", gain.scale, ", expected a finite one above 0");
    require<domain_error>(gain.offset >= 0 && std::isfinite(gain.offset), "spsa: ", name,
                          " has offset ", gain.offset, ", expected a finite one of 0 or more");
    require<domain_error>(gain.cosine_period == 0, "spsa: ", name,
                          " has a cosine, whose steps do not add up to infinity; expected none");
  };
  each(step, "step");
  each(perturbation, "perturbation");
  double const alpha = step.exponent, gamma = perturbation.exponent;
  require<domain_error>(alpha > 0 && alpha <= 1, "spsa: step has exponent ", alpha,
                        ", expected one in (0, 1]");
  require<domain_error>(gamma > 0, "spsa: perturbation has exponent ", gamma,
                        ", expected more than 0");
  require<domain_error>(alpha - gamma > 0.5, "spsa: exponents of step and perturbation differ by ",
                        alpha - gamma, ", expected more than 1/2");
  require<domain_error>(alpha - 2 * gamma > 0 && 3 * gamma - alpha / 2 >= 0,
                        "spsa: exponent of perturbation is ", gamma, ", expected from ", alpha / 6,
                        " to less than ", alpha / 2, ", a sixth and half of the step's");
}

}  // namespace ssm::optimize
