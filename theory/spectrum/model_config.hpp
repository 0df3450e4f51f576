// SPDX-License-Identifier: Apache-2.0
// model_config.hpp: what config.json says of the shapes of a Mamba or Mamba-2.
#pragma once

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

#include "ssm/config.hpp"
#include "ssm/detail/json.hpp"
#include "ssm/detail/mapped_file.hpp"
#include "ssm/error.hpp"

namespace ssm::theory {

/// The shapes of a model, by the names of this library. A Mamba-1 has no heads and no groups.
struct model_config {
  std::string type;  ///< "mamba" or "mamba2"
  index_t layers = 0;
  index_t channels = 0;
  index_t states = 0;
  index_t heads = 0;
  index_t head_dim = 0;
  index_t groups = 0;
  double least_step_size = 0;
  double largest_step_size = std::numeric_limits<double>::infinity();
};

namespace loading {

/// JSON has no infinity: Python writes the bare word Infinity, newer checkpoints an object
/// {"__float__": "Infinity"}. This turns the first into the second.
inline std::string without_bare_infinity(std::string_view text) {
  constexpr std::string_view word = "Infinity";
  std::string result;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (!in_string && text.substr(i, word.size()) == word) {
      result += R"({"__float__": "Infinity"})";
      i += word.size() - 1;
      continue;
    }
    if (text[i] == '"') in_string = !in_string;
    result += text[i];
    if (in_string && text[i] == '\\' && i + 1 < text.size()) result += text[++i];
  }
  return result;
}

/// Members of config.json, checked.
class config_reader {
 public:
  explicit config_reader(std::filesystem::path const& path) : path_{path.string()} {
    ssm::detail::mapped_file const file{path};
    std::string_view const text{reinterpret_cast<char const*>(file.bytes().data()),
                                file.bytes().size()};
    content_ = ssm::detail::parse_json(without_bare_infinity(text), path_ + ": text");
    demand(content_.is_object(), "is not a JSON object");
  }

  bool contains(char const* key) const { return content_.contains(key); }

  std::string text(char const* key) const {
    auto const& value = member(key);
    demand(value.is_string(), key, " is ", value.dump(), ", expected text");
    return value.get<std::string>();
  }

  index_t count(char const* key) const {
    auto const& value = member(key);
    constexpr std::uint64_t largest = 1 << 24;  // products of a few still fit
    demand(value.is_number_unsigned() && value.get<std::uint64_t>() >= 1 &&
               value.get<std::uint64_t>() <= largest,
           key, " is ", value.dump(), ", expected a whole number from 1 to ", largest);
    return value.get<index_t>();
  }

  /// [low, high], where high may be infinite.
  std::pair<double, double> range(char const* key) const {
    auto const& value = member(key);
    bool const is_pair = value.is_array() && value.size() == 2;
    double const low = is_pair ? number(value[0]) : NAN, high = is_pair ? number(value[1]) : NAN;
    demand(low >= 0 && low <= high && high > 0, key, " is ", value.dump(),
           ", expected two numbers, 0 <= low <= high and high > 0");
    return {low, high};
  }

  template <class... Parts>
  void demand(bool holds, Parts const&... parts) const {
    require<checkpoint_error>(holds, path_, ": ", parts...);
  }

 private:
  nlohmann::json const& member(char const* key) const {
    demand(contains(key), "has no \"", key, "\"");
    return content_.at(key);
  }

  static double number(nlohmann::json const& value) {
    if (value.is_number()) return value.get<double>();
    bool const is_infinity = value.is_object() && value.contains("__float__") &&
                             value.at("__float__") == nlohmann::json("Infinity");
    return is_infinity ? std::numeric_limits<double>::infinity() : NAN;
  }

  std::string path_;
  nlohmann::json content_;
};

}  // namespace loading

/// Read a config.json as Hugging Face transformers writes it.
/// Throws    checkpoint_error, naming the file, what it holds and what was expected.
inline model_config read_model_config(std::filesystem::path const& path) {
  loading::config_reader const from{path};
  model_config result{.type = from.text("model_type")};
  from.demand(result.type == "mamba" || result.type == "mamba2", "model_type is \"", result.type,
              "\", expected \"mamba\" or \"mamba2\"");
  result.layers = from.count("num_hidden_layers");
  result.states = from.count("state_size");
  if (result.type == "mamba") {
    result.channels = from.contains("intermediate_size")
                          ? from.count("intermediate_size")
                          : from.count("expand") * from.count("hidden_size");
    return result;
  }
  result.heads = from.count("num_heads");
  result.head_dim = from.count("head_dim");
  result.groups = from.count("n_groups");
  result.channels = result.heads * result.head_dim;
  from.demand(result.heads % result.groups == 0, "num_heads is ", result.heads,
              ", expected a multiple of n_groups, ", result.groups);
  if (from.contains("time_step_limit")) {
    auto const [least, largest] = from.range("time_step_limit");
    result.least_step_size = least;
    result.largest_step_size = largest;
  }
  return result;
}

}  // namespace ssm::theory
