// SPDX-License-Identifier: Apache-2.0
// spsa.hpp: minimize by two evaluations an iteration, however many factors there are.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "ssm/detail/parallel_for.hpp"
#include "ssm/optimize/gain_sequence.hpp"
#include "ssm/optimize/objective.hpp"
#include "ssm/optimize/perturbation.hpp"

namespace ssm::optimize {

/// Simultaneous perturbation stochastic approximation: x ← x - a_k ĝ(x), ĝ from `directions`
/// two-sided differences in random directions. choose_step() sets the scale of the steps.
/// Source    Spall 1992, IEEE TAC 37; Spall 1998, IEEE TAES 34 (averaging, blocking, gains).
struct spsa_settings {
  index_t iterations = 100;
  gain_sequence step{.scale = 0.1, .offset = 10, .exponent = 0.602};
  gain_sequence perturbation{.scale = 0.1, .exponent = 0.101};
  factor_domain domain{};
  index_t directions = 1;  ///< averaged in each iteration
  /// Both sides of a difference draw from the same stream, so that noise that does not depend on
  /// the factors cancels. Each direction has a stream of its own.
  bool has_common_random_numbers = true;
  /// Undo a step after which the loss exceeds the mean of the first pair by more than this, all
  /// drawn from one stream. Costs one evaluation an iteration.
  std::optional<double> blocks_above{};
  double largest_change = std::numeric_limits<double>::infinity();  ///< of a coordinate in a step
  std::optional<index_t> averages_from{};  ///< the result is the mean of the iterates from here on
  early_stop stop{};
  std::uint64_t seed = 1;
  int threads = 1;  ///< for the 2·directions evaluations of an iteration; 0: all. Same bits for any
  bool keeps_factors = true;  ///< in the history

  friend bool operator==(spsa_settings const&, spsa_settings const&) = default;
};

namespace detail {

/// What the objective draws from on one side of a direction.
inline random_stream spsa_draw(spsa_settings const& settings, random_stream const& iteration,
                               index_t direction, index_t side) {
  random_stream const common = iteration.child(1).child(direction);
  return settings.has_common_random_numbers ? common : common.child(side);
}

/// Both sides of each direction, and the losses there: [2d] of x₊, [2d + 1] of x₋.
struct spsa_probes {
  std::vector<perturbed_pair> pairs;
  std::vector<double> losses;

  template <objective F>
  static spsa_probes of(F const& f, spsa_settings const& settings, std::span<double const> x,
                        double c, index_t directions, random_stream const& stream) {
    spsa_probes probes;
    auto const [low, high] = bounds_of(settings.domain);
    for (index_t d = 0; d < directions; ++d) {
      probes.pairs.push_back(perturbed_pair::around(x, c, stream.child(0).child(d), low, high));
    }
    probes.losses.resize(2 * probes.pairs.size());
    ssm::detail::parallel_for(settings.threads, 2 * directions, [&](index_t begin, index_t end) {
      for (index_t i = begin; i < end; ++i) {
        auto const at = static_cast<std::size_t>(i);
        probes.losses[at] = loss_at_coordinates(f, settings.domain, probes.side(at),
                                                spsa_draw(settings, stream, i / 2, i % 2));
      }
    });
    return probes;
  }

  std::span<double const> side(std::size_t i) const {
    return i % 2 == 0 ? pairs[i / 2].plus : pairs[i / 2].minus;
  }

  std::optional<std::size_t> first_not_finite() const {
    auto const found =
        std::find_if_not(losses.begin(), losses.end(), [](double v) { return std::isfinite(v); });
    if (found == losses.end()) return {};
    return static_cast<std::size_t>(found - losses.begin());
  }

  /// Σ ĝ/directions, in the order of the directions.
  std::vector<double> gradient() const {
    std::vector<double> sum(pairs[0].plus.size());
    double const weight = 1 / static_cast<double>(pairs.size());
    for (std::size_t d = 0; d < pairs.size(); ++d) {
      pairs[d].add_gradient(losses[2 * d] - losses[2 * d + 1], weight, sum);
    }
    return sum;
  }

  /// Of all sides, and its standard error over the directions: NaN for one.
  std::pair<double, double> mean_loss() const {
    auto const n = static_cast<double>(pairs.size());
    double mean = 0, squares = 0;
    for (double const v : losses) mean += v / (2 * n);
    for (std::size_t i = 0; i < losses.size(); i += 2) {
      double const off = (losses[i] + losses[i + 1]) / 2 - mean;
      squares += off * off;
    }
    if (n < 2) return {mean, std::numeric_limits<double>::quiet_NaN()};
    return {mean, ssm::sqrt(squares / (n - 1) / n)};
  }
};

}  // namespace detail

/// A minimization that is under way. A plain value: what is copied, or saved by
/// model/calibration_file.hpp, goes on to the same bits as the original.
struct spsa_run {
  spsa_settings settings;
  index_t iteration = 0;            ///< the next
  std::vector<double> coordinates;  ///< factors, or their logarithms
  std::vector<double> sum;          ///< of the iterates that are averaged
  index_t averaged = 0;             ///< how many these are
  optimum best{};                   ///< what there is to return now

  /// Throws    domain_error where settings or start will not do.
  spsa_run(std::span<double const> start, spsa_settings const& with)
      : settings{with}, coordinates{detail::checked_start("spsa", start, with.domain)} {
    require_convergent(settings.step, settings.perturbation);
    require<domain_error>(settings.iterations >= 0, "spsa: iterations is ", settings.iterations,
                          ", expected 0 or more");
    require<domain_error>(settings.directions >= 1, "spsa: directions is ", settings.directions,
                          ", expected at least 1");
    require<domain_error>(settings.largest_change > 0, "spsa: largest_change is ",
                          settings.largest_change, ", expected more than 0");
    require<domain_error>(!settings.blocks_above || *settings.blocks_above >= 0,
                          "spsa: blocks_above is ", settings.blocks_above.value_or(0),
                          ", expected 0 or more");
    require<domain_error>(!settings.averages_from || *settings.averages_from >= 0,
                          "spsa: averages_from is ", settings.averages_from.value_or(0),
                          ", expected 0 or more");
    detail::require_stop_rule("spsa", settings.stop);
    sum.assign(coordinates.size(), 0.0);
    best.factors.assign(start.begin(), start.end());
    if (settings.iterations == 0) best.status = status::all_iterations_done;
  }

  bool is_done() const { return best.status != status::running; }

  /// One iteration. What the objective throws leaves the run as it was.
  template <objective F>
  void advance(F const& f) {
    random_stream const stream = random_stream{settings.seed}.child(iteration);
    iteration_record record{.iteration = iteration,
                            .step = settings.step(iteration),
                            .perturbation = settings.perturbation(iteration)};
    auto const probes = detail::spsa_probes::of(f, settings, coordinates, record.perturbation,
                                                settings.directions, stream);
    best.evaluations += std::ssize(probes.losses);
    if (auto const i = probes.first_not_finite()) return fail(probes.side(*i), probes.losses[*i]);
    std::tie(record.loss, record.standard_error) = probes.mean_loss();

    std::vector<double> const gradient = probes.gradient();
    std::vector<double> next(coordinates.size());
    auto const [low, high] = detail::bounds_of(settings.domain);
    for (std::size_t i = 0; i < next.size(); ++i) {
      double const change =
          std::clamp(-record.step * gradient[i], -settings.largest_change, settings.largest_change);
      next[i] = std::clamp(coordinates[i] + change, low, high);
      record.largest_change = std::max(record.largest_change, std::abs(next[i] - coordinates[i]));
    }
    if (!detail::are_factors(settings.domain, next)) {
      return fail(next, std::numeric_limits<double>::quiet_NaN());
    }
    if (settings.blocks_above) {
      double const after = detail::loss_at_coordinates(f, settings.domain, next,
                                                       detail::spsa_draw(settings, stream, 0, 0));
      ++best.evaluations;
      if (!std::isfinite(after)) return fail(next, after);
      record.is_blocked =
          after > (probes.losses[0] + probes.losses[1]) / 2 + *settings.blocks_above;
    }
    accept(std::move(next), std::move(record));
  }

 private:
  void fail(std::span<double const> at, double value) {
    best.not_finite_at = detail::factors_of(settings.domain, at);
    best.not_finite_loss = value;
    best.status = status::not_finite;
  }

  void accept(std::vector<double> next, iteration_record record) {
    if (!record.is_blocked) coordinates = std::move(next);
    if (settings.averages_from && iteration >= *settings.averages_from) {
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += coordinates[i];
      ++averaged;
    }
    std::vector<double> mean = coordinates;
    if (averaged > 0) {
      for (std::size_t i = 0; i < sum.size(); ++i) mean[i] = sum[i] / static_cast<double>(averaged);
    }
    best.factors = detail::factors_of(settings.domain, mean);
    record.evaluations = best.evaluations;
    if (settings.keeps_factors) record.factors = best.factors;
    best.history.push_back(std::move(record));
    ++iteration;
    if (iteration >= settings.iterations) best.status = status::all_iterations_done;
    if (detail::has_stalled(settings.stop, best.history)) best.status = status::stopped_early;
  }
};

/// Go on until the run is done; what was done before, in this process or another, does not count
/// twice.
template <objective F>
optimum const& finish(F const& f, spsa_run& run, observer const& on_iteration = {}) {
  while (!run.is_done()) {
    run.advance(f);
    if (on_iteration && run.best.status != status::not_finite) {
      on_iteration(run.best.history.back());
    }
  }
  return run.best;
}

/// Minimize f from `start`.
/// Cost      2·directions evaluations an iteration, and one where steps may be blocked.
/// Throws    domain_error where settings or start will not do; what f throws.
template <objective F>
optimum spsa(F const& f, std::span<double const> start, spsa_settings const& settings,
             observer const& on_iteration = {}) {
  spsa_run run(start, settings);
  finish(f, run, on_iteration);
  return std::move(run.best);
}

}  // namespace ssm::optimize
