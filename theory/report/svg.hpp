// SPDX-License-Identifier: Apache-2.0
// svg.hpp: charts of lines and of points with error bars, as SVG text that needs nothing else. A
// chart is filled in by name and handed to draw().
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "report/canvas.hpp"
#include "report/scale.hpp"

namespace ssm::theory::report {

/// Points (x[i], y[i]), joined by a line, marked, or both. Points that are not finite, or that a
/// logarithmic axis cannot show, are left out and break the line.
struct series {
  std::string name = "";  ///< in the legend; none: not in the legend
  std::vector<double> x = {};
  std::vector<double> y = {};
  std::vector<double> error = {};  ///< half the length of the bar at each point; may be empty
  bool line = false;
  bool dashed = false;
  mark points = mark::none;
  bool filled = true;  ///< the marks
  int colour = -1;     ///< of the palette; -1: the place of the series
};

/// A dashed line across the chart, at one x or at one y.
struct guide {
  std::string name = "";
  double at = 0;
  bool is_vertical = false;
};

struct chart {
  std::string title = "";
  axis x = {};
  axis y = {};
  std::vector<series> curves = {};
  std::vector<guide> guides = {};
  double width = 720;
  double height = 420;
};

namespace detail {

struct frame {
  double left, top, right, bottom;
};

/// Rows of the legend, each entry with the x of its symbol.
struct legend_entry {
  std::string name;
  double x = 0;
  int row = 0;
};

inline int lay_out(std::vector<legend_entry>& entries, double left, double right) {
  double x = left;
  int row = 0;
  for (auto& entry : entries) {
    double const needed = 30 + canvas::width_of(entry.name);
    if (x > left && x + needed > right) {
      x = left;
      ++row;
    }
    entry.x = x;
    entry.row = row;
    x += needed + 18;
  }
  return entries.empty() ? 0 : row + 1;
}

/// Room for the widest label left of the y axis.
inline double room_for_labels(axis const& y, extent data, double height) {
  double widest = 0;
  for (auto const& t : placement(y, data, height, 0).ticks(36)) {
    widest = std::max(widest, canvas::width_of(t.label));
  }
  return widest + (y.label.empty() ? 16 : 38);
}

/// The axes with their ticks; `grid` also draws faint lines across at the labelled ones.
inline void draw_axes(canvas& on, frame const& f, axis const& x, placement const& x_place,
                      axis const& y, placement const& y_place, bool grid) {
  stroke const faint{.width = 1, .opacity = 0.13};
  stroke const firm{.width = 1, .opacity = 0.6};
  for (auto const& t : x_place.ticks(64)) {
    double const at = x_place(t.value);
    bool const labelled = !t.label.empty();
    if (grid && labelled) on.line({at, f.top}, {at, f.bottom}, faint);
    on.line({at, f.bottom}, {at, f.bottom + (labelled ? 5 : 3)}, firm);
    on.words({at, f.bottom + 19}, t.label, {.at = anchor::middle});
  }
  for (auto const& t : y_place.ticks(36)) {
    double const at = y_place(t.value);
    bool const labelled = !t.label.empty();
    if (grid && labelled) on.line({f.left, at}, {f.right, at}, faint);
    on.line({f.left - (labelled ? 5 : 3), at}, {f.left, at}, firm);
    on.words({f.left - 9, at + 4}, t.label, {.at = anchor::end});
  }
  on.path({{f.left, f.top}, {f.left, f.bottom}, {f.right, f.bottom}}, firm);
  on.words({(f.left + f.right) / 2, f.bottom + 40}, x.label, {.at = anchor::middle});
  on.words({16, (f.top + f.bottom) / 2}, y.label, {.at = anchor::middle, .upright = false});
}

inline char const* colour_of(series const& s, std::size_t place) {
  std::size_t const i = s.colour < 0 ? place : static_cast<std::size_t>(s.colour);
  return palette[i % palette.size()];
}

inline stroke line_of(series const& s, char const* colour) {
  return {.colour = colour, .width = 2, .dashes = s.dashed ? "7 5" : ""};
}

inline constexpr char const* guide_dashes = "2 4";

/// The symbols and names above the chart; returns nothing where the legend is empty.
inline void draw_legend(canvas& on, chart const& what, std::vector<legend_entry> const& entries,
                        double top) {
  std::size_t next = 0;
  for (std::size_t i = 0; i < what.curves.size() + what.guides.size(); ++i) {
    bool const is_curve = i < what.curves.size();
    std::string const& name =
        is_curve ? what.curves[i].name : what.guides[i - what.curves.size()].name;
    if (name.empty()) continue;
    auto const& entry = entries[next++];
    double const y = top + 20 * entry.row;
    if (!is_curve) {
      on.line({entry.x, y}, {entry.x + 22, y}, {.opacity = 0.8, .dashes = guide_dashes});
    } else {
      series const& s = what.curves[i];
      char const* const colour = colour_of(s, i);
      if (s.line) on.line({entry.x, y}, {entry.x + 22, y}, line_of(s, colour));
      on.marker(s.points, {entry.x + 11, y}, 3.5, colour, s.filled);
    }
    on.words({entry.x + 29, y + 4}, name);
  }
}

inline void draw_series(canvas& on, series const& s, char const* colour, placement const& x_place,
                        placement const& y_place) {
  std::size_t const count = std::min(s.x.size(), s.y.size());
  std::vector<point> points;
  for (std::size_t i = 0; i < count; ++i) points.push_back({x_place(s.x[i]), y_place(s.y[i])});
  if (s.line) on.path(points, line_of(s, colour));
  for (std::size_t i = 0; i < std::min(count, s.error.size()); ++i) {
    double const x = points[i].x;
    double const upper = y_place(s.y[i] + s.error[i]);
    double lower = y_place(s.y[i] - s.error[i]);
    if (std::isnan(lower)) lower = y_place(y_place.low());  // below a logarithmic axis
    stroke const bar{.colour = colour, .width = 1.5};
    on.line({x, lower}, {x, upper}, bar);
    on.line({x - 4, lower}, {x + 4, lower}, bar);
    on.line({x - 4, upper}, {x + 4, upper}, bar);
  }
  for (point const p : points) on.marker(s.points, p, 3.5, colour, s.filled);
}

}  // namespace detail

inline std::string draw(chart const& what) {
  extent x_data, y_data;
  for (series const& s : what.curves) {
    for (std::size_t i = 0; i < std::min(s.x.size(), s.y.size()); ++i) {
      x_data.include(s.x[i], what.x.kind);
      y_data.include(s.y[i], what.y.kind);
      if (i >= s.error.size()) continue;
      y_data.include(s.y[i] + s.error[i], what.y.kind);
      y_data.include(s.y[i] - s.error[i], what.y.kind);
    }
  }
  std::vector<detail::legend_entry> entries;
  for (series const& s : what.curves) {
    if (!s.name.empty()) entries.push_back({s.name});
  }
  for (guide const& g : what.guides) {
    (g.is_vertical ? x_data : y_data).include(g.at, g.is_vertical ? what.x.kind : what.y.kind);
    if (!g.name.empty()) entries.push_back({g.name});
  }

  double const left = detail::room_for_labels(what.y, y_data, what.height);
  double const right = what.width - 18;
  double const legend_top = what.title.empty() ? 14 : 42;
  int const rows = detail::lay_out(entries, left, right);
  double const bottom = what.height - (what.x.label.empty() ? 32 : 54);
  detail::frame const f{left, legend_top + 20 * rows, right, bottom};
  placement const x_place(what.x, x_data, f.left, f.right);
  placement const y_place(what.y, y_data, f.bottom, f.top);

  canvas on(what.width, what.height, what.title);
  on.words({left, 20}, what.title, {.size = 14, .bold = true});
  detail::draw_legend(on, what, entries, legend_top);
  detail::draw_axes(on, f, what.x, x_place, what.y, y_place, true);
  on.begin_clip(f.left, f.top, f.right - f.left, f.bottom - f.top);
  for (guide const& g : what.guides) {
    stroke const dotted{.opacity = 0.8, .dashes = detail::guide_dashes};
    double const at = g.is_vertical ? x_place(g.at) : y_place(g.at);
    if (g.is_vertical) on.line({at, f.top}, {at, f.bottom}, dotted);
    if (!g.is_vertical) on.line({f.left, at}, {f.right, at}, dotted);
  }
  for (std::size_t i = 0; i < what.curves.size(); ++i) {
    detail::draw_series(on, what.curves[i], detail::colour_of(what.curves[i], i), x_place, y_place);
  }
  on.end_clip();
  return std::move(on).finish();
}

}  // namespace ssm::theory::report
