// SPDX-License-Identifier: Apache-2.0
// calibration_problem.hpp: a model whose best factors are known.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "ssm/calibrate.hpp"

namespace ssm::test {

/// Two layers; an example weighs its squared distance from the best factors.
struct toy_model {
  std::vector<double> best{0.5, 2};
};

inline void add_to(fingerprint& hash, toy_model const& model) {
  add_to(hash, model.best);
}

inline double toy_loss(toy_model const& model, scaling_factors<double> const& factors,
                       double weight) {
  double sum = 0;
  for (std::size_t i = 0; i < model.best.size(); ++i) {
    double const off = factors.numbers()[i] - model.best[i];
    sum += weight * off * off / 2;
  }
  return sum;
}

inline double toy_loss_and_gradient(toy_model const& model, scaling_factors<double> const& factors,
                                    double weight, std::span<double> gradient) {
  for (std::size_t i = 0; i < model.best.size(); ++i) {
    gradient[i] += weight * (factors.numbers()[i] - model.best[i]);
  }
  return toy_loss(model, factors, weight);
}

inline scaling_factors<double> toy_start() {
  return {{.linear = true}, granularity::layer, {2, 4, 8}};
}

inline calibration_set<double> toy_data() {
  return calibration_set<double>({0.5, 1, 1.5, 2, 0.25, 0.75});
}

}  // namespace ssm::test
