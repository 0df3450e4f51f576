// SPDX-License-Identifier: Apache-2.0
// scaling_effect.hpp: what a scaling does to the layers of a model, or to their heads: before and
// after, as numbers and as the cells of a table.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "report/text.hpp"
#include "spectrum/layer_table.hpp"
#include "spectrum/model_result.hpp"
#include "spectrum/scaling.hpp"
#include "ssm/spectrum_analysis.hpp"

namespace ssm::theory {

/// A layer, or one head of it where factors are those of heads.
struct part_effect {
  std::string name;  ///< "3", "3.0"
  std::string factors;
  spectrum_analysis<double> before, after;

  /// Energy after `to` steps with the scaling over that after `from` without: 1 where norms match.
  double kept() const { return after.longer_energy / before.trained_energy; }
};

struct scaling_effect {
  trained_model before, after;
  std::string how;
  scaling_factors<double> factors;
  std::vector<part_effect> parts;
};

namespace detail {

/// "1.5", "1 to 3.4" of what a layer's channels first ... last - 1 have; one for each kind.
inline std::string factors_text(scaling_factors<double> const& factors, index_t layer,
                                index_t first, index_t last) {
  auto const scaling = factors.scaling(layer);
  std::vector<double> of_kind[3];
  for (index_t c = first; c < last; ++c) {
    for (index_t n = 0; n < factors.shape().states; ++n) {
      of_kind[0].push_back(scaling.linear_factor(c, n));
      of_kind[1].push_back(scaling.power_factor(c, n));
    }
    of_kind[2].push_back(scaling.step_factor(c));
  }
  bool const has[] = {factors.kind().linear, factors.kind().power, factors.kind().step};
  std::string text;
  for (int kind = 0; kind < 3; ++kind) {
    if (!has[kind]) continue;
    auto const [least, largest] = std::minmax_element(of_kind[kind].begin(), of_kind[kind].end());
    std::string const low = report::significant(*least, 4);
    std::string const high = report::significant(*largest, 4);
    text += (text.empty() ? "" : ", ") + (low == high ? low : low + "-" + high);
  }
  return text;
}

}  // namespace detail

/// Throws    domain_error where the scaling that is asked for does not exist.
inline scaling_effect effect_of(trained_model const& model, scaling_request const& scaling,
                                spectrum_request const& asked) {
  auto const factors = factors_of(model, scaling, asked.from, asked.to);
  std::string const how = text_of(scaling);
  scaling_effect result{model, scaled(model, factors, how), how, factors, {}};
  auto const from = static_cast<double>(asked.from), to = static_cast<double>(asked.to);
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    auto const layer = static_cast<index_t>(i);
    auto const before = model.layers[i].view(), after = result.after.layers[i].view();
    if (factors.each() != granularity::head) {
      result.parts.push_back({std::to_string(i),
                              detail::factors_text(factors, layer, 0, factors.shape().channels),
                              analyze(before, from, to), analyze(after, from, to)});
      continue;
    }
    for (index_t head = 0; head < factors.shape().channels; ++head) {
      result.parts.push_back({std::to_string(i) + "." + std::to_string(head),
                              detail::factors_text(factors, layer, head, head + 1),
                              analyze(channel_of(before, head), from, to),
                              analyze(channel_of(after, head), from, to)});
    }
  }
  return result;
}

inline std::vector<column> effect_columns(spectrum_request const& asked) {
  std::string const from = std::to_string(asked.from), to = std::to_string(asked.to);
  return {{"layer", "counted from 0; layer.head where factors are those of heads"},
          {"factors", "of the layer or head"},
          {"median", "steps until the median state has fallen to 1/e"},
          {"scaled", "the same under the scaling"},
          {"slowest", "steps until the slowest state has"},
          {"scaled", "the same under the scaling"},
          {"gain", "energy of the stationary states per unit of the energy a step puts in"},
          {"scaled", "the same under the scaling"},
          {"growth", "energy after " + to + " steps over that after " + from},
          {"scaled", "the same under the scaling"},
          {"kept", "energy after " + to + " steps under the scaling over that after " + from +
                       " without: 1 where norms match"},
          {"elastic",
           "d log(that energy)/d log(a further factor of all eigenvalues); of all step "
           "sizes it is larger by 2"}};
}

inline std::vector<std::vector<std::string>> effect_rows(scaling_effect const& of) {
  auto const number = [](double x) { return report::significant(x, 4); };
  std::vector<std::vector<std::string>> rows;
  for (part_effect const& p : of.parts) {
    rows.push_back({p.name, p.factors, number(p.before.horizon.median),
                    number(p.after.horizon.median), number(p.before.horizon.largest),
                    number(p.after.horizon.largest), number(p.before.gain), number(p.after.gain),
                    report::formatted("%.*f", 4, p.before.growth),
                    report::formatted("%.*f", 4, p.after.growth), number(p.kept()),
                    report::formatted("%.*f", 4, p.after.linear_elasticity)});
  }
  return rows;
}

}  // namespace ssm::theory
