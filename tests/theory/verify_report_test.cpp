// SPDX-License-Identifier: Apache-2.0
// What verify prints and writes: fits, parses, and keeps every number.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "report/text.hpp"
#include "support/markup.hpp"
#include "verify/console.hpp"
#include "verify/page.hpp"
#include "verify/records.hpp"
#include "verify/summary.hpp"

namespace ssm::theory {
namespace {

using strings = std::vector<std::string>;

double const nan = std::numeric_limits<double>::quiet_NaN();
double const infinity = std::numeric_limits<double>::infinity();

/// Awkward words and numbers.
finding awkward(double value, double error) {
  finding f;
  f.setting = "U[0, 1-1e-12], \"d\" = 32, m = 16, t = 123456789, <and> many more parameters";
  f.method = "averaged over everything that has a closed form & some, more";
  f.samples = 123456789;
  f.value = value;
  f.standard_error = error;
  f.exact = 1.635799433;
  f.alternative = 0.922628448;
  f.z_exact = -1234.5;
  f.z_alternative = infinity;
  f.power = 0.123456789;
  return f;
}

verification awkward_run() {
  result r;
  r.what.id = "section-99.99-(b)";
  r.what.place = std::string(300, 'p');
  r.what.statement = "The <norm> of \"h\" & more, " + std::string(200, 's');
  r.what.printed = "E‖h∞‖² = Π W, 状態";
  r.what.exact = "line one\nline two";
  r.what.remark = std::string(250, 'x');
  r.what.recorded = verdict::holds_as_bound;
  r.what.experiments.resize(6);
  r.findings = {awkward(1.6385, 0.0058), awkward(-1.23456e-12, 3e-14), awkward(nan, 0.1),
                awkward(infinity, 0), awkward(-98765432.1, 123.4)};
  r.findings[0].accepted = r.findings[1].accepted = true;
  r.findings[1].rejected = true;
  r.findings[4].decisive = false;
  verification v;
  v.seed = 18446744073709551615u;
  v.results = {r, r};
  v.is_stopped = true;
  return v;
}

TEST(Console, FitsATerminalOf100Columns) {
  std::ostringstream text;
  verification const v = awkward_run();
  print_legend(text);
  for (result const& r : v.results) print_claim(text, r, {});
  print_summary(text, v, {});
  std::istringstream lines(text.str());
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(report::display_width(line), console_width) << line;
  }
}

TEST(Console, HasNoColourUnlessWanted) {
  verification const v = awkward_run();
  std::ostringstream plain, coloured;
  print_summary(plain, v, {});
  print_summary(coloured, v, {.is_wanted = true});
  EXPECT_EQ(plain.str().find('\033'), std::string::npos);
  EXPECT_NE(coloured.str().find('\033'), std::string::npos);
}

/// The fields of a CSV file by the rules of RFC 4180.
std::vector<strings> parsed_csv(std::string const& text) {
  std::vector<strings> rows{{""}};
  bool is_quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    char const c = text[i];
    std::string& field = rows.back().back();
    if (is_quoted && c == '"' && i + 1 < text.size() && text[i + 1] == '"') {
      field += text[++i];
    } else if (c == '"') {
      is_quoted = !is_quoted;
    } else if (!is_quoted && c == ',') {
      rows.back().emplace_back();
    } else if (!is_quoted && c == '\n') {
      rows.push_back({""});
    } else {
      field += c;
    }
  }
  rows.pop_back();  // the file ends with a line end
  return rows;
}

TEST(Records, CsvHasARowForEachFindingAndKeepsItsText) {
  verification const v = awkward_run();
  auto const rows = parsed_csv(csv_of(v));
  ASSERT_EQ(rows.size(), 1 + 2 * 5u);
  for (auto const& row : rows) ASSERT_EQ(row.size(), rows[0].size());
  auto const column = [&](std::string const& name) {
    auto const found = std::find(rows[0].begin(), rows[0].end(), name);
    EXPECT_NE(found, rows[0].end()) << name;
    return static_cast<std::size_t>(found - rows[0].begin());
  };
  finding const& first = v.results[0].findings[0];
  EXPECT_EQ(rows[1][column("claim")], v.results[0].what.id);
  EXPECT_EQ(rows[1][column("setting")], first.setting);
  EXPECT_EQ(rows[1][column("method")], first.method);
  EXPECT_EQ(std::stod(rows[1][column("value")]), first.value);
  EXPECT_EQ(std::stod(rows[1][column("exact")]), first.exact);
}

TEST(Records, JsonReadsBackAsWritten) {
  verification const v = awkward_run();
  auto const document = nlohmann::json::parse(json_of(v).dump());
  EXPECT_EQ(document["seed"], v.seed);
  EXPECT_EQ(document["stopped"], true);
  ASSERT_EQ(document["claims"].size(), 2u);
  auto const& claim = document["claims"][1];
  EXPECT_EQ(claim["statement"], v.results[1].what.statement);
  EXPECT_EQ(claim["recorded"], "holds as a bound");
  EXPECT_EQ(claim["complete"], false);
  ASSERT_EQ(claim["findings"].size(), 5u);
  finding const& f = v.results[1].findings[1];
  auto const& read = claim["findings"][1];
  EXPECT_EQ(read["setting"], f.setting);
  EXPECT_EQ(read["samples"], f.samples);
  EXPECT_EQ(read["value"], f.value);
  EXPECT_EQ(read["standard_error"], f.standard_error);
  EXPECT_EQ(read["power"], f.power);
  EXPECT_EQ(read["rejected"], true);
  EXPECT_TRUE(read["z_alternative"].is_null()) << "infinite";
  EXPECT_TRUE(claim["findings"][2]["value"].is_null()) << "not a number";
}

TEST(Summary, CountsTheTestsOfTrueValues) {
  verification v = awkward_run();
  EXPECT_EQ(v.tests_of_exact(), 2 * 4);
  EXPECT_NEAR(v.family_error(), 8 * level_of_exact, 1e-15);
  EXPECT_FALSE(v.all_as_recorded());
  EXPECT_EQ(*largest_z_of_exact(v.results[0]), -1234.5);
}

TEST(Page, IsWellFormedAndEscapesWhatItIsGiven) {
  std::string const page = page_of(awkward_run());
  EXPECT_EQ(test::complaint(page), "");
  EXPECT_EQ(page.find("<norm>"), std::string::npos);
  EXPECT_NE(page.find("The &lt;norm&gt; of &quot;h&quot; &amp; more"), std::string::npos);
  for (char const* elsewhere : {"href=\"http", "src=", "url(", "@import"}) {
    EXPECT_EQ(page.find(elsewhere), std::string::npos) << elsewhere;
  }
}

}  // namespace
}  // namespace ssm::theory
