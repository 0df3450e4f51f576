// SPDX-License-Identifier: Apache-2.0
// console.hpp: what a run has found, on a terminal, in lines of at most 100 columns.
#pragma once

#include <cstddef>
#include <ostream>
#include <string>
#include <vector>

#include "report/text.hpp"
#include "verify/summary.hpp"

namespace ssm::theory {

inline constexpr int console_width = 100;

/// Colour where a terminal shows it, nothing elsewhere.
struct paint {
  bool is_wanted = false;
  std::string operator()(char const* code, std::string const& text) const {
    return is_wanted ? std::string("\033[") + code + "m" + text + "\033[0m" : text;
  }
  std::string good(std::string const& text) const { return (*this)("32", text); }
  std::string bad(std::string const& text) const { return (*this)("1;31", text); }
  std::string strong(std::string const& text) const { return (*this)("1", text); }
};

/// Left-aligned where width < 0, as in printf; cut where it is too long.
inline std::string cell(std::string const& text, int width) {
  std::string const shown = report::shortened(text, std::abs(width));
  std::string const space = report::repeated(" ", std::abs(width) - report::display_width(shown));
  return width < 0 ? shown + space : space + shown;
}

/// A name and a text that may need several lines, indented under the name.
inline void print_entry(std::ostream& out, std::string const& name, std::string const& text) {
  int const indent = 12;
  std::string head = cell("  " + name, -indent);
  for (std::string const& line : report::wrap(text, console_width - indent)) {
    out << head << line << '\n';
    head = report::repeated(" ", indent);
  }
}

/// The widths of a row of findings, with a space between each.
inline constexpr int finding_widths[] = {-34, 6, -17, 8, 5, 9, 6, 5};

inline void print_findings(std::ostream& out, result const& r, paint const& in) {
  auto const row = [&](std::vector<std::string> const& cells) {
    for (std::size_t i = 0; i < cells.size(); ++i)
      out << (i ? " " : "") << cell(cells[i], finding_widths[i]);
  };
  std::string method;
  for (finding const& f : r.findings) {
    if (f.method != method) {
      method = f.method;
      row({method, "n", "value", "exact", "z", f.alternative_is_printed ? "printed" : "wrong", "z",
           "power"});
      out << '\n';
    }
    bool const is_random = f.standard_error > 0;
    row({"  " + f.setting, f.samples > 0 ? std::to_string(f.samples) : "-",
         report::with_error(f.value, f.standard_error), report::significant(f.exact, 5),
         is_random ? report::deviation(f.z_exact) : "-", report::significant(f.alternative, 5),
         is_random ? report::deviation(f.z_alternative) : "-",
         is_random ? report::significant(std::floor(f.power * 1000) / 1000, 3) : "-"});
    out << '\n';
    if (!f.accepted) out << "    " << in.bad("contradicts the exact form") << '\n';
    if (!f.decisive) out << "    no power to tell the two apart: shown, not counted\n";
    if (f.decisive && !f.rejected) out << "    " << in.bad("not rejected") << '\n';
  }
}

inline void print_claim(std::ostream& out, result const& r, paint const& in) {
  claim const& c = r.what;
  out << in.strong(c.id) << "  "
      << report::shortened(c.place, console_width - 2 - report::display_width(c.id)) << '\n';
  print_entry(out, "claim", c.statement);
  print_entry(out, "printed", c.printed);
  print_entry(out, "exact", c.exact);
  out << '\n';
  print_findings(out, r, in);
  out << '\n';
  std::string const reached = to_string(r.reached);
  out << "  verdict   " << (r.as_recorded() ? in.good(reached) : in.bad(reached))
      << (r.as_recorded() ? "" : std::string(", on record is: ") + to_string(c.recorded))
      << (r.is_complete() ? "" : " (stopped early)") << '\n';
  print_entry(out, "", c.remark);
  out << std::endl;
}

inline void print_legend(std::ostream& out) {
  print_entry(out, "value",
              "Monte Carlo mean ± its standard error, which follows from a variance "
              "known in closed form; or a number computed without chance.");
  print_entry(out, "z", "the value's distance from the number to the left, in standard errors.");
  print_entry(out, "levels",
              "a true value is rejected by chance with probability " +
                  report::significant(level_of_exact, 2) + " (|z| > " +
                  report::significant(two_sided_critical(level_of_exact), 3) +
                  "), a printed one that were true with " +
                  report::significant(level_of_printed, 2) + " (|z| > " +
                  report::significant(two_sided_critical(level_of_printed), 3) +
                  "). Where the paper is right, a value off by 5 % (\"wrong\") takes the place "
                  "of the printed one, at the first level.");
  print_entry(out, "power",
              "the probability of rejecting the printed or wrong number; below " +
                  report::significant(least_power, 2) + " a test is shown and does not count.");
  print_entry(out, "rows",
              "agree with the exact number and reject the other, unless they say more.");
  out << '\n';
}

inline void print_summary(std::ostream& out, verification const& v, paint const& in) {
  auto const line = [&](std::string const& id, std::string const& reached, std::string const& found,
                        std::string const& exact, std::string const& other,
                        std::string const& time) {
    out << cell(id, -16) << ' ' << reached << ' ' << cell(found, -16) << ' ' << cell(exact, 13)
        << ' ' << cell(other, 18) << ' ' << cell(time, 9) << '\n';
  };
  line("claim", cell("verdict", -17), "on record", "largest z", "smallest z", "time");
  line("", cell("", -17), "", "to the exact", "to the rejected", "");
  for (result const& r : v.results) {
    std::string const reached = cell(to_string(r.reached), -17);
    auto const z = [](std::optional<double> const& value) {
      return value ? report::deviation(*value) : std::string("-");
    };
    line(r.what.id, r.as_recorded() ? in.good(reached) : in.bad(reached),
         r.as_recorded() ? "as recorded" : to_string(r.what.recorded), z(largest_z_of_exact(r)),
         z(smallest_z_of_alternative(r)), report::duration(r.seconds));
  }
  out << '\n'
      << v.tests_of_exact()
      << " tests of true values: one or more rejects by chance with probability "
      << "at most " << report::significant(v.family_error(), 2) << ".\n";
  for (auto const& text : report::wrap(run_text(v), console_width)) out << text << '\n';
  if (v.is_stopped) {
    out << in.bad("Stopped early: not every claim has been put to the test.");
  } else if (v.all_as_recorded()) {
    out << in.good("Every verdict is the one on record.");
  } else {
    out << in.bad("Some verdicts are not the ones on record.");
  }
  out << std::endl;
}

}  // namespace ssm::theory
