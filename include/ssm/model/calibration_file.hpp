// SPDX-License-Identifier: Apache-2.0
// calibration_file.hpp: a calibration as a JSON file: factors, what they are for, and their origin.
#pragma once

#include <array>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "ssm/calibrate.hpp"
#include "ssm/detail/json.hpp"
#include "ssm/detail/write_file.hpp"
#include "ssm/model/calibration_json.hpp"

namespace ssm {

namespace detail {

inline constexpr char const* calibration_format = "ssm calibration 1";

template <class Run, class Settings>
Run run_of(nlohmann::json const& from, std::span<double const> factors) {
  Settings settings;
  json_reader::fill(from.at("settings"), settings);
  Run run(factors, settings);  // which checks them
  json_reader::fill(from, run);
  require<checkpoint_error>(
      run.coordinates.size() == factors.size() && run.best.factors.size() == factors.size(),
      "the run has ", run.coordinates.size(), " factors, expected ", factors.size());
  return run;
}

}  // namespace detail

namespace model {

/// The text of a calibration file. Members:
///   format, kind ("linear+step"), granularity ("layer"), shape [layers, channels, states]
///   factors           in the order of scaling_factors::numbers()
///   model, data       fingerprints
///   batch, method     "spsa" or "adam"
///   run               settings, the state to go on from, the history
inline std::string to_json(calibration const& what) {
  using namespace ssm::detail;
  auto const& [factors, model, data, batch, run] = what;
  auto const [layers, channels, states] = factors.shape();
  nlohmann::json const text{
      {"format", calibration_format},
      {"kind", to_string(factors.kind())},
      {"granularity", to_string(factors.each())},
      {"shape", {layers, channels, states}},
      {"factors", json_of(std::vector(factors.numbers().begin(), factors.numbers().end()))},
      {"model", model},
      {"data", data},
      {"batch", batch},
      {"method", std::holds_alternative<optimize::spsa_run>(run) ? "spsa" : "adam"},
      {"run", std::visit([](auto const& r) { return json_writer::of(r); }, run)}};
  return text.dump(1) + "\n";
}

/// The calibration of a text; `where` names it in messages.
/// Throws    checkpoint_error where it is not one.
inline calibration calibration_of(std::string_view text, std::string const& where) {
  using namespace ssm::detail;
  nlohmann::json const from = ssm::detail::parse_json(text, where);
  try {
    require<checkpoint_error>(from.at("format") == calibration_format, "format is ",
                              from.at("format").dump(), ", expected \"", calibration_format, "\"");
    auto const shape = from.at("shape").get<std::array<index_t, 3>>();
    auto const numbers = numbers_of(from.at("factors"));
    scaling_factors<double> const factors(
        scaling_kind_named(from.at("kind").get<std::string>()),
        granularity_named(from.at("granularity").get<std::string>()),
        {shape[0], shape[1], shape[2]}, numbers);
    auto const text_at = [&](char const* name) { return from.at(name).get<std::string>(); };
    auto const method = text_at("method");
    auto const with = [&](auto run) {
      return calibration{factors, text_at("model"), text_at("data"),
                         from.at("batch").get<index_t>(), std::move(run)};
    };
    if (method == "spsa") {
      return with(run_of<optimize::spsa_run, optimize::spsa_settings>(from.at("run"), numbers));
    }
    require<checkpoint_error>(method == "adam", "method is ", method, ", expected spsa or adam");
    return with(run_of<optimize::adam_run, optimize::adam_settings>(from.at("run"), numbers));
  } catch (std::exception const& error) {  // of a member that is missing, or will not do
    throw checkpoint_error(where + " is not a calibration: " + error.what());
  }
}

/// Write a calibration; a file that is there is replaced at once or stays as it was.
/// Throws    checkpoint_error, naming the file.
inline void save(calibration const& what, std::filesystem::path const& path) {
  ssm::detail::write_file(path, to_json(what));
}

/// Read one. Its factors_for(model) refuses another model.
/// Throws    checkpoint_error for a file that is missing or not a calibration.
inline calibration load_calibration(std::filesystem::path const& path) {
  std::ifstream file(path, std::ios::binary);
  require<checkpoint_error>(file.is_open(), path.string(), ": cannot be opened");
  std::string const text(std::istreambuf_iterator<char>(file), {});
  return calibration_of(text, path.string());
}

}  // namespace model
}  // namespace ssm
