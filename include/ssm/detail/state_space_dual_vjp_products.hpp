// SPDX-License-Identifier: Apache-2.0
// state_space_dual_vjp_products.hpp: the products of small matrices that only the gradient needs.
#pragma once

#include "ssm/detail/state_space_dual_products.hpp"

namespace ssm::detail {

/// to[row] = scale[row]·s[row], added to what is there if `adds`, with s = a b, and dots[row] +=
/// s[row]·other[row] unless `dots` is null, for row < rows. Rows of b are `columns` long, those of
/// `to` and `other` begin `to_row` apart.
template <int Lanes, class A>
[[gnu::always_inline]] inline void scaled_products(index_t rows, index_t columns, index_t count,
                                                   factor_view<A> const& a, A const* b,
                                                   A const* scale, bool adds, A* to, index_t to_row,
                                                   A const* other, A* dots) {
  for_each_block<Lanes, A>(
      rows, columns, [&](auto packs, index_t row, index_t column) __attribute__((always_inline)) {
        constexpr int width = decltype(packs)::value;
        register_block<A, Lanes, product_rows, width> block;
        block.each([&](auto& sum, int, int) __attribute__((always_inline)) { sum = A(0); });
        block.add_products(a.data + row * a.row_step, a.row_step, a.step, b + column, columns,
                           count);
        index_t const first = row * to_row + column;
        if (dots != nullptr) {
          unrolled<product_rows>([&](auto r) __attribute__((always_inline)) {
            constexpr int i = decltype(r)::value;
            pack<A, Lanes> dot(A(0));
            unrolled<width>([&](auto v) __attribute__((always_inline)) {
              constexpr int k = decltype(v)::value;
              dot = multiply_add(block.at[i][k],
                                 pack<A, Lanes>::load(other + first + i * to_row + k * Lanes), dot);
            });
            dots[row + i] += sum_of_lanes(dot);
          });
        }
        block.each([&](auto& sum, int r, int v) __attribute__((always_inline)) {
          if (row + r >= rows) return;
          A* const at = to + first + r * to_row + v * Lanes;
          if (adds) {
            multiply_add(sum, scale[row + r], pack<A, Lanes>::load(at)).store(at);
          } else {
            pack<A, Lanes>(sum * scale[row + r]).store(at);
          }
        });
      });
}

/// Rows of a product with few columns, which need more of them to fill the registers.
inline constexpr int tall_rows = 8;

/// to += a b where b has few columns; `rows` is a multiple of tall_rows.
template <int Lanes, class A>
[[gnu::always_inline]] inline void add_tall_product(index_t rows, index_t columns, index_t count,
                                                    factor_view<A> const& a, A const* b, A* to) {
  auto const strips = [&](auto packs, auto height, index_t column) __attribute__((always_inline)) {
    constexpr int width = decltype(packs)::value, tall = decltype(height)::value;
    for (; column + width * Lanes <= columns; column += width * Lanes) {
      for (index_t row = 0; row < rows; row += tall) {
        register_block<A, Lanes, tall, width> block;
        A* const at = to + row * columns + column;
        block.each([&](auto& sum, int r, int v) __attribute__((always_inline)) {
          sum = pack<A, Lanes>::load(at + r * columns + v * Lanes);
        });
        block.add_products(a.data + row * a.row_step, a.row_step, a.step, b + column, columns,
                           count);
        block.each([&](auto& sum, int r, int v)
                       __attribute__((always_inline)) { sum.store(at + r * columns + v * Lanes); });
      }
    }
    return column;
  };
  using std::integral_constant;
  index_t const column = strips(integral_constant<int, 2>{}, integral_constant<int, 4>{}, 0);
  strips(integral_constant<int, 1>{}, integral_constant<int, tall_rows>{}, column);
}

/// to[row] += Σ_{k >= row} a[k][row] b[k] for row, k < rows. Rows of `to` and b are `columns` long,
/// those of a `a_row`; what is in them before k = row does not matter.
template <int Lanes, class A>
[[gnu::always_inline]] inline void add_upper_triangle(index_t rows, index_t columns, A const* a,
                                                      index_t a_row, A const* b, A* to) {
  for_each_block<Lanes, A>(
      rows, columns, [&](auto packs, index_t row, index_t column) __attribute__((always_inline)) {
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

/// Σ a·b over `count` numbers, a multiple of Lanes.
template <int Lanes, class A>
[[gnu::always_inline]] inline A dot_product(A const* a, A const* b, index_t count) {
  pack<A, Lanes> sum[2] = {pack<A, Lanes>(A(0)), pack<A, Lanes>(A(0))};
  index_t i = 0;
  for (; i + 2 * Lanes <= count; i += 2 * Lanes) {
    sum[0] = multiply_add(pack<A, Lanes>::load(a + i), pack<A, Lanes>::load(b + i), sum[0]);
    sum[1] = multiply_add(pack<A, Lanes>::load(a + i + Lanes), pack<A, Lanes>::load(b + i + Lanes),
                          sum[1]);
  }
  if (i < count) {
    sum[0] = multiply_add(pack<A, Lanes>::load(a + i), pack<A, Lanes>::load(b + i), sum[0]);
  }
  return sum_of_lanes(sum[0] + sum[1]);
}

}  // namespace ssm::detail
