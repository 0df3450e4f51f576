// SPDX-License-Identifier: Apache-2.0
// page.hpp: what was found, as one HTML page with its pictures inside.
#pragma once

#include <string>
#include <vector>

#include "report/html.hpp"
#include "spectrum/layer_table.hpp"
#include "spectrum/pictures.hpp"
#include "spectrum/scaling_pictures.hpp"
#include "spectrum/words.hpp"

namespace ssm::theory {

inline constexpr char const* spectrum_introduction =
    "Each state of a layer is a number that shrinks by its decay λ = exp(Δ·eigenvalue) in every "
    "step and then takes in Δ·B·x. A decay near 1 is a long memory. For inputs that are white, "
    "with mean zero and unit variance, the energy Σ h² that the states reach follows exactly from "
    "the decays; it is compared here with a simulation of the layer's own recurrence at its "
    "learned step size Δ = softplus(bias). Real inputs are neither white nor is their step size "
    "constant: this is what the spectrum alone implies. The paper is Mamba Modulation, "
    "arXiv:2509.19633.";

inline std::string html_paragraph(std::string const& text, char const* attributes = "") {
  return std::string("<p") + attributes + ">" + report::escaped(text) + "</p>\n";
}

inline std::string html_section(model_result const& of, spectrum_request const& asked) {
  std::vector<std::string> heads;
  for (column const& c : layer_columns(asked)) heads.push_back(c.name);
  std::string html = "<section>\n<h2>" + report::escaped(of.model.name) + "</h2>\n";
  html += html_paragraph(shape_text(of.model));
  html += html_paragraph(verdict_text(of),
                         of.is_accepted() ? " class=\"verdict\"" : " class=\"verdict bad\"");
  html += report::html_table(heads, layer_rows(of));
  html += html_paragraph(paper_text(of)) + "<p>Closest to divergence:</p>\n<ul>\n";
  for (auto const& kind : kinds_of_closeness) {
    html += "<li>" + report::escaped(closeness_text(of, kind)) + "</li>\n";
  }
  return html + "</ul>\n" + report::html_figures(pictures(of, asked)) + "</section>\n";
}

inline std::string html_legend(std::vector<column> const& columns) {
  std::string html = "<p>The columns of the tables:</p>\n<dl>\n";
  for (column const& c : columns) {
    html += "<dt>" + report::escaped(c.name) + "</dt><dd>" + report::escaped(c.meaning) + "</dd>\n";
  }
  return html + "</dl>\n";
}

inline std::string html_section(scaling_effect const& of, spectrum_request const& asked) {
  std::vector<std::string> heads;
  for (column const& c : effect_columns(asked)) heads.push_back(c.name);
  return "<section>\n<h2>" + report::escaped(of.before.name + " under the scaling " + of.how) +
         "</h2>\n" + html_legend(effect_columns(asked)) +
         report::html_table(heads, effect_rows(of)) + report::html_figures(pictures(of, asked)) +
         "</section>\n";
}

/// What scalings do, where there are any, and then all models, also those that are scaled.
inline std::string page_of(std::vector<model_result> const& results, spectrum_request const& asked,
                           std::vector<scaling_effect> const& effects = {}) {
  std::string html = report::html_head("Spectra of trained models");
  html += html_paragraph(spectrum_introduction) + html_legend(layer_columns(asked));
  for (scaling_effect const& effect : effects) html += html_section(effect, asked);
  for (model_result const& result : results) html += html_section(result, asked);
  return html + report::html_end;
}

}  // namespace ssm::theory
