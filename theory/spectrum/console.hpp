// SPDX-License-Identifier: Apache-2.0
// console.hpp: what was found, on a terminal, in lines of at most 100 columns.
#pragma once

#include <cstddef>
#include <ostream>
#include <string>

#include "report/text.hpp"
#include "spectrum/layer_table.hpp"
#include "spectrum/words.hpp"

namespace ssm::theory {

inline void print_legend(std::ostream& out, spectrum_request const& asked) {
  for (column const& c : layer_columns(asked)) {
    out << "  " << c.name << report::repeated(" ", 16 - report::display_width(c.name)) << c.meaning
        << '\n';
  }
  out << '\n';
}

inline void print_paragraph(std::ostream& out, std::string const& text) {
  for (auto const& line : report::wrap(text, 96)) out << "  " << line << '\n';
}

inline void print(std::ostream& out, model_result const& of, spectrum_request const& asked) {
  static constexpr int widths[] = {7, 8, 8, 9, 8, 9, 8, 9, 9, 17, 7};
  auto const cell = [&](std::size_t column, std::string const& text) {
    out << report::repeated(" ", widths[column] - report::display_width(text)) << text;
  };

  out << of.model.name << ": " << shape_text(of.model) << "\n\n";
  auto const columns = layer_columns(asked);
  for (std::size_t i = 0; i < columns.size(); ++i) cell(i, columns[i].name);
  out << '\n';
  for (auto const& row : layer_rows(of)) {
    for (std::size_t i = 0; i < row.size(); ++i) cell(i, row[i]);
    out << '\n';
  }
  out << '\n';
  print_paragraph(out, verdict_text(of));
  out << '\n';
  print_paragraph(out, paper_text(of));
  out << '\n';
  print_paragraph(out, "Closest to divergence:");
  for (auto const& kind : kinds_of_closeness) print_paragraph(out, "- " + closeness_text(of, kind));
  out << std::endl;
}

}  // namespace ssm::theory
