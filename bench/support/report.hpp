// SPDX-License-Identifier: Apache-2.0
// report.hpp: what was measured, as lines on the console, JSON, a Markdown table and pictures.
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "report/files.hpp"
#include "report/svg.hpp"
#include "report/text.hpp"
#include "ssm/detail/json.hpp"
#include "support/machine.hpp"
#include "support/rows.hpp"

namespace ssm::bench {

namespace text = theory::report;

/// Everything that a program measured, and the times of an earlier run beside it.
struct measurements {
  provenance from = {};
  std::vector<result> results = {};
  std::string earlier_name = "";
  std::map<std::string, double> earlier_ns = {};  ///< by row

  /// The row that r's time is given relative to: of its own size, or else the last one before it,
  /// since what takes as long for every token need not be run at every size. nullptr: none.
  result const* reference_of(result const& r) const {
    result const* found = nullptr;
    for (result const& other : results) {
      if (other.what.operation + "/" + other.what.policy != r.what.relative_to) continue;
      if (other.runs.empty()) continue;
      found = &other;
      if (other.what.name() ==
          r.what.relative_to +
              r.what.name().substr((r.what.operation + "/" + r.what.policy).size())) {
        break;
      }
    }
    return found;
  }

  double times_reference(result const& r) const {
    result const* const reference = reference_of(r);
    return reference == nullptr ? std::nan("") : r.least() / reference->least();
  }

  double times_earlier(result const& r) const {
    auto const found = earlier_ns.find(r.what.name());
    return found == earlier_ns.end() ? std::nan("") : r.least() / found->second;
  }
};

// -------------------------------------------------------------------------------------------------
// Tables
// -------------------------------------------------------------------------------------------------

inline std::string shown(double x, int digits = 3) {
  return std::isfinite(x) ? text::significant(x, digits) : "";
}

inline std::string shown_bytes(double bytes) {
  if (bytes < 1024) return shown(bytes) + " B";
  if (bytes < 1024 * 1024) return shown(bytes / 1024) + " KiB";
  return shown(bytes / (1024 * 1024)) + " MiB";
}

inline std::vector<std::string> table_head(measurements const& all) {
  std::vector<std::string> head = {"row",     "ns",    "median", "most", "CPUs",
                                   "× floor", "× ref", "GB/s",   "heap"};
  if (!all.earlier_name.empty()) head.push_back("× " + all.earlier_name);
  return head;
}

inline std::vector<std::string> table_line(measurements const& all, result const& r) {
  if (!r.failure.empty()) return {r.what.name(), r.failure};
  if (r.runs.empty()) return {r.what.name(), "not run"};
  std::vector<std::string> cells = {r.what.name(),
                                    shown(r.least(), 4),
                                    shown(r.median(), 4),
                                    shown(r.runs.back().ns, 4),
                                    text::formatted("%.*f", 2, r.runs.front().cpus),
                                    shown(r.times_floor()),
                                    shown(all.times_reference(r)),
                                    shown(1e-9 * r.bytes_per_second()),
                                    shown_bytes(static_cast<double>(r.heap))};
  if (!all.earlier_name.empty()) cells.push_back(shown(all.times_earlier(r)));
  return cells;
}

/// Cells under each other; all but the first are on the right of their column.
inline std::string console_line(std::vector<std::string> const& cells, int name_width) {
  std::string line;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    int const width = i == 0 ? name_width : cells.size() == 2 ? 0 : 9;
    std::string const space = text::repeated(" ", width - text::display_width(cells[i]));
    line += i == 0 ? cells[i] + space : " " + space + cells[i];
  }
  return line + "\n";
}

inline std::string markdown_line(std::vector<std::string> const& cells) {
  std::string line = "|";
  for (auto const& cell : cells) line += " " + cell + " |";
  return line + "\n";
}

inline std::string name_of(resources const& with) {
  return name_of(with.instructions) + (with.scalar_bytes == 8 ? " f64, " : " f32, ") +
         std::to_string(with.threads) + (with.threads == 1 ? " thread" : " threads");
}

/// The floors that were measured, each on a line that starts with `mark`.
inline std::string rates_lines(std::string const& mark) {
  std::string lines;
  for (auto const& [with, r] : known_rates()) {
    lines += mark + name_of(with) + ": " + shown(1e-9 * r.multiply_adds) + " G multiply-adds/s, " +
             shown(1e-9 * r.exponentials) + " G exp2/s, copy " + shown(1e-9 * r.copied_bytes) +
             " GB/s\n";
  }
  return lines;
}

/// What times are given relative to, by operation.
inline std::string references(measurements const& all) {
  std::map<std::string, std::string> by_operation;
  for (result const& r : all.results) {
    if (!r.what.relative_to.empty()) by_operation[r.what.operation] = r.what.relative_to;
  }
  std::string text;
  for (auto const& [operation, reference] : by_operation) {
    text += (text.empty() ? "" : "; ") + operation + ": " + reference;
  }
  return text;
}

inline std::string markdown(measurements const& all) {
  auto const& from = all.from;
  std::string page = "# " + from.program + "\n\n" + from.processor + ", " + from.instructions +
                     ", " + std::to_string(from.threads) + " threads; " + from.compiler + ", `" +
                     from.flags + "`; commit " + from.commit + "\n\n";
  page += rates_lines("- ");
  page +=
      "\nTimes are in ns for one token of one channel, the least of the repetitions, at which rows "
      "take turns; real time, or on one thread processor time. CPUs: those that the program had "
      "meanwhile. × floor: relative to the time that the row's multiply-adds, exponentials and "
      "memory "
      "traffic take at these rates (copy: read and written). × ref: relative to another row (" +
      references(all) + "). Heap: the most that a call takes from operator new.\n\n";
  auto const head = table_head(all);
  page += markdown_line(head) + "|---|";
  for (std::size_t i = 1; i < head.size(); ++i) page += "---:|";
  page += "\n";
  for (result const& r : all.results) page += markdown_line(table_line(all, r));
  return page;
}

// -------------------------------------------------------------------------------------------------
// JSON
// -------------------------------------------------------------------------------------------------

inline nlohmann::json json_of(measurements const& all, result const& r) {
  auto const& w = r.what;
  nlohmann::json row = {{"name", w.name()},
                        {"operation", w.operation},
                        {"policy", w.policy},
                        {"scalar", w.scalar},
                        {"batch", w.size.batch},
                        {"length", w.size.length},
                        {"channels", w.size.channels},
                        {"states", w.size.states},
                        {"threads", w.with.threads},
                        {"floor_ns", w.floor_ns()},
                        {"instruction_set", name_of(w.with.instructions)},
                        {"peak_heap_bytes", r.heap},
                        {"error_of_allowed", r.error}};
  if (!r.failure.empty()) row["failure"] = r.failure;
  if (r.runs.empty()) return row;
  auto& times = row["ns_per_token_channel"] = {{"least", r.least()}, {"median", r.median()}};
  for (repetition const& each : r.runs) times["all"].push_back(each.ns);
  row["cpus"] = r.runs.front().cpus;
  row["times_floor"] = r.times_floor();
  row["bytes_per_second"] = r.bytes_per_second();
  if (result const* const reference = all.reference_of(r)) {
    row["reference"] = reference->what.name();
    row["times_reference"] = all.times_reference(r);
  }
  if (all.earlier_ns.contains(w.name())) row["times_" + all.earlier_name] = all.times_earlier(r);
  return row;
}

inline nlohmann::json json_of(measurements const& all) {
  auto const& from = all.from;
  nlohmann::json document = {{"program", from.program},
                             {"processor", from.processor},
                             {"instruction_set", from.instructions},
                             {"threads", from.threads},
                             {"compiler", from.compiler},
                             {"flags", from.flags},
                             {"commit", from.commit},
                             {"rows", nlohmann::json::array()}};
  for (auto const& [with, r] : known_rates()) {
    document["rates"].push_back({{"of", name_of(with)},
                                 {"multiply_adds_per_second", r.multiply_adds},
                                 {"exp2_per_second", r.exponentials},
                                 {"copied_bytes_per_second", r.copied_bytes}});
  }
  for (result const& r : all.results) document["rows"].push_back(json_of(all, r));
  return document;
}

/// The times in a report that json_of() made.
inline std::map<std::string, double> times_in(std::filesystem::path const& path) {
  std::ifstream file(path);
  require<std::runtime_error>(file.is_open(), path.string(), ": cannot be read");
  std::string const all{std::istreambuf_iterator<char>(file), {}};
  std::map<std::string, double> times;
  auto const document = ssm::detail::parse_json(all, path.string());
  for (auto const& row : document.at("rows")) {
    if (!row.contains("ns_per_token_channel")) continue;
    times[row.at("name")] = row.at("ns_per_token_channel").at("least");
  }
  return times;
}

// -------------------------------------------------------------------------------------------------
// Pictures: throughput against length, one for each operation, scalar and number of channels
// -------------------------------------------------------------------------------------------------

/// By name; none for what was measured at one length only.
inline std::map<std::string, std::string> pictures(measurements const& all) {
  std::map<std::string, text::chart> charts;
  std::map<std::string, std::map<double, int>> lengths;
  for (result const& r : all.results) {
    if (r.runs.empty()) continue;
    auto const& w = r.what;
    std::string name = w.operation + "-" + w.scalar + "-" + std::to_string(w.size.channels);
    std::replace(name.begin(), name.end(), ':', '-');
    text::chart& chart = charts[name];
    chart.title = w.operation + ", " + w.scalar + ", " + std::to_string(w.size.channels) +
                  " channels, " + std::to_string(w.size.states) + " states";
    chart.x = {.label = "length", .kind = text::scale::log};
    chart.y = {.label = "10⁶ tokens × channels per second", .kind = text::scale::log};
    auto curve = std::find_if(chart.curves.begin(), chart.curves.end(),
                              [&](auto const& c) { return c.name == w.policy; });
    if (curve == chart.curves.end()) {
      bool const is_floor = w.policy.starts_with("floor");
      chart.curves.push_back({.name = w.policy,
                              .line = true,
                              .dashed = is_floor,
                              .points = is_floor ? text::mark::none : text::mark::circle});
      curve = chart.curves.end() - 1;
    }
    curve->x.push_back(static_cast<double>(w.size.length));
    curve->y.push_back(1e3 / r.least());
    ++lengths[name][static_cast<double>(w.size.length)];
  }
  std::map<std::string, std::string> drawn;
  for (auto const& [name, chart] : charts) {
    if (lengths[name].size() > 1) drawn[name] = draw(chart);
  }
  return drawn;
}

/// PROGRAM.json, PROGRAM.md and the pictures, in a folder that exists.
inline void write_report(measurements const& all, std::filesystem::path const& folder) {
  std::string page = markdown(all);
  for (auto const& [name, svg] : pictures(all)) {
    text::write_file(folder / (name + ".svg"), svg);
    page += "\n![" + name + "](" + name + ".svg)\n";
  }
  text::write_file(folder / (all.from.program + ".json"), json_of(all).dump(2) + "\n");
  text::write_file(folder / (all.from.program + ".md"), page);
}

}  // namespace ssm::bench
