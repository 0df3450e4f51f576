// SPDX-License-Identifier: Apache-2.0
// layer_spectra.hpp: small layers with spectra that are easy to write down.
#pragma once

#include "spectrum/trained_spectrum.hpp"

namespace ssm::test {

using theory::layer_spectrum;

/// Eigenvalues -0.1 - c - n at step sizes 0.4 + 0.3 c.
inline layer_spectrum mamba1_layer(index_t channels, index_t states) {
  layer_spectrum layer{.eigenvalue = tensor<double, 2>({channels, states}),
                       .step_size = tensor<double, 1>({channels})};
  for (index_t c = 0; c < channels; ++c) {
    layer.step_size(c) = 0.4 + 0.3 * static_cast<double>(c);
    for (index_t n = 0; n < states; ++n) layer.eigenvalue(c, n) = -0.1 - static_cast<double>(n + c);
  }
  return layer;
}

/// The same with one eigenvalue for each head.
inline layer_spectrum mamba2_layer(index_t heads, index_t head_dim, index_t states,
                                   index_t groups) {
  auto layer = mamba1_layer(heads, 1);
  layer.has_heads = true;
  layer.channels_per_row = head_dim;
  layer.states_per_column = states;
  layer.groups = groups;
  return layer;
}

}  // namespace ssm::test
