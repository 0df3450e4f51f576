// SPDX-License-Identifier: Apache-2.0
// text.hpp: how wide UTF-8 text is, lines of limited width, and numbers with sensible digits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace ssm::theory::report {

/// One character of UTF-8 text; a byte that starts none stands for itself.
struct character {
  std::uint32_t code = 0;
  std::size_t bytes = 1;
};

inline character first_character(std::string_view text) {
  auto const byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  std::uint32_t const lead = byte(0);
  std::size_t const bytes = lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (bytes == 1 || lead > 0xF7 || text.size() < bytes) return {lead, 1};
  std::uint32_t code = lead & (0x7Fu >> bytes);
  for (std::size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {lead, 1};
    code = code << 6 | (byte(i) & 0x3Fu);
  }
  return {code, bytes};
}

/// Columns of a terminal that a character takes: combining marks none, East Asian wide ones two.
inline int display_width(std::uint32_t code) {
  struct range {
    std::uint32_t first, last;
  };
  auto const in = [code](auto const& ranges) {
    return std::any_of(std::begin(ranges), std::end(ranges),
                       [code](range r) { return r.first <= code && code <= r.last; });
  };
  static constexpr range none[] = {{0x0300, 0x036F}, {0x1AB0, 0x1AFF}, {0x1DC0, 0x1DFF},
                                   {0x200B, 0x200F}, {0x20D0, 0x20FF}, {0xFE00, 0xFE0F},
                                   {0xFE20, 0xFE2F}};
  static constexpr range two[] = {{0x1100, 0x115F},   {0x2E80, 0x303E},  {0x3041, 0xA4CF},
                                  {0xAC00, 0xD7A3},   {0xF900, 0xFAFF},  {0xFE30, 0xFE6F},
                                  {0xFF00, 0xFF60},   {0xFFE0, 0xFFE6},  {0x1F300, 0x1F64F},
                                  {0x1F900, 0x1F9FF}, {0x20000, 0x3FFFD}};
  return in(none) ? 0 : in(two) ? 2 : 1;
}

inline int display_width(std::string_view text) {
  int width = 0;
  while (!text.empty()) {
    character const c = first_character(text);
    width += display_width(c.code);
    text.remove_prefix(c.bytes);
  }
  return width;
}

/// Bytes of the longest beginning of `text` that is no wider than `width`, at least one character.
inline std::size_t bytes_within(std::string_view text, int width) {
  std::size_t bytes = 0;
  for (int used = 0; bytes < text.size();) {
    character const c = first_character(text.substr(bytes));
    used += display_width(c.code);
    if (used > width && bytes > 0) break;
    bytes += c.bytes;
  }
  return bytes;
}

/// Lines no wider than `width`, broken at spaces and at line ends, inside a word only where it is
/// wider than a line. Never empty.
inline std::vector<std::string> wrap(std::string_view text, int width) {
  std::vector<std::string> lines(1);
  while (!text.empty()) {
    if (text.front() == '\n') {
      lines.emplace_back();
      text.remove_prefix(1);
      continue;
    }
    if (text.front() == ' ') {
      text.remove_prefix(1);
      continue;
    }
    std::string_view word = text.substr(0, text.find_first_of(" \n"));
    text.remove_prefix(word.size());
    std::string& line = lines.back();
    if (!line.empty() && display_width(line) + 1 + display_width(word) <= width) {
      (line += ' ') += word;
      continue;
    }
    if (!line.empty()) lines.emplace_back();
    for (; display_width(word) > width; lines.emplace_back()) {
      std::size_t const bytes = bytes_within(word, width);
      if (bytes == word.size()) break;  // one character wider than the line
      lines.back() = word.substr(0, bytes);
      word.remove_prefix(bytes);
    }
    lines.back() = word;
  }
  return lines;
}

/// At most `width` wide, with "…" where something was left out.
inline std::string shortened(std::string_view text, int width) {
  if (display_width(text) <= width) return std::string(text);
  return std::string(text.substr(0, bytes_within(text, width - 1))) + "…";
}

inline std::string repeated(std::string_view text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

// -------------------------------------------------------------------------------------------------
// Numbers
// -------------------------------------------------------------------------------------------------

inline std::string formatted(char const* format, int digits, double x) {
  char text[400];
  std::snprintf(text, sizeof text, format, digits, x);
  return text;
}

/// 5.0e-09 as 5.0e-9: exponents without a plus sign and leading zeros.
inline std::string short_exponent(std::string text) {
  std::size_t const e = text.find('e');
  if (e == std::string::npos) return text;
  return text.substr(0, e + 1) + std::to_string(std::atoi(text.c_str() + e + 1));
}

/// To so many significant digits, trailing zeros left out.
inline std::string significant(double x, int digits) {
  return short_exponent(formatted("%.*g", digits, x));
}

/// A deviation in standard errors: its sign, and no more digits than one reads.
inline std::string deviation(double z) {
  double const size = std::abs(z);
  if (!(size < 9999.5)) return short_exponent(formatted("%+.*e", 1, z));
  return formatted("%+.*f", size < 9.995 ? 2 : size < 99.95 ? 1 : 0, z);
}

/// A probability of 0 to 1: 0.05, 1e-5, 0.9995, and never a 1 that is less.
inline std::string probability(double p) {
  if (p < 1 && p > 0.9999) return "> 0.9999";
  return significant(p, 4);
}

/// 1.6385 ± 0.0058: the error with two digits and the value to the same place; (5.000 ± 0.010)e-9
/// where that has too many digits, and the value alone where there is no error.
inline std::string with_error(double value, double error) {
  if (!(error > 0) || !std::isfinite(error) || !std::isfinite(value)) return significant(value, 7);
  double const largest = std::max(std::abs(value), error);
  bool const scaled = largest < 1e-4 || largest >= 1e7;
  int const exponent = scaled ? static_cast<int>(std::floor(std::log10(largest))) : 0;
  double const unit = std::pow(10.0, exponent);
  int const place = static_cast<int>(std::floor(std::log10(error / unit)));
  int const decimals = std::clamp(1 - place, 0, 15);
  std::string const text =
      formatted("%.*f", decimals, value / unit) + " ± " + formatted("%.*f", decimals, error / unit);
  return scaled ? "(" + text + ")e" + std::to_string(exponent) : text;
}

/// A span of time as one says it: 0 s, 0.42 s, 12 s, 3 min 20 s, 2 h 5 min.
inline std::string duration(double seconds) {
  if (!(seconds < 1e9)) return "long";
  if (seconds < 0.01) return "0 s";
  if (seconds < 9.95) return significant(seconds, 2) + " s";
  auto const whole = static_cast<long>(std::lround(seconds));
  if (whole < 60) return std::to_string(whole) + " s";
  if (whole < 3600) {
    return std::to_string(whole / 60) + " min " + std::to_string(whole % 60) + " s";
  }
  return std::to_string(whole / 3600) + " h " + std::to_string(whole % 3600 / 60) + " min";
}

}  // namespace ssm::theory::report
