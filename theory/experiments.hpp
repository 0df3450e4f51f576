// SPDX-License-Identifier: Apache-2.0
// experiments.hpp: the three kinds of experiment a claim is tested by.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "claim.hpp"
#include "simulator.hpp"
#include "ssm/detail/parallel_for.hpp"
#include "ssm/random.hpp"
#include "ssm/tensor.hpp"
#include "statistics.hpp"

namespace ssm::theory {

/// Levels and powers of the tests. A run makes well under 200 tests of true values: at 1e-5 each
/// it contradicts one of them by chance less than once in 500 seeds.
inline constexpr double level_of_exact = 1e-5;
inline constexpr double level_of_printed = 0.05;
inline constexpr double least_power = 0.95;
/// Samples are planned for more than the least power, so that of the many tests of a run each
/// has little chance to miss.
inline constexpr double planned_power = 0.9995;
/// What sharpening a test beyond its planned power may cost, in core-nanoseconds.
inline constexpr double most_nanoseconds = 1e9;
/// A true value must be told from one off by this much.
inline constexpr double wrong_by = 0.05;

/// The stream of an experiment: named, so that adding one changes no other.
inline random_stream stream_of(run_control const& run, std::string const& setting,
                               std::string const& method) {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (std::string const& name : {run.scope, setting, method}) {
    for (char const c : name + '/') hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return {run.seed, hash};
}

/// values[i] = sampler(i-th child of the stream), on as many threads as the run has. The sampler
/// is copied for each range of replicates, so it may keep buffers; values depend on nothing but
/// the stream and i. Runs in rounds of about a tenth of a second, after each of which the run may
/// be stopped.
template <class Sampler>
std::vector<double> draw(run_control& run, random_stream const& stream, index_t samples,
                         double cost_of_one, Sampler const& sampler) {
  std::vector<double> values(static_cast<std::size_t>(samples));
  auto const round = std::max<index_t>(64, static_cast<index_t>(2e8 / std::max(1.0, cost_of_one)));
  for (index_t first = 0; first < samples; first += round) {
    index_t const count = std::min(round, samples - first);
    ssm::detail::parallel_for(run.threads, count, [&](index_t begin, index_t end) {
      Sampler own = sampler;
      for (index_t i = first + begin; i < first + end; ++i) {
        values[static_cast<std::size_t>(i)] = own(stream.child(i));
      }
    });
    run.advance(cost_of_one * static_cast<double>(count));
  }
  return values;
}

/// The sum of the samples of a system on run.gpu, its eigenvalues drawn here; in rounds of at most
/// a gigabyte and about a second, after each of which the run may be stopped.
template <system_sampler Sampler>
double sum_on_gpu(run_control& run, random_stream const& stream, index_t samples,
                  double cost_of_one, Sampler const& sampler) {
  auto const system = sampler.system();
  index_t const most =
      std::min((index_t{1} << 27) / system.numbers(), (index_t{1} << 36) / system.updates());
  index_t const round = std::clamp<index_t>(most, 1, samples);
  tensor<double, 2> eigenvalues({round, system.eigenvalues()});
  double sum = 0;
  for (index_t first = 0; first < samples; first += round) {
    index_t const count = std::min(round, samples - first);
    auto const start = run_control::clock::now();
    ssm::detail::parallel_for(run.threads, count, [&](index_t begin, index_t end) {
      for (index_t i = begin; i < end; ++i) {
        sampler.draw_eigenvalues(stream.child(first + i),
                                 {eigenvalues.data() + i * system.eigenvalues(),
                                  static_cast<std::size_t>(system.eigenvalues())});
      }
    });
    if (system.eigenvalues() > 0) run.law_seconds += run_control::seconds_since(start);
    sum +=
        run.gpu->sum(system, {stream, first, count}, eigenvalues.const_view().slice(0, 0, count));
    run.advance(cost_of_one * static_cast<double>(count));
  }
  return sum;
}

/// The sum of the samples, and note of the states that were simulated for it.
template <class Sampler>
double sum_of_samples(run_control& run, random_stream const& stream, index_t samples,
                      double cost_of_one, Sampler const& sampler) {
  auto const sum_here = [&] {
    double sum = 0;
    for (double const v : draw(run, stream, samples, cost_of_one, sampler)) sum += v;
    return sum;
  };
  if constexpr (system_sampler<Sampler>) {
    auto const start = run_control::clock::now();
    double const sum =
        run.gpu == nullptr ? sum_here() : sum_on_gpu(run, stream, samples, cost_of_one, sampler);
    run.states += static_cast<double>(samples) * static_cast<double>(sampler.system().updates());
    run.states_seconds += run_control::seconds_since(start);
    return sum;
  } else {
    return sum_here();
  }
}

/// A Monte Carlo mean whose expectation and variance are known in closed form.
struct mean_plan {
  std::string setting;
  std::string method;
  double exact = 0;  ///< the expectation of one sample
  std::optional<double> printed =
      std::nullopt;     ///< what the paper prints for it, where that is wrong
  double variance = 0;  ///< of one sample
  double cost = 0;      ///< core-nanoseconds of one sample
  index_t samples = 0;  ///< 0: as many as the planned power needs
};

template <class Sampler>
experiment mean_experiment(mean_plan plan, Sampler sampler) {
  double const alternative = plan.printed.value_or(plan.exact * (1 + wrong_by));
  double const level = plan.printed ? level_of_printed : level_of_exact;
  double const difference = std::abs(plan.exact - alternative);
  if (plan.samples == 0) {
    // Enough to tell what is printed, and, as far as time allows, to notice an exact value that is
    // off by 5 %: a test that cannot is no evidence for it.
    auto const enough = samples_for_power(plan.variance, difference, level, planned_power);
    auto const sharp =
        samples_for_power(plan.variance, wrong_by * plan.exact, level_of_exact, planned_power);
    auto const affordable = static_cast<index_t>(most_nanoseconds / std::max(1.0, plan.cost));
    plan.samples = std::max({index_t{30}, enough, std::min(sharp, affordable)});
  }
  double const planned_cost = plan.cost * static_cast<double>(plan.samples);
  return {plan.setting, plan.method, planned_cost,
          [plan = std::move(plan), sampler = std::move(sampler), alternative, level,
           difference](run_control& run) {
            finding f{.setting = plan.setting, .method = plan.method};
            f.samples = run.samples > 0 ? run.samples : plan.samples;
            auto const stream = stream_of(run, plan.setting, plan.method);
            f.value = sum_of_samples(run, stream, f.samples, plan.cost, sampler) /
                      static_cast<double>(f.samples);
            f.standard_error = std::sqrt(plan.variance / static_cast<double>(f.samples));
            f.exact = plan.exact;
            f.alternative = alternative;
            f.alternative_is_printed = plan.printed.has_value();
            f.level_exact = level_of_exact;
            f.level_alternative = level;
            f.z_exact = (f.value - f.exact) / f.standard_error;
            f.z_alternative = (f.value - f.alternative) / f.standard_error;
            f.power = power_of_test(difference, f.standard_error, level);
            f.accepted = std::abs(f.z_exact) <= two_sided_critical(level_of_exact);
            f.rejected = std::abs(f.z_alternative) > two_sided_critical(level);
            f.decisive = f.power >= least_power;
            return f;
          }};
}

/// A number computed without chance (quadrature, more digits, a limit), known to `tolerance`.
struct computed_plan {
  std::string setting;
  std::string method;
  double value = 0;
  double exact = 0;
  std::optional<double> printed = std::nullopt;
  double tolerance = 0;  ///< absolute, derived from how the value was computed
};

inline experiment computed_experiment(computed_plan plan) {
  return {plan.setting, plan.method, 0, [plan = std::move(plan)](run_control&) {
            finding f{.setting = plan.setting, .method = plan.method};
            f.value = plan.value;
            f.exact = plan.exact;
            f.alternative = plan.printed.value_or(plan.exact * (1 + wrong_by));
            f.alternative_is_printed = plan.printed.has_value();
            f.z_exact = (f.value - f.exact) / plan.tolerance;
            f.z_alternative = (f.value - f.alternative) / plan.tolerance;
            f.accepted = std::abs(f.z_exact) <= 1;
            f.rejected = std::abs(f.z_alternative) > 1;
            return f;
          }};
}

/// The largest of random ratios to a bound: none may pass 1 by more than rounding, and some must
/// pass `alternative`, a tighter bound that is false.
struct bound_plan {
  std::string setting;
  std::string method;
  double alternative = 0;  ///< a smaller bound, in units of the one that holds
  double rounding = 0;     ///< how far rounding may push a ratio above 1
  double cost = 0;
  index_t samples = 0;
  std::optional<double> printed =
      std::nullopt;  ///< the bound as printed, where it is false (same units)
};

template <class Sampler>
experiment bound_experiment(bound_plan plan, Sampler sampler) {
  double const cost = plan.cost * static_cast<double>(plan.samples);
  return {plan.setting, plan.method, cost,
          [plan = std::move(plan), sampler = std::move(sampler)](run_control& run) {
            finding f{.setting = plan.setting, .method = plan.method};
            f.samples = plan.samples;
            auto const stream = stream_of(run, plan.setting, plan.method);
            auto const ratios = draw(run, stream, f.samples, plan.cost, sampler);
            f.value = *std::max_element(ratios.begin(), ratios.end());
            f.exact = 1;
            f.alternative = plan.printed.value_or(plan.alternative);
            f.alternative_is_printed = plan.printed.has_value();
            f.z_exact = (f.value - 1) / plan.rounding;
            f.z_alternative = (f.value - f.alternative) / plan.rounding;
            f.accepted = f.z_exact <= 1;
            f.rejected = f.z_alternative > 1;
            return f;
          }};
}

}  // namespace ssm::theory
