// SPDX-License-Identifier: Apache-2.0
// pictures.hpp: the spectra, horizons and gains of the layers of a model, drawn.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "experiments.hpp"
#include "report/heat_map.hpp"
#include "report/picture.hpp"
#include "report/svg.hpp"
#include "spectrum/model_result.hpp"
#include "statistics.hpp"

namespace ssm::theory {

namespace drawing {

inline std::vector<double> layer_numbers(std::size_t layers) {
  std::vector<double> numbers;
  for (std::size_t i = 0; i < layers; ++i) numbers.push_back(static_cast<double>(i));
  return numbers;
}

inline report::axis layer_axis(std::size_t layers) {
  return {.label = "layer", .low = -0.5, .high = static_cast<double>(layers) - 0.5};
}

/// Sorted values as at most 128 cells of equal numbers of states, each their mean.
inline std::vector<double> cells(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  std::size_t const count = std::min<std::size_t>(128, values.size());
  std::vector<double> means;
  for (std::size_t i = 0; i < count; ++i) {
    std::size_t const first = i * values.size() / count, last = (i + 1) * values.size() / count;
    double sum = 0;
    for (std::size_t k = first; k < last; ++k) sum += values[k];
    means.push_back(sum / static_cast<double>(last - first));
  }
  return means;
}

/// One row for each layer, its states from the fastest to the slowest.
template <class Value>
std::string heat_map(trained_model const& model, std::string const& title, report::axis colour,
                     Value const& values_of) {
  report::heat_map map{.title = title};
  map.x = {.label = "share of the states, from the fastest to the slowest", .low = 0, .high = 1};
  map.y = layer_axis(model.layers.size());
  map.colour = std::move(colour);
  map.height = std::clamp(100 + 40 * static_cast<double>(model.layers.size()), 240.0, 560.0);
  for (auto const& layer : model.layers) map.values.push_back(cells(values_of(layer)));
  std::size_t const count = map.values.front().size();
  for (std::size_t i = 0; i <= count; ++i) {
    map.x_edges.push_back(static_cast<double>(i) / static_cast<double>(count));
  }
  for (std::size_t i = 0; i <= model.layers.size(); ++i) {
    map.y_edges.push_back(static_cast<double>(i) - 0.5);
  }
  return draw(map);
}

inline std::vector<double> decays(std::vector<pole<double>> const& poles) {
  std::vector<double> values;
  for (auto const& p : poles) values.push_back(p.value);
  return values;
}

inline std::vector<double> horizons(layer_spectrum const& layer) {
  std::vector<double> values;
  for (auto const& p : layer.poles()) values.push_back(horizon(p));
  return values;
}

/// A member of the predictions against the layer, as marks.
template <class Value>
report::series by_layer(std::vector<layer_prediction> const& layers, std::string name,
                        report::mark points, bool filled, Value const& value) {
  report::series result{.name = std::move(name),
                        .x = layer_numbers(layers.size()),
                        .points = points,
                        .filled = filled};
  for (auto const& p : layers) result.y.push_back(value(p));
  return result;
}

inline std::string gain_chart(model_result const& of) {
  auto const& layers = of.predictions;
  using report::mark;
  report::chart chart{.title = of.model.name + ": state energy per unit of input energy"};
  chart.x = layer_axis(layers.size());
  chart.y = {.label = "stationary gain", .kind = report::scale::log};
  chart.curves = {
      by_layer(layers, "exact, as trained", mark::circle, true, [](auto& p) { return p.gain; }),
      by_layer(layers, "exact, if all states got the same input", mark::circle, false,
               [](auto& p) { return p.equal_gain; }),
      by_layer(layers, "if decays were uniform: exact", mark::diamond, false,
               [](auto& p) { return p.uniform_gain; }),
      by_layer(layers, "if decays were uniform: as the paper prints it", mark::square, true,
               [](auto& p) { return p.printed_gain; })};
  return draw(chart);
}

inline std::string simulation_chart(model_result const& of, index_t steps) {
  report::series measured{.name = "measured; bars: what the test allows",
                          .points = report::mark::circle};
  for (std::size_t i = 0; i < of.findings.size(); ++i) {
    if (!of.findings[i]) continue;
    finding const& f = *of.findings[i];
    measured.x.push_back(static_cast<double>(i));
    measured.y.push_back(f.value / f.exact);
    measured.error.push_back(two_sided_critical(f.level_exact) * f.standard_error / f.exact);
  }
  report::chart chart{.title = of.model.name + ": the recurrence itself, run for " +
                               std::to_string(steps) + " steps"};
  chart.x = layer_axis(of.model.layers.size());
  chart.y = {.label = "measured / exact energy"};
  chart.curves = {measured};
  chart.guides = {{.name = "1: exact", .at = 1},
                  {.name = "1.05: must be told from it", .at = 1 + wrong_by}};
  chart.height = 340;
  return draw(chart);
}

/// Energy after t steps relative to that after `from`, for each layer.
inline std::string growth_chart(model_result const& of, spectrum_request const& asked) {
  std::size_t const first = ranked(of.predictions, kinds_of_closeness[2]).front();
  report::chart chart{.title = of.model.name + ": how the state energy grows with the length"};
  chart.x = {.label = "steps", .kind = report::scale::log};
  chart.y = {.label = "energy / energy at " + std::to_string(asked.from) + " steps"};
  for (std::size_t i = 0; i <= of.model.layers.size(); ++i) {
    bool const is_last = i == of.model.layers.size();  // the one that stands out, on top
    std::size_t const at = is_last ? first : i;
    if (!is_last && i == first) continue;
    auto const& layer = of.model.layers[at];
    report::series curve{.line = true, .colour = is_last ? 1 : 5};
    if (is_last) curve.name = "layer " + std::to_string(at) + ", which grows most";
    if (chart.curves.empty() && !is_last) curve.name = "the other layers";
    double const at_from = state_energy(layer.view(), static_cast<double>(asked.from));
    constexpr int points = 100;
    for (int k = 0; k <= points; ++k) {
      double const t = std::pow(static_cast<double>(asked.to), static_cast<double>(k) / points);
      curve.x.push_back(t);
      curve.y.push_back(state_energy(layer.view(), t) / at_from);
    }
    chart.curves.push_back(std::move(curve));
  }
  chart.guides = {{.name = std::to_string(asked.from) + " steps",
                   .at = static_cast<double>(asked.from),
                   .is_vertical = true}};
  return draw(chart);
}

}  // namespace drawing

inline std::vector<picture> pictures(model_result const& of, spectrum_request const& asked) {
  auto const decay = [](char const* label) {
    return report::axis{.label = label, .low = 0, .high = 1};
  };
  report::axis const steps{.label = "steps", .kind = report::scale::log};
  std::string const& name = of.model.name;
  return {
      {"decay-without-step",
       drawing::heat_map(of.model, name + ": exp(-exp(A_log)), as the paper plots it",
                         decay("exp(-exp(A_log))"),
                         [](auto& layer) { return drawing::decays(layer.poles_without_step()); }),
       "What Figure 1 of the paper shows of a model: exp(-exp(A_log)). The step size is left out, "
       "so these are not the decays of the recurrence."},
      {"decay",
       drawing::heat_map(of.model, name + ": exp(-Δ exp(A_log)), what one step does",
                         decay("decay of one step"),
                         [](auto& layer) { return drawing::decays(layer.poles()); }),
       "The factor by which a state shrinks in one step, at the step size Δ = softplus(bias) that "
       "the model has learned. 1 forgets nothing, 0 everything."},
      {"horizon",
       drawing::heat_map(of.model, name + ": steps until a state has fallen to 1/e", steps,
                         drawing::horizons),
       "The same decays as times: the right end of a row is the longest memory of the layer."},
      {"gain", drawing::gain_chart(of),
       "Energy of the stationary state per unit of the energy that a step puts in, for white "
       "inputs. Filled circles are exact for the layer as trained. The paper takes decays "
       "uniform between the least and the largest, and all states alike (open diamonds: the exact "
       "value of that; squares: the formula it prints); open circles keep the trained decays."},
      {"growth", drawing::growth_chart(of, asked),
       "Exact energy of the state after so many steps from zero. Where the curve is flat, a longer "
       "text leaves no larger states."},
      {"simulation", drawing::simulation_chart(of, asked.steps),
       "The recurrence of each layer on white inputs, averaged over all steps, relative to what is "
       "exact. The bars are the deviation allowed at the level of the test."}};
}

}  // namespace ssm::theory
