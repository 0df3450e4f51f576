// SPDX-License-Identifier: Apache-2.0
// The parts that reports are made of: text, pictures and files.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "report/files.hpp"
#include "report/heat_map.hpp"
#include "report/html.hpp"
#include "report/svg.hpp"
#include "report/text.hpp"
#include "support/markup.hpp"

namespace ssm::theory {
namespace {

using strings = std::vector<std::string>;

double const nan = std::numeric_limits<double>::quiet_NaN();
double const infinity = std::numeric_limits<double>::infinity();

// -------------------------------------------------------------------------------------------------
// Text
// -------------------------------------------------------------------------------------------------

TEST(Text, CountsColumnsNotBytes) {
  EXPECT_EQ(report::display_width("abc"), 3);
  EXPECT_EQ(report::display_width("E‖h∞‖² → λ"), 10);
  EXPECT_EQ(report::display_width("e\u0301"), 1);  // a combining accent
  EXPECT_EQ(report::display_width("状態"), 4);
  EXPECT_EQ(report::display_width("\xff\xce"), 2);  // not UTF-8
}

TEST(Text, WrapsWithinTheWidthAndLosesNoWord) {
  std::string const text = "a state λ of ‖norm‖ 状態状態状態 and averyveryverylongword at the end";
  for (int width = 2; width < 80; ++width) {
    std::string joined;
    for (auto const& line : report::wrap(text, width)) {
      EXPECT_LE(report::display_width(line), width) << line;
      joined += line;
    }
    std::string letters = text;
    std::erase(letters, ' ');
    std::erase(joined, ' ');
    EXPECT_EQ(joined, letters) << width;
  }
  EXPECT_EQ(report::wrap("one\ntwo three", 5), (strings{"one", "two", "three"}));
  EXPECT_EQ(report::wrap("", 5), strings{""});
}

TEST(Text, ShortensWithAnEllipsis) {
  EXPECT_EQ(report::shortened("λλλλ", 4), "λλλλ");
  EXPECT_EQ(report::shortened("λλλλλ", 4), "λλλ…");
}

TEST(Numbers, HaveTheDigitsOfTheirError) {
  EXPECT_EQ(report::with_error(1.63847, 0.0058), "1.6385 ± 0.0058");
  EXPECT_EQ(report::with_error(22.97, 0.301), "22.97 ± 0.30");
  EXPECT_EQ(report::with_error(1234.5, 67.8), "1234 ± 68");
  EXPECT_EQ(report::with_error(5.0001e-9, 1e-11), "(5.000 ± 0.010)e-9");
  EXPECT_EQ(report::with_error(1.5, 0), "1.5");
  EXPECT_EQ(report::with_error(infinity, 1), "inf");
}

TEST(Numbers, AreAsLongAsOneReadsThem) {
  EXPECT_EQ(report::deviation(0.456), "+0.46");
  EXPECT_EQ(report::deviation(-9.996), "-10.0");
  EXPECT_EQ(report::deviation(121.7), "+122");
  EXPECT_EQ(report::deviation(-2.34e7), "-2.3e7");
  EXPECT_EQ(report::significant(5.00025e-9, 4), "5e-9");
  EXPECT_EQ(report::probability(1), "1");
  EXPECT_EQ(report::probability(0.999999), "> 0.9999");
  EXPECT_EQ(report::duration(1e-7), "0 s");
  EXPECT_EQ(report::duration(0.5), "0.5 s");
  EXPECT_EQ(report::duration(59.7), "1 min 0 s");
  EXPECT_EQ(report::duration(7500), "2 h 5 min");
  EXPECT_EQ(report::duration(infinity), "long");
}

// -------------------------------------------------------------------------------------------------
// Pictures
// -------------------------------------------------------------------------------------------------

TEST(Svg, IsWellFormedWhateverTheNumbers) {
  using report::scale;
  std::vector<std::vector<double>> const data = {{},
                                                 {1},
                                                 {nan},
                                                 {0, 0, 0},
                                                 {-1, 2, infinity, 3},
                                                 {1e-300, 1, 1e300},
                                                 {-1e9, nan, 0, 1e9},
                                                 {1, 1 + 1e-15}};
  for (scale const x_kind : {scale::linear, scale::log, scale::symlog}) {
    for (scale const y_kind : {scale::linear, scale::log, scale::symlog}) {
      for (auto const& x : data) {
        for (auto const& y : data) {
          report::series const s{.name = "<a> & \"b\"",
                                 .x = x,
                                 .y = y,
                                 .error = y,
                                 .line = true,
                                 .points = report::mark::diamond};
          std::string const picture = report::draw({.title = "1 < 2",
                                                    .x = {.label = "x", .kind = x_kind},
                                                    .y = {.label = "y", .kind = y_kind},
                                                    .curves = {s, s},
                                                    .guides = {{"g", nan, true}, {"", -1, false}}});
          ASSERT_EQ(test::complaint(picture), "") << picture;
          ASSERT_LT(picture.size(), 100000u);
        }
      }
    }
  }
}

TEST(Svg, HeatMapIsWellFormedAndLeavesOutWhatIsNotANumber) {
  report::heat_map map{.title = "t", .x_edges = {1, 10, 100, 1000}, .y_edges = {0, 1, 2}};
  map.x.kind = report::scale::log;
  map.values = {{1, 2, nan}, {infinity, 3, 4}};
  std::string const all = report::draw(map);
  EXPECT_EQ(test::complaint(all), "") << all;
  map.values = {};
  EXPECT_EQ(test::complaint(report::draw(map)), "");
  map.x_edges = map.y_edges = {};
  EXPECT_EQ(test::complaint(report::draw(map)), "");
}

TEST(Scale, TicksAreWithinTheAxisAndFarEnoughApart) {
  using report::scale;
  for (scale const kind : {scale::linear, scale::log, scale::symlog}) {
    for (double const high : {1.5, 30.0, 1e4, 1e15}) {
      double const low = kind == scale::log ? 1 / high : kind == scale::symlog ? -high : 0.3;
      report::placement const place({.kind = kind, .low = low, .high = high}, {}, 0, 600);
      double last = -1000;
      auto ticks = place.ticks(60);
      std::sort(ticks.begin(), ticks.end(), [](auto a, auto b) { return a.value < b.value; });
      int labelled = 0;
      for (auto const& t : ticks) {
        double const at = place(t.value);
        EXPECT_TRUE(at >= -0.01 && at <= 600.01) << t.value;
        if (t.label.empty()) continue;
        EXPECT_GT(at - last, 40) << t.label << " to " << high;
        last = at;
        ++labelled;
      }
      EXPECT_GE(labelled, 2) << high;
    }
  }
}

TEST(HtmlTable, PutsNumbersAndTheirHeadsOnTheRight) {
  std::string const table =
      report::html_table({"n", "of", "value"}, {{"1", "(not a number)", "(1.0 ± 0.1)e-9"},
                                                {"-2.5e3", "2K to 4K", "> 0.9999"},
                                                {"", "-", "<5"}});
  auto const count = [&](std::string const& part) {
    int found = 0;
    for (std::size_t at = 0; (at = table.find(part, at)) != std::string::npos; ++at) ++found;
    return found;
  };
  EXPECT_EQ(count("<th class=\"number\">"), 2);
  EXPECT_EQ(count("<td class=\"number\">"), 4);
  EXPECT_EQ(count("<td>"), 5);
  EXPECT_EQ(count("&lt;5"), 1);
  EXPECT_EQ(test::complaint(table), "");
}

// -------------------------------------------------------------------------------------------------
// Files
// -------------------------------------------------------------------------------------------------

TEST(Files, AreCompleteOrNotThere) {
  namespace fs = std::filesystem;
  fs::path const folder = fs::path(::testing::TempDir()) / "ssm_report_test";
  fs::remove_all(folder);
  fs::create_directory(folder);
  fs::path const file = folder / "a.json";

  report::require_writable(file);
  EXPECT_TRUE(fs::is_empty(folder)) << "the check leaves nothing behind";
  report::write_file(file, "first");
  report::write_file(file, "second");
  std::ifstream in(file);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), "second");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), {}), 1);

  fs::create_symlink(file, folder / "link");
  report::write_file(folder / "link", "third");
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(std::ifstream(file).peek(), 't');

  EXPECT_THROW(report::require_writable("/dev/null"), std::runtime_error) << "would replace it";
  fs::path const missing = folder / "none" / "a.json";
  EXPECT_THROW(report::require_writable(folder), std::runtime_error);
  EXPECT_THROW(report::require_writable(missing), std::runtime_error);
  EXPECT_THROW(report::write_file(missing, "x"), std::runtime_error);
  fs::remove_all(folder);
}

}  // namespace
}  // namespace ssm::theory
