// SPDX-License-Identifier: Apache-2.0
// state_space_dual_vjp_group.hpp: what the gradient computes once for all heads of a group.
#pragma once

#include <algorithm>
#include <vector>

#include "ssm/detail/state_space_dual_vjp_block.hpp"

namespace ssm::detail {

/// A group of heads in a block of time: its chunks, B and C, and their gradients once all parts of
/// its heads have been run.
template <int Lanes, class T>
struct ssd_vjp_group {
  using A = accumulator_t<T>;

  state_space_dual_inputs<T> const& in;
  ssd_vjp_buffers<A>& w;
  index_t longest, b, group;

  /// Block k.
  [[gnu::always_inline]] void prepare(index_t k) const {
    index_t const begin = k * state_space_dual_block;
    if (w.block.b == b && w.block.group == group && w.block.begin == begin) return;
    w.block = {b, group, begin, std::min(in.x.extent(1), begin + state_space_dual_block), {}};
    find_chunks();
    load();
  }

  /// Step sizes and decays of a head.
  [[gnu::always_inline]] void fill(index_t head) const {
    A const rate = scaled_eigenvalue(in, head) * number_format<A>::log2_e;
    fill_steps<Lanes>(in, b, head, w.block.begin, w.block.steps(), round_up(w.block.steps(), Lanes),
                      rate, +w.step, +w.log_decay);
  }

  /// Chunks that none of the heads overflows in.
  [[gnu::always_inline]] void find_chunks() const {
    index_t const first = w.block.begin, last = w.block.end;
    index_t const heads = extents_of(in).heads_per_group();
    std::vector<char> begins(static_cast<std::size_t>(last - first), 0);
    for (index_t t = first; t < last; t = end_of_chunk(in, b, t, longest))
      begins[static_cast<std::size_t>(t - first)] = 1;
    for (index_t head = group * heads; head < (group + 1) * heads; ++head) {
      fill(head);
      for (index_t t = first; t < last;) {
        index_t end = t + 1;
        while (end < last && begins[static_cast<std::size_t>(end - first)] == 0) ++end;
        t += steps_without_overflow<A>(w.log_decay + (t - first), end - t);
        if (t < last) begins[static_cast<std::size_t>(t - first)] = 1;
      }
    }
    for (index_t t = first; t < last; ++t)
      if (begins[static_cast<std::size_t>(t - first)] != 0) w.block.chunks.push_back(t);
    w.block.chunks.push_back(last);
  }

  /// B and C and their products.
  [[gnu::always_inline]] void load() const {
    row_series<T const> const B(in.B, b, group, 0), C(in.C, b, group, 0);
    for (index_t i = 0; i < w.block.steps(); ++i) {
      index_t const t = w.block.begin + i, at = i * w.states;
      gather<Lanes>(B.at(t), B.step, in.B.extent(3), w.states, w.B + at);
      gather<Lanes>(C.at(t), C.step, in.B.extent(3), w.states, w.C + at);
    }
    transpose_matrix<Lanes, A>(w.row, w.states, w.B, w.states, 1, w.B_columns, w.row, 1);
    transpose_matrix<Lanes, A>(w.row, w.states, w.C, w.states, 1, w.C_columns, w.row, 1);
    for (std::size_t c = 0; c + 1 < w.block.chunks.size(); ++c) {
      index_t const at = w.block.chunks[c] - w.block.begin;
      multiply_rows<Lanes, A>(round_up(w.block.chunks[c + 1] - w.block.chunks[c], product_rows),
                              w.states, w.C + at * w.states, w.B + at * w.states,
                              w.products + at * w.chunk, w.chunk);
    }
  }

  /// Add the gradient of C, summed over the parts of the group's heads.
  [[gnu::always_inline]] void add_to_C(ssd_vjp_views<T> const& views,
                                       trajectory_view<A> const& to) const {
    for_each_chunk(
        views, views.C, to, [&](index_t q, index_t at) __attribute__((always_inline)) {
          add_lower_triangle<Lanes, A>(q, w.states, w.to_products + at * w.chunk, w.chunk,
                                       w.B + at * w.states, w.to_rows + at * w.states);
        });
  }
  /// That of B.
  [[gnu::always_inline]] void add_to_B(ssd_vjp_views<T> const& views,
                                       trajectory_view<A> const& to) const {
    for_each_chunk(
        views, views.B, to, [&](index_t q, index_t at) __attribute__((always_inline)) {
          add_upper_triangle<Lanes, A>(q, w.states, w.to_products + at * w.chunk, w.chunk,
                                       w.C + at * w.states, w.to_rows + at * w.states);
        });
  }

 private:
  /// to = Σ_part from[part].
  [[gnu::always_inline]] void sum_of_parts(tensor_view<A, 5> const& from, A* to) const {
    index_t const count = from.extent(3) * from.extent(4);
    A const* const first = &from(0, b, group, 0, 0);
    for (index_t i = 0; i < count; i += Lanes) {
      auto sum = pack<A, Lanes>::load(first + i);
      for (index_t k = 1; k < from.extent(0); ++k)
        sum += pack<A, Lanes>::load(first + k * from.stride(0) + i);
      sum.store(to + i);
    }
  }
  /// The sums through the states as rows, what add(steps, offset) adds to those of each chunk, and
  /// from there to the gradient.
  template <class Add>
  [[gnu::always_inline]] void for_each_chunk(ssd_vjp_views<T> const& views,
                                             tensor_view<A, 5> const& columns,
                                             trajectory_view<A> const& to, Add const& add) const {
    if (to.data_handle() == nullptr) return;
    sum_of_parts(views.products, +w.to_products);
    sum_of_parts(columns, +w.to_columns);
    transpose_matrix<Lanes, A>(w.states, w.row, w.to_columns, w.row, 1, w.to_rows, w.states, 1);
    for (std::size_t c = 0; c + 1 < w.block.chunks.size(); ++c) {
      index_t const t = w.block.chunks[c];
      add(w.block.chunks[c + 1] - t, t - w.block.begin);
    }
    for (index_t i = 0; i < w.block.steps(); ++i)
      add_row<Lanes, A>(w.to_rows + i * w.states, to.extent(3), &to(b, w.block.begin + i, group, 0),
                        to.stride(3));
  }
};

}  // namespace ssm::detail
