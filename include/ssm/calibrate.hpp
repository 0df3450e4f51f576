// SPDX-License-Identifier: Apache-2.0
// calibrate.hpp: choose the factors of a spectrum by the loss of a model on calibration data.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "ssm/calibrate_data.hpp"
#include "ssm/detail/parallel_for.hpp"
#include "ssm/fingerprint.hpp"
#include "ssm/optimize/adam.hpp"
#include "ssm/optimize/choose_step.hpp"
#include "ssm/optimize/spsa.hpp"
#include "ssm/scaling_factors.hpp"

namespace ssm {

// The calibration function of one example, a callable that may be used by several threads at once:
//   double loss(model, scaling_factors<double> const&, example)
//   double loss(model, scaling_factors<double> const&, example, std::span<double> gradient)
// The second adds its gradient, in the order of numbers(), and is what Adam takes. Let it be a
// negative log likelihood per token rather than a perplexity, its exponential: a mean of those
// weighs the examples by how bad they are.

/// How the loss of one evaluation is put together.
struct calibration_options {
  index_t batch = 0;  ///< examples of an evaluation, drawn anew each iteration; 0: all of them
  int threads = 0;    ///< for the examples of an evaluation; 0: all. Same bits for any
  /// SPSA's steps are chosen for an optimum that is this far from the start, as choose_step()
  /// tells; none: they are those of the settings.
  std::optional<double> distance{};
};

/// Factors, and all that says where they come from. A plain value; model/calibration_file.hpp
/// writes and reads it.
struct calibration {
  scaling_factors<double> factors;
  std::string model;  ///< fingerprint_of what they were chosen for ...
  std::string data;   ///< ... and on
  index_t batch = 0;
  std::variant<optimize::spsa_run, optimize::adam_run> run;  ///< settings, history, and the rest

  optimize::optimum const& found() const {
    return std::visit(
        [](auto const& r) -> auto const& { return r.best; }, run);
  }

  /// The factors, for this model only.
  /// Throws    checkpoint_error for another.
  template <class Model>
  scaling_factors<double> const& factors_for(Model const& of) const {
    std::string const here = fingerprint_of(of);
    require<checkpoint_error>(here == model, "calibration: it is for the model ", model,
                              ", this one is ", here);
    return factors;
  }
};

namespace detail {

/// The mean loss of a batch, as an objective of the optimizers.
template <class Model, class Example, class Loss>
struct calibration_objective {
  Model const& model;
  std::span<Example const> examples;
  Loss const& loss;
  scaling_factors<double> const& shape;  ///< kind, granularity and shape; its numbers do not count
  index_t batch;
  int threads;

  static constexpr bool has_gradient =
      std::is_invocable_r_v<double, Loss const&, Model const&, scaling_factors<double> const&,
                            Example const&, std::span<double>>;

  double operator()(std::span<double const> numbers, random_stream const& draw) const
      requires(!has_gradient) {
    return mean_over(numbers, draw, [&](auto const& factors, Example const& example, std::size_t) {
      return static_cast<double>(loss(model, factors, example));
    });
  }

  double operator()(std::span<double const> numbers, random_stream const& draw,
                    std::span<double> gradient) const requires(has_gradient) {
    auto const count = batch_of(draw).size();
    std::vector<std::vector<double>> parts(count, std::vector<double>(numbers.size()));
    double const mean =
        mean_over(numbers, draw, [&](auto const& factors, Example const& example, std::size_t i) {
          return static_cast<double>(loss(model, factors, example, std::span<double>(parts[i])));
        });
    std::fill(gradient.begin(), gradient.end(), 0.0);
    for (auto const& part : parts) {
      for (std::size_t i = 0; i < part.size(); ++i) {
        gradient[i] += part[i] / static_cast<double>(count);
      }
    }
    return mean;
  }

 private:
  /// The examples of one evaluation, in their order: those with the smallest random numbers.
  std::vector<std::size_t> batch_of(random_stream const& draw) const {
    std::vector<std::size_t> all(examples.size());
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
    if (batch == 0 || batch >= std::ssize(examples)) return all;
    auto const end = all.begin() + batch;
    std::nth_element(all.begin(), end, all.end(), [&](std::size_t a, std::size_t b) {
      return std::pair(draw.bits(static_cast<index_t>(a)), a) <
             std::pair(draw.bits(static_cast<index_t>(b)), b);
    });
    all.erase(end, all.end());
    std::sort(all.begin(), all.end());
    return all;
  }

  template <class One>
  double mean_over(std::span<double const> numbers, random_stream const& draw,
                   One const& one) const {
    std::optional<scaling_factors<double>> at;
    try {
      at.emplace(shape.kind(), shape.each(), shape.shape(), numbers);
    } catch (domain_error const&) {  // a logarithm has left the range of factors: no loss there
      return std::numeric_limits<double>::quiet_NaN();
    }
    auto const& factors = *at;
    auto const chosen = batch_of(draw);
    std::vector<double> losses(chosen.size());
    parallel_for(threads, std::ssize(chosen), [&](index_t begin, index_t end) {
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
        losses[i] = one(factors, examples[chosen[i]], i);
      }
    });
    double sum = 0;
    for (double const v : losses) sum += v;
    return sum / static_cast<double>(losses.size());
  }
};

template <class Model, class Example, class Loss>
auto objective_of(Model const& model, calibration_set<Example> const& data, Loss const& loss,
                  scaling_factors<double> const& shape, calibration_options const& options) {
  require<domain_error>(options.batch >= 0, "calibrate: batch is ", options.batch,
                        ", expected 0 (all examples) or more");
  require<domain_error>(options.threads >= 0, "calibrate: threads is ", options.threads,
                        ", expected 0 (all) or more");
  return calibration_objective<Model, Example, Loss>{model, data.examples(), loss,
                                                     shape, options.batch,   options.threads};
}

/// What the optimizer may visit must be factors: those of linear and step are positive.
inline void require_factors(scaling_factors<double> const& start,
                            optimize::factor_domain const& domain) {
  start.require_valid();
  bool const only_power = start.kind() == scaling_kind{.power = true};
  require<domain_error>(only_power || domain.is_logarithmic || domain.low > 0,
                        "calibrate: the domain begins at ", domain.low,
                        ", expected more than 0, or logarithms, for ", to_string(start.kind()),
                        " factors");
}

}  // namespace detail

/// Called after each iteration: to show progress, or to save what there is.
using calibration_observer = std::function<void(calibration const&)>;

/// Go on with a calibration that was loaded, stopped, or given more iterations: to the same bits as
/// if it had not been interrupted.
/// Throws    checkpoint_error for another model or other data, domain_error for a loss without the
///           gradient that Adam needs or with one that SPSA does not take; what the loss throws.
template <class Model, class Example, class Loss>
void resume(Model const& model, calibration_set<Example> const& data, Loss const& loss,
            calibration& what, int threads = 0, calibration_observer const& on_iteration = {}) {
  auto const require_same = [](char const* name, std::string const& then, std::string const& now) {
    require<checkpoint_error>(then == now, "calibrate: it was begun for the ", name, " ", then,
                              ", this is ", now);
  };
  require_same("model", what.model, fingerprint_of(model));
  require_same("data", what.data, fingerprint_of(data));
  auto const shape = what.factors;
  auto const objective =
      detail::objective_of(model, data, loss, shape, {.batch = what.batch, .threads = threads});
  using objective_t = std::decay_t<decltype(objective)>;
  auto const go_on = [&](auto& run) {
    using run_t = std::decay_t<decltype(run)>;
    if constexpr (objective_t::has_gradient == std::is_same_v<run_t, optimize::adam_run>) {
      while (!run.is_done()) {
        run.advance(objective);
        std::copy(run.best.factors.begin(), run.best.factors.end(), what.factors.numbers().begin());
        if (on_iteration) on_iteration(what);
      }
    } else {
      throw domain_error(objective_t::has_gradient
                             ? "calibrate: SPSA has a loss with a gradient, expected one without"
                             : "calibrate: Adam has a loss without a gradient, expected one with");
    }
  };
  std::visit(go_on, what.run);
}

/// The paper's Algorithm 1 in one call: model, calibration data and loss in, factors out, which
/// begin as `start`. SPSA for a loss without gradient, Adam (Algorithm 2) for one with it.
/// Throws    domain_error where settings or start will not do, or where the domain of the settings
///           holds numbers that are no factors; what the loss throws.
/// Source    arXiv:2509.19633, Algorithms 1 and 2
template <class Model, class Example, class Loss>
calibration calibrate(Model const& model, calibration_set<Example> const& data, Loss const& loss,
                      scaling_factors<double> const& start, optimize::spsa_settings settings,
                      calibration_options const& options = {},
                      calibration_observer const& on_iteration = {}) {
  detail::require_factors(start, settings.domain);
  auto const objective = detail::objective_of(model, data, loss, start, options);
  static_assert(!decltype(objective)::has_gradient, "SPSA takes a loss without a gradient");
  settings.threads = 1;  // they share the examples

  index_t const pairs = options.distance ? 10 : 0;  // of choose_step, whose evaluations count
  if (options.distance) {
    settings = choose_step(objective, start.numbers(), settings, *options.distance, pairs);
  }
  optimize::spsa_run run(start.numbers(), settings);
  run.best.evaluations = 2 * pairs;
  calibration result{start, fingerprint_of(model), fingerprint_of(data), options.batch,
                     std::move(run)};
  resume(model, data, loss, result, options.threads, on_iteration);
  return result;
}

template <class Model, class Example, class Loss>
calibration calibrate(Model const& model, calibration_set<Example> const& data, Loss const& loss,
                      scaling_factors<double> const& start, optimize::adam_settings const& settings,
                      calibration_options const& options = {},
                      calibration_observer const& on_iteration = {}) {
  detail::require_factors(start, settings.domain);
  calibration result{start, fingerprint_of(model), fingerprint_of(data), options.batch,
                     optimize::adam_run(start.numbers(), settings)};
  resume(model, data, loss, result, options.threads, on_iteration);
  return result;
}

/// The mean loss of factors on data that took no part in choosing them.
template <class Model, class Example, class Loss, class Factors>
judgement held_out_loss(Model const& model, held_out_set<Example> const& data, Loss const& loss,
                        Factors const& factors, int threads = 0) {
  auto const& examples = data.examples_;
  std::vector<double> losses(examples.size());
  detail::parallel_for(threads, std::ssize(examples), [&](index_t begin, index_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      if constexpr (detail::calibration_objective<Model, Example, Loss>::has_gradient) {
        std::vector<double> gradient(factors.numbers().size());
        losses[i] = loss(model, factors, examples[i], std::span<double>(gradient));
      } else {
        losses[i] = loss(model, factors, examples[i]);
      }
    }
  });
  auto const n = static_cast<double>(losses.size());
  judgement result{.examples = data.size()};
  for (double const v : losses) result.loss += v / n;
  double squares = 0;
  for (double const v : losses) squares += (v - result.loss) * (v - result.loss);
  result.standard_error =
      n < 2 ? std::numeric_limits<double>::quiet_NaN() : ssm::sqrt(squares / (n - 1) / n);
  return result;
}

}  // namespace ssm
