// SPDX-License-Identifier: Apache-2.0
// noisy_quadratic.hpp: a loss whose minimum and gradient are known.
#pragma once

#include <cstddef>
#include <span>

#include "ssm/random.hpp"

namespace ssm::test {

/// ½ Σ h_i (x_i - centre)² with h from 1 to 2, and noise from the stream that is handed over.
struct noisy_quadratic {
  double centre = 0.5;
  double noise = 0;

  double gradient(std::span<double const> x, std::size_t i) const {
    return (1 + static_cast<double>(i) / static_cast<double>(x.size())) * (x[i] - centre);
  }
  double exact(std::span<double const> x) const {
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += gradient(x, i) * (x[i] - centre) / 2;
    return sum;
  }
  double operator()(std::span<double const> x, random_stream const& draw) const {
    return exact(x) + (noise == 0 ? 0 : noise * draw.normal(0));
  }
};

}  // namespace ssm::test
