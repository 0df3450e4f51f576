// SPDX-License-Identifier: Apache-2.0
// heat_map.hpp: a matrix of numbers as colours, with the scale of the colours beside it.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "report/svg.hpp"

namespace ssm::theory::report {

/// values[row][column]. The edges of the rows run along y and those of the columns along x, one
/// more of each than there are cells; cells that are not finite stay empty.
struct heat_map {
  std::string title = "";
  axis x = {};
  axis y = {};
  std::vector<double> x_edges = {};
  std::vector<double> y_edges = {};
  std::vector<std::vector<double>> values = {};
  axis colour = {};  ///< label, scale and range of the values
  double width = 720;
  double height = 420;
};

/// Dark blue through green to yellow for 0 to 1, equally spaced to the eye, also in grey
/// (viridis, by its values at ninths).
inline std::string colour_at(double fraction) {
  static constexpr std::array<std::array<int, 3>, 10> stops = {{{68, 1, 84},
                                                                {72, 40, 120},
                                                                {62, 73, 137},
                                                                {49, 104, 142},
                                                                {38, 130, 142},
                                                                {31, 158, 137},
                                                                {53, 183, 121},
                                                                {110, 206, 88},
                                                                {181, 222, 43},
                                                                {253, 231, 37}}};
  double const place = std::clamp(fraction, 0.0, 1.0) * static_cast<double>(stops.size() - 1);
  auto const stop = std::min(static_cast<std::size_t>(place), stops.size() - 2);
  double const share = place - static_cast<double>(stop);
  std::array<long, 3> rgb{};
  for (std::size_t i = 0; i < 3; ++i) {
    rgb[i] = std::lround((1 - share) * stops[stop][i] + share * stops[stop + 1][i]);
  }
  char text[32];
  std::snprintf(text, sizeof text, "#%02lx%02lx%02lx", rgb[0], rgb[1], rgb[2]);
  return text;
}

inline std::string draw(heat_map const& what) {
  extent x_data, y_data, values;
  for (double const x : what.x_edges) x_data.include(x, what.x.kind);
  for (double const y : what.y_edges) y_data.include(y, what.y.kind);
  for (auto const& row : what.values) {
    for (double const v : row) values.include(v, what.colour.kind);
  }

  double const bar_width = 14;
  double const bar_room = detail::room_for_labels(what.colour, values, what.height) + 34;
  double const bottom = what.height - (what.x.label.empty() ? 32 : 54);
  detail::frame const f{detail::room_for_labels(what.y, y_data, what.height),
                        what.title.empty() ? 14.0 : 36.0, what.width - bar_room, bottom};
  placement const x_place(what.x, x_data, f.left, f.right, 0);
  placement const y_place(what.y, y_data, f.bottom, f.top, 0);
  placement const shade(what.colour, values, 0, 1, 0);

  canvas on(what.width, what.height, what.title);
  on.words({f.left, 20}, what.title, {.size = 14, .bold = true});
  on.begin_clip(f.left, f.top, f.right - f.left, f.bottom - f.top);
  for (std::size_t row = 0; row < what.values.size() && row + 1 < what.y_edges.size(); ++row) {
    double const y0 = y_place(what.y_edges[row]), y1 = y_place(what.y_edges[row + 1]);
    auto const& cells = what.values[row];
    std::size_t const columns =
        what.x_edges.empty() ? 0 : std::min(cells.size(), what.x_edges.size() - 1);
    for (std::size_t first = 0, last = 0; first < columns; first = last) {
      auto const paint = [&](std::size_t i) {
        double const fraction = shade(cells[i]);
        return std::isfinite(fraction) ? colour_at(fraction) : std::string();
      };
      std::string const colour = paint(first);  // one rectangle for neighbours of one colour
      for (last = first + 1; last < columns && paint(last) == colour;) ++last;
      if (colour.empty()) continue;
      double const x0 = x_place(what.x_edges[first]), x1 = x_place(what.x_edges[last]);
      // a little larger than the cell, so that no gap shows between neighbours
      on.rectangle({std::min(x0, x1), std::min(y0, y1)}, std::abs(x1 - x0) + 0.3,
                   std::abs(y1 - y0) + 0.3, colour);
    }
  }
  on.end_clip();
  detail::draw_axes(on, f, what.x, x_place, what.y, y_place, false);

  double const bar = f.right + 18;
  int const steps = 64;
  double const step = (f.bottom - f.top) / steps;
  for (int i = 0; i < steps; ++i) {
    on.rectangle({bar, f.bottom - (i + 1) * step}, bar_width, step + 0.3,
                 colour_at((i + 0.5) / steps));
  }
  placement const bar_place(what.colour, values, f.bottom, f.top, 0);
  for (auto const& t : bar_place.ticks(36)) {
    double const y = bar_place(t.value);
    on.line({bar + bar_width, y}, {bar + bar_width + 4, y}, {.opacity = 0.6});
    on.words({bar + bar_width + 8, y + 4}, t.label);
  }
  on.words({what.width - 8, (f.top + f.bottom) / 2}, what.colour.label,
           {.at = anchor::middle, .upright = false});
  return std::move(on).finish();
}

}  // namespace ssm::theory::report
