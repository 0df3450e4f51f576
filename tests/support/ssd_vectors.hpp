// SPDX-License-Identifier: Apache-2.0
// ssd_vectors.hpp: the cases of tests/data/operators.safetensors for Mamba-2's operator.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "support/operator_vectors.hpp"
#include "support/ssd_problem.hpp"

namespace ssm::test {

/// The tensors of a case in T; D is broadcast where the file has one number a head.
template <class T>
struct vector_case {
  tensor<T, 4> x, B, C, gate, initial;
  tensor<T, 3> step_size;
  tensor<T, 1> eigenvalue, D_of_head, step_bias;
  tensor<T, 2> D;
  tensor<std::int32_t, 2> sequence;
  std::optional<step_limits<T>> limits;
  bool softplus;

  explicit vector_case(operator_case const& from)
      : x{from.read<T, 4>("in.x")},
        B{from.read<T, 4>("in.B")},
        C{from.read<T, 4>("in.C")},
        gate{from.read<T, 4>("in.z")},
        initial{from.contains("in.h0")
                    ? from.read<T, 4>("in.h0")
                    : tensor<T, 4>({x.extent(0), x.extent(2), x.extent(3), B.extent(3)})},
        step_size{from.read<T, 3>("in.dt")},
        eigenvalue{from.read<T, 1>("in.A")},
        step_bias{from.read<T, 1>("in.bias")},
        softplus{from.softplus()} {
    if (one_D_a_head(from)) {
      D_of_head = from.read<T, 1>("in.D");
    } else {
      D = from.read<T, 2>("in.D");
    }
    auto const index = from.read<double, 2>("in.seq");
    sequence = tensor<std::int32_t, 2>(index.extents());
    std::transform(index.begin(), index.end(), sequence.begin(),
                   [](double i) { return static_cast<std::int32_t>(i); });
    auto const bounds = from.limits();
    if (!bounds.empty()) limits = {static_cast<T>(bounds[0]), static_cast<T>(bounds[1])};
  }

  static bool one_D_a_head(operator_case const& from) {
    return from.contains("in.D") && from.name() != "ssd_1";  // ssd_1 has one for each channel
  }

  state_space_dual_inputs<T> inputs() const {
    return {.x = x.view(),
            .step_size = step_size.view(),
            .eigenvalue = eigenvalue.view(),
            .B = B.view(),
            .C = C.view(),
            .D = D_of_head.size() > 0
                     ? tensor_view<T const, 2>(D_of_head.data(), {x.extent(2), x.extent(3)}, {1, 0})
                     : D.view(),
            .gate = gate.view(),
            .step_bias = step_bias.view(),
            .step_rule = {.softplus = softplus, .limits = limits},
            .sequence = sequence.view()};
  }
};

}  // namespace ssm::test
