// SPDX-License-Identifier: Apache-2.0
// objective.hpp: what can be minimized, over which numbers, and what a minimization returns.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "ssm/config.hpp"
#include "ssm/error.hpp"
#include "ssm/numerics.hpp"
#include "ssm/random.hpp"

namespace ssm::optimize {

// An objective is called on the factors, a flat span of doubles, and returns a loss. One that is
// random (a batch, noise) also takes the stream to draw from: the same stream, the same loss. It is
// called from several threads at once where the settings ask for more than one.

template <class F>
concept plain_objective = requires(F const& f, std::span<double const> factors) {
  { f(factors) } -> std::convertible_to<double>;
};

template <class F>
concept sampled_objective = requires(F const& f, std::span<double const> factors,
                                     random_stream const& draw) {
  { f(factors, draw) } -> std::convertible_to<double>;
};

template <class F>
concept objective = plain_objective<F> || sampled_objective<F>;

/// Also writes the gradient of the loss.
template <class F>
concept plain_gradient_objective = requires(F const& f, std::span<double const> factors,
                                            std::span<double> gradient) {
  { f(factors, gradient) } -> std::convertible_to<double>;
};

template <class F>
concept sampled_gradient_objective = requires(F const& f, std::span<double const> factors,
                                              random_stream const& draw,
                                              std::span<double> gradient) {
  { f(factors, draw, gradient) } -> std::convertible_to<double>;
};

template <class F>
concept differentiable_objective = plain_gradient_objective<F> || sampled_gradient_objective<F>;

/// Where factors may be. They are kept there by projection, each to the nearest allowed value.
/// Logarithmic: steps and perturbations are of log(factor), so that factors stay positive, and a
/// perturbation of 0.1 is one of 10 %.
struct factor_domain {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool is_logarithmic = false;

  friend bool operator==(factor_domain const&, factor_domain const&) = default;
};

/// One iteration, as the history keeps it.
struct iteration_record {
  index_t iteration = 0;
  double loss = 0;  ///< of SPSA the mean over the perturbed factors, L + O(c²)
  /// Of `loss`, from its spread over the directions of this iteration; NaN where there is one.
  double standard_error = std::numeric_limits<double>::quiet_NaN();
  double step = 0;                ///< the gain a_k, or the rate of Adam
  double perturbation = 0;        ///< c_k; 0 for Adam
  double largest_change = 0;      ///< of a factor, or of its logarithm
  bool is_blocked = false;        ///< the step was undone
  index_t evaluations = 0;        ///< of the objective since the start
  std::vector<double> factors{};  ///< after the iteration, if the settings keep them
};

enum class status { running, all_iterations_done, stopped_early, not_finite };

inline char const* to_string(status s) {
  switch (s) {
    case status::running:
      return "running";
    case status::all_iterations_done:
      return "all_iterations_done";
    case status::stopped_early:
      return "stopped_early";
    case status::not_finite:
      break;
  }
  return "not_finite";
}

/// What a minimization found. After status not_finite, `factors` are those before the iteration
/// that failed, and `not_finite_at` those at which the objective was `not_finite_loss` (or, with
/// Adam, had a gradient that is not finite; with SPSA, where a step left the range of numbers).
struct optimum {
  std::vector<double> factors;
  optimize::status status = status::running;
  index_t evaluations = 0;
  std::vector<iteration_record> history;
  std::vector<double> not_finite_at;
  double not_finite_loss = 0;
};

/// Called after each iteration, to show progress or to save the run.
using observer = std::function<void(iteration_record const&)>;

/// Stop when the loss has stalled: when its mean over the last `window` iterations is, at two
/// standard errors, not lower by `least_gain` than that over the `window` before:
///   m₁ - m₂ + 2 √(s₁² + s₂²) < least_gain,
/// s² the sample variance of the losses of a window over its length. Window 0: never.
struct early_stop {
  index_t window = 0;
  double least_gain = 0;

  friend bool operator==(early_stop const&, early_stop const&) = default;
};

namespace detail {

template <objective F>
double loss_at(F const& f, std::span<double const> factors, random_stream const& draw) {
  if constexpr (sampled_objective<F>) {
    return f(factors, draw);
  } else {
    return f(factors);
  }
}

template <differentiable_objective F>
double loss_at(F const& f, std::span<double const> factors, random_stream const& draw,
               std::span<double> gradient) {
  if constexpr (sampled_gradient_objective<F>) {
    return f(factors, draw, gradient);
  } else {
    return f(factors, gradient);
  }
}

/// The numbers that an optimizer moves, log(factor) or the factor itself.
inline double coordinate_of(factor_domain const& domain, double factor) {
  return domain.is_logarithmic ? ssm::log(factor) : factor;
}
inline double factor_of(factor_domain const& domain, double coordinate) {
  // exp(log(low)) may round below low
  return domain.is_logarithmic ? std::clamp(ssm::exp(coordinate), domain.low, domain.high)
                               : coordinate;
}

inline std::vector<double> factors_of(factor_domain const& domain,
                                      std::span<double const> coordinates) {
  std::vector<double> factors(coordinates.size());
  std::transform(coordinates.begin(), coordinates.end(), factors.begin(),
                 [&](double u) { return factor_of(domain, u); });
  return factors;
}

/// Whether a step has stayed in the range of numbers: an exponential may leave it for 0 or ∞.
inline bool are_factors(factor_domain const& domain, std::span<double const> coordinates) {
  return std::all_of(coordinates.begin(), coordinates.end(), [&](double u) {
    double const x = factor_of(domain, u);
    return std::isfinite(x) && (x > 0 || !domain.is_logarithmic);
  });
}

template <objective F>
double loss_at_coordinates(F const& f, factor_domain const& domain,
                           std::span<double const> coordinates, random_stream const& draw) {
  if (!domain.is_logarithmic) return loss_at(f, coordinates, draw);
  return loss_at(f, factors_of(domain, coordinates), draw);
}

struct interval {
  double low, high;
};

/// The domain in coordinates; what is not above 0 has no logarithm.
inline interval bounds_of(factor_domain const& domain) {
  return {coordinate_of(domain, domain.is_logarithmic ? std::max(domain.low, 0.0) : domain.low),
          coordinate_of(domain, domain.high)};
}

/// The coordinates of a start; throws domain_error, naming `who`, where it or the domain will not
/// do.
inline std::vector<double> checked_start(std::string const& who, std::span<double const> start,
                                         factor_domain const& domain) {
  require<domain_error>(!start.empty(), who, ": there are no factors, expected at least one");
  require<domain_error>(domain.low < domain.high && (!domain.is_logarithmic || domain.high > 0),
                        who, ": the clamp is [", domain.low, ", ", domain.high,
                        "], expected low < high");
  std::vector<double> coordinates(start.size());
  for (std::size_t i = 0; i < start.size(); ++i) {
    double const x = start[i];
    require<domain_error>(std::isfinite(x), who, ": factor ", i, " starts at ", x,
                          ", expected a finite number");
    require<domain_error>(x >= domain.low, who, ": factor ", i, " starts at ", x,
                          ", below the clamp at ", domain.low);
    require<domain_error>(x <= domain.high, who, ": factor ", i, " starts at ", x,
                          ", above the clamp at ", domain.high);
    require<domain_error>(!domain.is_logarithmic || x > 0, who, ": factor ", i, " starts at ", x,
                          ", expected more than 0 for logarithms");
    coordinates[i] = coordinate_of(domain, x);
  }
  return coordinates;
}

/// The rule of early_stop.
inline bool has_stalled(early_stop const& rule, std::span<iteration_record const> history) {
  auto const w = static_cast<std::size_t>(std::max<index_t>(rule.window, 0));
  if (w < 2 || history.size() < 2 * w) return false;
  struct summary {
    double mean, squared_error;
  };
  auto const summarize = [&](std::span<iteration_record const> part) {
    auto const n = static_cast<double>(part.size());
    double mean = 0, squares = 0;
    for (auto const& r : part) mean += r.loss / n;
    for (auto const& r : part) squares += (r.loss - mean) * (r.loss - mean);
    return summary{mean, squares / (n - 1) / n};
  };
  auto const before = summarize(history.subspan(history.size() - 2 * w, w));
  auto const after = summarize(history.last(w));
  return before.mean - after.mean + 2 * ssm::sqrt(before.squared_error + after.squared_error) <
         rule.least_gain;
}

inline void require_stop_rule(std::string const& who, early_stop const& rule) {
  require<domain_error>(rule.window == 0 || rule.window >= 2, who, ": the window of early_stop is ",
                        rule.window, ", expected 0 (never) or at least 2");
  require<domain_error>(std::isfinite(rule.least_gain), who, ": least_gain of early_stop is ",
                        rule.least_gain, ", expected a finite number");
}

}  // namespace detail
}  // namespace ssm::optimize
