// SPDX-License-Identifier: Apache-2.0
// prediction.hpp: how large the states of a trained layer get and how long they last, exactly.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "closed_forms/paper.hpp"
#include "closed_forms/spectra.hpp"
#include "spectrum/trained_spectrum.hpp"
#include "ssm/spectrum.hpp"

namespace ssm::theory {

struct quantiles {
  double least = 0;
  double median = 0;
  double largest = 0;
};

/// The median of an even number is the mean of the two in the middle.
inline quantiles quantiles_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  std::size_t const half = values.size() / 2;
  double const upper = values[half];
  double const median = values.size() % 2 == 1 ? upper : (values[half - 1] + upper) / 2;
  return {values.front(), median, values.back()};
}

/// Times in steps, and energies of the state per unit of the energy that a step puts in, Σ Δ²B²x²,
/// for white zero-mean inputs: never below 1.
struct layer_prediction {
  quantiles decay;               ///< exp(Δ·eigenvalue)
  quantiles decay_without_step;  ///< exp(eigenvalue), what the paper plots
  quantiles horizon;             ///< steps to 1/e
  double gain = 0;               ///< stationary: Σ Δ²/(1 - λ²)/Σ Δ²
  double gain_from = 0;          ///< after `from` steps
  double gain_to = 0;            ///< after `to` steps
  double growth = 0;             ///< gain_to / gain_from
  double equal_gain = 0;  ///< stationary, were all Δ of the inputs the same: the mean 1/(1 - λ²)
  double uniform_gain = 0;  ///< the same of λ uniform between the least and the largest
  double printed_gain = 0;  ///< what the paper prints for the uniform law
};

/// Σ Δ² f(λ)/Σ Δ² over the states of a layer.
template <class F>
double input_weighted_mean(layer_spectrum const& layer, std::span<pole<double> const> poles,
                           F const& f) {
  double sum = 0, weights = 0;
  for (index_t r = 0; r < layer.rows(); ++r) {
    double const weight = layer.step_size(r) * layer.step_size(r);
    for (index_t q = 0; q < layer.columns(); ++q) {
      sum += weight * f(poles[static_cast<std::size_t>(r * layer.columns() + q)]);
      weights += weight;
    }
  }
  return sum / weights;
}

/// Throws    domain_error unless 0 < from <= to.
inline layer_prediction predict(layer_spectrum const& layer, index_t from, index_t to) {
  require<domain_error>(0 < from && from <= to, "predict: from ", from, " to ", to,
                        " steps, expected 0 < from <= to");
  auto const poles = layer.poles();
  auto const all = [](std::vector<pole<double>> const& of, auto const& f) {
    std::vector<double> values;
    for (auto const& p : of) values.push_back(f(p));
    return quantiles_of(std::move(values));
  };
  auto const value = [](pole<double> const& p) { return p.value; };
  auto const gain_after = [&](index_t steps) {
    return input_weighted_mean(layer, poles, [&](pole<double> const& p) {
      return state_gain(p, static_cast<double>(steps));
    });
  };
  auto const is_faster = [](pole<double> const& p, pole<double> const& q) {
    return p.gap > q.gap || (p.gap == q.gap && p.value < q.value);
  };
  auto const [fastest, slowest] = std::minmax_element(poles.begin(), poles.end(), is_faster);
  auto const uniform = uniform_law<double>::between(*fastest, *slowest);

  layer_prediction result;
  result.decay = all(poles, value);
  result.decay_without_step = all(layer.poles_without_step(), value);
  result.horizon = all(poles, horizon<double>);
  result.gain = input_weighted_mean(layer, poles, stationary_gain<double>);
  result.gain_from = gain_after(from);
  result.gain_to = gain_after(to);
  result.growth = result.gain_to / result.gain_from;
  result.equal_gain = mean_stationary_gain(std::span<pole<double> const>(poles));
  result.uniform_gain = mean_stationary_gain(uniform);
  result.printed_gain = printed_gain(uniform);
  return result;
}

}  // namespace ssm::theory
