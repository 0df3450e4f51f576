// SPDX-License-Identifier: Apache-2.0
// state_space_dual_vjp_part.hpp: the gradient of some heads of a group, block by stretch.
#pragma once

#include <algorithm>

#include "ssm/detail/state_space_dual_vjp_group.hpp"
#include "ssm/detail/state_space_dual_vjp_kernel.hpp"

namespace ssm::detail {

/// Heads of one group through blocks of time, last block first. The cotangent of their states
/// waits in views.cotangents between blocks; what they add to the gradients of B and C is left
/// for ssd_vjp_group.
template <int Lanes, class T>
struct ssd_vjp_part {
  using A = accumulator_t<T>;
  using vector = pack<A, Lanes>;

  ssd_vjp_group<Lanes, T> const& of;
  ssd_vjp_views<T> const& views;
  ssd_partition const& tiles;
  index_t part, first_head, last_head;
  state_space_dual_inputs<T> const& in = of.in;
  ssd_vjp_buffers<A>& w = of.w;
  index_t b = of.b;

  [[gnu::always_inline]] void run() const {
    auto const count = static_cast<index_t>(w.block.chunks.size());
    w.entering.reserve(w.states * tiles.tile * count);
    for (auto const* sums : {&views.B, &views.C, &views.products})
      std::fill_n(place_in(*sums), sums->stride(2), A(0));
    for (index_t head = first_head; head < last_head; ++head) pull_back_head(head);
  }

  [[gnu::always_inline]] A* place_in(tensor_view<A, 5> const& sums) const {
    return &sums(part, b, of.group, 0, 0);
  }

  [[gnu::always_inline]] void pull_back_head(index_t head) const {
    index_t const head_dim = in.x.extent(3);
    of.fill(head);
    for (std::size_t c = 0; c + 1 < w.block.chunks.size(); ++c) {
      index_t const at = w.block.chunks[c] - w.block.begin;
      fill_decays<Lanes, A>(w.log_decay + at, w.block.chunks[c + 1] - w.block.chunks[c], w.chunk,
                            w.between + at * w.chunk, w.entered + at);
    }
    std::fill_n(+w.to_step, w.block.steps(), A(0));
    std::fill_n(+w.to_log, w.block.steps(), A(0));
    for (index_t i = 0; i < tiles.tiles; ++i) {
      index_t const first = i * tiles.tile;
      pull_back_tile({b, head, first, std::min(tiles.tile, head_dim - first)});
    }
    pull_back_step_sizes(head);
  }

  [[gnu::always_inline]] void pull_back_tile(ssd_tile const& at) const {
    w.tile = round_up(at.count, Lanes);
    bool const skips = in.D.data_handle() != nullptr;
    if (skips) gather<Lanes>(&in.D(at.head, at.first), in.D.stride(1), at.count, w.tile, +w.D);
    std::fill_n(+w.to_D, w.tile, A(0));

    index_t const next = (b * in.x.extent(2) + at.head) * tiles.tiles + at.first / tiles.tile + 1;
    ssd_vjp_tile<Lanes, T> const run{in,
                                     w,
                                     {in, views, at},
                                     {in, views, next < tiles.count() ? tiles(next) : at},
                                     place_in(views.B),
                                     place_in(views.C),
                                     place_in(views.products),
                                     skips};
    run.run_forward();
    run.run_backward();

    for (index_t p = 0; p < at.count; ++p) views.D(b, at.head, at.first + p) += w.to_D[p];
  }

  /// From the gradients of Δ' and of the decays' logarithms Δ' A' to those of the projection, the
  /// bias, the step factor and A'.
  [[gnu::always_inline]] void pull_back_step_sizes(index_t head) const {
    index_t const steps = w.block.steps();
    A const eigenvalue = scaled_eigenvalue(in, head), factor = in.scaling.step_factor(head);
    A to_eigenvalue(0), to_bias(0), to_factor(0);
    A* const biased = w.log_decay;
    for (index_t i = 0; i < steps; ++i) {
      to_eigenvalue += w.to_log[i] * w.step[i];
      biased[i] = biased_step(in, b, w.block.begin + i, head);
    }
    for (index_t i = steps; i < round_up(steps, Lanes); ++i) biased[i] = A(0);
    for (index_t i = 0; i < steps; i += Lanes) {
      vector const x = vector::load(biased + i);
      vector rule = x, slope(A(1));
      if (in.step_rule.softplus) {
        rule = softplus(x);
        slope = sigmoid(x);
      }
      if (in.step_rule.limits) {
        vector const zero(A(0)), low(in.step_rule.limits->smallest),
            high(in.step_rule.limits->largest);
        slope = where_greater(low, rule, zero, where_greater(rule, high, zero, slope));
        rule = larger(low, smaller(high, rule));
      }
      vector const arriving =
          multiply_add(vector::load(w.to_log + i), eigenvalue, vector::load(w.to_step + i));
      vector(arriving * rule).store(w.step + i);
      vector(arriving * slope * factor).store(biased + i);
    }
    for (index_t i = 0; i < steps; ++i) {
      to_factor += w.step[i];
      to_bias += biased[i];
      if (views.step_size.data_handle() != nullptr)
        views.step_size(b, w.block.begin + i, head) = biased[i];
    }
    views.eigenvalue(b, head) += to_eigenvalue;
    views.bias(b, head) += to_bias;
    views.factor(b, head) += to_factor;
  }
};

}  // namespace ssm::detail
