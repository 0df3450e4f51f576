// SPDX-License-Identifier: Apache-2.0
// simulation.hpp: the recurrence of a trained layer under white inputs, against what is exact.
#pragma once

#include <algorithm>
#include <span>
#include <string>

#include "experiments.hpp"
#include "simulator.hpp"
#include "spectrum/energy_moments.hpp"
#include "spectrum/trained_spectrum.hpp"
#include "ssm/diagonal.hpp"
#include "ssm/random.hpp"
#include "ssm/readout.hpp"
#include "ssm/scalar_identity.hpp"
#include "ssm/scan.hpp"

namespace ssm::theory {

/// Whether a run is to end, asked from within its work.
inline bool is_over(run_control const& run) {
  return (run.interrupted != nullptr && *run.interrupted) ||
         run_control::clock::now() >= run.deadline;
}

/// One sample of the S of energy_moments, by the library's own scan over the layer as it is in
/// the model: diagonal<mamba_hold> for Mamba-1, scalar_identity<mamba_hold> for Mamba-2. What is
/// constant in time is only the step size.
class energy_of_layer {
 public:
  /// Throws stopped in the middle of a sample where `run` is to end.
  energy_of_layer(layer_spectrum const& layer, index_t steps, run_control const& run)
      : layer_{layer},
        steps_{steps},
        run_{run},
        x_({1, piece, layer.channels()}),
        B_({1, piece, layer.groups, layer.states()}),
        energy_({1, piece, layer.channels()}),
        carry_({1, layer.channels(), layer.states()}) {}

  /// Rough core-nanoseconds of a sample.
  double cost() const {
    auto const states = static_cast<double>(carry_.size());
    auto const exponentials = layer_.has_heads ? static_cast<double>(layer_.channels()) : states;
    return static_cast<double>(steps_) * (1.5 * states + 9 * exponentials);
  }

  layer_system system() const {
    return {layer_.has_heads, layer_.eigenvalue, layer_.step_size, layer_.channels(),
            layer_.states(),  layer_.groups,     steps_,           input_energy(layer_)};
  }

  void draw_eigenvalues(random_stream const&, std::span<double>) const {}

  double operator()(random_stream const& stream) {
    auto const inputs = stream.child(0), gates = stream.child(1);
    std::fill(carry_.begin(), carry_.end(), 0.0);
    double sum = 0;
    for (index_t t = 0; t < steps_; t += piece) {
      if (is_over(run_)) throw stopped();
      index_t const count = std::min(piece, steps_ - t);
      fill(inputs, x_, t, count);
      fill(gates, B_, t, count);
      if (layer_.has_heads) {
        advance(mamba2(count), count);
      } else {
        advance(mamba1(count), count);
      }
      auto const* const first = energy_.data();
      for (auto const* e = first; e != first + count * layer_.channels(); ++e) sum += *e;
    }
    return sum / (static_cast<double>(steps_) * input_energy(layer_));
  }

 private:
  static constexpr index_t piece = 64;  ///< steps at a time, which bounds the buffers

  /// Elements of [t, t + count) of the stream's endless sequence over time.
  template <int Rank>
  static void fill(random_stream const& stream, tensor<double, Rank>& to, index_t t,
                   index_t count) {
    index_t const of_step = to.size() / piece;
    stream.fill_normal({to.data(), static_cast<std::size_t>(count * of_step)}, t * of_step);
  }

  sequence_view<double const> step_size(index_t count) const {
    return layer_.step_size.view().broadcast(0, count).broadcast(0, 1);
  }

  diagonal<mamba_hold, double> mamba1(index_t count) const {
    auto const shared = B_.view().select(2, 0).broadcast(2, layer_.channels());
    return {.step_size = step_size(count),
            .eigenvalue = layer_.eigenvalue,
            .B = shared.slice(1, 0, count),
            .x = x_.view().slice(1, 0, count)};
  }

  scalar_identity<mamba_hold, double> mamba2(index_t count) const {
    return {.step_size = step_size(count),
            .eigenvalue = layer_.eigenvalue.view().select(1, 0),
            .B = B_.view().slice(1, 0, count),
            .x = x_.view().slice(1, 0, count)};
  }

  template <class Recurrence>
  void advance(Recurrence const& recurrence, index_t count) {
    squared_norm<double> const collect{energy_.view().slice(1, 0, count)};
    scan(sequential{}, recurrence, collect, carry_.view());
  }

  layer_spectrum const& layer_;
  index_t steps_;
  run_control const& run_;
  tensor<double, 3> x_;
  tensor<double, 4> B_;
  tensor<double, 3> energy_;
  tensor<double, 3> carry_;
};

/// S against its expectation, with as many samples as tell it from one that is off by 5 %.
/// The layer and the run must outlive the experiment.
inline experiment energy_experiment(std::string const& setting, layer_spectrum const& layer,
                                    index_t steps, run_control const& run) {
  moments const known = energy_moments(layer, steps);
  energy_of_layer const sampler{layer, steps, run};
  return mean_experiment({.setting = setting,
                          .method = "recurrence",
                          .exact = known.mean,
                          .variance = known.variance,
                          .cost = sampler.cost()},
                         sampler);
}

}  // namespace ssm::theory
