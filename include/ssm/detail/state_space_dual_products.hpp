// SPDX-License-Identifier: Apache-2.0
// state_space_dual_products.hpp: products of small matrices in blocks of registers, and the
// buffers they work on.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "ssm/detail/simd.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm::detail {

/// Numbers that start at a cache line.
template <class A>
class aligned_buffer {
 public:
  explicit aligned_buffer(index_t count) { reserve(count); }
  aligned_buffer(aligned_buffer const&) = delete;
  aligned_buffer& operator=(aligned_buffer const&) = delete;

  operator A*() { return first_; }

  /// Room for `count` numbers; where there was less, what was there is lost.
  void reserve(index_t count) {
    auto const needed = static_cast<std::size_t>(count) + line / sizeof(A);
    if (space_.size() >= needed) return;
    space_ = std::vector<A>(needed);
    auto const at = reinterpret_cast<std::uintptr_t>(space_.data());
    first_ = space_.data() + (line - at % line) % line / sizeof(A);
  }

 private:
  static constexpr std::size_t line = 64;
  std::vector<A> space_;
  A* first_ = nullptr;
};

/// Store what will not be wanted soon past the caches; `to` is at a multiple of the pack's size.
/// finish_stores() comes before another thread may read it.
template <class A, int Lanes>
[[gnu::always_inline]] inline void store_past_caches(pack<A, Lanes> const& a, A* to) {
#if defined(__clang__)
  using vector = typename pack<A, Lanes>::vector;
  __builtin_nontemporal_store(a.v, reinterpret_cast<vector*>(to));
#elif defined(__GNUC__) && defined(__x86_64__) && !defined(__CUDACC__)
  auto& bytes = *reinterpret_cast<char(*)[sizeof(a)]>(to);
  if constexpr (sizeof(a) >= 32) {
    asm("vmovntps {%1, %0|%0, %1}" : "=m"(bytes) : "v"(a.v));
  } else {
    asm("movntps {%1, %0|%0, %1}" : "=m"(bytes) : "x"(a.v));
  }
#else
  a.store(to);
#endif
}

inline void finish_stores() {
#if defined(__x86_64__) && !defined(__CUDACC__)
  asm volatile("sfence" ::: "memory");
#endif
}

constexpr index_t round_up(index_t count, index_t multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

/// Rows that products take at once; buffers have a multiple of them.
inline constexpr int product_rows = 4;

/// A block of a matrix in registers.
template <class A, int Lanes, int Rows, int Packs>
struct register_block {
  pack<A, Lanes> at[Rows][Packs];

  /// visit(block element, row, pack) for all elements, written out.
  template <class Visit>
  [[gnu::always_inline]] void each(Visit const& visit) {
    unrolled<Rows * Packs>([&](auto i) __attribute__((always_inline)) {
      constexpr int row = decltype(i)::value / Packs, column = decltype(i)::value % Packs;
      visit(at[row][column], row, column);
    });
  }

  /// += Σ_k a[row·a_row + k·a_step] b[k·b_step + lane], k < count.
  [[gnu::always_inline]] void add_products(A const* a, index_t a_row, index_t a_step, A const* b,
                                           index_t b_step, index_t count) {
    A const* from[Rows];
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
      from[decltype(r)::value] = a + decltype(r)::value * a_row;
    });
    for (index_t k = 0; k < count; ++k) {
      add_product<0, Rows>(from, k * a_step, b + k * b_step);
    }
  }

  /// += of the rows First ... Last - 1 for a single k.
  template <int First, int Last>
  [[gnu::always_inline]] void add_product(A const* const (&a)[Rows], index_t offset, A const* b) {
    pack<A, Lanes> column[Packs];
    unrolled<Packs>([&](auto v) __attribute__((always_inline)) {
      column[decltype(v)::value] = pack<A, Lanes>::load(b + decltype(v)::value * Lanes);
    });
    unrolled<Last - First>([&](auto r) __attribute__((always_inline)) {
      constexpr int row = First + decltype(r)::value;
      A const factor = a[row][offset];
      unrolled<Packs>([&](auto v) __attribute__((always_inline)) {
        constexpr int i = decltype(v)::value;
        at[row][i] = multiply_add(column[i], factor, at[row][i]);
      });
    });
  }
};

/// Packs that a block has, and rows if it has so many packs: as many as registers allow. The more
/// of both, the less is loaded for each product.
template <class A, int Lanes>
inline constexpr int widest_block = sizeof(A) * Lanes == 64 ? 4 : 2;
template <class A, int Lanes>
inline constexpr int tallest_block = sizeof(A) * Lanes >= 32 ? 6 : product_rows;

/// body(integral_constant<int, rows>, integral_constant<int, packs>, row, column) for the blocks
/// that cover rows x columns, strips of columns outermost, and perhaps a few rows more. Unless
/// Tallest is product_rows, `rows` is a multiple of product_rows.
template <int Lanes, class A, int Tallest = product_rows, class Body>
[[gnu::always_inline]] inline void for_each_block(index_t rows, index_t columns, Body const& body) {
  using std::integral_constant;
  constexpr int widest = widest_block<A, Lanes>;
  auto const strips = [&](auto packs, index_t column) __attribute__((always_inline)) {
    constexpr int width = decltype(packs)::value, tall = width == widest ? Tallest : product_rows;
    for (; column + width * Lanes <= columns; column += width * Lanes) {
      index_t row = 0;
      for (; tall > product_rows && (rows - row) % tall != 0; row += product_rows)
        body(integral_constant<int, product_rows>{}, packs, row, column);
      for (; row < rows; row += tall) body(integral_constant<int, tall>{}, packs, row, column);
    }
    return column;
  };
  index_t column = strips(integral_constant<int, widest>{}, 0);
  if constexpr (widest > 2) column = strips(integral_constant<int, 2>{}, column);
  strips(integral_constant<int, 1>{}, column);
}

/// A matrix in memory: element (row, k) at data[row·row_step + k·step].
template <class A>
struct factor_view {
  A const* data;
  index_t row_step, step;
};

/// to = scale·from + a b, with b's row k at b + k·b_step. `rows` is a multiple of product_rows.
template <int Lanes, class A>
[[gnu::always_inline]] inline void update_matrix(index_t rows, index_t columns, index_t count,
                                                 factor_view<A> const& a, A const* b,
                                                 index_t b_step, A scale, A const* from, A* to) {
  for_each_block<Lanes, A>(
      rows,
      columns, [&](auto, auto packs, index_t row, index_t column) __attribute__((always_inline)) {
        register_block<A, Lanes, product_rows, decltype(packs)::value> block;
        index_t const first = row * columns + column;
        block.each([&](auto& sum, int r, int v) __attribute__((always_inline)) {
          sum = pack<A, Lanes>::load(from + first + r * columns + v * Lanes) * scale;
        });
        block.add_products(a.data + row * a.row_step, a.row_step, a.step, b + column, b_step,
                           count);
        block.each([&](auto& sum, int r, int v) __attribute__((always_inline)) {
          sum.store(to + first + r * columns + v * Lanes);
        });
      });
}

/// to[row] += Σ_{k <= row} a[row][k] b[k] for row < rows. Rows of `to` and b are `columns` long,
/// those of a `a_row`; what is in them beyond k = row does not matter.
template <int Lanes, class A>
[[gnu::always_inline]] inline void add_lower_triangle(index_t rows, index_t columns, A const* a,
                                                      index_t a_row, A const* b, A* to) {
  for_each_block<Lanes, A>(
      rows,
      columns, [&](auto, auto packs, index_t row, index_t column) __attribute__((always_inline)) {
        register_block<A, Lanes, product_rows, decltype(packs)::value> block;
        index_t const first = row * columns + column;
        block.each([&](auto& sum, int r, int v) __attribute__((always_inline)) {
          sum = pack<A, Lanes>::load(to + first + r * columns + v * Lanes);
        });
        block.add_products(a + row * a_row, a_row, 1, b + column, columns, row);
        A const* from[product_rows];
        unrolled<product_rows>([&](auto r) __attribute__((always_inline)) {
          from[decltype(r)::value] = a + (row + decltype(r)::value) * a_row + row;
        });
        unrolled<product_rows>([&](auto k) __attribute__((always_inline)) {
          constexpr int first_row = decltype(k)::value;
          block.template add_product<first_row, product_rows>(from, first_row,
                                                              b + first + first_row * columns);
        });
        block.each([&](auto& sum, int r, int v) __attribute__((always_inline)) {
          if (row + r < rows) sum.store(to + first + r * columns + v * Lanes);
        });
      });
}

/// to[i·to_row + j] = Σ_n a[i][n] b[j][n] for j <= i < rows, and anything for greater j. Rows of
/// a and b are `count` long, a multiple of Lanes.
template <int Lanes, class A>
[[gnu::always_inline]] inline void multiply_rows(index_t rows, index_t count, A const* a,
                                                 A const* b, A* to, index_t to_row) {
  constexpr int widest = widest_block<A, Lanes>;
  for (index_t i = 0; i < rows; i += product_rows) {
    for (index_t j = 0; j < i + product_rows; j += widest) {
      register_block<A, Lanes, product_rows, widest> block;
      block.each([&](auto& sum, int, int) __attribute__((always_inline)) { sum = A(0); });
      for (index_t n = 0; n < count; n += Lanes) {
        pack<A, Lanes> right[widest];
        unrolled<widest>([&](auto v) __attribute__((always_inline)) {
          right[decltype(v)::value] =
              pack<A, Lanes>::load(b + (j + decltype(v)::value) * count + n);
        });
        unrolled<product_rows>([&](auto r) __attribute__((always_inline)) {
          constexpr int row = decltype(r)::value;
          auto const left = pack<A, Lanes>::load(a + (i + row) * count + n);
          unrolled<widest>([&](auto v) __attribute__((always_inline)) {
            constexpr int k = decltype(v)::value;
            block.at[row][k] = multiply_add(left, right[k], block.at[row][k]);
          });
        });
      }
      A sums[product_rows * widest];
      unrolled<product_rows * widest / Lanes>([&](auto k) __attribute__((always_inline)) {
        constexpr int first = decltype(k)::value * Lanes;
        sums_of_lanes<A, Lanes>([&](auto at) __attribute__((always_inline)) {
          constexpr int element = first + decltype(at)::value;
          return block.at[element / widest][element % widest];
        }).store(sums + first);
      });
      unrolled<product_rows>([&](auto r) __attribute__((always_inline)) {
        constexpr int row = decltype(r)::value;
        pack<A, widest>::load(sums + row * widest).store(to + (i + row) * to_row + j);
      });
    }
  }
}

}  // namespace ssm::detail
