// SPDX-License-Identifier: Apache-2.0
// layer_table.hpp: what was found for the layers of a model, as the cells of a table.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "report/text.hpp"
#include "spectrum/model_result.hpp"

namespace ssm::theory {

struct column {
  std::string name;
  std::string meaning;
};

inline std::vector<column> layer_columns(spectrum_request const& asked) {
  return {{"layer", "counted from 0"},
          {"least", "steps until the fastest state has fallen to 1/e"},
          {"median", "steps until the median state has"},
          {"largest", "steps until the slowest state has"},
          {"gain", "energy of the stationary states per unit of the energy a step puts in; exact"},
          {"growth", "energy after " + std::to_string(asked.to) + " steps over that after " +
                         std::to_string(asked.from) + "; exact"},
          {"equal", "gain if every state got the same input; exact"},
          {"uniform", "the same, were decays uniform between the layer's least and largest"},
          {"printed", "what the paper's formula (Theorem 4.2) gives for such a uniform spectrum"},
          {"measured/exact", "energy of the simulated recurrence over the exact one, mean of " +
                                 std::to_string(asked.steps) + " steps"},
          {"z", "its deviation from 1 in standard errors"}};
}

/// A row for each layer under layer_columns().
inline std::vector<std::vector<std::string>> layer_rows(model_result const& of) {
  auto const number = [](double x) { return report::significant(x, 4); };
  std::vector<std::vector<std::string>> rows;
  for (std::size_t i = 0; i < of.predictions.size(); ++i) {
    layer_prediction const& p = of.predictions[i];
    std::optional<finding> const& f = of.findings[i];
    rows.push_back({std::to_string(i), number(p.horizon.least), number(p.horizon.median),
                    number(p.horizon.largest), number(p.gain),
                    report::formatted("%.*f", 4, p.growth), number(p.equal_gain),
                    number(p.uniform_gain), number(p.printed_gain),
                    f ? report::with_error(f->value / f->exact, f->standard_error / f->exact) : "-",
                    f ? report::deviation(f->z_exact) : "-"});
  }
  return rows;
}

}  // namespace ssm::theory
