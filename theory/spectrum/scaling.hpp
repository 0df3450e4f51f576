// SPDX-License-Identifier: Apache-2.0
// scaling.hpp: which scaling of a trained model is asked for, and the model that it makes.
#pragma once

#include <charconv>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "report/text.hpp"
#include "spectrum/trained_spectrum.hpp"
#include "ssm/data_free_scaling.hpp"
#include "ssm/error.hpp"
#include "ssm/scaling_factors.hpp"

namespace ssm::theory {

/// At most one of the first three is given.
struct scaling_request {
  std::string factors = "";                ///< of all layers: "linear=1.5", "power=0.9,step=2"
  std::optional<scaling_kind> match = {};  ///< the kind that matches norms
  double winsorize = 0;                    ///< the longest horizon; 0: as it is
  granularity each = granularity::layer;   ///< of norm matching

  explicit operator bool() const { return !factors.empty() || match || winsorize > 0; }
};

/// The spectra of a model's layers, which must outlive them.
inline std::vector<spectrum_view<double>> spectra_of(trained_model const& model) {
  std::vector<spectrum_view<double>> views;
  for (layer_spectrum const& layer : model.layers) views.push_back(layer.view());
  return views;
}

namespace detail {

/// "power=0.9,step=2" as factors for layers of this shape, the same for each.
/// Throws    domain_error for another form, and as scaling_factors.
inline scaling_factors<double> constant_factors(std::string_view text,
                                                spectrum_shape const& shape) {
  scaling_kind kind;
  std::vector<double> numbers;
  for (std::size_t begin = 0; begin <= text.size();) {
    std::string_view const part = text.substr(begin, text.find(',', begin) - begin);
    begin += part.size() + 1;
    auto const equals = part.find('=');
    std::string_view const name = part.substr(0, equals);
    double number = 0;
    char const* const end = part.data() + part.size();
    auto const read = equals == part.npos ? std::from_chars_result{end, std::errc::invalid_argument}
                                          : std::from_chars(part.data() + equals + 1, end, number);
    // in the order of scaling_factors::numbers(), each once
    bool const is_next = name == "linear"  ? !kind.linear && !kind.power && !kind.step
                         : name == "power" ? !kind.power && !kind.step
                                           : name == "step" && !kind.step;
    require<domain_error>(read.ec == std::errc{} && read.ptr == end && is_next, "--scale: is \"",
                          text, "\", expected linear=S,power=S,step=S or some of them in this ",
                          "order");
    (name == "linear" ? kind.linear : name == "power" ? kind.power : kind.step) = true;
    numbers.insert(numbers.end(), static_cast<std::size_t>(shape.layers), number);
  }
  return {kind, granularity::layer, shape, numbers};
}

}  // namespace detail

/// The factors that are asked for; norm matching is from `from` to `to` steps.
/// Throws    domain_error where there are none, as the functions of data_free_scaling.hpp.
inline scaling_factors<double> factors_of(trained_model const& model, scaling_request const& asked,
                                          index_t from, index_t to) {
  auto const views = spectra_of(model);
  std::span<spectrum_view<double> const> const layers(views);
  if (asked.match) {
    return norm_matching(layers, *asked.match, asked.each, static_cast<double>(from),
                         static_cast<double>(to));
  }
  return asked.winsorize > 0 ? winsorizing(layers, asked.winsorize)
                             : detail::constant_factors(asked.factors, shape_of(layers));
}

/// "linear=1.5", "norms matched by step for each head", "horizons of at most 100 steps"
inline std::string text_of(scaling_request const& asked) {
  if (asked.match) {
    return "norms matched by " + to_string(*asked.match) + " for each " + to_string(asked.each);
  }
  if (asked.winsorize == 0) return asked.factors;
  return "horizons of at most " + report::significant(asked.winsorize, 6) + " steps";
}

/// The model whose spectra are scaled.
inline trained_model scaled(trained_model model, scaling_factors<double> const& factors,
                            std::string const& how) {
  model.name += ", " + how;
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    layer_spectrum& layer = model.layers[i];
    auto after = scaled_spectrum(layer.view(), factors.scaling(static_cast<index_t>(i)));
    layer.eigenvalue = std::move(after.eigenvalue);
    layer.step_size = std::move(after.step_size);
  }
  return model;
}

}  // namespace ssm::theory
