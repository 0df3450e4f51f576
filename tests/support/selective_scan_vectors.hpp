// SPDX-License-Identifier: Apache-2.0
// selective_scan_vectors.hpp: the cases of tests/data/operators.safetensors for Mamba's operator.
#pragma once

#include "support/operator_vectors.hpp"
#include "support/selective_scan_gradients.hpp"

namespace ssm::test {

/// The inputs of a case; what it does not have is an option left out, or zeros.
template <class T>
selective_problem<T> problem_of(operator_case const& from) {
  scan_shape const s{from.extent("batch"), from.extent("length"), from.extent("channels"),
                     from.extent("states")};
  auto const initial = from.read<T, 3>("in.h0");
  selective_options options{.D = from.contains("in.D"),
                            .gate = from.contains("in.z"),
                            .bias = from.contains("in.bias"),
                            .softplus = from.softplus()};
  auto p = random_selective<T>(s, from.extent("groups"), options, 0);
  p.x = from.read<T, 3>("in.u");
  p.step_size = from.read<T, 3>("in.delta");
  p.B = from.read<T, 4>("in.B");
  p.C = from.read<T, 4>("in.C");
  p.eigenvalue = from.read<T, 2>("in.A");
  if (options.D) p.D = from.read<T, 1>("in.D");
  if (options.gate) p.gate = from.read<T, 3>("in.z");
  if (options.bias) p.step_bias = from.read<T, 1>("in.bias");
  p.initial = initial.size() > 0 ? initial : tensor<T, 3>(p.initial.extents());
  p.y_cotangent = from.read<T, 3>("cotangent.y");
  p.final_cotangent = from.read<T, 3>("cotangent.final_state");
  return p;
}

/// The gradients that the file has for a case.
inline selective_gradient<double> gradients_of(operator_case const& from,
                                               selective_problem<double> const& p) {
  selective_gradient<double> g(p);
  g.x = from.read<double, 3>("grad.u");
  g.step_size = from.read<double, 3>("grad.delta");
  g.gate = from.read<double, 3>("grad.z");
  g.B = from.read<double, 4>("grad.B");
  g.C = from.read<double, 4>("grad.C");
  g.eigenvalue = from.read<double, 2>("grad.A");
  g.D = from.read<double, 1>("grad.D");
  g.step_bias = from.read<double, 1>("grad.bias");
  g.initial = from.read<double, 3>("grad.h0");
  return g;
}

}  // namespace ssm::test
