// SPDX-License-Identifier: Apache-2.0
// dual_hopper_launch.cuh: which problems of Mamba-2 the kernel for Hopper takes, and its launch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "ssm/detail/device.cuh"
#include "ssm/detail/dual_hopper_entering.cuh"
#include "ssm/detail/dual_hopper_kernel.cuh"
#include "ssm/detail/early_launch.cuh"
#include "ssm/execution.cuh"

namespace ssm::gpu::detail {

namespace hopper {

/// Whether the copy engine takes boxes of an array: the last axis dense, all else from multiples
/// of 16 bytes.
template <class View>
bool has_boxes(View const& view) {
  if (view.data_handle() == nullptr) return true;
  constexpr index_t element = sizeof(typename View::element_type);
  if (reinterpret_cast<std::uintptr_t>(view.data_handle()) % 16 != 0) return false;
  if (view.stride(3) != 1) return false;
  for (int axis = 0; axis < 3; ++axis) {
    index_t const bytes = view.stride(axis) * element;
    if (view.extent(axis) > std::numeric_limits<std::int32_t>::max() - chunk) return false;
    if (view.extent(axis) > 1 && (bytes <= 0 || bytes % 16 != 0 || bytes >> 40 != 0)) return false;
  }
  return true;
}

/// An array (batch, time, head or group, channel or state) for the copy engine, in boxes of 128
/// bytes of a row.
template <class View>
CUtensorMap boxes_of(View const& view, int rows = chunk) {
  using T = std::remove_const_t<typename View::element_type>;
  if (view.data_handle() == nullptr) return {};
  constexpr auto type = std::is_same_v<T, bfloat16>  ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                        : std::is_same_v<T, float16> ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                                     : CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
  // The stride of an axis of one is never used, but is checked.
  auto const stride = [&](int axis) {
    return static_cast<cuuint64_t>(view.extent(axis) > 1 ? view.stride(axis) * index_t{sizeof(T)}
                                                         : 16);
  };
  auto const extent = [&](int axis) { return static_cast<cuuint64_t>(view.extent(axis)); };
  cuuint64_t const extents[] = {extent(3), extent(2), extent(1), extent(0)};
  cuuint64_t const strides[] = {stride(2), stride(1), stride(0)};
  cuuint32_t const box[] = {128 / sizeof(T), 1, static_cast<cuuint32_t>(rows), 1};
  return encode_boxes(type, view.data_handle(), extents, strides, box, CU_TENSOR_MAP_SWIZZLE_128B,
                      CU_TENSOR_MAP_L2_PROMOTION_L2_256B);
}

/// Whether what was compiled has a kernel of Hopper's, and this device is one.
template <class Kernel>
bool is_compiled_for_this_device(Kernel* kernel) {
  if (device_attribute(cudaDevAttrComputeCapabilityMajor) != 9) return false;
  cudaFuncAttributes found{};
  check(cudaFuncGetAttributes(&found, kernel), "cudaFuncGetAttributes");
  return found.sharedSizeBytes > 0;
}

template <class T>
index_t group_slabs(dual_problem<T> const& p) {
  return p.group_heads * (p.head_dim / slab_channels);
}

/// Blocks of a segment of time in a row of the batch.
template <class T>
index_t row_blocks(dual_problem<T> const& p) {
  return p.groups * ((group_slabs(p) + block_slabs - 1) / block_slabs);
}

template <class T>
void launch(on where, problem<T> const& p, void (*kernel)(problem<T>), unsigned threads, int bytes,
            char const* name) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "cudaFuncSetAttribute");
  dim3 const blocks(static_cast<unsigned>(row_blocks(p.of)), static_cast<unsigned>(p.of.segments),
                    static_cast<unsigned>(p.of.batch));
  launch_early(where, kernel, blocks, threads, static_cast<std::size_t>(bytes), name, p);
}

}  // namespace hopper

/// Whether the kernel for Hopper takes a problem; all others are for the portable one.
template <class T>
bool is_for_hopper(dual_problem<T> const& p) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    constexpr index_t most = 65535;  // blocks along the second and third axis of a grid
    return (p.head_dim == 64 || p.head_dim == 128) && p.states == 128 && p.batch <= most &&
           p.saved_states.data_handle() == nullptr && p.saved_ungated.data_handle() == nullptr &&
           hopper::has_boxes(p.x) && hopper::has_boxes(p.gate) && hopper::has_boxes(p.y) &&
           hopper::has_boxes(p.B) && hopper::has_boxes(p.C) &&
           hopper::is_compiled_for_this_device(hopper::dual_hopper_kernel<T, 128>);
  }
  return false;
}

/// Blocks of a segment of time; a processor runs one at a time.
template <class T>
index_t hopper_blocks(dual_problem<T> const& p) {
  return p.batch * hopper::row_blocks(p);
}

/// Both passes: what enters the segments, and all segments side by side.
template <class T>
void run_on_hopper(on where, dual_problem<T> const& p) {
  constexpr int bytes = sizeof(hopper::block_memory<T, 128>);
  hopper::problem<T> const own{p,
                               hopper::boxes_of(p.x),
                               hopper::boxes_of(p.gate),
                               hopper::boxes_of(p.B),
                               hopper::boxes_of(p.C),
                               static_cast<int>(p.head_dim / hopper::slab_channels),
                               static_cast<int>(hopper::group_slabs(p))};
  if (p.segments > 1) {
    hopper::launch(where, own, hopper::dual_hopper_entering_kernel<T, 128>,
                   hopper::entering_threads, bytes, "dual_hopper_entering_kernel");
  }
  hopper::launch(where, own, hopper::dual_hopper_kernel<T, 128>, hopper::block_threads, bytes,
                 "dual_hopper_kernel");
}

}  // namespace ssm::gpu::detail
