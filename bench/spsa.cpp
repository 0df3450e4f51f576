// SPDX-License-Identifier: Apache-2.0
// How many evaluations SPSA needs, as published and as in this library, on noisy losses. Nothing is
// timed: evaluations are counted. Prints tables in Markdown; --report FOLDER also writes spsa.md.
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "report/files.hpp"
#include "ssm/detail/parallel_for.hpp"
#include "ssm/optimize/choose_step.hpp"
#include "ssm/optimize/published_spsa.hpp"
#include "support/spsa_problem.hpp"
#if defined(SSM_BENCH_ENSMALLEN)
#include "support/spsa_ensmallen.hpp"
#endif

namespace {

using namespace ssm;
using namespace ssm::bench;
using namespace ssm::optimize;

constexpr index_t seeds = 20;
constexpr index_t most_evaluations = 100000;
constexpr double noise = 0.01;  // of each evaluation, in units of the loss at the start
constexpr double target = 0.1;  // of the loss at the start

/// Told the factors and the evaluations so far; false ends the run.
using watcher = std::function<bool(std::span<double const>, index_t)>;
/// One way to minimize, run on a problem with a seed.
using method = std::function<void(spsa_problem const&, std::uint64_t, watcher const&)>;

method published(double perturbation) {
  return [=](spsa_problem const& problem, std::uint64_t seed, watcher const& at) {
    struct ended {};
    auto schedule = published::paper;
    schedule.perturbation.scale = perturbation;
    try {
      published_spsa(
          schedule, problem.loss, problem.loss, problem.start, seed,
          {.iterations = most_evaluations, .has_fresh_noise = true, .keeps_factors = false},
          [&](iteration_record const& r) {
            if (!at(r.factors, r.evaluations)) throw ended{};
          });
    } catch (ended const&) {
    }
  };
}

/// The gains of this library: c as given, A a tenth of 50 iterations a factor, a by choose_step().
spsa_settings gains(spsa_problem const& problem, double perturbation, index_t directions,
                    std::uint64_t seed) {
  auto const iterations = 50.0 * static_cast<double>(problem.start.size());
  spsa_settings const settings{
      .iterations = most_evaluations,
      .step = {.offset = iterations / 10 / static_cast<double>(directions), .exponent = 0.602},
      .perturbation = {.scale = perturbation, .exponent = 0.101},
      .domain = {.low = 0.001},
      .directions = directions,
      .has_common_random_numbers = false,
      .seed = seed,
      .keeps_factors = false};
  return choose_step(problem.loss, problem.start, settings, 0.3);
}

constexpr index_t pilot_evaluations = 20;  // of choose_step(), which count

method ours(double perturbation, index_t directions, bool common) {
  return [=](spsa_problem const& problem, std::uint64_t seed, watcher const& at) {
    auto settings = gains(problem, perturbation, directions, seed);
    settings.has_common_random_numbers = common;
    spsa_run run(problem.start, settings);
    do {
      run.advance(problem.loss);
    } while (!run.is_done() && at(run.best.factors, run.best.evaluations + pilot_evaluations));
  };
}

struct named_method {
  std::string name;
  method run;
  bool in_parallel = true;
};

std::vector<named_method> methods() {
  std::vector<named_method> all{
      {"published: c = 0.1, η = 0.001", published(0.1)},
      {"published, c = 0.3", published(0.3)},
      {"this library, c = 0.3", ours(0.3, 1, false)},
      {"this library, c = 0.3, 4 directions", ours(0.3, 4, false)},
      {"this library, c = 0.3, common noise", ours(0.3, 1, true)},
      {"this library, c = 0.1", ours(0.1, 1, false)},
  };
#if defined(SSM_BENCH_ENSMALLEN)
  // Its random numbers are of the process: one seed after another.
  all.push_back(
      {"ensmallen, its own gains",
       [](auto const& problem, auto seed, auto const& at) { run_ensmallen(problem, {}, seed, at); },
       false});
  all.push_back({"ensmallen, our gains",
                 [](auto const& problem, auto seed, auto const& at) {
                   auto const s = gains(problem, 0.3, 1, seed);
                   run_ensmallen(problem, {s.step.scale, s.step.offset, s.perturbation.scale}, seed,
                                 [&](auto x, index_t n) { return at(x, n + pilot_evaluations); });
                 },
                 false});
#endif
  return all;
}

/// Mean and half of its 95 % interval.
struct estimate {
  double mean = 0, half = 0;
};

estimate of(std::vector<double> const& values) {
  auto const n = static_cast<double>(values.size());
  double mean = 0, squares = 0;
  for (double const v : values) mean += v / n;
  for (double const v : values) squares += (v - mean) * (v - mean);
  double const t = quantile(complement(boost::math::students_t(n - 1), 0.025));
  return {mean, t * std::sqrt(squares / (n - 1) / n)};
}

std::string text(char const* format, auto... values) {
  char buffer[400];
  std::snprintf(buffer, sizeof buffer, format, values...);
  return buffer;
}

/// one(seed) for every seed.
template <class One>
auto for_each_seed(bool in_parallel, One const& one) {
  std::vector<decltype(one(std::uint64_t{}))> results(seeds);
  ssm::detail::parallel_for(in_parallel ? 0 : 1, seeds, [&](index_t begin, index_t end) {
    for (index_t i = begin; i < end; ++i) {
      results[static_cast<std::size_t>(i)] = one(static_cast<std::uint64_t>(i + 1));
    }
  });
  return results;
}

/// Evaluations until the exact loss is at the target, none where that takes too many.
std::vector<std::optional<index_t>> evaluations_of(named_method const& with, std::size_t factors,
                                                   double curvature) {
  return for_each_seed(with.in_parallel, [&](std::uint64_t seed) {
    auto const problem = noisy_quadratic(factors, curvature, noise, seed);
    std::optional<index_t> found;
    with.run(problem, seed, [&](std::span<double const> x, index_t evaluations) {
      if (problem.loss.exact(x) <= target * problem.start_loss) found = evaluations;
      return !found && evaluations < most_evaluations;
    });
    return found;
  });
}

/// The row of a method: evaluations, and how many times fewer than `base`, seed by seed.
std::string row(std::string const& name, std::vector<std::optional<index_t>> const& found,
                std::vector<std::optional<index_t>> const& base) {
  std::vector<double> counts, ratios;
  int missed = 0;
  bool is_bound = false;
  for (std::size_t i = 0; i < found.size(); ++i) {
    missed += !found[i];
    is_bound = is_bound || !base[i];
    auto const count = static_cast<double>(found[i].value_or(most_evaluations));
    counts.push_back(count);
    ratios.push_back(std::log(static_cast<double>(base[i].value_or(most_evaluations)) / count));
  }
  if (missed > 0) {
    return "| " + name + " | " +
           text("not within %d for %d of %d", int{most_evaluations}, missed, int{seeds}) + " | |\n";
  }
  auto const n = of(counts), r = of(ratios);
  return "| " + name + " | " + text("%.0f ± %.0f", n.mean, n.half) + " | " +
         text("%s%.1f (%.1f to %.1f)", is_bound ? "> " : "", std::exp(r.mean),
              std::exp(r.mean - r.half), std::exp(r.mean + r.half)) +
         " |\n";
}

std::string quadratics() {
  std::string page;
  for (bool const per_factor : {false, true}) {
    for (std::size_t const factors : {8u, 48u, 768u}) {
      double const curvature = per_factor ? static_cast<double>(factors) : 1;
      page += "\n" + text("%zu factors, curvatures that add up to %g\n\n", factors, curvature) +
              "| | evaluations | times fewer |\n|---|---|---|\n";
      std::vector<std::optional<index_t>> base;
      for (auto const& each : methods()) {
        auto const found = evaluations_of(each, factors, curvature);
        if (base.empty()) base = found;
        page += row(each.name, found, base);
      }
    }
  }
  return page;
}

/// The loss that is left after some evaluations of a standard noisy test function.
std::string quartic() {
  constexpr index_t evaluations = 2000;
  std::string page = text(
      "\nSkewed quartic of 10 factors, noise 0.1: share of the loss that is left after %d "
      "evaluations\n\n| | left |\n|---|---|\n",
      int{evaluations});
  for (auto const& each : methods()) {
    auto const left = of(for_each_seed(each.in_parallel, [&](std::uint64_t seed) {
      auto const problem = skewed_quartic(10, 0.1);
      double last = 1;
      each.run(problem, seed, [&](std::span<double const> x, index_t count) {
        last = problem.loss.exact(x) / problem.start_loss;
        return count < evaluations;
      });
      return last;
    }));
    page += "| " + each.name + " | " + text("%.4f ± %.4f", left.mean, left.half) + " |\n";
  }
  return page;
}

int run(std::optional<std::string> const& folder) {
  std::string page = text(
      "Evaluations of a noisy quadratic until its exact loss is %g of that at the start; noise of "
      "each evaluation\n%g of it; mean of %d seeds ± half of its 95 %% interval; times fewer than "
      "the first row, geometric mean\nseed by seed and its 95 %% interval.\n",
      target, noise, int{seeds});
#if !defined(SSM_BENCH_ENSMALLEN)
  page += "\nensmallen was not found when this was built: without its rows.\n";
#endif
  page += quadratics() + quartic();
  std::fputs(page.c_str(), stdout);
  if (folder) {
    std::filesystem::create_directories(*folder);
    theory::report::write_file(*folder + "/spsa.md", page);
  }
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    std::vector<std::string> const words(arguments + 1, arguments + count);
    if (words.empty()) return run({});
    if (words.size() == 2 && words[0] == "--report") return run(words[1]);
    std::fputs("spsa: expected nothing, or --report FOLDER\n", stderr);
  } catch (std::exception const& error) {
    std::fprintf(stderr, "spsa: %s\n", error.what());
  }
  return 2;
}
