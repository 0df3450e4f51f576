// SPDX-License-Identifier: Apache-2.0
// records.hpp: what a run has found, for other programs: a JSON document and a CSV table.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "report/text.hpp"
#include "ssm/config.hpp"
#include "verify/summary.hpp"

namespace ssm::theory {

inline nlohmann::ordered_json json_of(finding const& f) {
  return {{"setting", f.setting},
          {"method", f.method},
          {"samples", f.samples},
          {"value", f.value},
          {"standard_error", f.standard_error},
          {"exact", f.exact},
          {"alternative", f.alternative},
          {"alternative_is_printed", f.alternative_is_printed},
          {"z_exact", f.z_exact},
          {"z_alternative", f.z_alternative},
          {"level_exact", f.level_exact},
          {"level_alternative", f.level_alternative},
          {"power", f.power},
          {"accepted", f.accepted},
          {"rejected", f.rejected},
          {"decisive", f.decisive}};
}

/// Numbers that are not finite become null.
inline nlohmann::ordered_json json_of(verification const& v) {
  using json = nlohmann::ordered_json;
  json document = {
      {"program", "verify"},
      {"version", std::to_string(SSM_VERSION_MAJOR) + "." + std::to_string(SSM_VERSION_MINOR) +
                      "." + std::to_string(SSM_VERSION_PATCH)},
      {"paper", "arXiv:2509.19633"},
      {"seed", v.seed},
      {"seconds", v.seconds},
      {"simulated",
       {{"device", v.simulated.device},
        {"states", v.simulated.states},
        {"seconds", v.simulated.seconds},
        {"seconds_of_eigenvalues", v.simulated.law_seconds},
        {"states_per_second", v.simulated.states_per_second()}}},
      {"stopped", v.is_stopped},
      {"all_as_recorded", v.all_as_recorded()},
      {"tests_of_exact", v.tests_of_exact()},
      {"family_error", v.family_error()},
      {"claims", json::array()}};
  for (result const& r : v.results) {
    json claim = {{"id", r.what.id},
                  {"place", r.what.place},
                  {"statement", r.what.statement},
                  {"printed", r.what.printed},
                  {"exact", r.what.exact},
                  {"remark", r.what.remark},
                  {"verdict", to_string(r.reached)},
                  {"recorded", to_string(r.what.recorded)},
                  {"complete", r.is_complete()},
                  {"seconds", r.seconds},
                  {"findings", json::array()}};
    for (finding const& f : r.findings) claim["findings"].push_back(json_of(f));
    document["claims"].push_back(std::move(claim));
  }
  return document;
}

/// A heading and a row for each finding.
inline std::string csv_of(verification const& v) {
  auto const quoted = [](std::string const& text) {
    std::string all = "\"";
    for (char const c : text) all.append(c == '"' ? 2 : 1, c);
    return all + '"';
  };
  std::string table = "claim,verdict,recorded";
  auto const names = json_of(finding{});
  for (auto const& [name, value] : names.items()) table += "," + name;
  table += '\n';
  for (result const& r : v.results) {
    for (finding const& f : r.findings) {
      table += quoted(r.what.id) + ',' + quoted(to_string(r.reached)) + ',' +
               quoted(to_string(r.what.recorded));
      auto const numbers = json_of(f);
      for (auto const& [name, value] : numbers.items()) {
        table += ',' + (value.is_string() ? quoted(value.get<std::string>()) : value.dump());
      }
      table += '\n';
    }
  }
  return table;
}

}  // namespace ssm::theory
