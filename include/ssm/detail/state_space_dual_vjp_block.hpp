// SPDX-License-Identifier: Apache-2.0
// state_space_dual_vjp_block.hpp: the gradient of Mamba-2's operator for a block of time, from the
// state that enters it.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "ssm/detail/state_space_dual_kernel.hpp"
#include "ssm/detail/state_space_dual_vjp_products.hpp"

namespace ssm::detail {

/// Where the gradient of a call reads and adds, with all that was saved at hand.
template <class T>
struct ssd_vjp_views {
  using A = accumulator_t<T>;

  tensor_view<A const, 4> y_cotangent;
  tensor_view<A, 4> carry_cotangent;
  state_space_dual_saved<T> saved;
  tensor_view<A, 4> x, gate;    // gradients; empty: not wanted
  tensor_view<A, 3> step_size;  // (batch, time, head), of the projection
  tensor_view<A, 5> B, C;       // (part of a group's heads, batch, group, time, padded state)
  tensor_view<A, 3> D;          // (batch, head, head_dim)
  tensor_view<A, 2> eigenvalue, bias, factor;  // (batch, head), the first of A'
};

/// A block of time: where it lies, and its chunks, which are those of all heads of a part.
struct ssd_vjp_block {
  index_t b, group, begin, end;
  std::vector<index_t> chunks;  // where each begins, and the end

  bool operator==(ssd_vjp_block const&) const = default;
};

/// The states of a tile lie in panels of so many, each with a row for every channel: what all
/// products with a panel need stays in the first cache.
inline constexpr index_t ssd_vjp_panel = 64;

/// What a thread works on: states of `rows` channels, for a tile that has `tile` numbers in a row
/// of time; both are set anew for each tile.
template <class A>
struct ssd_vjp_buffers {
  index_t chunk, states, tile, rows, most_rows;
  // for all heads of a part of a group: rows of a block of time
  ssd_vjp_block loaded{};  // what B, C and what depends on them alone are of
  aligned_buffer<A> B, C, products, to_products;
  aligned_buffer<A> transposed_B{0};  // of each chunk, its steps side by side
  // for a head
  aligned_buffer<A> step, log_decay, between, entered, to_step, to_log;
  // for a tile of a head
  aligned_buffer<A> cotangent, D, to_D, x, y, input, drive, drive_columns, mixing, terms, scale,
      dots;
  aligned_buffer<A> entering{0};  // states, for each chunk of a block

  ssd_vjp_buffers(index_t longest, ssd_extents const& e, index_t tile_width, int lanes)
      : chunk{round_up(longest, padding(lanes))},
        states{round_up(e.states, padding(lanes))},
        tile{tile_width},
        rows{round_up(std::min(tile_width, e.head_dim), tall_rows)},
        most_rows{rows},
        B{block_rows() * states},
        C{block_rows() * states},
        products{block_rows() * chunk},
        to_products{block_rows() * chunk},
        step{block_rows()},
        log_decay{block_rows()},
        between{block_rows() * chunk},
        entered{block_rows()},
        to_step{block_rows()},
        to_log{block_rows()},
        cotangent{rows * states},
        D{tile},
        to_D{tile},
        x{chunk * tile},
        y{chunk * tile},
        input{chunk * tile},
        drive{chunk * tile},
        drive_columns{rows * chunk},
        mixing{chunk * chunk},
        terms{chunk * chunk},
        scale{chunk},
        dots{chunk} {}

  /// Rows are filled up to a multiple of this.
  static index_t padding(int lanes) { return std::max({lanes, product_rows, tall_rows}); }

  /// A chunk may begin anywhere in a block, and is worked on in whole packs.
  index_t block_rows() const { return state_space_dual_block + chunk; }
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

  [[gnu::always_inline]] void prefetch(index_t t, index_t count) const {
    y_cotangent.prefetch(t, count);
    ungated.prefetch(t, count);
    to_x.prefetch(t, count);
    to_gate.prefetch(t, count);
  }
};

/// All that a tile reads and writes in a block, row by row.
template <class T>
struct ssd_vjp_tile_rows {
  using A = accumulator_t<T>;

  ssd_rows<T> rows;
  ssd_vjp_rows<T> more;
  // by channel: the states that it starts from and the cotangents of those it ends with
  row_series<A const> states;
  row_series<A> cotangents;
  index_t state_count;

  ssd_vjp_tile_rows(state_space_dual_inputs<T> const& in, ssd_vjp_views<T> const& views,
                    ssd_tile const& at, index_t block)
      : rows{in, at, {}, {}},
        more{views, at},
        states{by_channel<A const>(views.saved.states.select(1, block), at)},
        cotangents{by_channel<A>(views.carry_cotangent, at)},
        state_count{in.B.extent(3)} {}

  [[gnu::always_inline]] void prefetch(index_t t) const {
    rows.x.prefetch(t, rows.count);
    rows.gate.prefetch(t, rows.count);
    more.prefetch(t, rows.count);
  }
  [[gnu::always_inline]] void prefetch_states(index_t p) const {
    if (p >= rows.count) return;
    states.prefetch(p, state_count);
    cotangents.prefetch(p, state_count);
  }

 private:
  template <class S>
  static row_series<S> by_channel(tensor_view<A, 4> const& view, ssd_tile const& at) {
    row_series<S> rows;
    rows.first = &view(at.b, at.head, at.first, 0);
    rows.time_step = view.stride(2);
    rows.step = view.stride(3);
    return rows;
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

/// The cotangents of `steps` rows before the gate, and the gradient of the gate; all rows of a kind
/// are loaded at once, so that none is waited for alone. `gate` and `sums` are room for as many.
template <int Lanes, class T>
[[gnu::always_inline]] inline void pull_back_gate(ssd_vjp_tile_rows<T> const& at, index_t t,
                                                  index_t steps, index_t tile, accumulator_t<T>* y,
                                                  accumulator_t<T>* gate, accumulator_t<T>* sums) {
  using A = accumulator_t<T>;
  using vector = pack<A, Lanes>;
  index_t const count = at.rows.count;
  auto const load = [&](auto const& rows, A* to) __attribute__((always_inline)) {
    for (index_t j = 0; j < steps; ++j)
      gather<Lanes>(rows.at(t + j), rows.step, count, tile, to + j * tile);
  };
  load(at.more.y_cotangent, y);
  if (at.rows.gate.first == nullptr) return;
  load(at.rows.gate, gate);
  vector const one(A(1)), lowest(-softplus_range<A>);
  auto const upper_part = [&](vector const& x, vector const& e) __attribute__((always_inline)) {
    return larger(e, smaller(one, vector(x * std::numeric_limits<A>::max())));  // as sigmoid_given
  };
  auto const& to = at.more.to_gate;
  bool const wanted = to.first != nullptr;
  if (wanted) load(at.more.ungated, sums);
  for (index_t i = 0; i < steps * tile; i += Lanes) {
    vector const z = larger(lowest, vector::load(gate + i)), g = vector::load(y + i);  // as silu
    vector const e = exp_in_range(larger(lowest, minus_size(z))), inverse = one / (one + e);
    vector const s = upper_part(z, e) * inverse;
    if (wanted) {
      vector const rest = upper_part(vector(-z), e) * inverse;  // 1 - s without cancellation
      vector(g * vector::load(sums + i) * (s * multiply_add(z, rest, A(1)))).store(sums + i);
    }
    vector(g * (z * s)).store(y + i);
  }
  if (!wanted) return;
  for (index_t j = 0; j < steps; ++j) add_row<Lanes>(sums + j * tile, count, to.at(t + j), to.step);
}

}  // namespace ssm::detail
