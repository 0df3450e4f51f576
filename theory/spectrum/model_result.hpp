// SPDX-License-Identifier: Apache-2.0
// model_result.hpp: all that is found for one model, and which of its layers come closest to
// divergence.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <numeric>
#include <optional>
#include <vector>

#include "claim.hpp"
#include "spectrum/prediction.hpp"
#include "spectrum/trained_spectrum.hpp"

namespace ssm::theory {

/// What is asked of each layer.
struct spectrum_request {
  index_t steps = 512;  ///< of the simulation
  index_t from = 512;   ///< growth of the state energy from here ...
  index_t to = 65536;   ///< ... to here
};

/// Findings are missing where a run was stopped; the others are exact and always there.
struct model_result {
  trained_model model;
  std::vector<layer_prediction> predictions;
  std::vector<std::optional<finding>> findings;
  double seconds = 0;  ///< of the simulation

  bool is_complete() const {
    return std::all_of(findings.begin(), findings.end(), [](auto const& f) { return bool(f); });
  }
  /// Every layer was simulated and agrees with what is exact.
  bool is_accepted() const {
    return std::all_of(findings.begin(), findings.end(),
                       [](auto const& f) { return f && f->accepted; });
  }
};

/// A sense in which a layer comes close to divergence.
struct closeness {
  char const* name;
  char const* unit;
  double (*of)(layer_prediction const&);
};

inline constexpr std::array<closeness, 3> kinds_of_closeness = {
    {{"slowest pole", " steps", [](layer_prediction const& p) { return p.horizon.largest; }},
     {"largest gain", "", [](layer_prediction const& p) { return p.gain; }},
     {"largest growth", "", [](layer_prediction const& p) { return p.growth; }}}};

/// The layers, the closest first.
inline std::vector<std::size_t> ranked(std::vector<layer_prediction> const& layers,
                                       closeness const& by) {
  std::vector<std::size_t> order(layers.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    double const of_a = by.of(layers[a]), of_b = by.of(layers[b]);
    return of_a > of_b || (of_a == of_b && a < b);
  });
  return order;
}

}  // namespace ssm::theory
