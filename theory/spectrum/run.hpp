// SPDX-License-Identifier: Apache-2.0
// run.hpp: predict every layer of a model, then simulate it, as far as time allows.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "spectrum/model_result.hpp"
#include "spectrum/simulation.hpp"

namespace ssm::theory {

/// A model with its predictions and the experiments that will test them.
struct planned_model {
  model_result result;
  std::vector<experiment> experiments;  ///< one for each layer; they refer to `result`

  double cost() const {
    double sum = 0;
    for (auto const& e : experiments) sum += e.cost;
    return sum;
  }
};

/// Predict everything and plan the simulation, for models that stay where they are.
inline std::vector<planned_model> plan(std::vector<trained_model> models,
                                       spectrum_request const& asked, run_control const& run) {
  std::vector<planned_model> planned(models.size());
  for (std::size_t m = 0; m < models.size(); ++m) {
    model_result& result = planned[m].result;
    result.model = std::move(models[m]);
    result.findings.resize(result.model.layers.size());
    for (std::size_t i = 0; i < result.model.layers.size(); ++i) {
      layer_spectrum const& layer = result.model.layers[i];
      result.predictions.push_back(predict(layer, asked.from, asked.to));
      std::string const setting = result.model.name + ", layer " + std::to_string(i) + ", " +
                                  std::to_string(asked.steps) + " steps";
      planned[m].experiments.push_back(energy_experiment(setting, layer, asked.steps, run));
    }
  }
  return planned;
}

/// Simulate the layers one after another.
/// Throws    stopped where the run is to end; what was found until then is in the result.
inline void simulate(planned_model& model, run_control& run) {
  auto const start = run_control::clock::now();
  for (std::size_t i = 0; i < model.experiments.size(); ++i) {
    model.result.findings[i] = model.experiments[i].run(run);
    model.result.seconds = run_control::seconds_since(start);
  }
}

}  // namespace ssm::theory
