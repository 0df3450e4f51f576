// SPDX-License-Identifier: Apache-2.0
// dual_hopper_instructions.cuh: what blocks on Hopper are made of: the copy engine, matrices of
// 8 x 8, words of two numbers, registers that warpgroups pass on.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "ssm/detail/barrier.cuh"
#include "ssm/detail/half.hpp"
#include "ssm/scalar.hpp"

namespace ssm::gpu::detail::hopper {

/// What this thread has stored to shared memory becomes known to products and the copy engine.
__device__ inline void publish_stores() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// Where a box of an array of four axes begins, the innermost axis first.
struct corner {
  int column, head, time, batch;
};

__device__ inline void load_box(void* to, CUtensorMap const& from, corner at, barrier& arrived) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%3, %4, %5, %6}], [%2];" ::"r"(shared_address(to)),
      "l"(&from), "r"(arrived.address()), "r"(at.column), "r"(at.head), "r"(at.time), "r"(at.batch)
      : "memory");
}

/// Add a box of floats to those in memory, or store it there, without waiting: what it is read from
/// is free again after wait_for_reads_but, of the same thread.
__device__ inline void send_box(CUtensorMap const& to, corner at, void const* from, bool adds) {
  if (adds) {
    asm volatile(
        "cp.reduce.async.bulk.tensor.4d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3, %4, "
        "%5}], [%1];" ::"l"(&to),
        "r"(shared_address(from)), "r"(at.column), "r"(at.head), "r"(at.time), "r"(at.batch)
        : "memory");
  } else {
    asm volatile(
        "cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4, %5}], "
        "[%1];" ::"l"(&to),
        "r"(shared_address(from)), "r"(at.column), "r"(at.head), "r"(at.time), "r"(at.batch)
        : "memory");
  }
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
/// Until all boxes have been read but the last `Boxes`.
template <int Boxes>
__device__ void wait_for_reads_but() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(Boxes) : "memory");
}
__device__ inline void wait_for_additions() {
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

/// A multiple of 16 bytes, from a multiple of 16 bytes on.
__device__ inline void load_bytes(void* to, void const* from, unsigned bytes, barrier& arrived) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(to)),
      "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(arrived.address())
      : "memory");
}

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
