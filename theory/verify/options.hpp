// SPDX-License-Identifier: Apache-2.0
// options.hpp: what the program verify is asked for on its command line.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "claim.hpp"
#include "program.hpp"

namespace ssm::theory {

struct verify_options : run_options {
  std::vector<std::string> claims{};  ///< empty: all
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
  add_run_options(app, o);
  parse(app, count, words);
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
