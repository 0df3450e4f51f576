// SPDX-License-Identifier: Apache-2.0
// dual_square.cuh: 16 x 16 squares of matrices in the registers of a warp, and their products.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "ssm/detail/element.cuh"
#include "ssm/detail/half.hpp"

namespace ssm::gpu::detail {

/// Two neighbouring numbers, the first at a multiple of their size.
template <class T>
__device__ float2 load_two(T const* from) {
  if constexpr (sizeof(T) == 2) {
    unsigned const bits = *reinterpret_cast<unsigned const*>(from);
    auto const number = [](unsigned half) {
      return to_number(T::from_bits(static_cast<std::uint16_t>(half)));
    };
    return {number(bits & 0xffffu), number(bits >> 16)};
  } else {
    return *reinterpret_cast<float2 const*>(from);
  }
}
template <class T>
__device__ unsigned packed(float2 numbers) {
  unsigned result;
  if constexpr (std::is_same_v<T, bfloat16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(numbers.y), "f"(numbers.x));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(numbers.y), "f"(numbers.x));
  }
  return result;
}
template <class T>
__device__ void store_two(T* to, float2 numbers) {
  if constexpr (sizeof(T) == 2) {
    *reinterpret_cast<unsigned*>(to) = packed<T>(numbers);
  } else {
    *reinterpret_cast<float2*>(to) = numbers;
  }
}

/// Sums of a square Z(r, c). Of the eight numbers that lane 4r + q has, numbers 0 and 1 are those
/// of row r, columns 2q and 2q + 1; 2 and 3 of row r + 8; 4 to 7 the same eight columns on.
struct square_sums {
  float z[8] = {};

  __device__ void scale(float by) {
#pragma unroll
    for (float& each : z) each *= by;
  }
};

/// The sides of a product, whose 16-bit pairs have an order each.
enum class side { left, right };

/// A square that is multiplied, its numbers in lanes as square_sums has them, in the type of the
/// matrix units. 16-bit numbers are in pairs: those of rows 0 to 7 and 8 to 15 alternate on the
/// left, those of columns 0 to 7 and 8 to 15 on the right.
template <class T, side Side>
struct square {
  unsigned pair[4];

  /// Rows, or columns, that pair i has are the lower (0) or the upper (1) eight.
  __device__ static int row_half(int i) { return Side == side::left ? i % 2 : i / 2; }
  __device__ static int column_half(int i) { return Side == side::left ? i / 2 : i % 2; }
  /// Where pair i begins in square_sums.
  __device__ static int place(int i) { return 2 * row_half(i) + 4 * column_half(i); }

  /// Z(r, c) = from[r · pitch + c], in shared memory, rows at multiples of 16 bytes.
  __device__ static square rows(T const* from, int pitch) {
    int const lane = static_cast<int>(threadIdx.x) % 32;
    return load<false>(from + (lane % 8 + 8 * row_half(lane / 8)) * pitch +
                       8 * column_half(lane / 8));
  }
  /// Z(r, c) = from[c · pitch + r].
  __device__ static square columns(T const* from, int pitch) {
    int const lane = static_cast<int>(threadIdx.x) % 32;
    return load<true>(from + (lane % 8 + 8 * column_half(lane / 8)) * pitch +
                      8 * row_half(lane / 8));
  }
  __device__ static square rounded(square_sums const& sums) {
    square result;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      result.pair[i] = packed<T>({sums.z[place(i)], sums.z[place(i) + 1]});
    }
    return result;
  }
  __device__ void store_rows(T* to, int pitch) const {
    int const lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      int const r = lane / 4 + 8 * row_half(i), c = lane % 4 * 2 + 8 * column_half(i);
      *reinterpret_cast<unsigned*>(to + r * pitch + c) = pair[i];
    }
  }
  __device__ square_sums numbers() const {
    square_sums result;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float2 const two = load_two(reinterpret_cast<T const*>(&pair[i]));
      result.z[place(i)] = two.x, result.z[place(i) + 1] = two.y;
    }
    return result;
  }

 private:
  template <bool Transposed>
  __device__ static square load(T const* row) {
    auto const from = static_cast<unsigned>(__cvta_generic_to_shared(row));
    square result;
    auto& p = result.pair;
    if constexpr (Transposed) {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(p[0]), "=r"(p[1]), "=r"(p[2]), "=r"(p[3])
                   : "r"(from)
                   : "memory");
    } else {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(p[0]), "=r"(p[1]), "=r"(p[2]), "=r"(p[3])
                   : "r"(from)
                   : "memory");
    }
    return result;
  }
};

template <side Side>
struct square<float, Side> : square_sums {
  __device__ static square rows(float const* from, int pitch) {
    int const lane = static_cast<int>(threadIdx.x) % 32;
    square result;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      int const r = lane / 4 + i % 2 * 8, c = lane % 4 * 2 + i / 2 * 8;
      float2 const two = *reinterpret_cast<float2 const*>(from + r * pitch + c);
      result.z[2 * i] = two.x, result.z[2 * i + 1] = two.y;
    }
    return result;
  }
  __device__ static square columns(float const* from, int pitch) {
    int const lane = static_cast<int>(threadIdx.x) % 32;
    square result;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      int const r = lane / 4 + i / 2 % 2 * 8, c = lane % 4 * 2 + i % 2 + i / 4 * 8;
      result.z[i] = from[c * pitch + r];
    }
    return result;
  }
  __device__ static square rounded(square_sums const& sums) {
    return {sums};
  }
  __device__ square_sums numbers() const {
    return *this;
  }
  __device__ void store_rows(float* to, int pitch) const {
    int const lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      int const r = lane / 4 + i % 2 * 8, c = lane % 4 * 2 + i / 2 * 8;
      *reinterpret_cast<float2*>(to + r * pitch + c) = {z[2 * i], z[2 * i + 1]};
    }
  }
};

template <class T>
__device__ void multiply_16_bits(float* sum, unsigned const (&a)[4], unsigned b0, unsigned b1) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

/// Eight of the columns of a square of floats as the matrix units take them, 11 bits of each.
__device__ inline void multiply_tf32(float* sum, unsigned const* a, unsigned b0, unsigned b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[2]), "r"(a[1]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline unsigned to_tf32(float z) {
  unsigned result;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(z));
  return result;
}

/// sums(m, n) += Σ_k a(m, k) b(n, k). Floats are rounded to 11 bits, or, `exact`, what rounding
/// leaves of them is multiplied too.
template <class T>
__device__ void add_product(square_sums& sums, square<T, side::left> const& a,
                            square<T, side::right> const& b, bool exact) {
  if constexpr (sizeof(T) == 2) {
    multiply_16_bits<T>(sums.z, a.pair, b.pair[0], b.pair[1]);
    multiply_16_bits<T>(sums.z + 4, a.pair, b.pair[2], b.pair[3]);
  } else {
    unsigned high_a[8], high_b[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) high_a[i] = to_tf32(a.z[i]), high_b[i] = to_tf32(b.z[i]);
    if (exact) {
      unsigned low_a[8], low_b[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        low_a[i] = to_tf32(a.z[i] - __uint_as_float(high_a[i]));
        low_b[i] = to_tf32(b.z[i] - __uint_as_float(high_b[i]));
      }
#pragma unroll
      for (int k = 0; k < 8; k += 4) {
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          int const at = k + 2 * n;
          multiply_tf32(sums.z + 4 * n, low_a + k, high_b[at], high_b[at + 1]);
          multiply_tf32(sums.z + 4 * n, high_a + k, low_b[at], low_b[at + 1]);
        }
      }
    }
#pragma unroll
    for (int k = 0; k < 8; k += 4) {
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        int const at = k + 2 * n;
        multiply_tf32(sums.z + 4 * n, high_a + k, high_b[at], high_b[at + 1]);
      }
    }
  }
}

}  // namespace ssm::gpu::detail
