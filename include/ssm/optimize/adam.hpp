// SPDX-License-Identifier: Apache-2.0
// adam.hpp: minimize along gradients, each divided by its own recent size.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "ssm/optimize/objective.hpp"

namespace ssm::optimize {

/// Adam, and AdamW where the decay of the weights is decoupled from the gradient.
/// Source    Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019, algorithm 2. The settings of
///           torch: AdamW decays by rate·weight_decay. As published (MambaExtend): rate 0.1, weight
///           decay 0.1, gradients cut to 1. The public scripts: AdamW without decay, a clamp at
///           0.01, and factors in bfloat16, whose spacing near 1 swallows rates of 0.001 and less.
struct adam_settings {
  index_t iterations = 100;
  double rate = 0.1;
  double mean_decay = 0.9;      ///< β1
  double square_decay = 0.999;  ///< β2
  double epsilon = 1e-8;
  double weight_decay = 0;
  bool is_decoupled = true;  ///< AdamW; otherwise the decay is a part of the gradient
  double largest_gradient = std::numeric_limits<double>::infinity();  ///< its norm is cut to this
  factor_domain domain{};
  early_stop stop{};
  std::uint64_t seed = 1;     ///< of the streams that the objective draws from
  bool keeps_factors = true;  ///< in the history

  friend bool operator==(adam_settings const&, adam_settings const&) = default;
};

/// A minimization that is under way: a plain value, as spsa_run.
struct adam_run {
  adam_settings settings;
  index_t iteration = 0;            ///< the next
  std::vector<double> coordinates;  ///< factors, or their logarithms
  std::vector<double> mean;         ///< of gradients, not yet corrected for its start at 0
  std::vector<double> square;
  optimum best{};

  /// Throws    domain_error where settings or start will not do.
  adam_run(std::span<double const> start, adam_settings const& with)
      : settings{with}, coordinates{detail::checked_start("adam", start, with.domain)} {
    auto const need = [](bool holds, char const* name, double value, char const* expected) {
      require<domain_error>(holds, "adam: ", name, " is ", value, ", expected ", expected);
    };
    auto const& s = settings;
    require<domain_error>(s.iterations >= 0, "adam: iterations is ", s.iterations,
                          ", expected 0 or more");
    need(s.rate > 0 && std::isfinite(s.rate), "rate", s.rate, "a finite one above 0");
    need(s.mean_decay >= 0 && s.mean_decay < 1, "mean_decay", s.mean_decay, "one in [0, 1)");
    need(s.square_decay >= 0 && s.square_decay < 1, "square_decay", s.square_decay,
         "one in [0, 1)");
    need(s.epsilon > 0 && std::isfinite(s.epsilon), "epsilon", s.epsilon, "a finite one above 0");
    need(s.weight_decay >= 0 && std::isfinite(s.weight_decay), "weight_decay", s.weight_decay,
         "a finite one of 0 or more");
    need(s.largest_gradient > 0, "largest_gradient", s.largest_gradient, "more than 0");
    detail::require_stop_rule("adam", s.stop);
    mean.assign(coordinates.size(), 0.0);
    square.assign(coordinates.size(), 0.0);
    best.factors.assign(start.begin(), start.end());
    if (s.iterations == 0) best.status = status::all_iterations_done;
  }

  bool is_done() const { return best.status != status::running; }

  /// One iteration. What the objective throws leaves the run as it was.
  template <differentiable_objective F>
  void advance(F const& f) {
    std::vector<double> const factors = detail::factors_of(settings.domain, coordinates);
    std::vector<double> gradient(factors.size());
    double const loss =
        detail::loss_at(f, factors, random_stream{settings.seed}.child(iteration), gradient);
    ++best.evaluations;
    bool const is_finite =
        std::all_of(gradient.begin(), gradient.end(), [](double g) { return std::isfinite(g); });
    if (!std::isfinite(loss) || !is_finite) {
      best.not_finite_at = factors;
      best.not_finite_loss = loss;
      best.status = status::not_finite;
      return;
    }
    if (settings.domain.is_logarithmic) {  // dL/d log x = x dL/dx
      for (std::size_t i = 0; i < factors.size(); ++i) gradient[i] *= factors[i];
    }
    cut(gradient);
    iteration_record record{.iteration = iteration, .loss = loss, .step = settings.rate};
    record.largest_change = move(gradient);
    record.evaluations = best.evaluations;
    best.factors = detail::factors_of(settings.domain, coordinates);
    if (settings.keeps_factors) record.factors = best.factors;
    best.history.push_back(std::move(record));
    ++iteration;
    if (iteration >= settings.iterations) best.status = status::all_iterations_done;
    if (detail::has_stalled(settings.stop, best.history)) best.status = status::stopped_early;
  }

 private:
  void cut(std::span<double> gradient) const {
    double squares = 0;
    for (double const g : gradient) squares += g * g;
    double const norm = ssm::sqrt(squares);
    if (!(norm > settings.largest_gradient)) return;
    for (double& g : gradient) g *= settings.largest_gradient / norm;
  }

  /// The largest change of a coordinate.
  double move(std::span<double const> gradient) {
    auto const power = [&](double base) {  // base^(iteration + 1)
      return base == 0 ? 0.0 : ssm::exp(static_cast<double>(iteration + 1) * ssm::log(base));
    };
    double const from_mean = 1 - power(settings.mean_decay);
    double const from_square = 1 - power(settings.square_decay);
    auto const [low, high] = detail::bounds_of(settings.domain);
    double largest = 0;
    for (std::size_t i = 0; i < coordinates.size(); ++i) {
      double const before = coordinates[i];
      double const decay = settings.weight_decay * before;
      double const g = gradient[i] + (settings.is_decoupled ? 0.0 : decay);
      mean[i] = settings.mean_decay * mean[i] + (1 - settings.mean_decay) * g;
      square[i] = settings.square_decay * square[i] + (1 - settings.square_decay) * g * g;
      double const step =
          mean[i] / from_mean / (ssm::sqrt(square[i] / from_square) + settings.epsilon);
      double const after = before - settings.rate * (step + (settings.is_decoupled ? decay : 0.0));
      coordinates[i] = std::clamp(after, low, high);
      largest = std::max(largest, std::abs(coordinates[i] - before));
    }
    return largest;
  }
};

/// Go on until the run is done.
template <differentiable_objective F>
optimum const& finish(F const& f, adam_run& run, observer const& on_iteration = {}) {
  while (!run.is_done()) {
    run.advance(f);
    if (on_iteration && run.best.status != status::not_finite) {
      on_iteration(run.best.history.back());
    }
  }
  return run.best;
}

/// Minimize f from `start`: the paper's Algorithm 2.
/// Cost      one evaluation with its gradient an iteration
/// Throws    domain_error where settings or start will not do; what f throws.
template <differentiable_objective F>
optimum adam(F const& f, std::span<double const> start, adam_settings const& settings,
             observer const& on_iteration = {}) {
  adam_run run(start, settings);
  finish(f, run, on_iteration);
  return std::move(run.best);
}

}  // namespace ssm::optimize
