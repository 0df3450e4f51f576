// SPDX-License-Identifier: Apache-2.0
// scaling_pictures.hpp: the horizons and energies of a model before and under a scaling, drawn.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "report/picture.hpp"
#include "report/svg.hpp"
#include "spectrum/scaling_effect.hpp"
#include "ssm/spectrum_analysis.hpp"

namespace ssm::theory {

namespace drawing {

inline std::string horizons_before_and_after(scaling_effect const& of) {
  report::chart chart{.title = of.before.name + ": steps until a state has fallen to 1/e"};
  chart.x = {
      .label = "layer", .low = -0.5, .high = static_cast<double>(of.before.layers.size()) - 0.5};
  chart.y = {.label = "steps", .kind = report::scale::log};
  auto const add = [&](std::string name, trained_model const& model,
                       double quantiles<double>::*which, report::mark points, bool filled) {
    report::series curve{.name = std::move(name), .points = points, .filled = filled};
    curve.colour = filled ? 1 : 0;
    for (std::size_t i = 0; i < model.layers.size(); ++i) {
      curve.x.push_back(static_cast<double>(i));
      curve.y.push_back(analyze<double>(model.layers[i].view(), 1, 1).horizon.*which);
    }
    chart.curves.push_back(std::move(curve));
  };
  using report::mark;
  add("slowest state, as trained", of.before, &quantiles<double>::largest, mark::diamond, false);
  add("scaled", of.after, &quantiles<double>::largest, mark::diamond, true);
  add("median state, as trained", of.before, &quantiles<double>::median, mark::circle, false);
  add("scaled", of.after, &quantiles<double>::median, mark::circle, true);
  return draw(chart);
}

/// Energy after t steps over that after `from` as trained, of the layer that grows most.
inline std::string energies_before_and_after(scaling_effect const& of,
                                             spectrum_request const& asked) {
  auto const from = static_cast<double>(asked.from), to = static_cast<double>(asked.to);
  auto const growth = [&](layer_spectrum const& layer) {
    return analyze(layer.view(), from, to).growth;
  };
  auto const& layers = of.before.layers;
  auto const most = static_cast<std::size_t>(
      std::max_element(layers.begin(), layers.end(),
                       [&](auto const& a, auto const& b) { return growth(a) < growth(b); }) -
      layers.begin());
  report::chart chart{.title = of.before.name + ", layer " + std::to_string(most) +
                               ", which grows most: state energy"};
  chart.x = {.label = "steps", .kind = report::scale::log};
  chart.y = {.label = "energy / energy at " + std::to_string(asked.from) + " steps, as trained"};
  double const unit = state_energy(layers[most].view(), from);
  for (trained_model const* model : {&of.before, &of.after}) {
    bool const is_scaled = model == &of.after;
    report::series curve{.name = is_scaled ? of.how : "as trained", .line = true};
    curve.colour = is_scaled ? 1 : 0;
    constexpr int points = 100;
    for (int k = 0; k <= points; ++k) {
      double const t = std::pow(to, static_cast<double>(k) / points);
      curve.x.push_back(t);
      curve.y.push_back(state_energy(model->layers[most].view(), t) / unit);
    }
    chart.curves.push_back(std::move(curve));
  }
  chart.guides = {{.name = "1", .at = 1},
                  {.name = std::to_string(asked.from) + " steps", .at = from, .is_vertical = true}};
  return draw(chart);
}

}  // namespace drawing

inline std::vector<picture> pictures(scaling_effect const& of, spectrum_request const& asked) {
  return {
      {"scaled-horizons", drawing::horizons_before_and_after(of),
       "How long the states of each layer last as trained (open) and under the scaling "
       "(filled)."},
      {"scaled-energy", drawing::energies_before_and_after(of, asked),
       "Exact energy of the states of the layer that grows most, for white inputs. A scaling of "
       "the step also changes what each step puts in."}};
}

}  // namespace ssm::theory
