// SPDX-License-Identifier: Apache-2.0
// random_scaling.hpp: factors of every kind and granularity.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ssm/scaling_factors.hpp"
#include "support/random_tensor.hpp"

namespace ssm::test {

inline std::vector<scaling_kind> all_kinds() {
  std::vector<scaling_kind> kinds;
  for (int bits = 1; bits < 8; ++bits) {
    kinds.push_back({(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0});
  }
  return kinds;
}

/// Those that a spectrum of so many states can have.
inline std::vector<granularity> all_granularities(index_t states) {
  if (states == 1) return {granularity::layer, granularity::head};
  return {granularity::layer, granularity::channel, granularity::channel_and_state};
}

/// Factors from 1/2 to 3/2.
template <real_scalar T>
scaling_factors<T> random_factors(scaling_kind kind, granularity each, spectrum_shape const& shape,
                                  std::uint64_t seed) {
  scaling_factors<T> factors(kind, each, shape);
  random_stream const stream{seed};
  index_t i = 0;
  for (T& number : factors.numbers()) number = T(0.5 + stream.uniform(i++));
  return factors;
}

template <real_scalar T>
std::string name_of(scaling_factors<T> const& factors) {
  return to_string(factors.kind()) + " by " + to_string(factors.each());
}

/// Call f with random factors of every kind and granularity.
template <real_scalar T, class F>
void for_each_scaling(spectrum_shape const& shape, std::uint64_t seed, F const& f) {
  for (auto const kind : all_kinds())
    for (auto const each : all_granularities(shape.states)) {
      f(random_factors<T>(kind, each, shape, seed++));
    }
}

}  // namespace ssm::test
