// SPDX-License-Identifier: Apache-2.0
// dual_hopper_instructions.cuh: what blocks on Hopper are made of: matrices of 8 x 8, words of two
// numbers, registers that warpgroups pass on.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "ssm/detail/copy_engine.cuh"
#include "ssm/detail/half.hpp"
#include "ssm/scalar.hpp"

namespace ssm::gpu::detail::hopper {

__device__ inline unsigned load_word(unsigned address) {
  unsigned word;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(word) : "r"(address) : "memory");
  return word;
}
__device__ inline void store_pair(unsigned address, float first, float second) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(address), "f"(first), "f"(second)
               : "memory");
}
/// Four matrices of 8 x 8, each transposed: lane l gives the address of row l % 8 of matrix l / 8.
__device__ inline void load_transposed(unsigned (&words)[4], unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(address)
               : "memory");
}
__device__ inline void load_matrices(unsigned (&words)[4], unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(address)
               : "memory");
}
__device__ inline void store_matrices(unsigned const (&words)[4], unsigned address) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
               "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3])
               : "memory");
}
__device__ inline void store_transposed(unsigned const (&words)[4], unsigned address) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
      "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3])
      : "memory");
}

/// Two numbers as they are stored, the first one in the low half.
template <class T>
__device__ unsigned to_word(float first, float second) {
  unsigned word;
  if constexpr (std::is_same_v<T, bfloat16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
  }
  return word;
}
template <class T>
__device__ float2 from_word(unsigned word) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    return {__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000u)};
  } else {
    __half2 pair;
    memcpy(&pair, &word, sizeof word);
    return __half22float2(pair);
  }
}

/// Two numbers times two factors of twice their digits, `rest` what rounding left of the factors:
/// rounded once.
template <class T>
__device__ unsigned scaled(unsigned word, unsigned factor, unsigned rest) {
  unsigned result;
  if constexpr (std::is_same_v<T, bfloat16>) {
    asm("{\n.reg .b32 low;\nmul.rn.bf16x2 low, %1, %3;\nfma.rn.bf16x2 %0, %1, %2, low;\n}"
        : "=r"(result)
        : "r"(word), "r"(factor), "r"(rest));
  } else {
    asm("{\n.reg .b32 low;\nmul.rn.f16x2 low, %1, %3;\nfma.rn.f16x2 %0, %1, %2, low;\n}"
        : "=r"(result)
        : "r"(word), "r"(factor), "r"(rest));
  }
  return result;
}

/// Registers of each thread of a warpgroup from now on, all threads of it together.
template <int Registers>
__device__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers>
__device__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}

}  // namespace ssm::gpu::detail::hopper
