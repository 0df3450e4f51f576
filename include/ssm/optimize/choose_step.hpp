// SPDX-License-Identifier: Apache-2.0
// choose_step.hpp: the scale of SPSA's steps, from the slope of the objective at the start.
#pragma once

#include <cmath>
#include <limits>
#include <span>

#include "ssm/optimize/spsa.hpp"

namespace ssm::optimize {

/// These settings with step.scale such that the first step is the best for a quadratic whose
/// minimum is `distance` away in each coordinate (root mean square). The slope at the start comes
/// from `pairs` two-sided differences.
///
/// For L = λ‖x - x*‖²/2 of p coordinates an iteration with q directions changes ‖x - x*‖² on
/// average by the factor 1 - 2aλ + a²λ²(q+p-1)/q, which is least at aλ = q/(q+p-1); and the slope
/// is ‖∇L‖ = λ distance √p. Noise of f makes the slope look larger and the steps smaller.
/// Cost      2·pairs evaluations
/// Throws    domain_error where settings or start will not do, or where f does not change between
///           the points or is not finite at one of them.
/// Source    in the spirit of Spall 1998, IEEE TAES 34: a from the first step that is wanted and
///           from the size of the estimated gradient.
template <objective F>
spsa_settings choose_step(F const& f, std::span<double const> start, spsa_settings settings,
                          double distance, index_t pairs = 10) {
  require<domain_error>(distance > 0 && std::isfinite(distance), "choose_step: distance is ",
                        distance, ", expected a finite one above 0");
  require<domain_error>(pairs >= 1, "choose_step: pairs is ", pairs, ", expected at least 1");
  settings.step.scale = 1;
  spsa_run const run(start, settings);
  // a stream that no iteration uses
  auto const stream = random_stream{settings.seed}.child(std::numeric_limits<index_t>::max());
  double const c = settings.perturbation(0);
  auto const probes = detail::spsa_probes::of(f, settings, run.coordinates, c, pairs, stream);
  double squares = 0;  // of (L₊ - L₋)/2c = Σ g_i δ_i, whose mean square is ‖g‖²
  for (std::size_t i = 0; i < probes.losses.size(); i += 2) {
    double const slope = (probes.losses[i] - probes.losses[i + 1]) / (2 * c);
    squares += slope * slope / static_cast<double>(pairs);
  }
  require<domain_error>(squares > 0 && std::isfinite(squares),
                        "choose_step: the mean square slope of the objective at the start is ",
                        squares, ", expected a finite one above 0");
  auto const p = static_cast<double>(start.size()), q = static_cast<double>(settings.directions);
  double const first = q / (q + p - 1) * distance * ssm::sqrt(p / squares);
  settings.step.scale = first / settings.step(0);
  return settings;
}

}  // namespace ssm::optimize
