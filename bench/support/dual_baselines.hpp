// SPDX-License-Identifier: Apache-2.0
// dual_baselines.hpp: Mamba-2's recurrence as others write it, to be measured beside ours.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <vector>

#include "support/selective_problem.hpp"

namespace ssm::bench {

namespace detail {

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using rows_of = Eigen::Map<matrix const, 0, Eigen::OuterStride<>>;

inline float softplus_of(float x) {
  return x > 20 ? x : std::log1p(std::exp(x));
}

/// y = (y + D·x) · silu(gate), for `count` steps of one head.
inline void finish(selective_problem<float>& p, index_t b, index_t first, index_t count,
                   index_t head, index_t width) {
  for (index_t t = first; t < first + count; ++t) {
    using row = Eigen::Array<float, Eigen::Dynamic, 1>;
    index_t const c = head * width;
    Eigen::Map<row const> const x(&p.x(b, t, c), width), gate(&p.gate(b, t, c), width);
    Eigen::Map<row> y(&p.y(b, t, c), width);
    y = (y + p.D(head) * x) * gate / (1 + (-gate).exp());
  }
}

}  // namespace detail

/// With Eigen, in the chunked matrix form: 64 steps of a head are three products of matrices,
/// beside one that all heads share.
///   y = (L ∘ C Bᵀ)(Δ x) + decay since the chunk began · C H,  L_ts = decay from s to t
/// Source    Dao & Gu 2024, arXiv:2405.21060, listing 1.
inline void eigen_state_space_dual(selective_problem<float>& p) {
  constexpr index_t chunk = 64;
  index_t const length = p.x.extent(1), channels = p.x.extent(2), states = p.B.extent(2);
  index_t const width = channels / p.heads;
  using stride = Eigen::OuterStride<>;
  std::vector<detail::matrix> H(static_cast<std::size_t>(p.heads));
  detail::matrix scores, weights, inputs;
  Eigen::ArrayXf step(chunk), since(chunk);
  for (index_t b = 0; b < p.x.extent(0); ++b) {
    for (auto& of_head : H) of_head.setZero(states, width);
    for (index_t first = 0; first < length; first += chunk) {
      index_t const count = std::min(chunk, length - first);
      detail::rows_of const B(&p.B(b, first, 0), count, states, stride(states));
      detail::rows_of const C(&p.C(b, first, 0), count, states, stride(states));
      scores.noalias() = C * B.transpose();
      for (index_t head = 0; head < p.heads; ++head) {
        float sum = 0;
        for (index_t t = 0; t < count; ++t) {
          step[t] = detail::softplus_of(p.step_size(b, first + t, head) + p.step_bias(head));
          since[t] = sum += step[t] * p.A(head, 0);
        }
        detail::rows_of const x(&p.x(b, first, head * width), count, width, stride(channels));
        Eigen::Map<detail::matrix, 0, stride> y(&p.y(b, first, head * width), count, width,
                                                stride(channels));
        inputs = step.head(count).matrix().asDiagonal() * x;
        weights.setZero(count, count);
        for (index_t t = 0; t < count; ++t) {
          weights.row(t).head(t + 1) =
              scores.row(t).head(t + 1).array() * (since[t] - since.head(t + 1)).exp().transpose();
        }
        y.noalias() = weights * inputs;
        weights = since.head(count).exp().matrix().asDiagonal() * C;
        auto& of_head = H[static_cast<std::size_t>(head)];
        y.noalias() += weights * of_head;
        inputs = (sum - since.head(count)).exp().matrix().asDiagonal() * inputs;
        of_head *= std::exp(sum);
        of_head.noalias() += B.transpose() * inputs;
        detail::finish(p, b, first, count, head, width);
      }
    }
  }
}

/// Step by step with the state in memory, as ggml has it; the products with Eigen's vectors.
inline void direct_state_space_dual(selective_problem<float>& p) {
  index_t const length = p.x.extent(1), channels = p.x.extent(2), states = p.B.extent(2);
  index_t const width = channels / p.heads;
  using vector = Eigen::Map<Eigen::VectorXf const>;
  detail::matrix H(channels, states);
  for (index_t b = 0; b < p.x.extent(0); ++b) {
    H.setZero();
    for (index_t t = 0; t < length; ++t) {
      vector const B(&p.B(b, t, 0), states), C(&p.C(b, t, 0), states);
      for (index_t head = 0; head < p.heads; ++head) {
        float const step = detail::softplus_of(p.step_size(b, t, head) + p.step_bias(head));
        float const decay = std::exp(step * p.A(head, 0));
        for (index_t c = head * width; c < (head + 1) * width; ++c) {
          H.row(c) = decay * H.row(c) + step * p.x(b, t, c) * B.transpose();
          p.y(b, t, c) = H.row(c).dot(C);
        }
        detail::finish(p, b, t, 1, head, width);
      }
    }
  }
}

}  // namespace ssm::bench
