// SPDX-License-Identifier: Apache-2.0
// copy_engine.cuh: boxes of arrays between global and shared memory, from sm_90 on, while threads
// do other things.
#pragma once

#include <cuda.h>
#include <cudaTypedefs.h>

#include "ssm/detail/barrier.cuh"
#include "ssm/execution.cuh"

namespace ssm::gpu::detail::hopper {

/// What the copy engine has to know of an array of four axes, the innermost first: `extents` in
/// elements, `strides` of all axes but the innermost in bytes, multiples of 16. What a box has
/// beyond the array is 0 when it is loaded and is not stored.
inline CUtensorMap encode_boxes(CUtensorMapDataType type, void const* data,
                                cuuint64_t const (&extents)[4], cuuint64_t const (&strides)[3],
                                cuuint32_t const (&box)[4], CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion promotion) {
  static auto const encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult status{};
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                           cudaEnableDefault, &status),
          "cudaGetDriverEntryPointByVersion");
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(found);
  }();
  CUtensorMap map{};
  cuuint32_t const every[] = {1, 1, 1, 1};
  CUresult const status =
      encode(&map, type, 4, const_cast<void*>(data), extents, strides, box, every,
             CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, promotion, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  check(status == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue, "cuTensorMapEncodeTiled");
  return map;
}

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
/// The other way, without waiting, as send_box.
__device__ inline void store_bytes(void* to, void const* from, unsigned bytes) {
  asm volatile(
      "cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;\n"
      "cp.async.bulk.commit_group;" ::"l"(__cvta_generic_to_global(to)),
      "r"(shared_address(from)), "r"(bytes)
      : "memory");
}

}  // namespace ssm::gpu::detail::hopper
