// SPDX-License-Identifier: Apache-2.0
// dual_hopper_products.cuh: products of tiles by a warpgroup on Hopper (wgmma), sums in registers.
#pragma once

#include <cstdint>
#include <type_traits>

#include "ssm/config.hpp"
#include "ssm/detail/half.hpp"
#include "ssm/scalar.hpp"

namespace ssm::gpu::detail::hopper {

/// Where rows of 64 elements stand in shared memory, as products want it: in units of 16 bytes,
/// rows swizzled by 128 bytes as the copy engine leaves them, eight rows to 1024 bytes, from where
/// another eight may begin. An element or a row further on is found by adding its offset.
struct tile_rows {
  unsigned sixteens;

  __device__ tile_rows operator+(unsigned bytes) const { return {sixteens + bytes / 16}; }
};
/// The same rows, for sums over rows; `bytes` to the tile that has the next 64 columns.
struct tile_columns {
  unsigned sixteens;

  __device__ tile_columns(tile_rows rows, unsigned bytes)
      : sixteens{rows.sixteens | (bytes / 16) << 16} {}
};

/// The upper half of a product's description of a tile: 128 bytes swizzled, 1024 bytes a step.
inline constexpr unsigned tile_layout = 1u << 30 | 1024 / 16;

/// Products read and write registers until they are waited for: nothing that touches those may
/// move across these lines, so accumulators go through hold() on both sides.
template <int Count>
__device__ void hold(float (&sums)[Count]) {
#pragma unroll
  for (float& each : sums) asm volatile("" : "+f"(each)::"memory");
}
__device__ inline void begin_products() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void end_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Until all products have ended but those of the last `Groups` end_products().
template <int Groups>
__device__ void wait_for_products_but() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Groups) : "memory");
}

// An instruction's text and its operands are literals: no function can write them.
// clang-format off
#define SSM_REGISTERS_32 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SSM_REGISTERS_64 \
  SSM_REGISTERS_32 ", " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SSM_SUMS_32 \
  "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), \
  "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), \
  "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), \
  "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
  "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), \
  "+f"(d[30]), "+f"(d[31])
#define SSM_SUMS_64 \
  SSM_SUMS_32, \
  "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), \
  "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), \
  "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), "+f"(d[49]), \
  "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), \
  "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), \
  "+f"(d[62]), "+f"(d[63])
// clang-format on
/// Rows of a in shared memory, or four registers of them; `types` of elements, then whether b has
/// columns ("1") or rows ("0").
#define SSM_PRODUCT_OF_TILES(types, columns)                                    \
  asm volatile(                                                                 \
      "{\n.reg .pred adds;\n.reg .b64 a, b;\nsetp.ne.b32 adds, %34, 0;\n"       \
      "mov.b64 a, {%32, %35};\nmov.b64 b, {%33, %35};\n"                        \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." types " {" SSM_REGISTERS_32 \
      "}, a, b, adds, 1, 1, 0, " columns ";\n}"                                 \
      : SSM_SUMS_32                                                             \
      : "r"(a.sixteens), "r"(b.sixteens), "r"(int(adds)), "n"(tile_layout))
#define SSM_PRODUCT_32(types, columns)                                               \
  asm volatile(                                                                      \
      "{\n.reg .pred adds;\n.reg .b64 b;\nsetp.ne.b32 adds, %37, 0;\n"               \
      "mov.b64 b, {%36, %38};\n"                                                     \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." types " {" SSM_REGISTERS_32      \
      "}, {%32, %33, %34, %35}, b, adds, 1, 1, " columns ";\n}"                      \
      : SSM_SUMS_32                                                                  \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.sixteens), "r"(int(adds)), \
        "n"(tile_layout))
#define SSM_PRODUCT_64(types, columns)                                               \
  asm volatile(                                                                      \
      "{\n.reg .pred adds;\n.reg .b64 b;\nsetp.ne.b32 adds, %69, 0;\n"               \
      "mov.b64 b, {%68, %70};\n"                                                     \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." types " {" SSM_REGISTERS_64     \
      "}, {%64, %65, %66, %67}, b, adds, 1, 1, " columns ";\n}"                      \
      : SSM_SUMS_64                                                                  \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.sixteens), "r"(int(adds)), \
        "n"(tile_layout))

/// d_ij = Σ_k a_ik b_jk (+ d_ij) for k < 16, rows of a and b in shared memory.
template <class T>
__device__ void multiply_rows(float (&d)[32], tile_rows a, tile_rows b, bool adds) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    SSM_PRODUCT_OF_TILES("bf16.bf16", "0");
  } else {
    SSM_PRODUCT_OF_TILES("f16.f16", "0");
  }
}

/// d_ij = Σ_k a_ik b_jk (+ d_ij) for k < 16, a in registers, rows of b in shared memory.
template <class T>
__device__ void multiply_rows(float (&d)[32], unsigned const* a, tile_rows b, bool adds) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    SSM_PRODUCT_32("bf16.bf16", "0");
  } else {
    SSM_PRODUCT_32("f16.f16", "0");
  }
}

/// d_ij = Σ_k a_ik b_kj (+ d_ij) for k < 16, a in registers, 64 or 128 columns of b in shared
/// memory.
template <class T>
__device__ void multiply_columns(float (&d)[32], unsigned const* a, tile_columns b,
                                 bool adds = true) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    SSM_PRODUCT_32("bf16.bf16", "1");
  } else {
    SSM_PRODUCT_32("f16.f16", "1");
  }
}

template <class T>
__device__ void multiply_columns(float (&d)[64], unsigned const* a, tile_columns b,
                                 bool adds = true) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    SSM_PRODUCT_64("bf16.bf16", "1");
  } else {
    SSM_PRODUCT_64("f16.f16", "1");
  }
}

/// d_ij = Σ_k a_ik b_kj (+ d_ij) for k < 16, rows of a and 64 columns of b in shared memory.
template <class T>
__device__ void multiply_columns(float (&d)[32], tile_rows a, tile_columns b, bool adds) {
  static_assert(std::is_same_v<T, bfloat16>);
  SSM_PRODUCT_OF_TILES("bf16.bf16", "1");
}

#undef SSM_PRODUCT_OF_TILES
#undef SSM_PRODUCT_32
#undef SSM_PRODUCT_64
#undef SSM_REGISTERS_32
#undef SSM_REGISTERS_64
#undef SSM_SUMS_32
#undef SSM_SUMS_64

}  // namespace ssm::gpu::detail::hopper
