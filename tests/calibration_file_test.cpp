// SPDX-License-Identifier: Apache-2.0
// calibration_file_test.cpp: calibrations to files and back, and files that are none.
#include "ssm/model/calibration_file.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "support/calibration_problem.hpp"
#include "support/checkpoint_files.hpp"

namespace ssm::model {
namespace {

using optimize::adam_settings;
using optimize::spsa_run;
using optimize::spsa_settings;
using ssm::test::message_of;
using ssm::test::temporary_directory;
using ssm::test::toy_data;
using ssm::test::toy_loss;
using ssm::test::toy_loss_and_gradient;
using ssm::test::toy_model;
using ssm::test::toy_start;

calibration by_spsa(index_t iterations) {
  spsa_settings const settings{.iterations = iterations,
                               .domain = {.low = 0.01, .is_logarithmic = true},
                               .directions = 2,
                               .blocks_above = 0.5,
                               .averages_from = 5,
                               .seed = 0xffffffffffffffff};
  return calibrate(toy_model{}, toy_data(), toy_loss, toy_start(), settings, {.batch = 4});
}

calibration by_adam(index_t iterations) {
  return calibrate(toy_model{}, toy_data(), toy_loss_and_gradient, toy_start(),
                   adam_settings{.iterations = iterations, .domain = {.low = 0.001}});
}

TEST(CalibrationFile, WhatIsReadIsWhatWasWritten) {
  temporary_directory const folder;
  auto const path = folder.path() / "factors.json";
  for (auto const& c : {by_spsa(12), by_adam(12)}) {
    save(c, path);
    auto const again = load_calibration(path);
    EXPECT_EQ(to_json(again), to_json(c));
    EXPECT_EQ(again.factors, c.factors);
    EXPECT_EQ(again.factors_for(toy_model{}), c.factors);
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(CalibrationFile, ResumedFromAFileHasTheBitsOfAnUninterruptedRun) {
  auto const go_on = [](calibration const& from, auto const& loss) {
    auto c = calibration_of(to_json(from), "text");
    std::visit(
        [](auto& run) {
          run.settings.iterations = 30;
          run.best.status = optimize::status::running;
        },
        c.run);
    resume(toy_model{}, toy_data(), loss, c);
    return to_json(c);
  };
  EXPECT_EQ(go_on(by_spsa(11), toy_loss), to_json(by_spsa(30)));
  EXPECT_EQ(go_on(by_adam(11), toy_loss_and_gradient), to_json(by_adam(30)));
}

TEST(CalibrationFile, SavedAfterAnyIterationItGoesOn) {
  auto const whole = by_spsa(9);
  std::vector<std::string> saved;
  calibrate(toy_model{}, toy_data(), toy_loss, toy_start(), std::get<spsa_run>(whole.run).settings,
            {.batch = 4}, [&](calibration const& c) { saved.push_back(to_json(c)); });
  ASSERT_EQ(saved.size(), 9u);
  auto c = calibration_of(saved[3], "text");
  resume(toy_model{}, toy_data(), toy_loss, c);
  EXPECT_EQ(to_json(c), to_json(whole));
}

TEST(CalibrationFile, NumbersThatJsonLacksSurvive) {
  auto c = by_spsa(1);
  auto& run = std::get<spsa_run>(c.run);
  run.settings.domain.high = std::numeric_limits<double>::infinity();
  run.best.not_finite_loss = -std::numeric_limits<double>::infinity();
  auto const again = calibration_of(to_json(c), "text");
  EXPECT_EQ(again.found().not_finite_loss, run.best.not_finite_loss);
  EXPECT_EQ(to_json(again), to_json(c));
}

TEST(CalibrationFile, WhatIsNoCalibrationIsRefusedByName) {
  auto const refuse = [](std::string const& text) {
    return message_of([&] { calibration_of(text, "f.json"); });
  };
  EXPECT_NE(refuse("{").find("f.json is not valid JSON"), std::string::npos);
  auto const changed = [&](auto const& change) {
    auto json = nlohmann::json::parse(to_json(by_spsa(2)));
    change(json);
    return refuse(json.dump());
  };
  using json = nlohmann::json;
  EXPECT_EQ(changed([](json& j) { j["format"] = "other"; }),
            "f.json is not a calibration: format is \"other\", expected \"ssm calibration 1\"");
  EXPECT_EQ(changed([](json& j) { j["method"] = "newton"; }),
            "f.json is not a calibration: method is newton, expected spsa or adam");
  for (char const* member : {"format", "kind", "granularity", "shape", "factors", "model", "data",
                             "batch", "method", "run"}) {
    auto const message = changed([&](json& j) { j.erase(member); });
    EXPECT_NE(message.find(member), std::string::npos) << message;
  }
  EXPECT_NE(changed([](json& j) { j["factors"].push_back(1); }).find("3 numbers, expected 2"),
            std::string::npos);
  EXPECT_NE(changed([](json& j) { j["factors"][0] = -1; }).find("linear of layer 0"),
            std::string::npos);
  EXPECT_NE(changed([](json& j) { j["run"]["coordinates"].push_back(0); }).find("the run has 3"),
            std::string::npos);
  EXPECT_NE(changed([](json& j) {
              j["run"]["settings"]["step"]["exponent"] = 0;
            }).find("step has exponent 0"),
            std::string::npos);
  EXPECT_NE(
      changed([](json& j) { j["run"]["best"]["status"] = "fine"; }).find("status is \"fine\""),
      std::string::npos);
}

TEST(CalibrationFile, FilesThatCannotBeReadOrWrittenAreNamed) {
  temporary_directory const folder;
  auto const missing = folder.path() / "none" / "f.json";
  EXPECT_EQ(message_of([&] { load_calibration(missing); }),
            missing.string() + ": cannot be opened");
  auto const c = by_adam(1);
  EXPECT_NE(message_of([&] { save(c, missing); }).find("cannot be written"), std::string::npos);
  // a folder in the way: nothing is left beside it
  std::filesystem::create_directories(folder.path() / "f.json" / "in it");
  EXPECT_NE(message_of([&] { save(c, folder.path() / "f.json"); }).find("cannot be written"),
            std::string::npos);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

}  // namespace
}  // namespace ssm::model
