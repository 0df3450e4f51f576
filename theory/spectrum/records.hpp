// SPDX-License-Identifier: Apache-2.0
// records.hpp: what was found, for other programs: a JSON document and a table of one row a layer.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "spectrum/model_result.hpp"
#include "spectrum/scaling_effect.hpp"

namespace ssm::theory {

/// The numbers of a layer under their names, in the order of a table; null where the layer was
/// not simulated.
inline nlohmann::ordered_json json_of(layer_prediction const& p, std::optional<finding> const& f) {
  using json = nlohmann::ordered_json;
  auto const measured = [&f](auto finding::*member) { return f ? json((*f).*member) : json(); };
  return {{"least_decay_without_step", p.decay_without_step.least},
          {"median_decay_without_step", p.decay_without_step.median},
          {"largest_decay_without_step", p.decay_without_step.largest},
          {"least_decay", p.decay.least},
          {"median_decay", p.decay.median},
          {"largest_decay", p.decay.largest},
          {"least_horizon", p.horizon.least},
          {"median_horizon", p.horizon.median},
          {"largest_horizon", p.horizon.largest},
          {"stationary_gain", p.gain},
          {"gain_from", p.gain_from},
          {"gain_to", p.gain_to},
          {"growth", p.growth},
          {"equal_input_gain", p.equal_gain},
          {"uniform_gain", p.uniform_gain},
          {"printed_gain", p.printed_gain},
          {"samples", measured(&finding::samples)},
          {"measured", measured(&finding::value)},
          {"standard_error", measured(&finding::standard_error)},
          {"exact", measured(&finding::exact)},
          {"z", measured(&finding::z_exact)},
          {"level", measured(&finding::level_exact)},
          {"wrong_by_5_percent", measured(&finding::alternative)},
          {"z_wrong", measured(&finding::z_alternative)},
          {"power", measured(&finding::power)},
          {"accepted", measured(&finding::accepted)},
          {"decisive", measured(&finding::decisive)}};
}

inline nlohmann::ordered_json json_of(spectrum_analysis<double> const& of) {
  return {{"least_horizon", of.horizon.least},
          {"median_horizon", of.horizon.median},
          {"largest_horizon", of.horizon.largest},
          {"input_energy", of.input_energy},
          {"stationary_gain", of.gain},
          {"energy_from", of.trained_energy},
          {"energy_to", of.longer_energy},
          {"growth", of.growth},
          {"linear_elasticity", of.linear_elasticity},
          {"power_elasticity", of.power_elasticity},
          {"step_elasticity", of.step_elasticity}};
}

/// All factors in the order of scaling_factors::numbers(), and each layer or head before and after.
inline nlohmann::ordered_json json_of(scaling_effect const& of) {
  using json = nlohmann::ordered_json;
  auto const [layers, channels, states] = of.factors.shape();
  json document = {
      {"model", of.before.name},
      {"scaling", of.how},
      {"kind", to_string(of.factors.kind())},
      {"granularity", to_string(of.factors.each())},
      {"shape", {layers, channels, states}},
      {"factors", std::vector(of.factors.numbers().begin(), of.factors.numbers().end())}};
  for (part_effect const& part : of.parts) {
    document["layers"].push_back({{"layer", part.name},
                                  {"before", json_of(part.before)},
                                  {"after", json_of(part.after)},
                                  {"kept", part.kept()}});
  }
  return document;
}

inline nlohmann::ordered_json json_of(std::vector<model_result> const& results,
                                      spectrum_request const& asked,
                                      std::vector<scaling_effect> const& effects = {}) {
  using json = nlohmann::ordered_json;
  json document = {
      {"program", "spectrum"}, {"steps", asked.steps}, {"from", asked.from}, {"to", asked.to}};
  for (model_result const& result : results) {
    json model = {{"name", result.model.name},
                  {"type", result.model.type},
                  {"accepted", result.is_accepted()},
                  {"complete", result.is_complete()},
                  {"seconds", result.seconds}};
    for (closeness const& kind : kinds_of_closeness) {
      model["closest_to_divergence"][kind.name] = ranked(result.predictions, kind);
    }
    for (std::size_t i = 0; i < result.predictions.size(); ++i) {
      json layer = {{"layer", i}};
      layer.update(json_of(result.predictions[i], result.findings[i]));
      model["layers"].push_back(std::move(layer));
    }
    document["models"].push_back(std::move(model));
  }
  for (scaling_effect const& effect : effects) document["scalings"].push_back(json_of(effect));
  return document;
}

/// A heading and a row for each layer; what was not simulated is left empty.
inline std::string csv_of(std::vector<model_result> const& results) {
  std::string table = "model,type,layer";
  auto const no_fields = json_of(layer_prediction{}, std::nullopt);
  for (auto const& field : no_fields.items()) table += ',' + field.key();
  table += '\n';
  for (model_result const& result : results) {
    std::string name = "\"";  // in quotes, since a directory may be called anything
    for (char const c : result.model.name) name.append(c == '"' ? 2 : 1, c);
    name += '"';
    for (std::size_t i = 0; i < result.predictions.size(); ++i) {
      table += name + ',' + result.model.type + ',' + std::to_string(i);
      auto const fields = json_of(result.predictions[i], result.findings[i]);
      for (auto const& field : fields.items()) {
        table += ',';
        if (!field.value().is_null()) table += field.value().dump();
      }
      table += '\n';
    }
  }
  return table;
}

}  // namespace ssm::theory
