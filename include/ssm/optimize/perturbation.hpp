// SPDX-License-Identifier: Apache-2.0
// perturbation.hpp: both sides of a point, and the gradient that a difference between them tells.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "ssm/error.hpp"
#include "ssm/optimize/objective.hpp"
#include "ssm/random.hpp"

namespace ssm::optimize {

/// x₊ and x₋: x ± c δ with δ ∈ {-1, 1}^p, each side projected to the domain.
///
/// The estimate of the gradient divides by what remained of the perturbation,
///   ĝ_i = (L(x₊) - L(x₋)) / (x₊_i - x₋_i),
/// an odd function of δ_i alone: E (x₊_j - x₋_j)/(x₊_i - x₋_i) = 0 for j ≠ i, clipped or not. So
/// E ĝ is the gradient of a quadratic at the middle of x₊ and x₋, x itself where nothing is
/// clipped; third derivatives add O(c²). Dividing by 2cδ_i, as the public scripts do, halves the
/// slope of a factor at its bound. Tested    theory/claims/spsa.cpp
struct perturbed_pair {
  std::vector<double> plus;
  std::vector<double> minus;

  /// Of coordinates in [low, high]. Signs are sign(0), sign(1), … of the stream.
  /// Throws    domain_error where a coordinate is not moved: c is 0, or rounds to nothing.
  static perturbed_pair around(std::span<double const> x, double c, random_stream const& signs,
                               double low, double high) {
    perturbed_pair pair{std::vector<double>(x.size()), std::vector<double>(x.size())};
    signs.fill_sign(pair.plus);
    for (std::size_t i = 0; i < x.size(); ++i) {
      double const shift = c * pair.plus[i];
      pair.plus[i] = std::clamp(x[i] + shift, low, high);
      pair.minus[i] = std::clamp(x[i] - shift, low, high);
      require<domain_error>(pair.plus[i] != pair.minus[i], "spsa: a perturbation of ", c,
                            " does not move factor ", i, ", which is at ", x[i],
                            "; expected a larger one");
    }
    return pair;
  }

  /// gradient += weight · ĝ for L(x₊) - L(x₋) = difference.
  void add_gradient(double difference, double weight, std::span<double> gradient) const {
    for (std::size_t i = 0; i < plus.size(); ++i) {
      gradient[i] += weight * difference / (plus[i] - minus[i]);
    }
  }
};

}  // namespace ssm::optimize
