// SPDX-License-Identifier: Apache-2.0
// device_report.cuh: what was measured on a GPU beside its copy rate: console, Markdown, JSON, SVG.
#pragma once

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "report/files.hpp"
#include "report/svg.hpp"
#include "report/text.hpp"
#include "ssm/config.hpp"
#include "support/device_timer.cuh"

namespace ssm::bench {

namespace text = theory::report;

/// One row of the table.
struct device_row {
  std::string operation;  ///< "linear_scan", or the name of a baseline
  std::string scalar;     ///< of storage: "f32"
  std::string layout;     ///< which axis is innermost: "time", "channels"
  index_t rows = 1;
  index_t length = 1;
  double bytes = 0;           ///< that an element needs at least, read and written
  double work = 0;            ///< that an element needs at least, of the kind of the report
  std::string rows_are = "";  ///< where there is more to say than how many: "init/8x2048"

  std::string name() const {
    return operation + "/" + scalar + "/" + layout + "/" +
           (rows_are.empty() ? std::to_string(rows) : rows_are) + "x" + std::to_string(length);
  }
  double elements() const { return static_cast<double>(rows) * static_cast<double>(length); }
  double all_bytes() const { return bytes * elements(); }
};

/// A row and what came of it. Bytes per second count what the problem needs, whatever was moved.
struct device_result {
  device_row what;
  timed_call call = {};
  double copied = 0;       ///< bytes per second of copies that took turns with it
  double copied_own = 0;   ///< the same of copies of as many bytes
  double computed = 0;     ///< work per second of a kernel that does nothing else, likewise
  double relative_l2 = 0;  ///< error of all outputs
  double of_allowed = 0;   ///< largest error of an output, as a multiple of what is allowed
  std::string note = "";   ///< how it was run
  std::string failure = "";

  double bytes_per_second() const { return what.all_bytes() / call.median(); }
  double share() const { return bytes_per_second() / copied; }
  double share_of_own() const { return bytes_per_second() / copied_own; }
  double share_of_work() const { return what.work * what.elements() / call.median() / computed; }
};

struct device_provenance {
  std::string program;
  std::string device;
  std::string compiler;
  std::string flags;
  std::string commit;
};

/// What else limits the rows of a report beside memory; no name: nothing.
struct work_kind {
  std::string name = "";   ///< "exponentials"
  std::string rate = "";   ///< a column: "Texp/s"
  std::string share = "";  ///< "% of exp"
  std::string means = "";  ///< what that is a share of
};

struct device_measurements {
  device_provenance from;
  std::vector<device_result> results = {};
  work_kind work = {};
  bool has_own_copies = false;  ///< each row beside a copy of its own size

  bool has_work() const { return !work.name.empty(); }
};

inline device_provenance this_device(std::string const& program, std::string const& flags,
                                     std::string const& commit) {
  int device = 0, driver = 0, runtime = 0;
  cudaDeviceProp properties{};
  gpu::check(cudaGetDevice(&device), "cudaGetDevice");
  gpu::check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  gpu::check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  gpu::check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  auto const version = [](int v) {
    return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10);
  };
  return {program,
          std::string(properties.name) + ", driver for CUDA " + version(driver) + ", runtime " +
              version(runtime),
          "nvcc " + std::to_string(__CUDACC_VER_MAJOR__) + "." +
              std::to_string(__CUDACC_VER_MINOR__) + ", g++ " __VERSION__,
          flags, commit};
}

// -------------------------------------------------------------------------------------------------
// Tables
// -------------------------------------------------------------------------------------------------

inline std::vector<std::string> device_table_head(device_measurements const& all) {
  auto const& work = all.work;
  std::vector<std::string> head = {"row", "µs", "p10", "p90", "TB/s", "copy TB/s", "% of copy"};
  if (all.has_own_copies) head.push_back("% of own");
  if (!work.name.empty()) head.insert(head.end(), {work.rate, work.share});
  head.insert(head.end(), {"rel. L2", "of allowed"});
  if (!work.name.empty()) head.push_back("note");
  return head;
}

inline std::vector<std::string> device_table_line(device_result const& r,
                                                  device_measurements const& all) {
  bool const has_work = all.has_work();
  if (!r.failure.empty()) return {r.what.name(), r.failure};
  auto const shown = [](double x, int digits) { return text::significant(x, digits); };
  std::vector<std::string> line = {r.what.name(),
                                   shown(1e6 * r.call.median(), 5),
                                   shown(1e6 * r.call.quantile(0.1), 5),
                                   shown(1e6 * r.call.quantile(0.9), 5),
                                   text::formatted("%.*f", 3, 1e-12 * r.bytes_per_second()),
                                   text::formatted("%.*f", 3, 1e-12 * r.copied),
                                   text::formatted("%.*f", 1, 100 * r.share())};
  if (all.has_own_copies) line.push_back(text::formatted("%.*f", 1, 100 * r.share_of_own()));
  if (has_work) {
    line.push_back(text::formatted("%.*f", 3, 1e-12 * r.computed));
    line.push_back(text::formatted("%.*f", 1, 100 * r.share_of_work()));
  }
  line.insert(line.end(), {shown(r.relative_l2, 2), shown(r.of_allowed, 2)});
  if (has_work) line.push_back(r.note);
  return line;
}

/// Cells under each other; all but the first are on the right of their column.
inline std::string device_console_line(std::vector<std::string> const& cells) {
  std::string line;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    int const width = i == 0 ? 64 : cells.size() == 2 ? 0 : 10;
    std::string const space = text::repeated(" ", width - text::display_width(cells[i]));
    line += i == 0 ? cells[i] + space : " " + space + cells[i];
  }
  return line + "\n";
}

inline std::string device_markdown(device_measurements const& all) {
  auto const& from = all.from;
  std::string page = "# " + from.program + "\n\n" + from.device + "; " + from.compiler + ", `" +
                     from.flags + "`; commit " + from.commit + "\n\n";
  page +=
      "Rows are operation/storage/innermost axis/rows x length. Medians, and the tenth and "
      "ninetieth percent, of calls that take turns with each other and with a copy; several calls "
      "in a row where one is short, ours in a CUDA graph. TB/s count the bytes that the problem "
      "needs at least; copy: read and written by cudaMemcpyAsync on the device. Errors are of all "
      "outputs against double precision: relative L2, and the largest as a multiple of its bound. "
      "What fits in the cache of the device stays there between calls.";
  if (all.has_own_copies) {
    page +=
        " % of own: of the rate of a copy of as many bytes, or of the other copy if that is "
        "smaller.";
  }
  if (all.has_work()) page += " " + all.work.share + ": " + all.work.means + ".";
  page += "\n\n";
  auto const line = [&](std::vector<std::string> const& cells) {
    page += "|";
    for (auto const& cell : cells) page += " " + cell + " |";
    page += "\n";
  };
  auto const head = device_table_head(all);
  line(head);
  page += "|---|" + text::repeated("---:|", static_cast<int>(head.size()) - 1) + "\n";
  for (device_result const& r : all.results) line(device_table_line(r, all));
  return page;
}

// -------------------------------------------------------------------------------------------------
// JSON, picture, files
// -------------------------------------------------------------------------------------------------

inline nlohmann::json json_of(device_measurements const& all) {
  auto const& from = all.from;
  nlohmann::json document = {{"program", from.program},   {"device", from.device},
                             {"compiler", from.compiler}, {"flags", from.flags},
                             {"commit", from.commit},     {"rows", nlohmann::json::array()}};
  for (device_result const& r : all.results) {
    auto const& w = r.what;
    nlohmann::json row = {{"name", w.name()},
                          {"operation", w.operation},
                          {"scalar", w.scalar},
                          {"layout", w.layout},
                          {"rows", w.rows},
                          {"length", w.length},
                          {"bytes_per_element", w.bytes},
                          {"relative_l2", r.relative_l2},
                          {"error_of_allowed", r.of_allowed},
                          {"note", r.note}};
    if (!r.failure.empty()) {
      row["failure"] = r.failure;
    } else {
      row["seconds"] = {{"median", r.call.median()}, {"all", r.call.seconds}};
      row["bytes_per_second"] = r.bytes_per_second();
      row["copied_bytes_per_second"] = r.copied;
      row["share_of_copy"] = r.share();
      if (all.has_own_copies) row["share_of_own_copy"] = r.share_of_own();
      if (all.has_work()) {
        row[all.work.name + "_per_element"] = w.work;
        row["computed_" + all.work.name + "_per_second"] = r.computed;
        row["share_of_" + all.work.name] = r.share_of_work();
      }
    }
    document["rows"].push_back(row);
  }
  return document;
}

/// Shares of a limit, of results that curve_of() names ("": not shown), against length.
template <class CurveOf, class Share>
std::string share_picture(device_measurements const& all, std::string const& title,
                          std::string const& limit, CurveOf const& curve_of, Share const& share) {
  std::map<std::string, std::map<double, double>> curves;
  for (device_result const& r : all.results) {
    std::string const name = r.failure.empty() ? curve_of(r) : "";
    if (!name.empty()) curves[name][static_cast<double>(r.what.length)] = 100 * share(r);
  }
  text::chart chart{.title = title};
  chart.x = {.label = "length", .kind = text::scale::log};
  chart.y = {.label = "% of the rate of " + limit, .low = 0};
  chart.guides.push_back({.name = limit, .at = 100});
  for (auto const& [name, points] : curves) {
    if (points.size() < 2) continue;
    text::series curve{.name = name, .line = true, .points = text::mark::circle};
    for (auto const& [x, y] : points) {
      curve.x.push_back(x);
      curve.y.push_back(y);
    }
    chart.curves.push_back(curve);
  }
  return chart.curves.empty() ? "" : draw(chart);
}

/// PROGRAM.json, PROGRAM.md and PROGRAM.svg in a folder that exists.
inline void write_report(device_measurements const& all, std::string const& picture,
                         std::filesystem::path const& folder) {
  std::string const name = all.from.program;
  std::string page = device_markdown(all);
  if (!picture.empty()) {
    text::write_file(folder / (name + ".svg"), picture);
    page += "\n![" + name + "](" + name + ".svg)\n";
  }
  text::write_file(folder / (name + ".json"), json_of(all).dump(2) + "\n");
  text::write_file(folder / (name + ".md"), page);
}

}  // namespace ssm::bench
