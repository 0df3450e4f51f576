// SPDX-License-Identifier: Apache-2.0
// state_space_dual_layout.hpp: matrices transposed, and states between a view and the layout that
// products take.
#pragma once

#include "ssm/detail/state_space_dual_rows.hpp"

namespace ssm::detail {

/// Exchange rows and columns: to the right of the diagonal of blocks of Width and below it, then in
/// smaller ones.
template <int Width, class A, int Lanes>
[[gnu::always_inline]] inline void transpose(pack<A, Lanes> (&rows)[Lanes]) {
  unrolled<Lanes / 2>([&](auto k) __attribute__((always_inline)) {
    constexpr int i = decltype(k)::value / Width * 2 * Width + decltype(k)::value % Width;
    [&]<int... j>(std::integer_sequence<int, j...>) __attribute__((always_inline)) {
      auto const above = rows[i], below = rows[i + Width];
      rows[i] = shuffled<(j & Width ? Lanes + j - Width : j)...>(above, below);
      rows[i + Width] = shuffled<(j & Width ? Lanes + j : j + Width)...>(above, below);
    }
    (std::make_integer_sequence<int, Lanes>{});
  });
  if constexpr (Width > 1) transpose<Width / 2>(rows);
}

/// to[j·to_row + i·to_step] = from[i·from_row + j·from_step] for i < rows, j < columns.
template <int Lanes, class A>
[[gnu::always_inline]] inline void transpose_matrix(index_t rows, index_t columns, A const* from,
                                                    index_t from_row, index_t from_step, A* to,
                                                    index_t to_row, index_t to_step) {
  bool const whole = from_step == 1 && to_step == 1 && rows % Lanes == 0 && columns % Lanes == 0;
  if (!whole) {
    for (index_t i = 0; i < rows; ++i)
      for (index_t j = 0; j < columns; ++j)
        to[j * to_row + i * to_step] = from[i * from_row + j * from_step];
    return;
  }
  for (index_t i = 0; i < rows; i += Lanes) {
    for (index_t j = 0; j < columns; j += Lanes) {
      pack<A, Lanes> block[Lanes];
      unrolled<Lanes>([&](auto k) __attribute__((always_inline)) {
        block[decltype(k)::value] =
            pack<A, Lanes>::load(from + (i + decltype(k)::value) * from_row + j);
      });
      transpose<Lanes / 2>(block);
      unrolled<Lanes>([&](auto k) __attribute__((always_inline)) {
        block[decltype(k)::value].store(to + (j + decltype(k)::value) * to_row + i);
      });
    }
  }
}

/// The states of a tile between a view's (channel, state) and rows of `tile` channels for each
/// state.
template <int Lanes, class A>
[[gnu::always_inline]] inline void load_states(tensor_view<A, 4> const& from, ssd_tile const& at,
                                               index_t states, index_t tile, A* to) {
  A* const first = &from(at.b, at.head, at.first, 0);
  if (from.stride(2) == 1) {
    for (index_t n = 0; n < states; ++n)
      gather<Lanes>(first + n * from.stride(3), 1, at.count, tile, to + n * tile);
  } else {
    transpose_matrix<Lanes, A>(at.count, states, first, from.stride(2), from.stride(3), to, tile,
                               1);
  }
}

template <int Lanes, class A>
[[gnu::always_inline]] inline void store_states(A const* from, index_t tile, ssd_tile const& at,
                                                index_t states, tensor_view<A, 4> const& to) {
  A* const first = &to(at.b, at.head, at.first, 0);
  if (to.stride(2) == 1) {
    for (index_t n = 0; n < states; ++n)
      scatter<Lanes>(from + n * tile, at.count, first + n * to.stride(3), 1);
  } else {
    transpose_matrix<Lanes, A>(states, at.count, from, tile, 1, first, to.stride(2), to.stride(3));
  }
}

}  // namespace ssm::detail
