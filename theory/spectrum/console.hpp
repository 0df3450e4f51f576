// SPDX-License-Identifier: Apache-2.0
// console.hpp: what was found, on a terminal, in lines of at most 100 columns.
#pragma once

#include <cstddef>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "report/text.hpp"
#include "spectrum/layer_table.hpp"
#include "spectrum/scaling_effect.hpp"
#include "spectrum/words.hpp"

namespace ssm::theory {

/// A line for each column and, below it, what does not fit.
inline void print_legend(std::ostream& out, std::vector<column> const& columns) {
  for (column const& c : columns) {
    std::string head = c.name;
    for (auto const& line : report::wrap(c.meaning, 80)) {
      out << "  " << head << report::repeated(" ", 16 - report::display_width(head)) << line
          << '\n';
      head.clear();
    }
  }
  out << '\n';
}

/// Cells on the right of columns so wide, under their heads.
inline void print_table(std::ostream& out, std::vector<column> const& columns,
                        std::vector<std::vector<std::string>> const& rows,
                        std::span<int const> widths) {
  auto const cell = [&](std::size_t column, std::string const& text) {
    out << report::repeated(" ", widths[column] - report::display_width(text)) << text;
  };
  for (std::size_t i = 0; i < columns.size(); ++i) cell(i, columns[i].name);
  out << '\n';
  for (auto const& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) cell(i, row[i]);
    out << '\n';
  }
  out << '\n';
}

inline void print_paragraph(std::ostream& out, std::string const& text) {
  for (auto const& line : report::wrap(text, 96)) out << "  " << line << '\n';
}

inline void print(std::ostream& out, model_result const& of, spectrum_request const& asked) {
  static constexpr int widths[] = {6, 8, 8, 9, 8, 9, 8, 9, 9, 18, 7};
  out << of.model.name << ": " << shape_text(of.model) << "\n\n";
  print_table(out, layer_columns(asked), layer_rows(of), widths);
  print_paragraph(out, verdict_text(of));
  out << '\n';
  print_paragraph(out, paper_text(of));
  out << '\n';
  print_paragraph(out, "Closest to divergence:");
  for (auto const& kind : kinds_of_closeness) print_paragraph(out, "- " + closeness_text(of, kind));
  out << std::endl;
}

inline void print(std::ostream& out, scaling_effect const& of, spectrum_request const& asked) {
  static constexpr int widths[] = {7, 14, 8, 8, 8, 8, 8, 8, 8, 8, 7, 8};
  out << of.before.name << " under the scaling " << of.how << "\n\n";
  print_table(out, effect_columns(asked), effect_rows(of), widths);
}

}  // namespace ssm::theory
