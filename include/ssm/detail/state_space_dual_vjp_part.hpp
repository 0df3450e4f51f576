// SPDX-License-Identifier: Apache-2.0
// state_space_dual_vjp_part.hpp: the gradient of some heads of a group, block by block.
#pragma once

#include <algorithm>
#include <vector>

#include "ssm/detail/state_space_dual_vjp_kernel.hpp"

namespace ssm::detail {

/// Heads of one group through blocks of time, last block first. The cotangent of their states
/// waits in views.carry_cotangent between blocks; the gradients of B and C are added up over the
/// heads and written for each block.
template <int Lanes, class T>
struct ssd_vjp_part {
  using A = accumulator_t<T>;
  using vector = pack<A, Lanes>;

  state_space_dual_inputs<T> const& in;
  ssd_vjp_views<T> const& views;
  ssd_partition const& tiles;
  ssd_vjp_buffers<A>& w;
  index_t longest, b, group, part, first_head, last_head;

  /// Block k.
  [[gnu::always_inline]] void run(index_t k) const {
    ssd_vjp_block block{b,
                        group,
                        k * state_space_dual_block,
                        std::min(in.x.extent(1), (k + 1) * state_space_dual_block),
                        {}};
    find_chunks(block);
    if (!(w.loaded == block)) load(block);
    w.loaded = block;
    std::fill_n(+w.to_products, w.block_rows() * w.chunk, A(0));
    for (index_t head = first_head; head < last_head; ++head) pull_back_head(block, head, k);
    add_products(block);
  }

  [[gnu::always_inline]] A rate(index_t head) const {
    return scaled_eigenvalue(in, head) * number_format<A>::log2_e;
  }

  [[gnu::always_inline]] void fill(ssd_vjp_block const& block, index_t head) const {
    index_t const count = block.end - block.begin;
    fill_steps<Lanes>(in, b, head, block.begin, count, round_up(count, Lanes), rate(head), +w.step,
                      +w.log_decay);
  }

  /// Chunks that none of the heads overflows in.
  [[gnu::always_inline]] void find_chunks(ssd_vjp_block& block) const {
    std::vector<char> begins(static_cast<std::size_t>(block.end - block.begin), 0);
    index_t const first = block.begin;
    for (index_t t = first; t < block.end; t = end_of_chunk(in, b, t, longest))
      begins[static_cast<std::size_t>(t - first)] = 1;
    for (index_t head = first_head; head < last_head; ++head) {
      fill(block, head);
      for (index_t t = first; t < block.end;) {
        index_t end = t + 1;
        while (end < block.end && begins[static_cast<std::size_t>(end - first)] == 0) ++end;
        t += steps_without_overflow<A>(w.log_decay + (t - first), end - t);
        if (t < block.end) begins[static_cast<std::size_t>(t - first)] = 1;
      }
    }
    for (index_t t = first; t < block.end; ++t)
      if (begins[static_cast<std::size_t>(t - first)] != 0) block.chunks.push_back(t);
    block.chunks.push_back(block.end);
    auto const count = static_cast<index_t>(block.chunks.size());
    w.entering.reserve(w.most_rows * w.states * count);
    w.transposed_B.reserve(w.chunk * w.states * count);
  }

  /// B and C of a block and their products.
  [[gnu::always_inline]] void load(ssd_vjp_block const& block) const {
    index_t const steps = block.end - block.begin;
    row_series<T const> const B(in.B, b, group, 0), C(in.C, b, group, 0);
    for (index_t i = 0; i < steps; ++i) {
      index_t const t = block.begin + i, at = i * w.states;
      gather<Lanes>(B.at(t), B.step, in.B.extent(3), w.states, w.B + at);
      gather<Lanes>(C.at(t), C.step, in.B.extent(3), w.states, w.C + at);
    }
    for (std::size_t c = 0; c + 1 < block.chunks.size(); ++c) {
      index_t const at = block.chunks[c] - block.begin;
      multiply_rows<Lanes, A>(round_up(block.chunks[c + 1] - block.chunks[c], product_rows),
                              w.states, w.C + at * w.states, w.B + at * w.states,
                              w.products + at * w.chunk, w.chunk);
      A* const columns = w.transposed_B + static_cast<index_t>(c) * w.states * w.chunk;
      for (index_t n = 0; n < w.states; ++n) {
        for (index_t j = 0; j < w.chunk; ++j)
          columns[n * w.chunk + j] = w.B[(at + j) * w.states + n];
      }
    }
  }

  /// Where this part's gradients of B or C of a block are added up.
  [[gnu::always_inline]] A* rows_of(tensor_view<A, 5> const& all) const {
    return &all(part, b, group, 0, 0);
  }

  /// To the gradients of B and C of a block, what comes from their products.
  [[gnu::always_inline]] void add_products(ssd_vjp_block const& block) const {
    A *const to_B = rows_of(views.B), *const to_C = rows_of(views.C);
    for (std::size_t c = 0; c + 1 < block.chunks.size(); ++c) {
      index_t const at = block.chunks[c] - block.begin, rows = at * w.states;
      index_t const steps = block.chunks[c + 1] - block.chunks[c];
      A const* const G = w.to_products + at * w.chunk;
      add_lower_triangle<Lanes, A>(steps, w.states, G, w.chunk, w.B + rows, nullptr, nullptr,
                                   to_C + rows);
      add_upper_triangle<Lanes, A>(steps, w.states, G, w.chunk, w.C + rows, to_B + rows);
    }
  }

  [[gnu::always_inline]] void pull_back_head(ssd_vjp_block const& block, index_t head,
                                             index_t k) const {
    index_t const steps = block.end - block.begin, head_dim = in.x.extent(3);
    fill(block, head);
    for (std::size_t c = 0; c + 1 < block.chunks.size(); ++c) {
      index_t const at = block.chunks[c] - block.begin;
      fill_decays<Lanes, A>(w.log_decay + at, block.chunks[c + 1] - block.chunks[c], w.chunk,
                            w.between + at * w.chunk, w.entered + at);
    }
    std::fill_n(+w.to_step, steps, A(0));
    std::fill_n(+w.to_log, steps, A(0));
    for (index_t i = 0; i < tiles.tiles; ++i) {
      index_t const first = i * tiles.tile;
      pull_back_tile(block, {b, head, first, std::min(tiles.tile, head_dim - first)}, k);
    }
    pull_back_step_sizes(block, head);
  }

  /// move(row, its step, how many numbers, with padding, their place in a panel) for the rows of a
  /// tile's states; zeros in those that there are none for.
  template <class S, class Move>
  [[gnu::always_inline]] void for_each_row(row_series<S> const& rows, index_t count, A* panels,
                                           Move const& move) const {
    for (index_t n = 0; n < w.states; n += ssd_vjp_panel) {
      index_t const width = std::min(ssd_vjp_panel, w.states - n);
      A* const panel = panels + n * w.rows;
      for (index_t p = 0; p < count; ++p)
        move(rows.at(p) + n * rows.step, rows.step, std::min(width, in.B.extent(3) - n), width,
             panel + p * width);
      std::fill_n(panel + count * width, (w.rows - count) * width, A(0));
    }
  }

  [[gnu::always_inline]] void pull_back_tile(ssd_vjp_block const& block, ssd_tile const& at,
                                             index_t k) const {
    w.tile = round_up(at.count, std::max(Lanes, tall_rows));
    w.rows = round_up(at.count, tall_rows);
    ssd_vjp_tile_rows<T> const rows(in, views, at, k);
    auto const load = [&](auto const* from, index_t step, index_t count, index_t width, A* to)
        __attribute__((always_inline)) {
      gather<Lanes>(from, step, count, width, to);
    };
    for_each_row(rows.states, at.count, w.entering, load);
    for_each_row(rows.cotangents, at.count, w.cotangent, load);
    bool const skips = in.D.data_handle() != nullptr;
    if (skips) gather<Lanes>(&in.D(at.head, at.first), in.D.stride(1), at.count, w.tile, +w.D);
    std::fill_n(+w.to_D, w.tile, A(0));

    index_t const next = (b * in.x.extent(2) + at.head) * tiles.tiles + at.first / tiles.tile + 1;
    ssd_vjp_tile<Lanes, T> const run{in,
                                     block,
                                     w,
                                     rows,
                                     {in, views, next < tiles.count() ? tiles(next) : at, k},
                                     rows_of(views.B),
                                     rows_of(views.C),
                                     at.head != first_head || at.first != 0,
                                     skips};
    run.run_forward();
    run.run_backward();

    for_each_row(
        rows.cotangents, at.count, w.cotangent,
        [&](A * to, index_t step, index_t count, index_t, A const* from)
            __attribute__((always_inline)) { scatter<Lanes>(from, count, to, step); });
    for (index_t p = 0; p < at.count; ++p) views.D(b, at.head, at.first + p) += w.to_D[p];
  }

  /// From the gradients of Δ' and of the decays' logarithms Δ' A' to those of the projection, the
  /// bias, the step factor and A'.
  [[gnu::always_inline]] void pull_back_step_sizes(ssd_vjp_block const& block, index_t head) const {
    index_t const steps = block.end - block.begin;
    A const eigenvalue = scaled_eigenvalue(in, head), factor = in.scaling.step_factor(head);
    A to_eigenvalue(0), to_bias(0), to_factor(0);
    A* const biased = w.log_decay;
    for (index_t i = 0; i < steps; ++i) {
      to_eigenvalue += w.to_log[i] * w.step[i];
      biased[i] = biased_step(in, b, block.begin + i, head);
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
        views.step_size(b, block.begin + i, head) = biased[i];
    }
    views.eigenvalue(b, head) += to_eigenvalue;
    views.bias(b, head) += to_bias;
    views.factor(b, head) += to_factor;
  }
};

}  // namespace ssm::detail
