// SPDX-License-Identifier: Apache-2.0
// options.hpp: what the program spectrum is asked for on its command line.
#pragma once

#include <string>
#include <vector>

#include "program.hpp"
#include "spectrum/model_result.hpp"
#include "spectrum/scaling.hpp"

namespace ssm::theory {

struct spectrum_options : run_options {
  std::vector<std::string> models{};
  spectrum_request asked{};
  scaling_request scaling{};
};

/// A text that `read` takes without a domain_error.
template <class Read>
CLI::Validator readable_by(Read const& read, std::string const& expected) {
  return {[=](std::string const& text) {
            try {
              read(text);
              return std::string();
            } catch (domain_error const&) {
              return "is \"" + text + "\", expected " + expected;
            }
          },
          ""};
}

/// At most one of --scale, --match and --winsorize.
inline void add_scaling_options(CLI::App& app, scaling_request& scaling) {
  auto* const factors =
      app.add_option("--scale", scaling.factors,
                     "Also under these factors of every layer: linear=S,power=S,step=S, or some");
  auto* const match = app.add_option_function<std::string>(
      "--match", [&](std::string const& kind) { scaling.match = scaling_kind_named(kind); },
      "Also under the factors, linear, power or step, that leave after --to steps the state\n"
      "energy that --from steps leave without");
  match->check(readable_by(scaling_kind_named, "linear, power or step"));
  auto* const winsorize =
      app.add_option("--winsorize", scaling.winsorize,
                     "Also with no state that lasts longer than this many steps");
  winsorize->check(number_in(1e-9, 1e18, "steps, more than 0"));
  app.add_option_function<std::string>(
         "--each", [&](std::string const& each) { scaling.each = granularity_named(each); },
         "What shares a factor of --match: layer (default), head, channel or channel-and-state")
      ->check(readable_by(granularity_named, "layer, head, channel or channel-and-state"))
      ->needs(match);
  factors->excludes(match)->excludes(winsorize);
  match->excludes(winsorize);
}

/// Throws    CLI::ParseError, also where only help is wanted.
inline spectrum_options read_options(int count, char const* const* words) {
  CLI::App app{
      "The spectrum of a trained Mamba or Mamba-2: how long its states last, how large they get,\n"
      "and whether the recurrence itself, run on white inputs, agrees.\n"
      "Exit status: 0 every layer agrees, 1 not, 2 bad options or files, 130 interrupted.",
      "spectrum"};
  spectrum_options o;
  index_t const longest = index_t{1} << 40;
  auto const steps = number_in<index_t>(1, longest, "a whole number, 1 to 2^40");
  app.add_option("MODEL_DIR", o.models, "Directories with config.json and model.safetensors")
      ->required();
  app.add_option("--steps", o.asked.steps, "Steps of the simulation, from a state of zero")
      ->check(number_in<index_t>(1, index_t{1} << 24, "a whole number, 1 to 2^24"))
      ->capture_default_str();
  app.add_option("--from", o.asked.from, "Growth of the state energy from this many steps ...")
      ->check(steps)
      ->capture_default_str();
  app.add_option("--to", o.asked.to, "... to this many")->check(steps)->capture_default_str();
  add_scaling_options(app, o.scaling);
  add_run_options(app, o);
  parse(app, count, words);
  if (o.asked.to < o.asked.from) {
    throw CLI::ValidationError("--to", "is " + std::to_string(o.asked.to) +
                                           ", expected at least --from, " +
                                           std::to_string(o.asked.from));
  }
  return o;
}

}  // namespace ssm::theory
