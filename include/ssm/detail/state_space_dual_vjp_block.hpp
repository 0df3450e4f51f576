// SPDX-License-Identifier: Apache-2.0
// state_space_dual_vjp_block.hpp: what the gradient of Mamba-2's operator works on for a block of
// time.
#pragma once

#include <algorithm>
#include <vector>

#include "ssm/detail/state_space_dual_kernel.hpp"
#include "ssm/detail/state_space_dual_vjp_products.hpp"

namespace ssm::detail {

/// Where the gradient of a call reads and adds, with all that was saved at hand.
template <class T>
struct ssd_vjp_views {
  using A = accumulator_t<T>;

  tensor_view<A const, 4> y_cotangent;
  tensor_view<A, 5> cotangents;  // of the states: (batch, head, tile, state, channel)
  state_space_dual_saved<T> saved;
  tensor_view<A, 4> x, gate;    // gradients; empty: not wanted
  tensor_view<A, 3> step_size;  // (batch, time, head), of the projection
  tensor_view<A, 5> B, C;       // (part of a group's heads, batch, group, state, step), padded
  tensor_view<A, 5> products;   // G of a part's heads: (part, batch, group, step, step of a chunk)
  tensor_view<A, 3> D;          // (batch, head, head_dim)
  tensor_view<A, 2> eigenvalue, bias, factor;  // (batch, head), the first of A'
};

/// A block of time: where it lies, and its chunks, which are those of all heads of a group.
struct ssd_vjp_block {
  index_t b = -1, group = 0, begin = 0, end = 0;
  std::vector<index_t> chunks{};  // where each begins, and the end

  index_t steps() const { return end - begin; }
};

/// What a thread works on. What has a column for each step has rows of `chunk`, or of `row` for
/// those of a block, of which packs may be read beyond the last; the states of a tile have a row of
/// `tile` channels each, which is set anew for each tile.
template <class A>
struct ssd_vjp_buffers {
  static constexpr index_t row = state_space_dual_block;
  index_t chunk, steps, states, tile;
  // for all heads of a group
  ssd_vjp_block block{};
  aligned_buffer<A> B, C, products, B_columns, C_columns;
  // for the gradients of B and C
  aligned_buffer<A> to_products, to_columns, to_rows;
  // for a head
  aligned_buffer<A> step, log_decay, between, entered, to_step, to_log;
  // for a tile of a head
  aligned_buffer<A> D, to_D, x, y, x_columns, y_columns, input, drive, terms, scale, growth, dots,
      x_dots;
  aligned_buffer<A> entering{0};  // states, for each chunk of a block

  ssd_vjp_buffers(index_t longest, ssd_extents const& e, index_t tile_width, int lanes)
      : chunk{round_up(longest, padding(lanes))},
        steps{padded_steps(chunk)},
        states{round_up(e.states, padding(lanes))},
        tile{tile_width},
        B{steps * states},
        C{steps * states},
        products{steps * chunk},
        B_columns{states * row + chunk},
        C_columns{states * row + chunk},
        to_products{steps * chunk},
        to_columns{states * row},
        to_rows{steps * states},
        step{steps},
        log_decay{steps},
        between{steps * chunk},
        entered{steps},
        to_step{steps},
        to_log{steps},
        D{tile},
        to_D{tile},
        x{chunk * tile},
        y{chunk * tile},
        x_columns{tile * chunk},
        y_columns{tile * chunk},
        input{chunk * tile},
        drive{chunk * tile},
        terms{chunk * chunk},
        scale{chunk},
        growth{chunk},
        dots{chunk},
        x_dots{chunk} {}

  /// Rows are filled up to a multiple of this.
  static index_t padding(int lanes) { return std::max({lanes, product_rows, tall_rows}); }

  /// A chunk may begin anywhere in a block, and is worked on in whole packs.
  static index_t padded_steps(index_t chunk) { return state_space_dual_block + chunk; }
};

/// The rows of a tile that only its gradient reads and writes.
template <class T>
struct ssd_vjp_rows {
  using A = accumulator_t<T>;

  row_series<A const> y_cotangent;
  row_series<A> ungated, to_x, to_gate;

  ssd_vjp_rows(ssd_vjp_views<T> const& views, ssd_tile const& at)
      : y_cotangent{views.y_cotangent, at.b, at.head, at.first},
        ungated{views.saved.ungated, at.b, at.head, at.first},
        to_x{views.x, at.b, at.head, at.first},
        to_gate{views.gate, at.b, at.head, at.first} {}

  [[gnu::always_inline]] void add_to(ssd_lines_due& lines, index_t t, index_t count) const {
    lines.add(y_cotangent, t, count);
    lines.add(ungated, t, count);
    lines.add(to_x, t, count);
    lines.add(to_gate, t, count);
  }
};

/// All that a tile reads and writes, row by row.
template <class T>
struct ssd_vjp_tile_rows {
  using A = accumulator_t<T>;

  ssd_tile at;
  ssd_rows<T> rows;
  ssd_vjp_rows<T> more;
  tensor_view<A, 5> states;
  A* cotangent;  // of the states, a row of channels for each

  ssd_vjp_tile_rows(state_space_dual_inputs<T> const& in, ssd_vjp_views<T> const& views,
                    ssd_tile const& tile)
      : at{tile},
        rows{in, tile, {}, {}},
        more{views, tile},
        states{views.saved.states},
        cotangent{
            &views.cotangents(tile.b, tile.head, tile.first / views.cotangents.extent(4), 0, 0)} {}

  /// What the steps from t on read and add to, except B and C.
  [[gnu::always_inline]] ssd_lines_due due(index_t t) const {
    ssd_lines_due lines;
    lines.add(rows.x, t, rows.count);
    lines.add(rows.gate, t, rows.count);
    more.add_to(lines, t, rows.count);
    return lines;
  }

  /// What pull_back_gate reads of a step.
  [[gnu::always_inline]] void prefetch_for_gate(index_t t) const {
    more.y_cotangent.template prefetch<true>(t, rows.count);
    rows.gate.template prefetch<true>(t, rows.count);
    more.ungated.template prefetch<true>(t, rows.count);
    more.to_gate.template prefetch<true>(t, rows.count);
  }

  /// Whether the states that were saved lie as products take them.
  [[gnu::always_inline]] bool has_states_in_rows(index_t tile) const {
    return states.stride(3) == 1 && states.stride(4) == tile && rows.count == tile &&
           states.extent(4) % tall_rows == 0;
  }
  [[gnu::always_inline]] A* states_at(index_t t) const {
    return &states(at.b, t / state_space_dual_block, at.head, at.first, 0);
  }
  /// The states that were saved at t and as many cotangents, in rows_of_states() rows.
  [[gnu::always_inline]] ssd_lines_due states_due(index_t t) const {
    bool const by_state = states.stride(3) == 1;
    index_t const length = by_state ? rows.count : states.extent(4);
    row_series<A> saved, arriving;
    saved.first = states_at(t);
    saved.time_step = states.stride(by_state ? 4 : 3);
    saved.step = states.stride(by_state ? 3 : 4);
    arriving.first = cotangent;
    arriving.time_step = length;
    arriving.step = 1;
    ssd_lines_due lines;
    lines.add(saved, 0, length);
    lines.add(arriving, 0, length);
    return lines;
  }
  [[gnu::always_inline]] index_t rows_of_states() const {
    return states.stride(3) == 1 ? states.extent(4) : rows.count;
  }
};

/// row += what is added to, a row of a gradient.
template <int Lanes, class A>
[[gnu::always_inline]] inline void add_row(A const* from, index_t count, A* to, index_t stride) {
  index_t i = 0;
  if (stride == 1) {
    for (; i + Lanes <= count; i += Lanes)
      pack<A, Lanes>(pack<A, Lanes>::load(from + i) + pack<A, Lanes>::load(to + i)).store(to + i);
  }
  for (; i < count; ++i) to[i * stride] += from[i];
}

/// A row in whole packs: where it lies, or copied to `room`.
template <int Lanes, class A, class Storage>
[[gnu::always_inline]] inline A const* whole_packs(row_series<Storage> const& rows, index_t t,
                                                   index_t count, index_t padded, A* room) {
  if constexpr (std::is_same_v<std::remove_const_t<Storage>, A>) {
    if (rows.step == 1 && count == padded) return rows.at(t);
  }
  gather<Lanes>(rows.at(t), rows.step, count, padded, room);
  return room;
}

/// The cotangents y of `steps` rows before the gate, and the gradient of the gate. `room` is for
/// three rows.
template <int Lanes, class T>
[[gnu::always_inline]] inline void pull_back_gate(ssd_vjp_tile_rows<T> const& at, index_t t,
                                                  index_t steps, index_t tile, accumulator_t<T>* y,
                                                  accumulator_t<T>* room) {
  using A = accumulator_t<T>;
  using vector = pack<A, Lanes>;
  index_t const count = at.rows.count;
  vector const zero(A(0)), one(A(1)), lowest(-softplus_range<A>);
  auto const& to = at.more.to_gate;
  bool const gated = at.rows.gate.first != nullptr, wanted = gated && to.first != nullptr;
  bool const in_place = to.step == 1 && count == tile;
  for (index_t j = 0; j < steps; ++j) {
    A const* const from = whole_packs<Lanes, A>(at.more.y_cotangent, t + j, count, tile, room);
    A *const own = y + j * tile, *const sums = room + tile;
    at.more.to_x.template prefetch<true>(t + j, count);
    if (j + 1 < steps) at.prefetch_for_gate(t + j + 1);
    if (!gated) {
      for (index_t p = 0; p < tile; p += Lanes) {
        vector::load(from + p).store(own + p);
      }
      continue;
    }
    A const* const gate = whole_packs<Lanes, A>(at.rows.gate, t + j, count, tile, room + tile);
    A const* const ungated =
        wanted ? whole_packs<Lanes, A>(at.more.ungated, t + j, count, tile, room + 2 * tile) : own;
    A* const to_gate = wanted && in_place ? to.at(t + j) : sums;
    for (index_t p = 0; p < tile; p += Lanes) {
      vector const z = larger(lowest, vector::load(gate + p)), g = vector::load(from + p);
      vector const e = exp_in_range(larger(lowest, minus_size(z))), upper = one / (one + e),
                   lower = e * upper, s = where_greater(z, zero, upper, lower);  // as silu
      if (wanted) {
        vector const rest = where_greater(z, zero, lower, upper);  // 1 - s without cancellation
        vector slope = g * vector::load(ungated + p) * (s * multiply_add(z, rest, A(1)));
        if (in_place) slope = slope + vector::load(to_gate + p);
        slope.store(to_gate + p);
      }
      vector(g * (z * s)).store(own + p);
    }
    if (wanted && !in_place) add_row<Lanes>(sums, count, to.at(t + j), to.step);
  }
}

}  // namespace ssm::detail
