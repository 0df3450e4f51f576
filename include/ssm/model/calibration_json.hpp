// SPDX-License-Identifier: Apache-2.0
// calibration_json.hpp: the parts of a calibration as JSON and back, each member named once.
#pragma once

#include <cmath>
#include <concepts>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "ssm/error.hpp"
#include "ssm/optimize/adam.hpp"
#include "ssm/optimize/spsa.hpp"

namespace ssm::detail {

/// JSON has no infinities and no NaN: they are text here. Of others it has the fewest digits that
/// give the same double back.
inline nlohmann::json json_of(double x) {
  if (std::isnan(x)) return "nan";
  if (std::isinf(x)) return x > 0 ? "inf" : "-inf";
  return x;
}

inline double number_of(nlohmann::json const& from) {
  if (!from.is_string()) return from.get<double>();
  auto const& text = from.get_ref<std::string const&>();
  double const infinity = std::numeric_limits<double>::infinity();
  if (text == "inf") return infinity;
  if (text == "-inf") return -infinity;
  require<checkpoint_error>(text == "nan", "\"", text, "\" is not a number");
  return std::numeric_limits<double>::quiet_NaN();
}

inline nlohmann::json json_of(std::vector<double> const& numbers) {
  nlohmann::json list = nlohmann::json::array();
  for (double const x : numbers) list.push_back(json_of(x));
  return list;
}

inline std::vector<double> numbers_of(nlohmann::json const& from) {
  std::vector<double> numbers;
  for (nlohmann::json const& x : from.get_ref<nlohmann::json::array_t const&>())
    numbers.push_back(number_of(x));
  return numbers;
}

// members(each, of) calls each(name, member) for every member of `of`, to write it or to read it.

template <class T, class Plain>
concept same_or_const = std::same_as<std::remove_const_t<T>, Plain>;

template <class Each>
void members(Each& each, same_or_const<optimize::gain_sequence> auto& of) {
  each("scale", of.scale);
  each("offset", of.offset);
  each("exponent", of.exponent);
  each("cosine_period", of.cosine_period);
}

template <class Each>
void members(Each& each, same_or_const<optimize::factor_domain> auto& of) {
  each("low", of.low);
  each("high", of.high);
  each("is_logarithmic", of.is_logarithmic);
}

template <class Each>
void members(Each& each, same_or_const<optimize::early_stop> auto& of) {
  each("window", of.window);
  each("least_gain", of.least_gain);
}

template <class Each>
void members(Each& each, same_or_const<optimize::iteration_record> auto& of) {
  each("iteration", of.iteration);
  each("loss", of.loss);
  each("standard_error", of.standard_error);
  each("step", of.step);
  each("perturbation", of.perturbation);
  each("largest_change", of.largest_change);
  each("is_blocked", of.is_blocked);
  each("evaluations", of.evaluations);
  each("factors", of.factors);
}

template <class Each>
void members(Each& each, same_or_const<optimize::optimum> auto& of) {
  each("factors", of.factors);
  each("status", of.status);
  each("evaluations", of.evaluations);
  each("history", of.history);
  each("not_finite_at", of.not_finite_at);
  each("not_finite_loss", of.not_finite_loss);
}

template <class Each>
void members(Each& each, same_or_const<optimize::spsa_settings> auto& of) {
  each("iterations", of.iterations);
  each("step", of.step);
  each("perturbation", of.perturbation);
  each("domain", of.domain);
  each("directions", of.directions);
  each("has_common_random_numbers", of.has_common_random_numbers);
  each("blocks_above", of.blocks_above);
  each("largest_change", of.largest_change);
  each("averages_from", of.averages_from);
  each("stop", of.stop);
  each("seed", of.seed);
  each("threads", of.threads);
  each("keeps_factors", of.keeps_factors);
}

template <class Each>
void members(Each& each, same_or_const<optimize::adam_settings> auto& of) {
  each("iterations", of.iterations);
  each("rate", of.rate);
  each("mean_decay", of.mean_decay);
  each("square_decay", of.square_decay);
  each("epsilon", of.epsilon);
  each("weight_decay", of.weight_decay);
  each("is_decoupled", of.is_decoupled);
  each("largest_gradient", of.largest_gradient);
  each("domain", of.domain);
  each("stop", of.stop);
  each("seed", of.seed);
  each("keeps_factors", of.keeps_factors);
}

template <class Each>
void members(Each& each, same_or_const<optimize::spsa_run> auto& of) {
  each("settings", of.settings);
  each("iteration", of.iteration);
  each("coordinates", of.coordinates);
  each("sum", of.sum);
  each("averaged", of.averaged);
  each("best", of.best);
}

template <class Each>
void members(Each& each, same_or_const<optimize::adam_run> auto& of) {
  each("settings", of.settings);
  each("iteration", of.iteration);
  each("coordinates", of.coordinates);
  each("mean", of.mean);
  each("square", of.square);
  each("best", of.best);
}

struct json_writer {
  nlohmann::json to = nlohmann::json::object();

  void operator()(char const* name, double x) { to[name] = json_of(x); }
  void operator()(char const* name, std::integral auto x) { to[name] = x; }
  void operator()(char const* name, optimize::status x) { to[name] = optimize::to_string(x); }
  void operator()(char const* name, std::vector<double> const& x) { to[name] = json_of(x); }
  template <class T>
  void operator()(char const* name, std::optional<T> const& x) {
    to[name] = nullptr;
    if (x) operator()(name, *x);
  }
  template <class T>
  void operator()(char const* name, std::vector<T> const& list) {
    to[name] = nlohmann::json::array();
    for (T const& x : list) to[name].push_back(of(x));
  }
  template <class T>
  void operator()(char const* name, T const& x) requires std::is_class_v<T> {
    to[name] = of(x);
  }

  template <class T>
  static nlohmann::json of(T const& x) {
    json_writer each;
    members(each, x);
    return std::move(each.to);
  }
};

struct json_reader {
  nlohmann::json const& from;

  void operator()(char const* name, double& x) { x = number_of(from.at(name)); }
  void operator()(char const* name, std::integral auto& x) { from.at(name).get_to(x); }
  void operator()(char const* name, optimize::status& x) {
    using optimize::status;
    for (status const s : {status::running, status::all_iterations_done, status::stopped_early,
                           status::not_finite}) {
      if (from.at(name) == optimize::to_string(s)) return void(x = s);
    }
    throw checkpoint_error("status is " + from.at(name).dump());
  }
  void operator()(char const* name, std::vector<double>& x) { x = numbers_of(from.at(name)); }
  template <class T>
  void operator()(char const* name, std::optional<T>& x) {
    x.reset();
    if (!from.at(name).is_null()) operator()(name, x.emplace());
  }
  template <class T>
  void operator()(char const* name, std::vector<T>& list) {
    list.clear();
    for (nlohmann::json const& x : from.at(name).get_ref<nlohmann::json::array_t const&>())
      fill(x, list.emplace_back());
  }
  template <class T>
  void operator()(char const* name, T& x) requires std::is_class_v<T> {
    fill(from.at(name), x);
  }

  template <class T>
  static void fill(nlohmann::json const& from, T& to) {
    json_reader each{from};
    members(each, to);
  }
};

}  // namespace ssm::detail
