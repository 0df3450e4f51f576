// SPDX-License-Identifier: Apache-2.0
// selective_baselines.hpp: Mamba's recurrence as others write it, to be measured beside ours.
#pragma once

#include <Eigen/Core>
#include <cmath>
#include <vector>

#include "support/selective_problem.hpp"

namespace ssm::bench {

/// With Eigen: one expression for a block of channels and each state. channels must be a multiple
/// of the block, 64.
template <class T>
void eigen_selective_scan(selective_problem<T>& p) {
  constexpr int block = 64;
  using column = Eigen::Array<T, block, 1>;
  using map = Eigen::Map<column const>;
  index_t const length = p.x.extent(1), channels = p.x.extent(2), states = p.A.extent(1);
  bool const all = p.with == options::all;
  std::vector<column> A(static_cast<std::size_t>(states)), h(A.size());
  for (index_t b = 0; b < p.x.extent(0); ++b) {
    for (index_t first = 0; first < channels; first += block) {
      for (index_t n = 0; n < states; ++n) {
        auto const at = static_cast<std::size_t>(n);
        for (int i = 0; i < block; ++i) A[at][i] = p.A(first + i, n);
        h[at].setZero();
      }
      map const bias(&p.step_bias(first)), D(&p.D(first));
      for (index_t t = 0; t < length; ++t) {
        column step = map(&p.step_size(b, t, first));
        map const x(&p.x(b, t, first));
        if (all) {
          step += bias;
          step = step.max(T(0)) + (-step.abs()).exp().log1p();
        }
        column const input = step * x;
        column y = all ? column(D * x) : column(column::Zero());
        for (index_t n = 0; n < states; ++n) {
          auto const at = static_cast<std::size_t>(n);
          h[at] = (step * A[at]).exp() * h[at] + input * p.B(b, t, n);
          y += h[at] * p.C(b, t, n);
        }
        if (all) {
          map const gate(&p.gate(b, t, first));
          y *= gate / (T(1) + (-gate).exp());
        }
        Eigen::Map<column>(&p.y(b, t, first)) = y;
      }
    }
  }
}

/// As the reference of the paper and ggml have it: one number at a time, the standard exp for each.
template <class T>
void direct_selective_scan(selective_problem<T>& p) {
  index_t const length = p.x.extent(1), channels = p.x.extent(2), states = p.A.extent(1);
  bool const all = p.with == options::all;
  tensor<T, 2> h({channels, states});
  for (index_t b = 0; b < p.x.extent(0); ++b) {
    std::fill(h.begin(), h.end(), T(0));
    for (index_t t = 0; t < length; ++t) {
      for (index_t c = 0; c < channels; ++c) {
        T step = p.step_size(b, t, c);
        T const x = p.x(b, t, c);
        if (all) {
          step += p.step_bias(c);
          step = step > T(20) ? step : std::log1p(std::exp(step));
        }
        T y = all ? p.D(c) * x : T(0);
        for (index_t n = 0; n < states; ++n) {
          T const next = h(c, n) * std::exp(step * p.A(c, n)) + step * p.B(b, t, n) * x;
          h(c, n) = next;
          y += next * p.C(b, t, n);
        }
        if (all) {
          T const gate = p.gate(b, t, c);
          y *= gate / (T(1) + std::exp(-gate));
        }
        p.y(b, t, c) = y;
      }
    }
  }
}

}  // namespace ssm::bench
