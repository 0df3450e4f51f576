// SPDX-License-Identifier: Apache-2.0
// json.hpp: JSON without the liberties that would let two readers see two different files.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "ssm/error.hpp"

namespace ssm::detail {

/// Parse `text`; `where` names it in messages ("model.safetensors: header").
/// Throws    checkpoint_error if it is not valid UTF-8 JSON, names a key twice in one object, or
///           nests deeper than 64 levels (each level of a hostile file costs far more than a byte).
inline nlohmann::json parse_json(std::string_view text, std::string const& where) {
  constexpr int deepest = 64;

  // nlohmann::json takes a NUL byte for the end of the input and ignores what follows.
  require<checkpoint_error>(text.find('\0') == std::string_view::npos, where,
                            " is not valid JSON: it holds a NUL byte");

  std::vector<std::set<std::string>> keys_of_open_objects;
  using event_t = nlohmann::json::parse_event_t;
  auto const check = [&](int depth, event_t event, nlohmann::json& parsed) {
    require<checkpoint_error>(depth <= deepest, where, " nests deeper than ", deepest, " levels");
    if (event == event_t::object_start) keys_of_open_objects.emplace_back();
    if (event == event_t::object_end) keys_of_open_objects.pop_back();
    if (event == event_t::key) {
      auto const& name = parsed.get_ref<std::string const&>();
      require<checkpoint_error>(keys_of_open_objects.back().insert(name).second, where,
                                " names key \"", name, "\" twice");
    }
    return true;
  };

  try {
    return nlohmann::json::parse(text.begin(), text.end(), check);
  } catch (nlohmann::json::exception const& error) {
    throw checkpoint_error(where + " is not valid JSON: " + error.what());
  }
}

}  // namespace ssm::detail
