// SPDX-License-Identifier: Apache-2.0
// prediction.hpp: how large the states of a trained layer get and how long they last, exactly.
#pragma once

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "closed_forms/paper.hpp"
#include "closed_forms/spectra.hpp"
#include "spectrum/trained_spectrum.hpp"
#include "ssm/spectrum.hpp"
#include "ssm/spectrum_analysis.hpp"

namespace ssm::theory {

/// Times in steps, and energies of the state per unit of the energy that a step puts in, Σ Δ²B²x²,
/// for white zero-mean inputs: never below 1.
struct layer_prediction {
  quantiles<double> decay;               ///< exp(Δ·eigenvalue)
  quantiles<double> decay_without_step;  ///< exp(eigenvalue), what the paper plots
  quantiles<double> horizon;             ///< steps to 1/e
  double gain = 0;                       ///< stationary: Σ Δ²/(1 - λ²)/Σ Δ²
  double gain_from = 0;                  ///< after `from` steps
  double gain_to = 0;                    ///< after `to` steps
  double growth = 0;                     ///< gain_to / gain_from
  double equal_gain = 0;  ///< stationary, were all Δ of the inputs the same: the mean 1/(1 - λ²)
  double uniform_gain = 0;  ///< the same of λ uniform between the least and the largest
  double printed_gain = 0;  ///< what the paper prints for the uniform law
};

/// Throws    domain_error unless 0 < from <= to.
inline layer_prediction predict(layer_spectrum const& layer, index_t from, index_t to) {
  auto const exact =
      analyze<double>(layer.view(), static_cast<double>(from), static_cast<double>(to));
  auto const poles = layer.poles();
  auto const decays = [](std::vector<pole<double>> const& of) {
    std::vector<double> values;
    for (auto const& p : of) values.push_back(p.value);
    return quantiles<double>::of(std::move(values));
  };
  auto const is_faster = [](pole<double> const& p, pole<double> const& q) {
    return p.gap > q.gap || (p.gap == q.gap && p.value < q.value);
  };
  auto const [fastest, slowest] = std::minmax_element(poles.begin(), poles.end(), is_faster);
  auto const uniform = uniform_law<double>::between(*fastest, *slowest);

  layer_prediction result;
  result.decay = decays(poles);
  result.decay_without_step = decays(layer.poles_without_step());
  result.horizon = exact.horizon;
  result.gain = exact.gain;
  result.gain_from = exact.trained_energy / exact.input_energy;
  result.gain_to = exact.longer_energy / exact.input_energy;
  result.growth = exact.growth;
  result.equal_gain = mean_stationary_gain(std::span<pole<double> const>(poles));
  result.uniform_gain = mean_stationary_gain(uniform);
  result.printed_gain = printed_gain(uniform);
  return result;
}

}  // namespace ssm::theory
