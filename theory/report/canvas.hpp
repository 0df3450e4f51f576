// SPDX-License-Identifier: Apache-2.0
// canvas.hpp: lines, shapes and text as SVG. Colours left out follow the page the picture is on.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "report/text.hpp"

namespace ssm::theory::report {

/// Text for HTML and XML, in elements and in quoted attributes. Control characters, which XML
/// does not allow, become spaces.
inline std::string escaped(std::string_view text) {
  std::string result;
  for (char const c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        result += static_cast<unsigned char>(c) < 0x20 && c != '\n' ? ' ' : c;
    }
  }
  return result;
}

/// To be told apart on white and on black, the first six with any kind of colour vision.
inline constexpr std::array<char const*, 9> palette = {"#3a7ebf", "#d9772b", "#3a9a6b",
                                                       "#c94f6d", "#8d6cc0", "#8a8f98",
                                                       "#b39422", "#27a3b0", "#9c6b4e"};

inline constexpr char const* ink = "currentColor";

struct stroke {
  std::string colour = ink;
  double width = 1;
  double opacity = 1;
  std::string dashes = "";  ///< "6 4"; none: solid
};

enum class anchor { start, middle, end };

struct lettering {
  double size = 12;
  anchor at = anchor::start;
  bool bold = false;
  bool upright = true;  ///< otherwise turned to read from bottom to top
  double opacity = 1;
};

enum class mark { none, circle, diamond, square };

struct point {
  double x, y;
};

/// An SVG picture under construction. What has a place that is not finite is left out, so the
/// numbers in it are always numbers.
class canvas {
 public:
  canvas(double width, double height, std::string const& title) {
    text_ = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + number(width) + " " +
            number(height) + "\" width=\"" + number(width) + "\" height=\"" + number(height) +
            "\" role=\"img\" font-family=\"system-ui, 'DejaVu Sans', sans-serif\">\n" + "<title>" +
            escaped(title) + "</title>\n";
  }

  std::string finish() && { return std::move(text_) + "</svg>\n"; }

  /// What is drawn until end_clip() shows inside this rectangle only.
  void begin_clip(double x, double y, double width, double height) {
    std::string const box =
        number(x) + " " + number(y) + " " + number(width) + " " + number(height);
    text_ += "<svg x=\"" + number(x) + "\" y=\"" + number(y) + "\" width=\"" + number(width) +
             "\" height=\"" + number(height) + "\" viewBox=\"" + box + "\" overflow=\"hidden\">\n";
  }
  void end_clip() { text_ += "</svg>\n"; }

  void line(point a, point b, stroke const& with) { path({a, b}, with); }

  /// A line through the points, broken where one has no place.
  void path(std::vector<point> const& points, stroke const& with) {
    std::string data;
    for (std::size_t i = 0, length = 0; i < points.size(); ++i) {
      if (!has_place(points[i])) {
        length = 0;
        continue;
      }
      data += length++ == 0 ? "M" : "L";
      data += number(points[i].x) + " " + number(points[i].y);
    }
    if (data.empty()) return;
    text_ += "<path d=\"" + data + "\" fill=\"none\"" + attributes(with) + "/>\n";
  }

  void rectangle(point corner, double width, double height, std::string const& fill,
                 double opacity = 1) {
    if (!has_place(corner) || !(width >= 0) || !(height >= 0)) return;
    text_ += "<rect shape-rendering=\"crispEdges\" x=\"" + number(corner.x) + "\" y=\"" +
             number(corner.y) + "\" width=\"" + number(width) + "\" height=\"" + number(height) +
             "\" fill=\"" + escaped(fill) + "\"" + opacity_attribute("opacity", opacity) + "/>\n";
  }

  /// A mark of the given radius; one that is not filled shows what is under it.
  void marker(mark shape, point at, double radius, std::string const& colour, bool filled = true) {
    if (shape == mark::none || !has_place(at)) return;
    std::string const paint = (filled ? " fill=\"" + escaped(colour) + "\"" : " fill=\"none\"") +
                              std::string(" stroke-linejoin=\"round\"") +
                              attributes({.colour = colour, .width = 1.6});
    if (shape == mark::circle) {
      text_ += "<circle cx=\"" + number(at.x) + "\" cy=\"" + number(at.y) + "\" r=\"" +
               number(radius) + "\"" + paint + "/>\n";
      return;
    }
    double const r = shape == mark::diamond ? 1.25 * radius : 0.9 * radius;
    std::string const corners = shape == mark::diamond
                                    ? corner(at.x, at.y - r) + corner(at.x + r, at.y) +
                                          corner(at.x, at.y + r) + corner(at.x - r, at.y)
                                    : corner(at.x - r, at.y - r) + corner(at.x + r, at.y - r) +
                                          corner(at.x + r, at.y + r) + corner(at.x - r, at.y + r);
    text_ += "<polygon points=\"" + corners + "\"" + paint + "/>\n";
  }

  /// A line of text; `at` is on its baseline.
  void words(point at, std::string_view text, lettering const& how = {}) {
    if (!has_place(at) || text.empty()) return;
    static constexpr char const* anchors[] = {"start", "middle", "end"};
    text_ += "<text x=\"" + number(at.x) + "\" y=\"" + number(at.y) + "\" font-size=\"" +
             number(how.size) + "\" fill=\"" + ink + "\" text-anchor=\"" +
             anchors[static_cast<int>(how.at)] + "\"" + (how.bold ? " font-weight=\"600\"" : "") +
             opacity_attribute("opacity", how.opacity);
    if (!how.upright) {
      text_ += " transform=\"rotate(-90 " + number(at.x) + " " + number(at.y) + ")\"";
    }
    text_ += ">" + escaped(text) + "</text>\n";
  }

  /// About how wide a line of text is, in pixels; rather more than less.
  static double width_of(std::string_view text, double size = 12) {
    return 0.6 * size * display_width(text);
  }

 private:
  /// Coordinates to a hundredth of a pixel, kept within what every viewer can draw.
  static std::string number(double x) {
    return significant(std::round(std::clamp(x, -1e5, 1e5) * 100) / 100, 8);
  }

  static bool has_place(point p) { return std::isfinite(p.x) && std::isfinite(p.y); }

  static std::string corner(double x, double y) { return number(x) + "," + number(y) + " "; }

  static std::string opacity_attribute(char const* name, double opacity) {
    if (!(opacity < 1)) return "";
    return std::string(" ") + name + "=\"" + number(opacity) + "\"";
  }

  static std::string attributes(stroke const& s) {
    return " stroke=\"" + escaped(s.colour) + "\" stroke-width=\"" + number(s.width) + "\"" +
           opacity_attribute("stroke-opacity", s.opacity) +
           (s.dashes.empty() ? "" : " stroke-dasharray=\"" + escaped(s.dashes) + "\"");
  }

  std::string text_;
};

}  // namespace ssm::theory::report
