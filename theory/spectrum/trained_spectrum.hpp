// SPDX-License-Identifier: Apache-2.0
// trained_spectrum.hpp: the eigenvalues and step sizes of every layer of a trained Mamba.
#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "spectrum/model_config.hpp"
#include "ssm/error.hpp"
#include "ssm/model/checkpoint.hpp"
#include "ssm/numerics.hpp"
#include "ssm/spectrum.hpp"
#include "ssm/spectrum_analysis.hpp"
#include "ssm/tensor.hpp"

namespace ssm::theory {

/// The spectrum of one layer. Mamba-1: a row is a channel, with an eigenvalue for each state.
/// Mamba-2: a row is a head, and its one eigenvalue that of all states of all its channels.
struct layer_spectrum {
  bool has_heads = false;        ///< of Mamba-2
  tensor<double, 2> eigenvalue;  ///< -exp(A_log): (row, column)
  tensor<double, 1> step_size;   ///< softplus(bias), where the input projects to 0: (row)
  index_t channels_per_row = 1;
  index_t states_per_column = 1;
  index_t groups = 1;  ///< rows share B in this many groups, side by side

  index_t rows() const { return eigenvalue.extent(0); }
  index_t columns() const { return eigenvalue.extent(1); }
  index_t channels() const { return rows() * channels_per_row; }
  index_t states() const { return columns() * states_per_column; }
  index_t rows_per_group() const { return rows() / groups; }

  spectrum_view<double> view() const { return {eigenvalue, step_size}; }

  /// The decays of one step, exp(Δ·eigenvalue), row by row.
  std::vector<pole<double>> poles() const {
    return poles_of(eigenvalue.const_view(), step_size.const_view());
  }

  /// What the paper plots (arXiv:2509.19633, Figure 1): exp(eigenvalue), which leaves Δ out.
  std::vector<pole<double>> poles_without_step() const {
    tensor<double, 1> const one({rows()}, 1.0);
    return poles_of(eigenvalue.const_view(), one.const_view());
  }
};

struct trained_model {
  std::string name;  ///< of the directory
  std::string type;  ///< "mamba" or "mamba2"
  std::vector<layer_spectrum> layers;
};

namespace loading {

/// A parameter in double, whose shape must be `expected` and whose numbers sane: exp and softplus
/// of it are then far from overflow and underflow.
template <int Rank>
tensor<double, Rank> read_parameter(model::checkpoint const& from, std::string const& name,
                                    index_array<Rank> const& expected) {
  using model::dtype;
  constexpr double largest = 100;
  std::string const where = from.file(name).path().string() + ": tensor \"" + name + "\" ";
  dtype const type = from.info(name).type;
  require<checkpoint_error>(
      type == dtype::f32 || type == dtype::f16 || type == dtype::bf16 || type == dtype::f64, where,
      "has dtype ", to_string(type), ", expected F32, F16, BF16 or F64");
  auto values = from.read<double, Rank>(name, expected);
  for (index_t i = 0; i < values.size(); ++i) {
    double const found = values.data()[i];
    require<checkpoint_error>(found >= -largest && found <= largest, where, "holds ", found,
                              " at position ", i, ", expected numbers from ", -largest, " to ",
                              largest);
  }
  return values;
}

template <int Rank>
tensor<double, 2> eigenvalues(tensor<double, Rank> const& A_log, index_t columns) {
  tensor<double, 2> result({A_log.extent(0), columns});
  for (index_t i = 0; i < A_log.size(); ++i) result.data()[i] = -ssm::exp(A_log.data()[i]);
  return result;
}

inline tensor<double, 1> step_sizes(tensor<double, 1> bias, model_config const& config) {
  for (double& value : bias) {
    value = std::clamp(ssm::softplus(value), config.least_step_size, config.largest_step_size);
  }
  return bias;
}

inline std::string mixer_of(index_t layer) {
  return "backbone.layers." + std::to_string(layer) + ".mixer.";
}

inline layer_spectrum read_layer(model::checkpoint const& from, model_config const& config,
                                 index_t layer) {
  std::string const mixer = mixer_of(layer);
  if (config.type == "mamba") {
    auto const A_log = read_parameter<2>(from, mixer + "A_log", {config.channels, config.states});
    auto const bias = read_parameter<1>(from, mixer + "dt_proj.bias", {config.channels});
    return {.eigenvalue = eigenvalues(A_log, config.states), .step_size = step_sizes(bias, config)};
  }
  auto const A_log = read_parameter<1>(from, mixer + "A_log", {config.heads});
  auto const bias = read_parameter<1>(from, mixer + "dt_bias", {config.heads});
  return {.has_heads = true,
          .eigenvalue = eigenvalues(A_log, 1),
          .step_size = step_sizes(bias, config),
          .channels_per_row = config.head_dim,
          .states_per_column = config.states,
          .groups = config.groups};
}

}  // namespace loading

/// Read config.json and the tensors A_log and dt_proj.bias (Mamba-2: dt_bias) of every layer.
/// Throws    checkpoint_error, naming the file, what it holds and what was expected.
inline trained_model load_trained_model(std::filesystem::path const& directory) {
  std::error_code unreadable;  // counts as missing
  require<checkpoint_error>(std::filesystem::is_directory(directory, unreadable),
                            directory.string(), ": is not a directory, expected one that holds ",
                            "config.json and model.safetensors");
  model_config const config = read_model_config(directory / "config.json");
  model::checkpoint const tensors{directory};
  std::string const beyond = loading::mixer_of(config.layers) + "A_log";
  require<checkpoint_error>(!tensors.contains(beyond), directory.string(),
                            ": config.json says num_hidden_layers is ", config.layers,
                            ", but there is a tensor \"", beyond, "\"");
  std::filesystem::path const whole = std::filesystem::weakly_canonical(directory);
  trained_model result{
      (whole.has_filename() ? whole : whole.parent_path()).filename().string(), config.type, {}};
  for (index_t layer = 0; layer < config.layers; ++layer) {
    result.layers.push_back(loading::read_layer(tensors, config, layer));
  }
  return result;
}

}  // namespace ssm::theory
