// SPDX-License-Identifier: Apache-2.0
// state_space_dual_vjp_kernel.hpp: the gradient of one tile of a head through a block of time.
#pragma once

#include "ssm/detail/state_space_dual_vjp_block.hpp"

namespace ssm::detail {

/// One tile's work on one block: the states are run again from the one that enters the block, then
/// the chunks are visited backward with the cotangent g of the state after them. In the notation of
/// run_tile, with dy the cotangent of y before the gate, h the state that enters the chunk, and
/// L_ij = 2^(S_i - S_j), e_i = 2^S_i, w_j = L_last,j:
///   u_j = w_j B_j·g + Σ_{i >= j} (C_i·B_j) L_ij dy_i,   dx_j = D dy_j + Δ_j u_j,
///   dC_i = e_i dy_i·h + Σ_{j <= i} G_ij B_j,            dB_j = w_j Δ_j x_j·g + Σ_{i >= j} G_ij
///   C_i, G_ij = (dy_i·x_j) L_ij Δ_j,                         dh = e_last g + Σ_i e_i dy_i ⊗ C_i,
/// and the cotangent of the logarithm of decay k is the sum of all terms that crossed step k:
///   Σ_{i >= k > j} G_ij C_i·B_j + Σ_{i >= k} C_i·(e_i dy_i·h) + Σ_{j < k} Δ_j x_j·(w_j B_j·g)
///   + e_last h·g,  in which nothing cancels.
template <int Lanes, class T>
struct ssd_vjp_tile {
  using A = accumulator_t<T>;
  using vector = pack<A, Lanes>;

  state_space_dual_inputs<T> const& in;
  ssd_vjp_block const& block;
  ssd_vjp_buffers<A>& w;
  ssd_vjp_tile_rows<T> const own;
  ssd_vjp_tile_rows<T> const coming;  // of the next tile
  A *const to_B, *const to_C;         // rows of the block
  bool const adds;                    // whether anything is there
  bool const skips;

  [[gnu::always_inline]] index_t count(std::size_t c) const {
    return block.chunks[c + 1] - block.chunks[c];
  }
  [[gnu::always_inline]] index_t offset(std::size_t c) const {
    return block.chunks[c] - block.begin;
  }
  [[gnu::always_inline]] A* entering(std::size_t c) const {
    return w.entering + static_cast<index_t>(c) * w.rows * w.states;
  }
  [[gnu::always_inline]] bool cut(std::size_t c) const {
    return starts_sequence(in.sequence, block.b, block.chunks[c]);
  }

  /// x of a chunk's step and its weight in the state after the chunk, Δ_j w_j.
  [[gnu::always_inline]] A load_x(std::size_t c, index_t j) const {
    index_t const first = offset(c), last = first + count(c) - 1;
    gather<Lanes>(own.rows.x.at(block.chunks[c] + j), own.rows.x.step, own.rows.count, w.tile,
                  w.x + j * w.tile);
    return w.between[last * w.chunk + j] * w.step[first + j];
  }

  /// Part i of n of the rows that are wanted after chunk c, and some of the next tile's states.
  [[gnu::always_inline]] void prefetch_next(std::size_t c, index_t i, index_t n) const {
    std::size_t const chunks = block.chunks.size() - 1, next = c > 0 ? c - 1 : chunks - 1;
    auto const& rows = c > 0 ? own : coming;
    index_t const q = count(next), t = block.chunks[next];
    for (index_t j = q * i / n; j < q * (i + 1) / n; ++j) rows.prefetch(t + j);
    index_t const done = static_cast<index_t>(chunks - 1 - c) * n + i;
    index_t const all = static_cast<index_t>(chunks) * n;
    for (index_t p = w.rows * done / all; p < w.rows * (done + 1) / all; ++p)
      coming.prefetch_states(p);
  }

  /// The states that enter all chunks, from that of the first.
  [[gnu::always_inline]] void run_forward() const {
    std::size_t const last = block.chunks.size() - 2;
    for (std::size_t c = 0; c < last; ++c) {
      A* const next = entering(c + 1);
      for (index_t t = block.chunks[c + 1]; t < block.chunks[c + 2]; ++t)
        own.rows.x.prefetch(t, own.rows.count);
      if (cut(c + 1)) {
        std::fill_n(next, w.rows * w.states, A(0));
        continue;
      }
      for (index_t j = 0; j < count(c); ++j) {
        A const weight = load_x(c, j);
        for (index_t p = 0; p < w.tile; p += Lanes) {
          index_t const i = j * w.tile + p;
          vector(vector::load(w.x + i) * weight).store(w.input + i);
        }
      }
      for (index_t n = 0; n < w.states; n += ssd_vjp_panel) {
        index_t const width = std::min(ssd_vjp_panel, w.states - n), panel = n * w.rows;
        update_matrix<Lanes, A>(
            w.rows, width, count(c), {w.input, 1, w.tile}, w.B + offset(c) * w.states + n, w.states,
            w.entered[offset(c) + count(c) - 1], entering(c) + panel, next + panel);
      }
    }
  }

  [[gnu::always_inline]] void run_backward() const {
    for (std::size_t c = block.chunks.size() - 1; c-- > 0;) {
      visit_chunk(c);
      if (cut(c)) std::fill_n(+w.cotangent, w.rows * w.states, A(0));
    }
  }

  [[gnu::always_inline]] void visit_chunk(std::size_t c) const {
    index_t const q = count(c), steps = round_up(q, product_rows), first = offset(c);
    index_t const tile = w.tile, states = w.states, t = block.chunks[c];
    A const *const between = w.between + first * w.chunk, *const step = w.step + first;
    A const *const products = w.products + first * w.chunk, *const entered = w.entered + first;
    A* const weight = w.scale;

    for (index_t j = 0; j < q; ++j) weight[j] = load_x(c, j);
    pull_back_gate<Lanes>(own, t, q, tile, +w.y, +w.drive, +w.input);
    for (index_t j = q; j < steps; ++j) weight[j] = A(0);
    std::fill_n(w.x + q * tile, (steps - q) * tile, A(0));
    std::fill_n(w.y + q * tile, (steps - q) * tile, A(0));

    // G, the terms G_ij C_i·B_j, and (C_i·B_j) L_ij
    multiply_rows<Lanes, A>(steps, tile, w.y, w.x, w.terms, w.chunk);
    for (index_t i = 0; i < q; ++i) {
      for (index_t j = 0; j < w.chunk; j += Lanes) {
        index_t const at = i * w.chunk + j;
        vector const decay = vector::load(between + at), product = vector::load(products + at);
        vector const G = vector::load(w.terms + at) * (decay * vector::load(step + j));
        A* const sum = w.to_products + first * w.chunk + at;
        vector(vector::load(sum) + G).store(sum);
        vector(G * product).store(w.terms + at);
        vector(product * decay).store(w.mixing + at);
      }
    }

    // all products with the states
    for (index_t i = 0; i < q; ++i)
      for (index_t p = 0; p < tile; p += Lanes)
        vector(vector::load(w.y + i * tile + p) * entered[i]).store(w.input + i * tile + p);
    std::fill_n(+w.dots, steps, A(0));
    std::fill_n(+w.drive_columns, w.rows * w.chunk, A(0));
    vector through(A(0));  // h·g
    if (cut(c) && !adds) std::fill_n(to_C + first * states, q * states, A(0));
    for (index_t n = 0; n < states; n += ssd_vjp_panel) {
      index_t const width = std::min(ssd_vjp_panel, states - n);
      A *const h = entering(c) + n * w.rows, *const g = w.cotangent + n * w.rows;
      A const* const C = w.C + first * states + n;
      auto const ahead = [&](index_t k) __attribute__((always_inline)) {
        prefetch_next(c, n / ssd_vjp_panel * 4 + k,
                      (states + ssd_vjp_panel - 1) / ssd_vjp_panel * 4);
      };
      ahead(0);
      if (!cut(c)) {
        scaled_products<Lanes, A>(q, width, w.rows, {w.y, tile, 1}, h, entered, adds,
                                  to_C + first * states + n, states, C, w.dots);
      }
      ahead(1);
      scaled_products<Lanes, A>(q, width, w.rows, {w.x, tile, 1}, g, weight, adds,
                                to_B + first * states + n, states, nullptr, nullptr);
      ahead(2);
      add_tall_product<Lanes, A>(
          w.rows, w.chunk, std::min(width, in.B.extent(3) - n), {g, width, 1},
          w.transposed_B + (static_cast<index_t>(c) * states + n) * w.chunk, w.drive_columns);
      ahead(3);
      auto const scaled = [&](index_t i) __attribute__((always_inline)) {
        vector const before = vector::load(g + i);
        through = multiply_add(before, vector::load(h + i), through);
        return vector(before * entered[q - 1]);
      };
      multiply_matrix<Lanes, A>(w.rows, width, q, {w.input, 1, tile}, C, states, scaled, g);
    }

    // u, first its part through the state
    std::fill_n(+w.drive, w.rows < tile ? q * tile : 0, A(0));
    transpose_matrix<Lanes, A>(w.rows, w.chunk, w.drive_columns, w.chunk, 1, w.drive, tile, 1);
    A into_state[longest_ssd_chunk];
    for (index_t j = 0; j < q; ++j) {
      A const decay = between[(q - 1) * w.chunk + j];
      A *const u = w.drive + j * tile, *const x = w.x + j * tile;
      vector dot(A(0));
      for (index_t p = 0; p < tile; p += Lanes) {
        vector const scaled = vector::load(u + p) * decay;
        scaled.store(u + p);
        dot = multiply_add(scaled, vector::load(x + p), dot);
      }
      into_state[j] = step[j] * sum_of_lanes(dot);
    }
    add_upper_triangle<Lanes, A>(q, tile, w.mixing, w.chunk, w.y, w.drive);
    write_drives(c);
    add_log_decays(c, cut(c) ? A(0) : entered[q - 1] * sum_of_lanes(through), into_state);
  }

  /// dx, dD, and the part of dΔ that comes through the drive, from u.
  [[gnu::always_inline]] void write_drives(std::size_t c) const {
    for (index_t j = 0; j < count(c); ++j) {
      A *const u = w.drive + j * w.tile, *const x = w.x + j * w.tile, *const y = w.y + j * w.tile;
      A const step = w.step[offset(c) + j];
      w.to_step[offset(c) + j] += dot_product<Lanes, A>(x, u, w.tile);
      for (index_t p = 0; p < w.tile; p += Lanes) {
        vector const g = vector::load(y + p);
        multiply_add(g, vector::load(x + p), vector::load(w.to_D + p)).store(w.to_D + p);
        vector sum = vector::load(u + p) * step;
        if (skips) sum = multiply_add(g, vector::load(w.D + p), sum);
        sum.store(u + p);
      }
    }
    auto const& to = own.more.to_x;
    for (index_t j = 0; j < count(c) && to.first != nullptr; ++j)
      add_row<Lanes>(w.drive + j * w.tile, own.rows.count, to.at(block.chunks[c] + j), to.step);
  }

  /// The cotangents of the logarithms of a chunk's decays.
  [[gnu::always_inline]] void add_log_decays(std::size_t c, A through,
                                             A const (&into_state)[longest_ssd_chunk]) const {
    index_t const q = count(c);
    A* const to = w.to_log + offset(c);
    A entering_state(0);
    for (index_t k = 0; k < q; ++k) {
      to[k] += through + entering_state;
      entering_state += into_state[k];
    }
    A leaving(0);
    A* const crossing = w.scale;  // Σ_{i >= k} of the terms for each j
    std::fill_n(crossing, q, A(0));
    for (index_t k = q - 1; k >= 0; --k) {
      leaving += w.entered[offset(c) + k] * w.dots[k];
      A sum(0);
      for (index_t j = 0; j < k; ++j) sum += crossing[j] += w.terms[k * w.chunk + j];
      to[k] += leaving + sum;
    }
  }
};

}  // namespace ssm::detail
