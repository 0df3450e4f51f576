// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <utility>

#include "spectrum/prediction.hpp"
#include "spectrum/trained_spectrum.hpp"
#include "support/checkpoint_files.hpp"
#include "support/layer_spectra.hpp"

namespace ssm::theory {
namespace {

using test::mamba1_layer;

TEST(Prediction, OfOneDecayIsThatOfThePointLaw) {
  auto layer = mamba1_layer(1, 1);
  layer.step_size(0) = 0.01;
  layer.eigenvalue(0, 0) = -0.5;  // λ = e^-0.005, 200 steps
  layer_prediction const found = predict(layer, 100, 1000);
  double const square = std::exp(-0.01), limit = 1 / (1 - square);
  EXPECT_NEAR(found.decay.median, std::exp(-0.005), 1e-15);
  EXPECT_NEAR(found.decay_without_step.median, std::exp(-0.5), 1e-15);
  EXPECT_NEAR(found.horizon.largest, 200, 1e-10);
  EXPECT_NEAR(found.gain, limit, 1e-12 * limit);
  EXPECT_NEAR(found.equal_gain, limit, 1e-12 * limit);
  EXPECT_NEAR(found.uniform_gain, limit, 1e-12 * limit);
  EXPECT_NEAR(found.printed_gain, std::exp(-0.005) * limit, 1e-12 * limit);
  EXPECT_NEAR(found.gain_from, (1 - std::exp(-1.0)) * limit, 1e-12 * limit);
  EXPECT_NEAR(found.growth, (1 - std::exp(-10.0)) / (1 - std::exp(-1.0)), 1e-12);
}

TEST(Prediction, WeighsStatesByTheInputThatTheyGet) {
  auto layer = mamba1_layer(2, 1);
  layer.step_size(0) = 1;
  layer.step_size(1) = 3;
  layer.eigenvalue(0, 0) = -0.5;
  layer.eigenvalue(1, 0) = -1;
  double const slow = 1 / (1 - std::exp(-1.0)), fast = 1 / (1 - std::exp(-6.0));
  layer_prediction const found = predict(layer, 1, 1);
  EXPECT_NEAR(found.gain, (slow + 9 * fast) / 10, 1e-14);
  EXPECT_NEAR(found.equal_gain, (slow + fast) / 2, 1e-14);
  EXPECT_DOUBLE_EQ(found.gain_from, 1);
  EXPECT_DOUBLE_EQ(found.growth, 1);
  EXPECT_NEAR(found.horizon.least, 1.0 / 3, 1e-15);
  EXPECT_NEAR(found.horizon.median, (2 + 1.0 / 3) / 2, 1e-15);
}

TEST(Prediction, RefusesStepsThatRunBackward) {
  EXPECT_THROW(predict(mamba1_layer(1, 1), 0, 10), domain_error);
  EXPECT_THROW(predict(mamba1_layer(1, 1), 10, 9), domain_error);
}

// -------------------------------------------------------------------------------------------------
// Models on disk
// -------------------------------------------------------------------------------------------------
std::filesystem::path const data = SSM_TEST_DATA;

TEST(TrainedSpectrum, HasTheShapesOfMamba1) {
  trained_model const model = load_trained_model(data / "tiny-mamba");
  EXPECT_EQ(model.name, "tiny-mamba");
  EXPECT_EQ(model.type, "mamba");
  ASSERT_EQ(model.layers.size(), 2u);
  model::checkpoint const file{data / "tiny-mamba"};
  auto const A_log = file.read<double, 2>("backbone.layers.1.mixer.A_log");
  auto const bias = file.read<double, 1>("backbone.layers.1.mixer.dt_proj.bias");
  layer_spectrum const& layer = model.layers[1];
  ASSERT_EQ(layer.eigenvalue.extents(), A_log.extents());
  ASSERT_EQ(layer.step_size.extents(), bias.extents());
  EXPECT_FALSE(layer.has_heads);
  EXPECT_EQ(layer.groups, 1);
  EXPECT_EQ(layer.channels(), A_log.extent(0));
  EXPECT_EQ(layer.states(), A_log.extent(1));
  EXPECT_DOUBLE_EQ(layer.eigenvalue(3, 2), -std::exp(A_log(3, 2)));
  EXPECT_DOUBLE_EQ(layer.step_size(3), std::log1p(std::exp(bias(3))));
}

TEST(TrainedSpectrum, HasTheShapesOfMamba2) {
  trained_model const model = load_trained_model(data / "tiny-mamba2" / "");
  EXPECT_EQ(model.name, "tiny-mamba2");
  EXPECT_EQ(model.type, "mamba2");
  ASSERT_EQ(model.layers.size(), 2u);
  layer_spectrum const& layer = model.layers[0];
  EXPECT_TRUE(layer.has_heads);
  EXPECT_EQ(layer.columns(), 1);
  EXPECT_EQ(layer.rows() % layer.groups, 0);
}

/// A Mamba-1 of one layer, two channels and two states, parts of which can be replaced.
struct small_model {
  test::temporary_directory directory;
  std::string config =
      R"({"model_type": "mamba", "num_hidden_layers": 1, "state_size": 2, "intermediate_size": 2})";
  std::string A_log_entry = test::entry("backbone.layers.0.mixer.A_log", "F32", "[2,2]", "[0,16]");
  std::string bias_entry =
      test::entry("backbone.layers.0.mixer.dt_proj.bias", "F32", "[2]", "[16,24]");
  std::string values = test::bytes_of<float>({0, 1, 2, 3, -4, -5});

  std::string message() const {
    test::write(directory / "config.json", config);
    test::write(directory / "model.safetensors",
                test::safetensors("{" + A_log_entry + "," + bias_entry + "}", values));
    std::string text = test::message_of([&] { load_trained_model(directory.path()); });
    std::string const folder = directory.path().string() + "/";
    if (text.starts_with(folder)) text.erase(0, folder.size());
    return text;
  }
};

TEST(TrainedSpectrum, LoadsWhatIsComplete) {
  EXPECT_EQ(small_model{}.message(), "nothing thrown");
}

TEST(TrainedSpectrum, NamesWhatIsWrongInTheConfiguration) {
  auto const with = [](std::string const& config) {
    small_model model;
    model.config = config;
    return model.message();
  };
  EXPECT_TRUE(with("").starts_with("config.json: text is not valid JSON: ")) << with("");
  EXPECT_TRUE(with("{").starts_with("config.json: text is not valid JSON: ")) << with("{");
  EXPECT_EQ(with("[]"), "config.json: is not a JSON object");
  EXPECT_EQ(with("{}"), "config.json: has no \"model_type\"");
  EXPECT_EQ(with(R"({"model_type": "llama"})"),
            "config.json: model_type is \"llama\", expected \"mamba\" or \"mamba2\"");
  EXPECT_EQ(with(R"({"model_type": "mamba"})"), "config.json: has no \"num_hidden_layers\"");
  EXPECT_EQ(with(R"({"model_type": "mamba", "num_hidden_layers": 0})"),
            "config.json: num_hidden_layers is 0, expected a whole number from 1 to 16777216");
  EXPECT_EQ(with(R"({"model_type": "mamba", "num_hidden_layers": 1.5})"),
            "config.json: num_hidden_layers is 1.5, expected a whole number from 1 to 16777216");
  std::string const mamba2 = R"({"model_type": "mamba2", "num_hidden_layers": 1, "state_size": 2,
      "num_heads": 2, "head_dim": 1, "n_groups": )";
  EXPECT_EQ(with(mamba2 + "3}"), "config.json: num_heads is 2, expected a multiple of n_groups, 3");
  EXPECT_EQ(with(mamba2 + R"(1, "time_step_limit": [1, 0]})"),
            "config.json: time_step_limit is [1,0], expected two numbers, 0 <= low <= high and "
            "high > 0");
}

TEST(TrainedSpectrum, TakesBothWaysToWriteInfinity) {
  std::string const mamba2 = R"({"model_type": "mamba2", "num_hidden_layers": 1, "state_size": 2,
      "num_heads": 2, "head_dim": 1, "n_groups": 1, "note": "\"Infinity", "time_step_limit": [0.5, )";
  test::temporary_directory directory;
  for (std::string const infinity : {"Infinity", R"({"__float__": "Infinity"})", "1e300"}) {
    test::write(directory / "config.json", mamba2 + infinity + "]}");
    model_config const config = read_model_config(directory / "config.json");
    EXPECT_EQ(config.least_step_size, 0.5);
    EXPECT_GE(config.largest_step_size, 1e300);
  }
}

TEST(TrainedSpectrum, NamesWhatIsWrongWithATensor) {
  small_model missing;
  missing.bias_entry = test::entry("backbone.bias", "F32", "[2]", "[16,24]");
  EXPECT_TRUE(
      missing.message().ends_with(": has no tensor \"backbone.layers.0.mixer.dt_proj.bias\""))
      << missing.message();

  small_model more;
  more.bias_entry += "," + test::entry("backbone.layers.1.mixer.A_log", "F32", "[0]", "[24,24]");
  EXPECT_TRUE(
      more.message().ends_with(": config.json says num_hidden_layers is 1, but there is a "
                               "tensor \"backbone.layers.1.mixer.A_log\""))
      << more.message();

  small_model shape;
  shape.A_log_entry = test::entry("backbone.layers.0.mixer.A_log", "F32", "[4]", "[0,16]");
  EXPECT_EQ(shape.message(),
            "model.safetensors: tensor \"backbone.layers.0.mixer.A_log\" has shape "
            "(4), expected (2, 2)");

  small_model type;
  type.A_log_entry = test::entry("backbone.layers.0.mixer.A_log", "I32", "[2,2]", "[0,16]");
  EXPECT_EQ(type.message(),
            "model.safetensors: tensor \"backbone.layers.0.mixer.A_log\" has dtype "
            "I32, expected F32, F16, BF16 or F64");

  small_model value;
  for (auto const& [number, text] :
       {std::pair{NAN, "nan"}, {INFINITY, "inf"}, {-INFINITY, "-inf"}, {101.f, "101"}}) {
    value.values = test::bytes_of<float>({0, 1, 2, number, -4, -5});
    EXPECT_EQ(value.message(),
              "model.safetensors: tensor \"backbone.layers.0.mixer.A_log\" holds " +
                  std::string(text) + " at position 3, expected numbers from -100 to 100");
  }
}

TEST(TrainedSpectrum, NamesADirectoryThatIsNotThere) {
  EXPECT_EQ(test::message_of([] { load_trained_model("/no/such/model"); }),
            "/no/such/model: is not a directory, expected one that holds config.json and "
            "model.safetensors");
}

}  // namespace
}  // namespace ssm::theory
