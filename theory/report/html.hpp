// SPDX-License-Identifier: Apache-2.0
// html.hpp: the parts of a page that needs nothing else: head, tables, pictures.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "report/canvas.hpp"
#include "report/picture.hpp"

namespace ssm::theory::report {

inline std::string html_head(std::string const& title) {
  return R"(<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>)" +
         escaped(title) + R"(</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 84rem; margin: 2rem auto; padding: 0 1rem; }
p { max-width: 46rem; }
section { margin-top: 3rem; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.2rem 0.5rem; text-align: left; border-bottom: 1px solid #8884; }
th { vertical-align: bottom; }
td:first-child, td.number { white-space: nowrap; }
.number { text-align: right; }
dl { display: grid; grid-template-columns: max-content auto; gap: 0.2rem 1rem; max-width: 60rem; }
dt { font-weight: 600; } dd { margin: 0; }
.figures { display: grid; gap: 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(34rem, 100%), 1fr)); }
figure { margin: 0; } figure svg { width: 100%; height: auto; } figcaption { opacity: 0.8; }
.badge { font-size: 0.9rem; font-weight: 600; padding: 0.1rem 0.6rem; border-radius: 1rem;
  background: #3a9a6b33; vertical-align: middle; }
.bad { background: #c94f6d66; }
.verdict { border-left: 4px solid #3a9a6b; padding-left: 0.8rem; }
.verdict.bad { border-color: #c94f6d; background: none; }
</style>
</head>
<body>
<h1>)" + escaped(title) +
         "</h1>\n";
}

inline constexpr char const* html_end = "</body>\n</html>\n";

/// A number as reports write it: "-1.2e-5", "(1.6 ± 0.2)e7", "> 0.9999".
inline bool is_number(std::string text) {
  if (std::size_t const at = text.find("±"); at != std::string::npos) text.erase(at, 2);
  return text.find_first_of("0123456789") != std::string::npos &&
         text.find_first_not_of("0123456789+-.e()> ") == std::string::npos;
}

/// Numbers stand on the right, and so do the heads above them.
inline std::string html_table(std::vector<std::string> const& heads,
                              std::vector<std::vector<std::string>> const& rows) {
  std::string html = "<div class=\"table\"><table>\n<tr>";
  for (std::size_t i = 0; i < heads.size(); ++i) {
    bool const has_numbers = std::any_of(rows.begin(), rows.end(), [i](auto const& row) {
      return i < row.size() && is_number(row[i]);
    });
    html += (has_numbers ? "<th class=\"number\">" : "<th>") + escaped(heads[i]) + "</th>";
  }
  html += "</tr>\n";
  for (auto const& row : rows) {
    html += "<tr>";
    for (auto const& text : row) {
      html += (is_number(text) ? "<td class=\"number\">" : "<td>") + escaped(text) + "</td>";
    }
    html += "</tr>\n";
  }
  return html + "</table></div>\n";
}

inline std::string html_figures(std::vector<picture> const& pictures) {
  std::string html = "<div class=\"figures\">\n";
  for (picture const& p : pictures) {
    html +=
        "<figure>\n" + p.svg + "<figcaption>" + escaped(p.caption) + "</figcaption>\n</figure>\n";
  }
  return html + "</div>\n";
}

}  // namespace ssm::theory::report
