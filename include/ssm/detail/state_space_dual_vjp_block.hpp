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
  tensor_view<A, 5> B, C;       // (part of a group's heads, batch, time, group, state)
  tensor_view<A, 3> D;          // (batch, head, head_dim)
  tensor_view<A, 2> eigenvalue, bias, factor;  // (batch, head), the first of A'
};

/// A block of time: where it lies, and its chunks, which are those of all heads of a part.
struct ssd_vjp_block {
  index_t b, group, begin, end;
  std::vector<index_t> chunks;  // where each begins, and the end

  bool operator==(ssd_vjp_block const&) const = default;
};

/// What a thread works on. States are rows for each channel here: `rows` channels of `states`, for
/// a tile that has `tile` numbers in a row of time; both are set anew for each tile.
template <class A, int Lanes>
struct ssd_vjp_buffers {
  static constexpr index_t unit = std::max({Lanes, product_rows, tall_rows});
  index_t chunk, states, tile, rows, most_rows;
  // for all heads of a part of a group: rows of a block of time
  ssd_vjp_block loaded{};  // what B, C and what depends on them alone are of
  aligned_buffer<A> B, C, to_B, to_C, products, to_products;
  aligned_buffer<A> transposed_B{0};  // of each chunk, its steps side by side
  // for a head
  aligned_buffer<A> step, log_decay, between, entered, to_step, to_log;
  // for a tile of a head
  aligned_buffer<A> cotangent, D, to_D, x, y, input, drive, drive_columns, mixing, terms, row,
      scale, dots;
  aligned_buffer<A> entering{0};  // states, for each chunk of a block

  ssd_vjp_buffers(index_t longest, ssd_extents const& e, index_t tile_width)
      : chunk{round_up(longest, unit)},
        states{round_up(e.states, unit)},
        tile{tile_width},
        rows{round_up(std::min(tile_width, e.head_dim), tall_rows)},
        most_rows{rows},
        B{block_rows() * states},
        C{block_rows() * states},
        to_B{block_rows() * states},
        to_C{block_rows() * states},
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
        row{tile},
        scale{chunk},
        dots{chunk} {}

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

/// The cotangent of a row before the gate, and the gradient of the gate.
template <int Lanes, class T>
[[gnu::always_inline]] inline void pull_back_gate(ssd_rows<T> const& rows,
                                                  ssd_vjp_rows<T> const& more, index_t t,
                                                  index_t tile, accumulator_t<T>* y,
                                                  accumulator_t<T>* gate, accumulator_t<T>* sums) {
  using A = accumulator_t<T>;
  using vector = pack<A, Lanes>;
  gather<Lanes>(more.y_cotangent.at(t), more.y_cotangent.step, rows.count, tile, y);
  if (rows.gate.first == nullptr) return;
  gather<Lanes>(rows.gate.at(t), rows.gate.step, rows.count, tile, gate);
  vector const one(A(1)), lowest(-softplus_range<A>);
  auto const upper_part = [&](vector const& x, vector const& e) __attribute__((always_inline)) {
    return larger(e, smaller(one, vector(x * std::numeric_limits<A>::max())));  // as sigmoid_given
  };
  bool const wanted = more.to_gate.first != nullptr;
  if (wanted) gather<Lanes>(more.ungated.at(t), more.ungated.step, rows.count, tile, sums);
  for (index_t p = 0; p < tile; p += Lanes) {
    vector const z = larger(lowest, vector::load(gate + p)), g = vector::load(y + p);  // as silu
    vector const e = exp_in_range(larger(lowest, minus_size(z))), inverse = one / (one + e);
    vector const s = upper_part(z, e) * inverse;
    if (wanted) {
      vector const rest = upper_part(vector(-z), e) * inverse;  // 1 - s without cancellation
      vector(g * vector::load(sums + p) * (s * multiply_add(z, rest, A(1)))).store(sums + p);
    }
    vector(g * (z * s)).store(y + p);
  }
  if (wanted) add_row<Lanes>(sums, rows.count, more.to_gate.at(t), more.to_gate.step);
}

}  // namespace ssm::detail
