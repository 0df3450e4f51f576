// SPDX-License-Identifier: Apache-2.0
// energy_moments.hpp: mean and variance of the state energy of a layer under white inputs.
#pragma once

#include <algorithm>
#include <vector>

#include "spectrum/trained_spectrum.hpp"
#include "ssm/error.hpp"
#include "ssm/spectrum.hpp"

namespace ssm::theory {

struct moments {
  double mean = 0;
  double variance = 0;
};

/// W = Σ_cn Δ_c², the energy that one step puts into the states of a layer.
inline double input_energy(layer_spectrum const& layer) {
  double sum = 0;
  for (double const step : layer.step_size) sum += step * step;
  return sum * static_cast<double>(layer.channels_per_row * layer.states());
}

/// The energy of all states, averaged over the steps 1 ... T after a zero state, in units of W:
///   S = Σ_t Σ_cn h_tcn²/(T W),   h_tcn = λ_cn h_(t-1)cn + Δ_c B_tn x_tc,
/// x and B white standard normal, B shared by the channels of a group, as in the model.
/// (The last state alone would do, but fast states forget within steps: a run holds many
/// independent energies of theirs, and the average uses them all.)
///
/// With w = Δ²/(T W) and g_k = 1 + λ² + ... + λ^(2k-2):
///   E S = Σ_cn w Σ_k g_k
///   Var S = Σ_k [2 Σ_c (Σ_n w g_k)² + 2 Σ_(group, n) (Σ_c w g_k)² + 4 Σ_cn w² g_k g_(T+1-k)²]
/// Let y = Bx. The square y_s² of the input of step s = T+1-k stays in S with the coefficient
/// w g_k. The fourth moments of Bx give cov(y_i², y_j²) = 8 for i = j, else 2 for states that
/// share x (one channel) or B (one n of a group), else 0: the first two sums count 2 + 2 of the 8,
/// and leave 4. The products y_r y_s, r < s, stand in S with 2 λ^(s-r) w g_k, variance 1 and no
/// correlation with anything: Σ_r<s 4 λ^2(s-r) = 4 (g_s - 1), which with those 4 makes 4 g_s.
/// Accuracy  sums of positive terms: (T + states)·eps.
/// Tested    tests/theory/trained_spectrum_test.cpp
inline moments energy_moments(layer_spectrum const& layer, index_t steps) {
  require<domain_error>(steps > 0, "energy_moments: ", steps, " steps, expected at least 1");
  auto const per_row = static_cast<double>(layer.channels_per_row);
  auto const per_column = static_cast<double>(layer.states_per_column);
  double const unit = 1 / (static_cast<double>(steps) * input_energy(layer));
  std::vector<pole<double>> const poles = layer.poles();

  tensor<double, 1> g({steps}), of_row({steps});
  tensor<double, 2> of_column({layer.columns(), steps});
  moments result;
  for (index_t r = 0; r < layer.rows(); ++r) {
    double const w = layer.step_size(r) * layer.step_size(r) * unit;
    if (r % layer.rows_per_group() == 0) std::fill(of_column.begin(), of_column.end(), 0.0);
    std::fill(of_row.begin(), of_row.end(), 0.0);
    for (index_t q = 0; q < layer.columns(); ++q) {
      double const decay = poles[static_cast<std::size_t>(r * layer.columns() + q)].value;
      double sum = 0, paired = 0;
      for (index_t k = 0; k < steps; ++k) {
        g(k) = sum = 1 + decay * decay * sum;
        of_row(k) += per_column * w * sum;
        of_column(q, k) += per_row * w * sum;
      }
      for (index_t k = 0; k < steps; ++k) paired += g(k) * g(steps - 1 - k) * g(steps - 1 - k);
      result.variance += 4 * per_row * per_column * w * w * paired;
    }
    for (double const e : of_row) {
      result.mean += per_row * e;
      result.variance += 2 * per_row * e * e;
    }
    if ((r + 1) % layer.rows_per_group() == 0) {
      for (double const e : of_column) result.variance += 2 * per_column * e * e;
    }
  }
  return result;
}

}  // namespace ssm::theory
