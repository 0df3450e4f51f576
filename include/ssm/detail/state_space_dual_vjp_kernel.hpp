// SPDX-License-Identifier: Apache-2.0
// state_space_dual_vjp_kernel.hpp: the gradient of one tile of a head through a block of time.
#pragma once

#include <cmath>
#include <limits>

#include "ssm/detail/state_space_dual_advance.hpp"
#include "ssm/detail/state_space_dual_vjp_block.hpp"

namespace ssm::detail {

/// One tile's work on one block: the chunks are visited backward, each with the state h that
/// enters it and the cotangent g of the state after it. In the notation of ssd_bundle, with dy the
/// cotangent of y before the gate and L_ij = 2^(S_i - S_j), e_i = 2^S_i, w_j = L_last,j:
///   u_j = w_j B_j·g + Σ_{i >= j} (C_i·B_j) L_ij dy_i,   dx_j = D dy_j + Δ_j u_j,
///   dC_i = e_i dy_i·h + Σ_{j <= i} G_ij B_j,   dB_j = w_j Δ_j x_j·g + Σ_{i >= j} G_ij C_i,
///   G_ij = (dy_i·x_j) L_ij Δ_j,   dh = e_last g + Σ_i e_i dy_i ⊗ C_i,
/// and the cotangent of the logarithm of decay k is the sum of all terms that crossed step k:
///   Σ_{i >= k > j} G_ij C_i·B_j + Σ_{i >= k} C_i·(e_i dy_i·h) + Σ_{j < k} Δ_j x_j·(w_j B_j·g)
///   + e_last h·g,  in which nothing cancels.
template <int Lanes, class T>
struct ssd_vjp_tile {
  using A = accumulator_t<T>;
  using vector = pack<A, Lanes>;

  state_space_dual_inputs<T> const& in;
  ssd_vjp_buffers<A>& w;
  ssd_vjp_tile_rows<T> const own;
  ssd_vjp_tile_rows<T> const coming;  // of the next tile
  A *const to_B, *const to_C, *const to_products;
  bool const skips;
  A* const cotangent = own.cotangent;  // of the states, a row for each

  [[gnu::always_inline]] index_t count(std::size_t c) const {
    return w.block.chunks[c + 1] - w.block.chunks[c];
  }
  [[gnu::always_inline]] index_t offset(std::size_t c) const {
    return w.block.chunks[c] - w.block.begin;
  }
  [[gnu::always_inline]] index_t state_rows() const { return round_up(in.B.extent(3), tall_rows); }
  [[gnu::always_inline]] bool cut(std::size_t c) const {
    return starts_sequence(in.sequence, w.block.b, w.block.chunks[c]);
  }
  /// The states that enter a chunk, a row of channels for each: those that enter the block where
  /// they were saved, if they lie there so.
  [[gnu::always_inline]] A* entering(std::size_t c) const {
    if (c == 0 && own.has_states_in_rows(w.tile)) return own.states_at(w.block.begin);
    return w.entering + static_cast<index_t>(c) * state_rows() * w.tile;
  }

  /// x of a chunk's step and its weight in the state after the chunk, Δ_j w_j.
  [[gnu::always_inline]] A load_x(std::size_t c, index_t j) const {
    index_t const first = offset(c), last = first + count(c) - 1;
    gather<Lanes>(own.rows.x.at(w.block.chunks[c] + j), own.rows.x.step, own.rows.count, w.tile,
                  w.x + j * w.tile);
    return w.between[last * w.chunk + j] * w.step[first + j];
  }

  /// States that products go through at a time, so that they pass through the first cache once.
  static constexpr index_t near_states = 16;

  /// Bring so many states from state n on to the first cache.
  [[gnu::always_inline]] void bring_near(A const* states, index_t n) const {
    constexpr index_t line = 64 / index_t{sizeof(A)};
    A const* const end = states + std::min(state_rows(), n + near_states) * w.tile;
    for (A const* at = states + n * w.tile; at < end; at += line) __builtin_prefetch(at, 0, 3);
  }

  /// The chunk that is visited after chunk c, and of which tile.
  [[gnu::always_inline]] std::size_t next(std::size_t c) const {
    return c > 0 ? c - 1 : w.block.chunks.size() - 2;
  }
  [[gnu::always_inline]] ssd_vjp_tile_rows<T> const& rows_of_next(std::size_t c) const {
    return c > 0 ? own : coming;
  }

  /// The states that enter all chunks, from those that enter the block.
  [[gnu::always_inline]] void run_forward() const {
    if (!own.has_states_in_rows(w.tile)) {
      std::fill_n(entering(0), state_rows() * w.tile, A(0));
      load_states<Lanes, A>(own.states.select(1, w.block.begin / state_space_dual_block), own.at,
                            in.B.extent(3), w.tile, entering(0));
    }
    for (std::size_t c = 1; c + 1 < w.block.chunks.size(); ++c) {
      if (cut(c)) {
        std::fill_n(entering(c), state_rows() * w.tile, A(0));
      } else {
        run_chunk(c - 1, entering(c));
      }
    }
  }

  /// The state after a chunk.
  [[gnu::always_inline]] void run_chunk(std::size_t c, A* to) const {
    for (index_t j = 0; j < count(c); ++j) {
      A const weight = load_x(c, j);
      for (index_t p = 0; p < w.tile; p += Lanes) {
        index_t const i = j * w.tile + p;
        vector(vector::load(w.x + i) * weight).store(w.input + i);
      }
    }
    update_matrix<Lanes, A>(state_rows(), w.tile, count(c), {w.B_columns + offset(c), w.row, 1},
                            w.input, w.tile, w.entered[offset(c) + count(c) - 1], entering(c), to);
  }

  [[gnu::always_inline]] void run_backward() const {
    for (std::size_t c = w.block.chunks.size() - 1; c-- > 0;) {
      visit_chunk(c);
      if (cut(c)) std::fill_n(cotangent, state_rows() * w.tile, A(0));
    }
  }

  [[gnu::always_inline]] void visit_chunk(std::size_t c) const {
    index_t const q = count(c), first = offset(c), tile = w.tile;
    A const *const between = w.between + first * w.chunk, *const step = w.step + first;
    A const *const products = w.products + first * w.chunk, *const entered = w.entered + first;
    A* const weight = w.scale;

    A* const states = entering(c);
    bring_near(states, 0);
    for (index_t j = 0; j < q; ++j) weight[j] = load_x(c, j);
    pull_back_gate<Lanes>(own, w.block.chunks[c], q, tile, +w.y, +w.drive);
    for (index_t j = q; j < w.chunk; ++j) weight[j] = A(0);
    std::fill_n(w.x + q * tile, (w.chunk - q) * tile, A(0));
    std::fill_n(w.y + q * tile, (w.chunk - q) * tile, A(0));
    transpose_matrix<Lanes, A>(w.chunk, tile, w.x, tile, 1, w.x_columns, w.chunk, 1);
    transpose_matrix<Lanes, A>(w.chunk, tile, w.y, tile, 1, w.y_columns, w.chunk, 1);

    // G, and the terms G_ij C_i·B_j
    multiply_lower_triangle<Lanes, A>(round_up(q, tall_rows), w.chunk, own.rows.count,
                                      {w.y, tile, 1}, w.x_columns, w.terms);
    for (index_t i = 0; i < q; ++i) {
      for (index_t j = 0; j <= i; j += Lanes) {
        index_t const at = i * w.chunk + j;
        vector const G =
            vector::load(w.terms + at) * (vector::load(between + at) * vector::load(step + j));
        A* const sum = to_products + first * w.chunk + at;
        vector(vector::load(sum) + G).store(sum);
        vector(G * vector::load(products + at)).store(w.terms + at);
      }
    }

    A const through = add_products(c, states);
    pull_back_states(c);
    write_drives(c);
    add_log_decays(c, cut(c) ? A(0) : entered[q - 1] * through);
  }

  /// What the states h that enter a chunk and the cotangent g of those that leave it add to the
  /// gradients of C and B, and in w.dots and w.x_dots to those of the decays. Returns h·g.
  [[gnu::always_inline]] A add_products(std::size_t c, A* states) const {
    index_t const q = count(c), first = offset(c), tile = w.tile;
    std::fill_n(+w.dots, w.chunk, A(0));
    std::fill_n(+w.x_dots, w.chunk, A(0));
    vector through[2] = {vector(A(0)), vector(A(0))};
    ssd_lines_due due = rows_of_next(c).states_due(w.block.chunks[next(c)]);
    index_t const lines = next(c) > 0 ? 0 : due.in_a_step() * own.rows_of_states(),
                  sums = (cut(c) ? 1 : 2) * state_rows() * q;
    index_t fetched = 0, done = 0;
    auto const ahead = [&](index_t sums_here) __attribute__((always_inline)) {
      done += sums_here;
      for (index_t const due_here = lines * done / sums; fetched < due_here; ++fetched) due.fetch();
    };
    for (index_t n = 0; n < state_rows(); n += near_states) {
      index_t const here = std::min(near_states, state_rows() - n), at = first + n * w.row;
      A *const h = states + n * tile, *const g = cotangent + n * tile;
      if (!cut(c)) {
        scaled_products<Lanes, A>(here, q, own.rows.count, {h, tile, 1}, w.y_columns, w.chunk,
                                  w.entered + first, to_C + at, w.row, w.C_columns + at, w.dots,
                                  ahead);
      }
      scaled_products<Lanes, A>(here, q, own.rows.count, {g, tile, 1}, w.x_columns, w.chunk,
                                w.scale, to_B + at, w.row, w.B_columns + at, w.x_dots, ahead);
      bring_near(states, n + here);
      bring_near(cotangent, n + here);
      for (index_t i = 0; i < here * tile; i += 2 * Lanes) {  // here is even
        through[0] = multiply_add(vector::load(g + i), vector::load(h + i), through[0]);
        through[1] =
            multiply_add(vector::load(g + i + Lanes), vector::load(h + i + Lanes), through[1]);
      }
    }
    return sum_of_lanes(through[0] + through[1]);
  }

  /// u_j / w_j, and g from after the chunk to before it, as ssd_bundle goes forward:
  ///   g ← g + dy_j/w_j ⊗ C_j,   u_j / w_j = B_j·g,
  /// part by part where w would be small or large, with the w of each part in w.growth.
  [[gnu::always_inline]] void pull_back_states(std::size_t c) const {
    index_t const first = offset(c), tile = w.tile;
    std::fill_n(+w.drive, count(c) * tile, A(0));
    ssd_lines_due due = rows_of_next(c).due(w.block.chunks[next(c)]);
    index_t const lines = due.in_a_step() * count(next(c));
    for (index_t end = count(c); end > 0;) {
      A const* const growth = w.between + (first + end - 1) * w.chunk;
      index_t const begin = load_cotangents(growth, end), last = end - 1;
      index_t const shared = (first + last) * w.states, own_rows = last * tile;
      ssd_steps<A> const steps{.count = end - begin,
                               .update = w.C + shared,
                               .readout = w.B + shared,
                               .shared_step = -w.states,
                               .drive = w.input + own_rows,
                               .sum = w.drive + own_rows,
                               .own_step = -tile,
                               .entering = A(1),
                               .leaving = begin > 0 ? growth[begin - 1] : w.entered[first + last]};
      advance_states<Lanes, A>(steps, cotangent, state_rows(), tile, due,
                               lines * (end - begin) / count(c), nullptr);
      end = begin;
    }
  }

  /// dy/w of the steps before `end` that are one part, the last of which has w = 1: returns where
  /// it begins.
  [[gnu::always_inline]] index_t load_cotangents(A const* growth, index_t end) const {
    A const smallest = std::ldexp(A(1), -largest_ssd_decay),
            largest = std::ldexp(A(1), largest_ssd_growth),
            safe = std::numeric_limits<A>::max() * A(0x1p-28);
    index_t begin = end;
    while (begin > 0) {
      index_t const j = begin - 1;
      bool const is_last = begin == end;
      if (!is_last && !(growth[j] >= smallest && growth[j] <= largest)) break;
      A const inverse = A(1) / growth[j];
      largest_magnitude<A, Lanes> size;
      for (index_t i = j * w.tile; i < begin * w.tile; i += Lanes) {
        vector const scaled = vector::load(w.y + i) * inverse;
        size.include(scaled);
        scaled.store(w.input + i);
      }
      if (!is_last && !all_at_most(size.value(), safe)) break;
      w.growth[j] = growth[j];
      begin = j;
    }
    return begin;
  }

  /// dx, dD, and the part of dΔ that comes through the drive, from u.
  [[gnu::always_inline]] void write_drives(std::size_t c) const {
    for (index_t j = 0; j < count(c); ++j) {
      A *const u = w.drive + j * w.tile, *const x = w.x + j * w.tile, *const y = w.y + j * w.tile;
      A const step = w.step[offset(c) + j], growth = w.growth[j];
      vector dot(A(0));
      for (index_t p = 0; p < w.tile; p += Lanes) {
        vector const g = vector::load(y + p), x_p = vector::load(x + p),
                     u_p = vector::load(u + p) * growth;
        dot = multiply_add(u_p, x_p, dot);
        multiply_add(g, x_p, vector::load(w.to_D + p)).store(w.to_D + p);
        vector sum = u_p * step;
        if (skips) sum = multiply_add(g, vector::load(w.D + p), sum);
        sum.store(u + p);
      }
      w.to_step[offset(c) + j] += sum_of_lanes(dot);
    }
    auto const& to = own.more.to_x;
    for (index_t j = 0; j < count(c) && to.first != nullptr; ++j)
      add_row<Lanes>(w.drive + j * w.tile, own.rows.count, to.at(w.block.chunks[c] + j), to.step);
  }

  /// The cotangents of the logarithms of a chunk's decays.
  [[gnu::always_inline]] void add_log_decays(std::size_t c, A through) const {
    index_t const q = count(c);
    A* const to = w.to_log + offset(c);
    A entering_state(0);
    for (index_t k = 0; k < q; ++k) {
      to[k] += through + entering_state;
      entering_state += w.scale[k] * w.x_dots[k];
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
