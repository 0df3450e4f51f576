// SPDX-License-Identifier: Apache-2.0
// scale.hpp: from numbers to places on an axis, linear or logarithmic, and where its ticks stand.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "report/text.hpp"

namespace ssm::theory::report {

enum class scale { linear, log, symlog };

struct axis {
  std::string label = "";
  scale kind = scale::linear;
  std::optional<double> low = std::nullopt;  ///< from the data where not given
  std::optional<double> high = std::nullopt;
  double linear_within =
      1;  ///< symlog is asinh(x / linear_within): linear near 0, then logarithmic
};

/// A mark on an axis; one without a label is a small one.
struct tick {
  double value;
  std::string label;
};

/// The extent of the data that an axis can show.
struct extent {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void include(double x, scale kind) {
    if (!std::isfinite(x) || (kind == scale::log && x <= 0)) return;
    low = std::min(low, x);
    high = std::max(high, x);
  }
};

/// "10⁻³"; the first few powers as plain numbers where `plain`.
inline std::string power_of_ten(int exponent, bool plain) {
  if (plain || exponent == 0 || exponent == 1) return significant(std::pow(10.0, exponent), 6);
  static constexpr char const* digits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
  std::string text = exponent < 0 ? "10⁻" : "10";
  for (char const c : std::to_string(std::abs(exponent))) text += digits[c - '0'];
  return text;
}

/// Places numbers of [low, high] between the pixels `from` and `to`.
class placement {
 public:
  /// `margin` is left free on either side where the axis takes its range from the data, as a
  /// fraction of the range.
  placement(axis const& what, extent data, double from, double to, double margin = 0.04)
      : kind_(what.kind), linear_within_(what.linear_within), from_(from), to_(to) {
    if (!(data.low <= data.high)) data = {kind_ == scale::log ? 0.1 : 0.0, 1.0};
    low_ = transformed(what.low.value_or(data.low));
    high_ = transformed(what.high.value_or(data.high));
    if (!std::isfinite(low_)) low_ = transformed(data.low);
    if (!std::isfinite(high_)) high_ = transformed(data.high);
    if (!(high_ > low_)) {
      double const half = low_ == 0 || kind_ == scale::log ? 0.5 : std::abs(low_) / 10;
      low_ -= half;
      high_ += half;
    }
    double const room = margin * (high_ - low_);
    if (!what.low) low_ -= room;
    if (!what.high) high_ += room;
  }

  /// The pixel of x; not finite where the axis cannot show it.
  double operator()(double x) const {
    return from_ + (transformed(x) - low_) / (high_ - low_) * (to_ - from_);
  }

  double low() const { return inverse(low_); }
  double high() const { return inverse(high_); }

  /// Ticks whose labels stand at least `spacing` pixels apart.
  std::vector<tick> ticks(double spacing) const {
    int const most = std::max(2, static_cast<int>(std::abs(to_ - from_) / spacing));
    if (kind_ == scale::linear) return linear_ticks(most);
    if (kind_ == scale::symlog) return symlog_ticks(most);
    return log_ticks(most);
  }

 private:
  double transformed(double x) const {
    if (kind_ == scale::linear) return x;
    if (kind_ == scale::symlog) return std::asinh(x / linear_within_);
    return x > 0 ? std::log10(x) : std::numeric_limits<double>::quiet_NaN();
  }

  double inverse(double t) const {
    if (kind_ == scale::linear) return t;
    return kind_ == scale::symlog ? linear_within_ * std::sinh(t) : std::pow(10.0, t);
  }

  bool shows(double x) const {
    double const slack = 1e-9 * (high_ - low_);
    double const t = transformed(x);
    return t >= low_ - slack && t <= high_ + slack;
  }

  std::vector<tick> linear_ticks(int most) const {
    double const least_step = (high() - low()) / most;
    double const decade = std::pow(10.0, std::floor(std::log10(least_step)));
    double step = 10 * decade;
    for (double const factor : {5.0, 2.0, 1.0}) {
      if (factor * decade >= least_step) step = factor * decade;
    }
    double const largest = std::max(std::abs(low()), std::abs(high()));
    bool const fixed = largest < 1e6 && step > 1e-6;
    int const decimals = std::max(0, -static_cast<int>(std::floor(std::log10(step) + 1e-9)));
    std::vector<tick> ticks;
    for (double i = std::ceil(low() / step - 1e-9); i * step <= high() + 1e-9 * step; ++i) {
      double const value = i == 0 ? 0 : i * step;
      std::string const size =
          fixed ? formatted("%.*f", decimals, std::abs(value)) : significant(std::abs(value), 6);
      ticks.push_back({value, (value < 0 ? "−" : "") + size});
    }
    return ticks;
  }

  std::vector<tick> log_ticks(int most) const {
    auto const first = static_cast<int>(std::ceil(low_ - 1e-9));
    auto const last = static_cast<int>(std::floor(high_ + 1e-9));
    int const decades = last - first + 1;
    std::vector<tick> ticks;
    if (decades < 3) {  // 1, 2 and 5 of each decade, or whatever is round where those are too few
      for (int k = first - 1; k <= last; ++k) {
        for (double const digit : {1.0, 2.0, 5.0}) {
          double const value = digit * std::pow(10.0, k);
          if (shows(value)) ticks.push_back({value, significant(value, 3)});
        }
      }
      if (ticks.size() >= 3) return ticks;
      return placement({.low = low(), .high = high()}, {}, from_, to_).linear_ticks(most);
    }
    int const stride = (decades + most - 1) / most;
    bool const plain = first >= -3 && last <= 3;
    for (int k = first - 1; k <= last; ++k) {
      if (stride > 4 && k % stride != 0) continue;  // too many for small ticks
      for (int digit = 1; digit <= (stride == 1 ? 9 : 1); ++digit) {
        double const value = digit * std::pow(10.0, k);
        bool const labelled = digit == 1 && (k % stride) == 0;
        if (shows(value)) ticks.push_back({value, labelled ? power_of_ten(k, plain) : ""});
      }
    }
    return ticks;
  }

  std::vector<tick> symlog_ticks(int most) const {
    auto const first = static_cast<int>(std::ceil(std::log10(2 * linear_within_) - 1e-9));
    double const largest = std::max({std::abs(low()), std::abs(high())});
    auto const last = static_cast<int>(std::floor(std::log10(largest) + 1e-9));
    if (last < first) {
      return placement({.low = low(), .high = high()}, {}, from_, to_).linear_ticks(most);
    }
    int count = 1;
    for (int k = first; k <= last; ++k) {
      count += shows(std::pow(10.0, k)) + shows(-std::pow(10.0, k));
    }
    int const stride = (count + most - 1) / most;
    bool const plain = last <= 3;
    std::vector<tick> ticks;
    if (shows(0)) ticks.push_back({0, "0"});
    for (int k = first; k <= last; ++k) {
      bool const labelled = (k - first + 1) % stride == 0;  // not too near the one at 0
      if (stride > 4 && !labelled) continue;
      std::string const label = labelled ? power_of_ten(k, plain) : "";
      double const value = std::pow(10.0, k);
      if (shows(value)) ticks.push_back({value, label});
      if (shows(-value)) ticks.push_back({-value, label.empty() ? "" : "−" + label});
    }
    return ticks;
  }

  scale kind_;
  double linear_within_;
  double from_, to_;
  double low_ = 0, high_ = 1;  // transformed
};

}  // namespace ssm::theory::report
