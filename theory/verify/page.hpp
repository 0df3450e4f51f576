// SPDX-License-Identifier: Apache-2.0
// page.hpp: what a run has found, as one HTML page with its pictures inside.
#pragma once

#include <string>
#include <vector>

#include "report/canvas.hpp"
#include "report/html.hpp"
#include "report/picture.hpp"
#include "report/svg.hpp"
#include "report/text.hpp"
#include "verify/summary.hpp"

namespace ssm::theory {

/// Deviations of the Monte Carlo means of a claim from what is exact and from what they must
/// reject, in standard errors.
inline picture deviations(result const& r) {
  report::series exact{.name = "from the exact value", .points = report::mark::circle};
  report::series other{.name = "from the printed or wrong value", .points = report::mark::diamond};
  report::series weak{
      .name = "the same, without power", .points = report::mark::diamond, .filled = false};
  double place = 0;
  for (finding const& f : r.findings) {
    place += 1;
    if (!(f.standard_error > 0)) continue;
    exact.x.push_back(place);
    exact.y.push_back(f.z_exact);
    auto& against = f.decisive ? other : weak;
    against.x.push_back(place);
    against.y.push_back(f.z_alternative);
  }
  if (exact.x.empty()) return {};
  std::vector<report::series> curves{exact, other};
  if (!weak.x.empty()) curves.push_back(weak);
  double const limit = two_sided_critical(level_of_exact);
  return {
      "deviations",
      report::draw(
          {.title = "How far the simulations are from either value",
           .x = {.label = "row of the table", .low = 0.5, .high = place + 0.5},
           .y = {.label = "standard errors", .kind = report::scale::symlog},
           .curves = curves,
           .guides = {{.name = "rejects a true value once in 10⁵", .at = limit}, {.at = -limit}}}),
      "Circles must lie between the dotted lines. Filled diamonds must not lie near 0: their tests "
      "have the power to tell the two values apart."};
}

inline std::string table_of(result const& r) {
  std::vector<std::vector<std::string>> rows;
  int place = 0;
  for (finding const& f : r.findings) {
    bool const is_random = f.standard_error > 0;
    rows.push_back({std::to_string(++place), f.setting, f.method,
                    f.samples > 0 ? std::to_string(f.samples) : "",
                    report::with_error(f.value, f.standard_error), report::significant(f.exact, 7),
                    is_random ? report::deviation(f.z_exact) : "",
                    report::significant(f.alternative, 7), name_of_alternative(f),
                    is_random ? report::deviation(f.z_alternative) : "",
                    is_random ? report::probability(f.power) : "", outcome(f)});
  }
  return report::html_table({"", "setting", "method", "samples", "value", "exact", "z",
                             "alternative", "which is", "z", "power", "alternative is"},
                            rows);
}

inline std::string section_of(result const& r) {
  claim const& c = r.what;
  auto const entry = [](char const* name, std::string const& text) {
    return "<dt>" + std::string(name) + "</dt><dd>" + report::escaped(text) + "</dd>\n";
  };
  bool const is_good = r.as_recorded();
  std::string html =
      "<section id=\"" + report::escaped(c.id) + "\">\n<h2>" + report::escaped(c.id) +
      " <span class=\"badge" + (is_good ? "" : " bad") + "\">" + to_string(r.reached) +
      "</span></h2>\n<dl>\n" + entry("place", c.place) + entry("claim", c.statement) +
      entry("printed", c.printed) + entry("exact", c.exact) +
      entry("verdict",
            std::string(to_string(r.reached)) +
                (is_good ? "" : std::string("; on record is: ") + to_string(c.recorded)) + ". " +
                c.remark) +
      "</dl>\n" + table_of(r);
  std::vector<picture> pictures;
  if (c.pictures) pictures = c.pictures(r.findings);
  if (picture const p = deviations(r); !p.svg.empty()) pictures.push_back(p);
  return html + report::html_figures(pictures) + "</section>\n";
}

inline std::string summary_of(verification const& v) {
  std::vector<std::vector<std::string>> rows;
  auto const z = [](std::optional<double> const& value) {
    return value ? report::deviation(*value) : std::string();
  };
  for (result const& r : v.results) {
    rows.push_back({r.what.id, r.what.printed, to_string(r.reached), r.what.exact,
                    z(largest_z_of_exact(r)), z(smallest_z_of_alternative(r))});
  }
  return report::html_table({"claim", "printed", "verdict", "exact", "largest z to the exact",
                             "smallest z to the rejected"},
                            rows);
}

inline std::string page_of(verification const& v) {
  std::string html = report::html_head("Claims about the norm of the state, put to the test");
  auto const paragraph = [&](std::string const& text) {
    html += "<p>" + report::escaped(text) + "</p>\n";
  };
  paragraph(
      "A state space model runs h_t = A h_{t-1} + B x_t with decays between 0 and 1 on the "
      "diagonal "
      "of A. The paper \"Mamba Modulation\" (arXiv:2509.19633) derives how large the state becomes "
      "from the law of these decays, and explains by it why models trained on short texts fail on "
      "long ones. Each of its statements is tested here by closed form and by simulating the "
      "recurrence itself.");
  paragraph(
      "Every Monte Carlo mean has a variance known in closed form, so its distance from a number, "
      "z "
      "in standard errors, has a known law. A true value is rejected by chance with probability " +
      report::significant(level_of_exact, 2) + ", a printed one, if it were true, with " +
      report::significant(level_of_printed, 2) +
      ". Where the paper is right, a value off by 5 % must be rejected instead. Power is the "
      "probability of that rejection; a test whose power is below " +
      report::significant(least_power, 2) + " is shown and does not count.");
  paragraph(std::to_string(v.tests_of_exact()) +
            " tests of true values: one or more rejects by chance with probability at most " +
            report::significant(v.family_error(), 2) + ". " + run_text(v) +
            (v.is_stopped ? " Stopped early: not every claim has been put to the test." : ""));
  html += summary_of(v);
  for (result const& r : v.results) html += section_of(r);
  return html + report::html_end;
}

}  // namespace ssm::theory
