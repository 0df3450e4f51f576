// SPDX-License-Identifier: Apache-2.0
// Claims: what the estimate of a gradient by one random perturbation is worth: its bias, its
// variance, and what clipping the perturbation does to it.
// Source: arXiv:2509.19633, Algorithm 1, and the public scripts for it; Spall 1992, IEEE TAC 37.

#include <cstddef>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "claims/all.hpp"
#include "closed_forms/spsa.hpp"
#include "experiments.hpp"
#include "ssm/optimize/perturbation.hpp"
#include "text.hpp"

namespace ssm::theory {
namespace {

using numbers = std::vector<double>;
using optimize::perturbed_pair;

constexpr double infinity = std::numeric_limits<double>::infinity();

/// Slopes that differ: 1, 1/2, 1/3, …, of alternating sign.
numbers slopes(std::size_t count) {
  numbers g;
  for (std::size_t i = 0; i < count; ++i) {
    g.push_back((i % 2 == 0 ? 1.0 : -1.0) / static_cast<double>(i + 1));
  }
  return g;
}

/// gᵀx + Σ_i x_i x_{i+1} + (vᵀx)³/6, at 0.
struct cubic_loss {
  numbers g, v;

  double operator()(numbers const& x) const {
    double linear = 0, curved = 0, cube = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      linear += g[i] * x[i];
      cube += v[i] * x[i];
      if (i + 1 < x.size()) curved += x[i] * x[i + 1];
    }
    return linear + curved + cube * cube * cube / 6;
  }
};

/// ĝ_i - gᵀδ δ_i: the bias is its mean, and gᵀδ δ_i, whose mean is g_i, would drown it.
struct bias_sample {
  cubic_loss loss;
  double c;
  std::size_t i;

  double operator()(random_stream const& stream) const {
    numbers const at(loss.g.size());
    auto const pair = perturbed_pair::around(at, c, stream, -infinity, infinity);
    numbers estimate(at.size());
    pair.add_gradient(loss(pair.plus) - loss(pair.minus), 1, estimate);
    double along = 0;
    for (std::size_t j = 0; j < at.size(); ++j) along += loss.g[j] * pair.plus[j] / c;
    return estimate[i] - along * pair.plus[i] / c;
  }
};

/// (ĝ_i - g_i)² with noise of its own on each side, or the same on both.
struct square_sample {
  cubic_loss loss;
  spsa_estimate how;
  double common_noise;
  std::size_t i;

  double operator()(random_stream const& stream) const {
    numbers const at(loss.g.size());
    numbers estimate(at.size());
    for (index_t d = 0; d < how.directions; ++d) {
      auto const pair = perturbed_pair::around(at, how.c, stream.child(2 * d), -infinity, infinity);
      auto const noise = stream.child(2 * d + 1);
      double const both = common_noise * noise.normal(0);
      double const above = loss(pair.plus) + both + how.noise * noise.normal(2);
      double const below = loss(pair.minus) + both + how.noise * noise.normal(4);
      pair.add_gradient(above - below, 1 / static_cast<double>(how.directions), estimate);
    }
    return (estimate[i] - loss.g[i]) * (estimate[i] - loss.g[i]);
  }
};

/// The loss gᵀx where factors lie closer than c to a clamp at 0.
struct clipped_sample {
  numbers g, at;
  double c;
  bool is_nominal;  ///< divided by 2cδ_i, not by what remained of it
  std::size_t i;

  double operator()(random_stream const& stream) const {
    auto const pair = perturbed_pair::around(at, c, stream, 0, infinity);
    double difference = 0;
    for (std::size_t j = 0; j < at.size(); ++j) difference += g[j] * (pair.plus[j] - pair.minus[j]);
    if (is_nominal) return difference / (2 * c * stream.sign(static_cast<index_t>(i)));
    numbers estimate(at.size());
    pair.add_gradient(difference, 1, estimate);
    return estimate[i];
  }
};

double cost_of(std::size_t count) {
  return 150 + 25 * static_cast<double>(count);
}

}  // namespace

claim algorithm_1_bias() {
  claim c{.id = "algorithm-1-bias",
          .place = "Algorithm 1; Spall 1992, lemma 1",
          .statement = "One pair of evaluations estimates the whole gradient, up to O(c²).",
          .printed = "E ĝ = ∇L + O(c²)",
          .exact = "E ĝ_i - ∂_i L = c²/6 (T_iii + 3 Σ_{j≠i} T_ijj) + O(c⁴)",
          .remark =
              "True; T is the third derivative. A quadratic has no bias at any c, and a cubic "
              "has exactly this one. It does not fall with the number of iterations while c "
              "is constant, as published: the factors found are off by H⁻¹ times it.",
          .recorded = verdict::holds,
          .experiments = {}};
  for (std::size_t const count : {3u, 8u}) {
    for (double const width : {0.1, 0.05}) {
      numbers const v(count, 1.0), g = slopes(count);
      c.experiments.push_back(mean_experiment(
          {.setting = "cubic, p=" + std::to_string(count) + ", c=" + short_text(width),
           .method = "ĝ_1 - gᵀδ δ_1",
           .exact = spsa_bias(v, width, 0),
           .variance = spsa_bias_variance(v, width, 0),
           .cost = cost_of(count)},
          bias_sample{{g, v}, width, 0}));
    }
  }
  return c;
}

claim algorithm_1_variance() {
  claim c{.id = "algorithm-1-variance",
          .place = "Algorithm 1",
          .statement = "What the one pair costs: the error of the estimate.",
          .printed = "two evaluations for a step, whatever the number of factors",
          .exact = "Var ĝ_i = (Σ_{j≠i} (∂_j L)² + σ²/2c²)/q, q directions of p factors",
          .remark =
              "True of a step, not of a result: the slopes of all other factors are noise to "
              "this one, so the variance grows with their number and steps must shrink with "
              "it. Noise σ of the loss enters by 1/c², and not at all where both sides share "
              "their batch; the mean of q directions divides both.",
          .recorded = verdict::holds,
          .experiments = {}};
  struct {
    char const* name;
    std::size_t count;
    spsa_estimate how;
    double common_noise;
  } const cases[] = {
      {"", 8, {.c = 0.1}, 0},
      {"", 48, {.c = 0.1}, 0},
      {", σ=0.1 a side", 8, {.c = 0.1, .noise = 0.1}, 0},
      {", σ=0.1 a side", 8, {.c = 0.05, .noise = 0.1}, 0},
      {", σ=0.1 on both", 8, {.c = 0.1}, 0.1},
      {", σ=0.1 a side, q=4", 8, {.c = 0.1, .noise = 0.1, .directions = 4}, 0},
  };
  for (auto const& each : cases) {
    numbers const g = slopes(each.count);
    c.experiments.push_back(mean_experiment(
        {.setting = "p=" + std::to_string(each.count) + ", c=" + short_text(each.how.c) + each.name,
         .method = "(ĝ_2 - ∂_2 L)²",
         .exact = spsa_variance(g, 1, each.how),
         .variance = spsa_square_variance(g, 1, each.how),
         .cost = static_cast<double>(each.how.directions) * (cost_of(each.count) + 200)},
        square_sample{{g, numbers(each.count)}, each.how, each.common_noise, 1}));
  }
  return c;
}

claim algorithm_1_clamp() {
  claim c{.id = "algorithm-1-clamp",
          .place = "Public scripts of Algorithm 1: clip(t ± cδ), divided by 2cδ",
          .statement = "The estimate near a clamp.",
          .printed = "E ĝ_i = ∂_i L",
          .exact = "E ĝ_i = ∂_i L · |t₊ - t₋|_i/2c, half of it at the clamp",
          .remark =
              "The scripts shorten the perturbation and divide by the whole of it. Divided by "
              "what remains, t₊ - t₋, the estimate has the mean ∂_i L wherever the factors "
              "are, since t₊ - t₋ is odd in δ; that is what this library does.",
          .recorded = verdict::refuted,
          .experiments = {}};
  double const width = 0.1;
  numbers const g = slopes(4);
  numbers const at{0, 0.05, 1, 0};  // at the clamp, half of c above it, free, at the clamp
  numbers const kept{0.5, 0.75, 1, 0.5};
  char const* const where[] = {"at the clamp", "c/2 above the clamp", "far from the clamp"};
  for (std::size_t i = 0; i < 3; ++i) {
    bool const is_wrong = kept[i] < 1;
    c.experiments.push_back(
        mean_experiment({.setting = where[i],
                         .method = "over 2cδ",
                         .exact = nominal_mean(g, kept, i),
                         .printed = is_wrong ? std::optional(g[i]) : std::nullopt,
                         .variance = nominal_variance(g, kept, i),
                         .cost = cost_of(4)},
                        clipped_sample{g, at, width, true, i}));
    c.experiments.push_back(mean_experiment({.setting = where[i],
                                             .method = "over t₊ - t₋",
                                             .exact = g[i],
                                             .variance = displacement_variance(g, kept, i),
                                             .cost = cost_of(4)},
                                            clipped_sample{g, at, width, false, i}));
  }
  return c;
}

}  // namespace ssm::theory
