// SPDX-License-Identifier: Apache-2.0
// words.hpp: what was found for a model, in sentences.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "experiments.hpp"
#include "report/text.hpp"
#include "spectrum/model_result.hpp"
#include "statistics.hpp"

namespace ssm::theory {

/// "mamba2, 8 layers of 8 heads × 64 channels × 128 states"
inline std::string shape_text(trained_model const& model) {
  layer_spectrum const& first = model.layers.front();
  std::string text = model.type + ", " + std::to_string(model.layers.size()) +
                     (model.layers.size() == 1 ? " layer of " : " layers of ");
  if (first.has_heads) text += std::to_string(first.rows()) + " heads × ";
  index_t const channels = first.has_heads ? first.channels_per_row : first.channels();
  return text + std::to_string(channels) + " channels × " + std::to_string(first.states()) +
         " states";
}

/// "layer 3", "layers 0, 3 and 5"
inline std::string layers_text(std::vector<std::size_t> const& layers) {
  std::string text = layers.size() == 1 ? "layer " : "layers ";
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (i > 0) text += i + 1 == layers.size() ? " and " : ", ";
    text += std::to_string(layers[i]);
  }
  return text;
}

/// What the simulation says of a model.
inline std::string verdict_text(model_result const& of) {
  std::vector<std::size_t> contradicted, powerless, missing;
  double power = 1;
  index_t samples = 0;
  for (std::size_t i = 0; i < of.findings.size(); ++i) {
    auto const& f = of.findings[i];
    if (!f) {
      missing.push_back(i);
      continue;
    }
    if (!f->accepted) contradicted.push_back(i);
    if (!f->decisive) powerless.push_back(i);
    power = std::min(power, f->power);
    samples = std::max(samples, f->samples);
  }
  std::string text;
  if (!contradicted.empty()) {
    text += "CONTRADICTED: " + layers_text(contradicted) + " did not behave as predicted. ";
  } else if (missing.empty()) {
    text += "Every layer behaves as predicted: no deviation beyond " +
            report::significant(two_sided_critical(level_of_exact), 3) + " standard errors. ";
  }
  if (!missing.empty()) text += "STOPPED before " + layers_text(missing) + ". ";
  if (!powerless.empty()) {
    text += "NO POWER to notice a prediction that is off by 5\u00a0% in " + layers_text(powerless) +
            ": that needs more samples. ";
  } else if (samples > 0) {
    text += "One that is off by 5\u00a0% would be noticed with probability " +
            report::probability(power) + ". ";
  }
  if (samples > 0) {
    text += std::to_string(samples) + " runs for each layer, " + report::duration(of.seconds) + ".";
  }
  return text;
}

/// The three closest layers in one sense.
inline std::string closeness_text(model_result const& of, closeness const& kind) {
  auto const order = ranked(of.predictions, kind);
  std::string text = std::string(kind.name) + ": ";
  for (std::size_t i = 0; i < std::min<std::size_t>(3, order.size()); ++i) {
    text += (i == 0 ? "layer " : ", layer ") + std::to_string(order[i]) + " (" +
            report::significant(kind.of(of.predictions[order[i]]), 5) + kind.unit + ")";
  }
  return text;
}

/// "1.38 to 1.45": the least and the largest of a ratio over the layers.
template <class Ratio>
std::string range_text(std::vector<layer_prediction> const& layers, Ratio const& ratio) {
  double least = ratio(layers.front()), largest = least;
  for (auto const& p : layers) {
    least = std::min(least, ratio(p));
    largest = std::max(largest, ratio(p));
  }
  std::string const low = report::significant(least, 3), high = report::significant(largest, 3);
  return low == high ? low : low + " to " + high;
}

/// How far the paper's formula is from the layers of a model.
inline std::string paper_text(model_result const& of) {
  auto const range = [&](auto ratio) { return range_text(of.predictions, ratio); };
  return "The paper's formula, given the least and the largest decay of a layer, yields " +
         range([](auto const& p) { return p.printed_gain / p.equal_gain; }) +
         " times the gain that the decays of the layer have with equal inputs, and " +
         range([](auto const& p) { return p.printed_gain / p.gain; }) +
         " times the gain with the inputs that its step sizes give to each. Right for a uniform "
         "spectrum would be " +
         range([](auto const& p) { return p.uniform_gain / p.equal_gain; }) + " and " +
         range([](auto const& p) { return p.uniform_gain / p.gain; }) +
         " times: trained decays are not uniform.";
}

}  // namespace ssm::theory
