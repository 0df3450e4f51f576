// SPDX-License-Identifier: Apache-2.0
// state_space_dual_vjp_products.hpp: the products of small matrices that only the gradient needs.
#pragma once

#include "ssm/detail/state_space_dual_products.hpp"

namespace ssm::detail {

/// Rows that products with few columns take at once; buffers have a multiple of them.
inline constexpr int tall_rows = 8;

/// to[row][k] += scale[k]·s[row][k] for k < columns with s = a b, and dots[k] += Σ_row s[row][k]
/// other[row][k] unless `dots` is null. `rows` is a multiple of tall_rows. Rows of b begin b_row
/// apart, those of `to` and `other` to_row; all but `to` may be read up to the next whole pack.
/// Before each block of registers there is a call of ahead(sums in it).
template <int Lanes, class A, class Ahead>
[[gnu::always_inline]] inline void scaled_products(index_t rows, index_t columns, index_t count,
                                                   factor_view<A> const& a, A const* b,
                                                   index_t b_row, A const* scale, A* to,
                                                   index_t to_row, A const* other, A* dots,
                                                   Ahead const& ahead) {
  using vector = pack<A, Lanes>;
  auto const strips = [&](auto packs, auto height, index_t column) __attribute__((always_inline)) {
    constexpr int width = decltype(packs)::value, tall = decltype(height)::value;
    for (; column + (width - 1) * Lanes < columns; column += width * Lanes) {
      bool const whole = column + width * Lanes <= columns;
      for (index_t row = 0; row < rows; row += tall) {
        ahead(tall * std::min<index_t>(width * Lanes, columns - column));
        register_block<A, Lanes, tall, width> block;
        block.each([&](auto& sum, int, int)
                       __attribute__((always_inline)) { sum = vector::zeros(); });
        block.add_products(a.data + row * a.row_step, a.row_step, a.step, b + column, b_row, count);
        index_t const first = row * to_row + column;
        if (dots != nullptr) {
          unrolled<width>([&](auto v) __attribute__((always_inline)) {
            constexpr int k = decltype(v)::value;
            vector dot = vector::load(dots + column + k * Lanes);
            unrolled<tall>([&](auto r) __attribute__((always_inline)) {
              constexpr int i = decltype(r)::value;
              dot = multiply_add(block.at[i][k],
                                 vector::load(other + first + i * to_row + k * Lanes), dot);
            });
            dot.store(dots + column + k * Lanes);
          });
        }
        if (whole) {
          block.each([&](auto& sum, int r, int v) __attribute__((always_inline)) {
            A* const at = to + first + r * to_row + v * Lanes;
            multiply_add(sum, vector::load(scale + column + v * Lanes), vector::load(at)).store(at);
          });
        } else {
          A sums[tall * width * Lanes];
          block.each([&](auto& sum, int r, int v) __attribute__((always_inline)) {
            sum.store(sums + (r * width + v) * Lanes);
          });
          for (int r = 0; r < tall; ++r)
            for (index_t k = column; k < columns; ++k)
              to[(row + r) * to_row + k] += scale[k] * sums[r * width * Lanes + k - column];
        }
      }
    }
    return column;
  };
  using std::integral_constant;
  constexpr int wide = widest_block<A, Lanes> / 2;
  index_t const column = strips(integral_constant<int, 2>{}, integral_constant<int, 4 * wide>{}, 0);
  strips(integral_constant<int, 1>{}, integral_constant<int, tall_rows>{}, column);
}

/// to[row][k] = (a b)[row][k] for k <= row, and anything for greater k. `rows` is a multiple of
/// tall_rows; rows of `to` and b are `columns` long, a multiple of Lanes.
template <int Lanes, class A>
[[gnu::always_inline]] inline void multiply_lower_triangle(index_t rows, index_t columns,
                                                           index_t count, factor_view<A> const& a,
                                                           A const* b, A* to) {
  auto const multiply = [&](auto packs, auto height, index_t row, index_t column)
      __attribute__((always_inline)) {
    register_block<A, Lanes, decltype(height)::value, decltype(packs)::value> block;
    block.each([&](auto& sum, int, int)
                   __attribute__((always_inline)) { sum = pack<A, Lanes>::zeros(); });
    block.add_products(a.data + row * a.row_step, a.row_step, a.step, b + column, columns, count);
    block.each([&](auto& sum, int r, int v) __attribute__((always_inline)) {
      sum.store(to + (row + r) * columns + column + v * Lanes);
    });
  };
  using std::integral_constant;
  constexpr int wide = widest_block<A, Lanes> / 2 * 4;
  for (index_t row = 0; row < rows; row += tall_rows) {
    index_t const needed = std::min(columns, round_up(row + tall_rows, Lanes));
    index_t column = 0;
    for (; column + 2 * Lanes <= needed; column += 2 * Lanes)
      for (index_t r = row; r < row + tall_rows; r += wide)
        multiply(integral_constant<int, 2>{}, integral_constant<int, wide>{}, r, column);
    if (column < needed)
      multiply(integral_constant<int, 1>{}, integral_constant<int, tall_rows>{}, row, column);
  }
}

/// to[row] += Σ_{k >= row} a[k][row] b[k] for row, k < rows. Rows of `to` and b are `columns` long,
/// those of a `a_row`; what is in them before k = row does not matter.
template <int Lanes, class A>
[[gnu::always_inline]] inline void add_upper_triangle(index_t rows, index_t columns, A const* a,
                                                      index_t a_row, A const* b, A* to) {
  for_each_block<Lanes, A>(
      rows,
      columns, [&](auto, auto packs, index_t row, index_t column) __attribute__((always_inline)) {
        register_block<A, Lanes, product_rows, decltype(packs)::value> block;
        index_t const first = row * columns + column;
        block.each([&](auto& sum, int r, int v) __attribute__((always_inline)) {
          sum = pack<A, Lanes>::load(to + first + r * columns + v * Lanes);
        });
        A const* from[product_rows];
        unrolled<product_rows>([&](auto r) __attribute__((always_inline)) {
          from[decltype(r)::value] = a + row * a_row + row + decltype(r)::value;
        });
        unrolled<product_rows>([&](auto k) __attribute__((always_inline)) {
          constexpr int i = decltype(k)::value;
          if (row + i < rows) {
            block.template add_product<0, i + 1>(from, i * a_row, b + first + i * columns);
          }
        });
        index_t const next = row + product_rows;
        if (next < rows) {
          block.add_products(a + next * a_row + row, 1, a_row, b + next * columns + column, columns,
                             rows - next);
        }
        block.each([&](auto& sum, int r, int v) __attribute__((always_inline)) {
          if (row + r < rows) sum.store(to + first + r * columns + v * Lanes);
        });
      });
}

}  // namespace ssm::detail
