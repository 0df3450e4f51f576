// SPDX-License-Identifier: Apache-2.0
// dual_vjp_products.cuh: tiles of matrices in shared memory and their products by a warp, in 16
// bits or in TF32.
#pragma once

#include <cstdint>

#include "ssm/detail/element.cuh"

namespace ssm::gpu::detail {

/// Rows of `Columns` elements in shared memory, from a multiple of 256 bytes on. Units of 16 bytes
/// trade places within a row, so that eight rows of a column of units, and pairs of units of four
/// rows, lie in different banks. As rows are powers of two, parts of a column are put together by
/// exclusive or: with what a lane adds computed once, a place is one instruction.
template <class T, int Columns>
struct matrix_tile {
  static constexpr int unit = 16 / sizeof(T);
  static constexpr int columns = Columns;
  static constexpr int row_bytes = Columns * static_cast<int>(sizeof(T));
  static_assert(row_bytes == 128 || row_bytes == 256);
  T* data;

  /// Row `row` + `eights`, a multiple of 8; columns `column` + `more`, which have no bits in
  /// common.
  __device__ T* at(int row, int column, int more = 0, int eights = 0) const {
    int const turn = (row & 3) << 5 | (row & 4) << 2;
    int const lane = row * row_bytes | (turn ^ column * static_cast<int>(sizeof(T)));
    int const place = (lane ^ more * static_cast<int>(sizeof(T))) + eights * row_bytes;
    return reinterpret_cast<T*>(reinterpret_cast<std::byte*>(data) + place);
  }

  /// Two neighbours, the first in an even column.
  __device__ float2 pair(int row, int column, int more = 0) const {
    if constexpr (sizeof(T) == 2) {
      auto const word = *reinterpret_cast<unsigned const*>(at(row, column, more));
      return {__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000u)};
    } else {
      return *reinterpret_cast<float2 const*>(at(row, column, more));
    }
  }
  __device__ void set_pair(int row, int column, int more, float first, float second) const {
    if constexpr (sizeof(T) == 2) {
      *reinterpret_cast<unsigned*>(at(row, column, more)) = two_bfloat16(first, second);
    } else {
      *reinterpret_cast<float2*>(at(row, column, more)) = {first, second};
    }
  }

  __device__ static unsigned two_bfloat16(float first, float second) {
    __nv_bfloat162 const both = __floats2bfloat162_rn(first, second);
    unsigned word;
    memcpy(&word, &both, 4);
    return word;
  }
};

/// Where the rows of four 8 x 8 matrices begin that a warp's lanes load together: (rows, units) in
/// the order (0, 0), (8, 0), (0, 1), (8, 1), or with the middle two exchanged.
__device__ inline int2 lane_place(bool rows_first) {
  int const lane = static_cast<int>(threadIdx.x) % 32, low = lane >> 3 & 1, high = lane >> 4;
  return {lane % 8 + 8 * (rows_first ? low : high), rows_first ? high : low};
}

template <bool Turned>
__device__ void load_matrices(unsigned (&word)[4], void const* row) {
  auto const from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (Turned) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
                 : "r"(from)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
                 : "r"(from)
                 : "memory");
  }
}

/// Where a warp's lane is in an 8 x 8 matrix of sums: its row, and half of its first column.
__device__ inline int lane_row() {
  return static_cast<int>(threadIdx.x) % 32 / 4;
}
__device__ inline int lane_pair() {
  return static_cast<int>(threadIdx.x) % 4;
}

/// Where in a tile a left factor [16 rows, Depth] begins whose elements (m, k) are those of the
/// tile at (row + m, column + k), or with Turned at (row + k, column + m); right factors likewise
/// with n for m.
///
/// Products of bfloat16 with sums in float: m16n8k16.
struct bfloat16_products {
  using stored = bfloat16;
  static constexpr int depth = 16;
  struct factor {
    unsigned word[4];

    /// The sum over all elements of products with those of another.
    __device__ float dot(factor const& other, float sum) const {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        sum = fmaf(__uint_as_float(word[i] << 16), __uint_as_float(other.word[i] << 16), sum);
        sum = fmaf(__uint_as_float(word[i] & 0xffff0000u),
                   __uint_as_float(other.word[i] & 0xffff0000u), sum);
      }
      return sum;
    }
  };

  template <bool Turned, class Tile>
  __device__ static factor left(Tile const& tile, int m, int k) {
    return load<Turned>(tile, lane_place(!Turned), Turned ? k : m, Turned ? m : k);
  }
  /// Two side by side: columns n to n + 15.
  template <bool Turned, class Tile>
  __device__ static factor right(Tile const& tile, int n, int k) {
    return load<Turned>(tile, lane_place(Turned), Turned ? k : n, Turned ? n : k);
  }
  /// Multiply column k of a turned left factor with scale·weight[k].
  __device__ static void weigh(factor& f, float const* weight, float scale) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float2 const two = *reinterpret_cast<float2 const*>(weight + 2 * lane_pair() + i / 2 * 8);
      f.word[i] = matrix_tile<bfloat16, 64>::two_bfloat16(
          __uint_as_float(f.word[i] << 16) * (scale * two.x),
          __uint_as_float(f.word[i] & 0xffff0000u) * (scale * two.y));
    }
  }
  /// sum += a b, for both of b.
  __device__ static void multiply(float (&low)[4], float (&high)[4], factor const& a,
                                  factor const& b, bool) {
    multiply(low, a, b.word[0], b.word[1]);
    multiply(high, a, b.word[2], b.word[3]);
  }

 private:
  template <bool Turned, class Tile>
  __device__ static factor load(Tile const& tile, int2 lane, int row, int column) {
    factor f;
    load_matrices<Turned>(f.word, tile.at(lane.x, lane.y * Tile::unit, column, row));
    return f;
  }
  __device__ static void multiply(float (&sum)[4], factor const& a, unsigned b0, unsigned b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b0), "r"(b1));
  }
};

/// Products of float with factors rounded to TF32, once, or as three products of the halves of
/// numbers (`exact`): m16n8k8.
/// Accuracy  2^-11 of each factor; exact: 2^-21 of each product.
struct tf32_products {
  using stored = float;
  static constexpr int depth = 8;
  struct factor {
    float number[4];

    __device__ float dot(factor const& other, float sum) const {
#pragma unroll
      for (int i = 0; i < 4; ++i) sum = fmaf(number[i], other.number[i], sum);
      return sum;
    }
  };

  template <bool Turned, class Tile>
  __device__ static factor left(Tile const& tile, int m, int k) {
    factor f;
    if constexpr (Turned) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        f.number[i] = *tile.at(lane_pair() + i / 2 * 4, lane_row(), m ^ i % 2 * 8, k);
      }
    } else {
      int2 const lane = lane_place(true);
      load(f, tile.at(lane.x, lane.y * Tile::unit, k, m));
    }
    return f;
  }
  template <bool Turned, class Tile>
  __device__ static factor right(Tile const& tile, int n, int k) {
    factor f;
    if constexpr (Turned) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        f.number[i] = *tile.at(lane_pair() + i % 2 * 4, lane_row(), n ^ i / 2 * 8, k);
      }
    } else {
      int2 const lane = lane_place(false);
      load(f, tile.at(lane.x, lane.y * Tile::unit, k, n));
    }
    return f;
  }
  __device__ static void weigh(factor& f, float const* weight, float scale) {
#pragma unroll
    for (int i = 0; i < 4; ++i) f.number[i] *= scale * weight[lane_pair() + i / 2 * 4];
  }
  __device__ static void multiply(float (&low)[4], float (&high)[4], factor const& a,
                                  factor const& b, bool exact) {
    unsigned const a_high[4] = {rounded(a.number[0]), rounded(a.number[1]), rounded(a.number[2]),
                                rounded(a.number[3])};
    unsigned const b_high[4] = {rounded(b.number[0]), rounded(b.number[1]), rounded(b.number[2]),
                                rounded(b.number[3])};
    if (exact) {
      unsigned a_low[4], b_low[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a_low[i] = rounded(a.number[i] - __uint_as_float(a_high[i]));
        b_low[i] = rounded(b.number[i] - __uint_as_float(b_high[i]));
      }
      multiply(low, a_low, b_high[0], b_high[1]);
      multiply(low, a_high, b_low[0], b_low[1]);
      multiply(high, a_low, b_high[2], b_high[3]);
      multiply(high, a_high, b_low[2], b_low[3]);
    }
    multiply(low, a_high, b_high[0], b_high[1]);
    multiply(high, a_high, b_high[2], b_high[3]);
  }

 private:
  __device__ static void load(factor& f, float const* row) {
    unsigned word[4];
    load_matrices<false>(word, row);
#pragma unroll
    for (int i = 0; i < 4; ++i) f.number[i] = __uint_as_float(word[i]);
  }
  __device__ static unsigned rounded(float number) {
    unsigned result;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(number));
    return result;
  }
  __device__ static void multiply(float (&sum)[4], unsigned const (&a)[4], unsigned b0,
                                  unsigned b1) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
};

/// float16 is stored as float: its digits are those of TF32, but states, cotangents and their
/// products leave its range.
template <class T>
using products_of =
    std::conditional_t<std::is_same_v<T, bfloat16>, bfloat16_products, tf32_products>;

}  // namespace ssm::gpu::detail
