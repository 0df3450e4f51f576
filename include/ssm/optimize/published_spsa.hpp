// SPDX-License-Identifier: Apache-2.0
// published_spsa.hpp: calibration as published and as its public scripts do it, for comparison.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "ssm/optimize/gain_sequence.hpp"
#include "ssm/optimize/objective.hpp"

namespace ssm::optimize {

/// One published way to choose factors. All divide by the nominal 2cδ_i where clipping has
/// shortened the perturbation, so that the slope of a factor near its bound comes out too small, by
/// half at the bound (theory/claims/spsa.cpp); and all move by constant or nearly constant gains,
/// with which Σ (a_k/c_k)² is not finite and noise does not average out.
struct published_schedule {
  char const* name;
  index_t iterations;
  gain_sequence step;
  gain_sequence perturbation;
  double start_low, start_high;  ///< factors begin uniform in here
  double low;                    ///< the clamp
  double high = std::numeric_limits<double>::infinity();
  /// δ standard normal instead of ±1, and still divided by: an estimate without a variance.
  bool has_normal_directions = false;
  /// After each step the best of three is kept: the new factors by the loss of `selection`, x₊ and
  /// x₋ by that of the calibration data. In the scripts `selection` is the *test* data, and losses
  /// of different data are compared; where test losses are the larger ones the search becomes a
  /// random walk that moves every factor by ±c.
  bool keeps_best_of_three = false;
};

namespace published {

// Names are those of the papers and of the scripts in github.com/gnepul-ace/mamba_modulation
// (commit 0ac3cb3) and github.com/ArminAzizi98/LongContextMamba (490e0ad). The scripts minimize
// perplexity in bfloat16, without a seed; LongBench maximizes 100 × the score: hand in its
// negative.

inline constexpr double infinity = std::numeric_limits<double>::infinity();
inline constexpr gain_sequence cosine_step{.scale = 0.001, .cosine_period = 396};  // cos(kπ/198)
inline constexpr gain_sequence falling_perturbation{.scale = 0.1, .exponent = 0.1};

/// Both papers' text: arXiv:2509.19633, Algorithm 1, with the constants of MambaExtend.
inline constexpr published_schedule paper{"paper", 50,   {.scale = 0.001}, {.scale = 0.1}, 0,
                                          1,       0.001};
inline constexpr published_schedule modulation_perplexity_mamba{"modulation/perplexity/Mamba",
                                                                30,
                                                                cosine_step,
                                                                falling_perturbation,
                                                                0.75,
                                                                1,
                                                                0.01,
                                                                1,
                                                                false,
                                                                true};
inline constexpr published_schedule modulation_perplexity_mamba2{"modulation/perplexity/Mamba2",
                                                                 30,
                                                                 cosine_step,
                                                                 falling_perturbation,
                                                                 0.75,
                                                                 1,
                                                                 0.01,
                                                                 infinity,
                                                                 false,
                                                                 true};
inline constexpr published_schedule modulation_longbench{"modulation/LongBench",
                                                         100,
                                                         {.scale = 0.005},
                                                         {.scale = 0.2, .exponent = 0.1},
                                                         0,
                                                         1,
                                                         0.01,
                                                         infinity,
                                                         false,
                                                         true};
inline constexpr published_schedule extend_perplexity{"extend/perplexity",
                                                      50,
                                                      cosine_step,
                                                      falling_perturbation,
                                                      0.75,
                                                      1,
                                                      0.01,
                                                      infinity,
                                                      false,
                                                      true};
inline constexpr published_schedule extend_pg19{
    "extend/PG-19", 100, {.scale = 0.01}, falling_perturbation, 0.5, 0.75, 0.01, infinity,
    true,           true};
inline constexpr published_schedule extend_longbench{"extend/LongBench",
                                                     100,
                                                     {.scale = 0.005},
                                                     {.scale = 0.2, .exponent = 0.1},
                                                     0,
                                                     1,
                                                     0.01,
                                                     infinity,
                                                     false,
                                                     true};

inline constexpr std::array all{paper,
                                modulation_perplexity_mamba,
                                modulation_perplexity_mamba2,
                                modulation_longbench,
                                extend_perplexity,
                                extend_pg19,
                                extend_longbench};

}  // namespace published

/// Factors as the schedule begins with them, from the stream of the seed.
inline std::vector<double> published_start(published_schedule const& schedule, index_t factors,
                                           std::uint64_t seed) {
  std::vector<double> start(static_cast<std::size_t>(factors));
  random_stream{seed}.child(0).fill_uniform(start);
  for (double& x : start) {
    x = schedule.start_low + (schedule.start_high - schedule.start_low) * x;
  }
  return start;
}

/// What the script ends with, and what it reports.
struct published_optimum {
  optimum found;
  double reported = 0;  ///< the calibration loss at the last x₊, which the tables call the result
};

struct published_options {
  std::optional<index_t> iterations{};  ///< other than those of the schedule
  /// Each evaluation draws from a stream of its own; otherwise all from one, as the scripts
  /// evaluate the same documents each time.
  bool has_fresh_noise = false;
  bool keeps_factors = true;  ///< in the history; the observer sees them in any case
};

/// Run a published schedule as it is, but for seeded random numbers of this library.
/// Cost      2 evaluations of `calibration` an iteration, and 1 of `selection` where the schedule
///           keeps the best of three
/// Throws    domain_error where the start is outside the clamp; what the objectives throw.
template <objective F, objective G>
published_optimum published_spsa(published_schedule const& schedule, F const& calibration,
                                 G const& selection, std::span<double const> start,
                                 std::uint64_t seed, published_options const& options = {},
                                 observer const& on_iteration = {}) {
  factor_domain const domain{.low = schedule.low, .high = schedule.high};
  published_optimum result;
  optimum& best = result.found;
  best.factors = detail::checked_start("published_spsa", start, domain);
  auto& x = best.factors;
  auto const clip = [&](double v) { return std::clamp(v, schedule.low, schedule.high); };
  index_t const last = options.iterations.value_or(schedule.iterations);
  std::vector<double> plus(x.size()), minus(x.size()), direction(x.size());
  for (index_t k = 0; k < last; ++k) {
    random_stream const stream = random_stream{seed}.child(1).child(k);
    iteration_record record{
        .iteration = k, .step = schedule.step(k), .perturbation = schedule.perturbation(k)};
    double const c = record.perturbation;
    schedule.has_normal_directions ? stream.child(0).fill_normal(direction)
                                   : stream.child(0).fill_sign(direction);
    for (std::size_t i = 0; i < x.size(); ++i) {
      plus[i] = clip(x[i] + c * direction[i]);
      minus[i] = clip(x[i] - c * direction[i]);
    }
    auto const draw = [&](index_t which) {
      return options.has_fresh_noise ? stream.child(1 + which) : random_stream{seed}.child(2);
    };
    double const above = detail::loss_at(calibration, plus, draw(0));
    double const below = detail::loss_at(calibration, minus, draw(1));
    best.evaluations += 2;
    for (auto const& [loss, at] : {std::pair{above, &plus}, std::pair{below, &minus}}) {
      if (std::isfinite(loss)) continue;
      best.not_finite_at = *at;
      best.not_finite_loss = loss;
      best.status = status::not_finite;
      return result;
    }
    record.loss = (above + below) / 2;
    std::vector<double> const before = x;
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = clip(x[i] - record.step * (above - below) / (2 * c * direction[i]));
    }
    if (schedule.keeps_best_of_three) {
      double at_x = detail::loss_at(selection, x, draw(2));
      ++best.evaluations;
      if (at_x > above) x = plus, at_x = above;
      if (at_x > below) x = minus, at_x = below;
    }
    for (std::size_t i = 0; i < x.size(); ++i) {
      record.largest_change = std::max(record.largest_change, std::abs(x[i] - before[i]));
    }
    record.evaluations = best.evaluations;
    record.factors = x;
    result.reported = above;
    if (on_iteration) on_iteration(record);
    if (!options.keeps_factors) record.factors = {};
    best.history.push_back(std::move(record));
  }
  best.status = status::all_iterations_done;
  return result;
}

}  // namespace ssm::optimize
