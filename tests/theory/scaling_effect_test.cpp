// SPDX-License-Identifier: Apache-2.0
#include "spectrum/scaling_effect.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "spectrum/console.hpp"
#include "spectrum/page.hpp"
#include "spectrum/records.hpp"
#include "support/layer_spectra.hpp"
#include "support/oracle.hpp"

namespace ssm::theory {
namespace {

spectrum_request const asked{.steps = 50, .from = 4, .to = 1000};

/// Horizons of up to 25 steps.
trained_model slow(layer_spectrum layer, char const* type) {
  auto slower = layer;
  for (double& step : slower.step_size) step /= 7;
  return {"slow & \"steady\"", type, {layer, slower}};
}
trained_model channels() {
  return slow(test::mamba1_layer(4, 2), "mamba");
}
trained_model heads() {
  return slow(test::mamba2_layer(4, 2, 3, 2), "mamba2");
}

TEST(ScalingRequest, FactorsAreReadInOrderAndTheSameForAllLayers) {
  auto const factors = factors_of(channels(), {.factors = "power=0.9,step=2"}, 1, 2);
  EXPECT_EQ(factors.kind(), (scaling_kind{.power = true, .step = true}));
  EXPECT_EQ(factors.each(), granularity::layer);
  EXPECT_EQ(std::vector(factors.numbers().begin(), factors.numbers().end()),
            (std::vector<double>{0.9, 0.9, 2, 2}));
}

TEST(ScalingRequest, WhatIsNoListOfFactorsIsRefused) {
  for (char const* text : {"linear", "step=1,linear=2", "linear=1,linear=1", "linear=1,", ",step=1",
                           "linear=one", "linear=1 ", "A=2", "step=0", "linear=nan", "power=inf"}) {
    EXPECT_THROW(factors_of(channels(), {.factors = text}, 1, 2), domain_error) << text;
  }
  EXPECT_EQ(test::message_of<domain_error>(
                [] { factors_of(channels(), {.factors = "step=1,power=2"}, 1, 2); }),
            "--scale: is \"step=1,power=2\", expected linear=S,power=S,step=S or some of them in "
            "this order");
}

TEST(ScalingRequest, SaysWhatItIs) {
  EXPECT_EQ(text_of({.factors = "step=2"}), "step=2");
  EXPECT_EQ(text_of({.match = scaling_kind{.linear = true}, .each = granularity::head}),
            "norms matched by linear for each head");
  EXPECT_EQ(text_of({.winsorize = 100}), "horizons of at most 100 steps");
  EXPECT_FALSE(scaling_request{});
}

TEST(ScalingEffect, OfMatchedNormsKeepsTheEnergyOfEveryLayerOrHead) {
  for (auto const kind : {scaling_kind{.linear = true}, scaling_kind{.step = true}}) {
    for (auto const each : {granularity::layer, granularity::head}) {
      auto const effect = effect_of(heads(), {.match = kind, .each = each}, asked);
      ASSERT_EQ(effect.parts.size(), each == granularity::head ? 8u : 2u);
      EXPECT_EQ(effect.parts[1].name, each == granularity::head ? "0.1" : "1");
      for (auto const& part : effect.parts) EXPECT_NEAR(part.kept(), 1, 1e-13) << part.name;
      EXPECT_GT(effect.parts.back().before.growth, 1.01);
    }
  }
}

TEST(ScalingEffect, TheModelThatIsSimulatedHasTheScaledSpectra) {
  auto const before = channels();
  auto const effect = effect_of(before, {.factors = "linear=3,step=0.5"}, asked);
  EXPECT_EQ(effect.after.name, "slow & \"steady\", linear=3,step=0.5");
  for (std::size_t i = 0; i < 2; ++i) {
    auto const &from = before.layers[i], &to = effect.after.layers[i];
    EXPECT_EQ(to.states(), from.states());
    for (index_t c = 0; c < 4; ++c) {
      EXPECT_EQ(to.step_size(c), 0.5 * from.step_size(c));
      for (index_t n = 0; n < 2; ++n) EXPECT_EQ(to.eigenvalue(c, n), 3 * from.eigenvalue(c, n));
    }
    auto const after = predict(to, asked.from, asked.to);
    EXPECT_EQ(effect.parts[i].after.gain, after.gain);
    EXPECT_EQ(effect.parts[i].factors, "3, 0.5");
  }
}

TEST(ScalingEffect, WinsorizedFactorsAreShownAsARange) {
  auto const effect = effect_of(channels(), {.winsorize = 10}, asked);
  EXPECT_EQ(effect.parts[0].factors, "1-2.5");  // 1/(0.4·0.1) = 25 steps
  EXPECT_NEAR(effect.parts[0].after.horizon.largest, 10, 1e-14);
}

TEST(ScalingEffect, FitsATerminalAndAPage) {
  auto const effect =
      effect_of(heads(), {.match = scaling_kind{.linear = true}, .each = granularity::head}, asked);
  std::ostringstream text;
  print_legend(text, effect_columns(asked));
  print(text, effect, asked);
  std::istringstream lines(text.str());
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    EXPECT_LE(report::display_width(line), 100) << line;
  }
  EXPECT_GT(count, 8 + 12);

  std::string const page = page_of({}, asked, {effect});
  std::size_t pictures = 0;
  for (std::size_t at = 0; (at = page.find("<svg xmlns", at)) != page.npos; ++at) ++pictures;
  EXPECT_EQ(pictures, 2u);
  EXPECT_NE(page.find("slow &amp; &quot;steady&quot; under the scaling norms matched"), page.npos);
  EXPECT_EQ(page.find("nan"), page.npos);
}

TEST(ScalingEffect, JsonHoldsAllFactorsAndEveryPart) {
  auto const effect = effect_of(
      channels(), {.match = scaling_kind{.linear = true}, .each = granularity::channel_and_state},
      asked);
  auto const document = nlohmann::json::parse(json_of({}, asked, {effect}).dump());
  auto const& found = document["scalings"][0];
  EXPECT_EQ(found["kind"], "linear");
  EXPECT_EQ(found["granularity"], "channel-and-state");
  EXPECT_EQ(found["shape"], (std::vector<int>{2, 4, 2}));
  auto const factors = found["factors"].get<std::vector<double>>();
  scaling_factors<double> const read(scaling_kind_named("linear"),
                                     granularity_named("channel-and-state"), {2, 4, 2}, factors);
  EXPECT_EQ(read, effect.factors);
  ASSERT_EQ(found["layers"].size(), 2u);
  EXPECT_EQ(found["layers"][1]["after"]["energy_to"], effect.parts[1].after.longer_energy);
  EXPECT_EQ(found["layers"][1]["kept"], effect.parts[1].kept());
}

}  // namespace
}  // namespace ssm::theory
