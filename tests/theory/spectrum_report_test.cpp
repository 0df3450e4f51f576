// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "spectrum/console.hpp"
#include "spectrum/page.hpp"
#include "spectrum/records.hpp"
#include "spectrum/run.hpp"
#include "support/layer_spectra.hpp"

namespace ssm::theory {
namespace {

spectrum_request const asked{.steps = 50, .from = 10, .to = 1000};

std::vector<trained_model> two_models() {
  auto slow = test::mamba1_layer(4, 2);
  for (double& step : slow.step_size) step /= 50;
  return {{"a \"model\" & <more>", "mamba", {test::mamba1_layer(4, 2), slow}},
          {"heads", "mamba2", {test::mamba2_layer(4, 2, 3, 2)}}};
}

std::vector<model_result> results_of(run_control& run) {
  std::vector<model_result> results;
  for (auto& model : plan(two_models(), asked, run)) {
    try {
      simulate(model, run);
    } catch (stopped const&) {
    }
    results.push_back(std::move(model.result));
  }
  return results;
}

index_t count(std::string const& text, std::string const& part) {
  index_t found = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; ++at) ++found;
  return found;
}

TEST(SpectrumReport, RanksTheLayersThatAreClosestToDivergence) {
  run_control run;
  auto const results = results_of(run);
  for (auto const& kind : kinds_of_closeness) {
    EXPECT_EQ(ranked(results[0].predictions, kind), (std::vector<std::size_t>{1, 0})) << kind.name;
  }
}

TEST(SpectrumReport, JsonHoldsEveryLayerAndItsVerdict) {
  run_control run;
  auto const results = results_of(run);
  auto const document = nlohmann::json::parse(json_of(results, asked).dump());
  ASSERT_EQ(document["models"].size(), 2u);
  auto const& model = document["models"][0];
  EXPECT_EQ(model["name"], "a \"model\" & <more>");
  EXPECT_TRUE(model["accepted"]);
  EXPECT_TRUE(model["complete"]);
  ASSERT_EQ(model["layers"].size(), 2u);
  EXPECT_EQ(model["layers"][1]["layer"], 1);
  EXPECT_EQ(model["layers"][1]["stationary_gain"], results[0].predictions[1].gain);
  EXPECT_EQ(model["layers"][1]["z"], results[0].findings[1]->z_exact);
  EXPECT_EQ(model["closest_to_divergence"]["slowest pole"], (std::vector<int>{1, 0}));
}

TEST(SpectrumReport, CsvHasARowForEachLayerAndAsManyFieldsAsItsHeading) {
  run_control run;
  std::istringstream lines(csv_of(results_of(run)));
  std::vector<std::string> rows;
  for (std::string line; std::getline(lines, line);) rows.push_back(line);
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_TRUE(rows[1].starts_with("\"a \"\"model\"\" & <more>\",mamba,0,")) << rows[1];
  EXPECT_TRUE(rows[3].starts_with("\"heads\",mamba2,0,")) << rows[3];
  for (auto const& row : rows) EXPECT_EQ(count(row, ","), count(rows[0], ",")) << row;
}

TEST(SpectrumReport, SaysWhatWasNotSimulated) {
  std::atomic<bool> const interrupted{true};
  run_control run;
  run.interrupted = &interrupted;
  auto const results = results_of(run);
  EXPECT_FALSE(results[0].is_complete());
  EXPECT_FALSE(results[0].is_accepted());
  EXPECT_EQ(verdict_text(results[0]), "STOPPED before layers 0 and 1. ");
  EXPECT_TRUE(json_of(results, asked)["models"][0]["layers"][0]["measured"].is_null());
  EXPECT_EQ(count(csv_of(results), ",,,,,,,,,,,\n"), 3);
  EXPECT_EQ(count(page_of(results, asked), "<svg xmlns"), 2 * 6);
}

TEST(SpectrumReport, SaysWhatContradictsAndWhatHasNoPower) {
  run_control run;
  run.samples = 2;
  auto results = results_of(run);
  EXPECT_NE(verdict_text(results[0]).find("NO POWER"), std::string::npos);
  results[0].findings[1]->accepted = false;
  EXPECT_TRUE(
      verdict_text(results[0]).starts_with("CONTRADICTED: layer 1 did not behave as predicted. "))
      << verdict_text(results[0]);
  EXPECT_FALSE(results[0].is_accepted());
}

TEST(SpectrumReport, FitsATerminalOf100Columns) {
  run_control run;
  std::ostringstream text;
  print_legend(text, layer_columns(asked));
  for (auto const& result : results_of(run)) print(text, result, asked);
  std::istringstream lines(text.str());
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(report::display_width(line), 100) << line;
  }
}

TEST(SpectrumReport, PageHoldsThePicturesAndEscapesNames) {
  run_control run;
  std::string const page = page_of(results_of(run), asked);
  EXPECT_EQ(count(page, "<svg xmlns"), 2 * 6);
  EXPECT_EQ(count(page, "<more>"), 0);
  EXPECT_EQ(count(page, "<h2>a &quot;model&quot; &amp; &lt;more&gt;</h2>"), 1);
  EXPECT_EQ(count(page, "nan"), 0);
}

}  // namespace
}  // namespace ssm::theory
