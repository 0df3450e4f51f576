// SPDX-License-Identifier: Apache-2.0
// options.hpp: what the program spectrum is asked for on its command line.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "spectrum/model_result.hpp"

namespace ssm::theory {

struct spectrum_options {
  std::vector<std::string> models;
  spectrum_request asked;
  std::uint64_t seed = 1;
  int threads = 0;
  index_t samples = 0;
  double time_limit = 0;  ///< seconds; 0: none
  std::string json, csv, report;
  bool is_quiet = false;
};

/// Throws    CLI::ParseError, also where only help is wanted.
inline spectrum_options read_options(int count, char const* const* words) {
  CLI::App app{
      "The spectrum of a trained Mamba or Mamba-2: how long its states last, how large they get,\n"
      "and whether the recurrence itself, run on white inputs, agrees.\n"
      "Exit status: 0 every layer agrees, 1 not, 2 bad options or files, 130 interrupted.",
      "spectrum"};
  spectrum_options o;
  index_t const longest = index_t{1} << 40;
  app.add_option("MODEL_DIR", o.models, "Directories with config.json and model.safetensors")
      ->required();
  app.add_option("--steps", o.asked.steps, "Steps of the simulation, from a state of zero")
      ->check(CLI::Range(index_t{1}, index_t{1} << 24))
      ->capture_default_str();
  app.add_option("--from", o.asked.from, "Growth of the state energy from this many steps ...")
      ->check(CLI::Range(index_t{1}, longest))
      ->capture_default_str();
  app.add_option("--to", o.asked.to, "... to this many")
      ->check(CLI::Range(index_t{1}, longest))
      ->capture_default_str();
  app.add_option("--samples", o.samples, "Runs of each layer (default: as many as the test needs)")
      ->check(CLI::Range(index_t{1}, index_t{1} << 32));
  app.add_option("--seed", o.seed, "Of the random inputs")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--threads", o.threads, "0: one for each processor")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  app.add_option("--time-limit", o.time_limit, "Seconds after which the simulation ends")
      ->check(CLI::PositiveNumber);
  app.add_option("--json", o.json, "Write all numbers to this file");
  app.add_option("--csv", o.csv, "Write a row for each layer to this file");
  app.add_option("--report", o.report, "Write a page with pictures, JSON and CSV to this folder");
  app.add_flag("--quiet", o.is_quiet, "Print only what the simulation says of each model");
  try {
    app.parse(count, words);
    if (o.asked.to < o.asked.from) {
      throw CLI::ValidationError("--to", "is " + std::to_string(o.asked.to) +
                                             ", expected at least --from, " +
                                             std::to_string(o.asked.from));
    }
  } catch (CLI::Success const& wanted) {
    app.exit(wanted);  // prints the help
    throw;
  }
  return o;
}

}  // namespace ssm::theory
