// SPDX-License-Identifier: Apache-2.0
// options.hpp: what the program verify is asked for on its command line.
#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "claim.hpp"

namespace ssm::theory {

struct verify_options {
  std::vector<std::string> claims;  ///< empty: all
  std::uint64_t seed = 1;
  index_t samples = 0;
  int threads = 0;
  double time_limit = 0;  ///< seconds; 0: none
  std::string json, csv, report;
  bool is_quiet = false;
  bool is_list = false;
};

/// Throws    CLI::ParseError, also where only help is wanted.
inline verify_options read_options(int count, char const* const* words) {
  CLI::App app{
      "The claims of \"Mamba Modulation\" (arXiv:2509.19633) about the norm of the state, each by\n"
      "closed form and by Monte Carlo of the recurrence itself.\n"
      "Exit status: 0 every verdict is the one on record, 1 not, 2 bad options or files, 130 "
      "stopped.",
      "verify"};
  verify_options o;
  app.add_option("--claim", o.claims, "Only this claim (--list names them); may be repeated");
  app.add_flag("--list", o.is_list, "Name the claims and stop");
  app.add_option("--seed", o.seed, "Of the random numbers")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--samples", o.samples,
                 "Replicates of each Monte Carlo mean (default: as many as its power needs)")
      ->check(CLI::Range(index_t{1}, index_t{1} << 32));
  app.add_option("--threads", o.threads, "0: one for each processor")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  app.add_option("--time-limit", o.time_limit, "Seconds after which the run ends with what it has")
      ->check(CLI::PositiveNumber);
  app.add_option("--json", o.json, "Write all that was found to this file");
  app.add_option("--csv", o.csv, "Write a row for each experiment to this file");
  app.add_option("--report", o.report, "Write a page with pictures, JSON and CSV to this folder");
  app.add_flag("--quiet", o.is_quiet, "Print only the last table");
  try {
    app.parse(count, words);
  } catch (CLI::Success const& wanted) {
    app.exit(wanted);  // prints the help
    throw;
  }
  return o;
}

/// The claims that were asked for, in the order of the paper.
/// Throws    std::invalid_argument for a name that no claim has.
inline std::vector<claim> chosen(std::vector<claim> all, std::vector<std::string> const& wanted) {
  auto const has_id = [](std::string const& id) {
    return [&id](claim const& c) { return c.id == id; };
  };
  for (std::string const& id : wanted) {
    if (std::any_of(all.begin(), all.end(), has_id(id))) continue;
    std::string known;
    for (claim const& c : all) known += (known.empty() ? "" : ", ") + c.id;
    throw std::invalid_argument("--claim: there is no claim \"" + id + "\", expected one of " +
                                known);
  }
  if (!wanted.empty()) {
    std::erase_if(all, [&](claim const& c) {
      return std::find(wanted.begin(), wanted.end(), c.id) == wanted.end();
    });
  }
  return all;
}

}  // namespace ssm::theory
