// SPDX-License-Identifier: Apache-2.0
// spectrum_analysis.hpp: what a scaling makes of a spectrum, and what that does to the size of
// states, before anything is run.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

#include "ssm/config.hpp"
#include "ssm/error.hpp"
#include "ssm/numerics.hpp"
#include "ssm/scalar.hpp"
#include "ssm/spectrum.hpp"
#include "ssm/spectrum_scaling.hpp"
#include "ssm/tensor.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm {

/// x/(e^x - 1), 1 at 0 and 0 at infinity.
template <real_scalar T>
T inverse_phi1(T const& x) {
  return x > std::numeric_limits<T>::max() ? T(0) : T(T(1) / phi1(x));
}

/// d log g/d log r of the stationary gain of a decay e^-r: -x/(e^x - 1), x = 2r; in [-1, 0]. So
/// much does the energy of a state react to a factor of its eigenvalue; to one of its step size by
/// 2 more, as drive and state then grow in proportion.
/// Accuracy  4 eps.
template <real_scalar T>
T gain_elasticity(T const& rate) {
  return -inverse_phi1(T(T(2) * rate));
}

/// The same `steps` steps after a zero state, which may be infinitely many:
/// tx/(e^(tx) - 1) - x/(e^x - 1).
/// Accuracy  40 eps.
template <real_scalar T>
T gain_elasticity(T const& rate, T const& steps) {
  if (steps > std::numeric_limits<T>::max()) return gain_elasticity(rate);
  T const x = T(2) * rate, tx = steps * x;
  if (x >= T(1)) return inverse_phi1(tx) - inverse_phi1(x);
  // 1 - y/(e^y - 1) = y φ1'(-y)/φ1(-y): the ones cancel before rounding does
  auto const defect = [](T const& y) {
    return y >= T(1) ? T(T(1) - inverse_phi1(y)) : T(y * phi1_slope(T(-y)) / phi1(T(-y)));
  };
  return defect(x) - defect(tx);
}

/// The spectrum of a layer: eigenvalues, and a step size for each channel, as where the input
/// projects to 0. For heads (state_space_dual) the channels are heads with one state each.
template <real_scalar T>
struct spectrum_view {
  tensor_view<T const, 2> eigenvalue;  ///< (channel, state), at most 0
  tensor_view<T const, 1> step_size;   ///< (channel), at least 0
};

/// A spectrum that holds its numbers.
template <real_scalar T>
struct spectrum {
  tensor<T, 2> eigenvalue;  ///< (channel, state)
  tensor<T, 1> step_size;   ///< (channel)

  operator spectrum_view<T>() const { return {eigenvalue, step_size}; }
};

/// The spectrum that a scaling makes of a layer's.
/// Throws    shape_error.
template <real_scalar T>
spectrum<T> scaled_spectrum(spectrum_view<T> const& layer, spectrum_scaling<T> const& scaling) {
  require_shape(layer.step_size, {layer.eigenvalue.extent(0)}, "scaled_spectrum: step_size",
                "channel");
  require_scaling(scaling, layer.eigenvalue.extent(0), layer.eigenvalue.extent(1));
  spectrum<T> result{scaled_eigenvalues(layer.eigenvalue, scaling),
                     tensor<T, 1>(layer.step_size.extents())};
  for (index_t c = 0; c < layer.step_size.extent(0); ++c) {
    result.step_size(c) = scaling.step_factor(c) * layer.step_size(c);
  }
  return result;
}

/// One channel or head of a spectrum, as a spectrum.
template <real_scalar T>
spectrum_view<T> channel_of(spectrum_view<T> const& layer, index_t c) {
  auto const& A = layer.eigenvalue;
  return {{&A(c, 0), {1, A.extent(1)}, A.strides()}, {&layer.step_size(c), {1}}};
}

/// Σ Δ_c² g_t(λ_cn): the energy of the states `steps` steps after a state of zero, for inputs B·x
/// that are white, with mean zero and variance 1. Infinitely many steps: the stationary energy.
/// Accuracy  a sum of positive terms: (count + 10)·eps.
/// Throws    as poles_of; domain_error for fewer than 0 steps.
template <real_scalar T>
T state_energy(spectrum_view<T> const& layer, T const& steps) {
  auto const poles = poles_of(layer.eigenvalue, layer.step_size);
  auto p = poles.begin();
  T sum(0);
  for (index_t c = 0; c < layer.eigenvalue.extent(0); ++c) {
    T gains(0);
    for (index_t n = 0; n < layer.eigenvalue.extent(1); ++n) gains += state_gain(*p++, steps);
    sum += layer.step_size(c) * layer.step_size(c) * gains;
  }
  return sum;
}

/// Add `cotangent` times the gradient of state_energy(scaled_spectrum(layer, scaling), steps) by
/// each factor to the views of `to`, which sum over all that shares one.
/// Throws    shape_error before anything is written; as state_energy.
template <real_scalar T>
void state_energy_vjp(spectrum_view<T> const& layer, spectrum_scaling<T> const& scaling,
                      T const& steps, T const& cotangent,
                      typename spectrum_scaling<T>::gradient const& to) {
  spectrum_scaling<T> const shapes{.linear = to.linear, .power = to.power, .step = to.step};
  require_scaling(shapes, layer.eigenvalue.extent(0), layer.eigenvalue.extent(1));
  auto const scaled = scaled_spectrum(layer, scaling);
  auto const poles = poles_of(scaled.eigenvalue.view(), scaled.step_size.view());
  auto p = poles.begin();
  for (index_t c = 0; c < scaled.eigenvalue.extent(0); ++c) {
    T const step = scaled.step_size(c);
    for (index_t n = 0; n < scaled.eigenvalue.extent(1); ++n) {
      // E = Δ² g(r), r = -ΔA: dE/dΔ = Δ g (2 + e), dE/dA = -Δ³ g'
      T const gain = state_gain(*p++, steps), rate = -step * scaled.eigenvalue(c, n);
      T const elasticity = gain_elasticity(rate, steps);
      T const slope = rate == T(0) ? T(0) : T(gain * elasticity / rate);  // no factor moves a 0
      if (to.step.data_handle() != nullptr) {
        to.step(c) += cotangent * layer.step_size(c) * step * gain * (T(2) + elasticity);
      }
      scaling.pull_back(c, n, layer.eigenvalue(c, n), T(-cotangent * step * step * step * slope),
                        to);
    }
  }
}

/// Of a set of numbers; the median of an even number is the mean of the two in the middle.
template <real_scalar T>
struct quantiles {
  T least, median, largest;

  /// Throws    domain_error for no values.
  static quantiles of(std::vector<T> values) {
    require<domain_error>(!values.empty(), "quantiles: no values, expected at least one");
    std::sort(values.begin(), values.end());
    std::size_t const half = values.size() / 2;
    T const upper = values[half];
    T const median = values.size() % 2 == 1 ? upper : T((values[half - 1] + upper) / T(2));
    return {values.front(), median, values.back()};
  }
};

/// How long the states of a layer last and how large they get, for white inputs as above: energies
/// that differ between two spectra differ by what the states do. Elasticities are d log(energy
/// after `longer` steps)/d log s of a further factor s of all eigenvalues (in [-1, 0]), of all step
/// sizes, and of a further power s of all eigenvalues.
template <real_scalar T>
struct spectrum_analysis {
  quantiles<T> horizon;  ///< steps to 1/e
  T input_energy;        ///< that one step puts into the states, Σ Δ²
  T gain;                ///< stationary energy per input_energy
  T trained_energy;      ///< after `trained` steps
  T longer_energy;       ///< after `longer` steps
  T growth;              ///< longer_energy/trained_energy: from 1 to longer/trained
  T linear_elasticity;
  T power_elasticity;
  T step_elasticity;  ///< linear_elasticity + 2
};

/// Throws    as state_energy; domain_error unless 0 < trained <= longer and there are states.
template <real_scalar T>
spectrum_analysis<T> analyze(spectrum_view<T> const& layer, T const& trained, T const& longer) {
  require<domain_error>(trained > T(0) && longer >= trained, "analyze: trained on ", trained,
                        " steps, run for ", longer, ", expected 0 < trained <= longer");
  auto const poles = poles_of(layer.eigenvalue, layer.step_size);
  std::vector<T> horizons;
  for (auto const& p : poles) horizons.push_back(ssm::horizon(p));

  spectrum_analysis<T> result{};
  result.horizon = quantiles<T>::of(std::move(horizons));
  auto p = poles.begin();
  T linear(0), power(0);
  for (index_t c = 0; c < layer.eigenvalue.extent(0); ++c) {
    T const step = layer.step_size(c), square = step * step;
    for (index_t n = 0; n < layer.eigenvalue.extent(1); ++n, ++p) {
      T const size = -layer.eigenvalue(c, n), energy = square * state_gain(*p, longer);
      T const change = energy * gain_elasticity(T(step * size), longer);
      result.input_energy += square;
      result.gain += square * state_gain(*p, std::numeric_limits<T>::infinity());
      result.trained_energy += square * state_gain(*p, trained);
      result.longer_energy += energy;
      linear += change;
      if (size > T(0)) power += change * ssm::log(size);
    }
  }
  require<domain_error>(result.input_energy > T(0),
                        "analyze: every step size is 0, expected one that is more");
  result.gain /= result.input_energy;
  result.growth = result.longer_energy / result.trained_energy;
  result.linear_elasticity = linear / result.longer_energy;
  result.power_elasticity = power / result.longer_energy;
  result.step_elasticity = T(2) + result.linear_elasticity;
  return result;
}

}  // namespace ssm
