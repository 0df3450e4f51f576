// SPDX-License-Identifier: Apache-2.0
// step_states.cuh: how kernels for a few steps move states: fours of neighbours in four rows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <limits>

#include "ssm/tensor_view.hpp"

namespace ssm::gpu::detail {

/// Most threads of a block.
inline constexpr int step_threads = 128;

/// Threads of a warp that share the states of a row, as a power of two, each with four states or,
/// of more than 128, twice four; at least four threads, so that of four rows each has one that
/// finishes it.
inline int step_lane_bits(index_t states) {
  int bits = 2;
  while (bits < 5 && 4 << bits < states) ++bits;
  return bits;
}

/// Whether rows are so few that a thread has a part of one, not of four.
inline bool are_few_rows(index_t rows, int lane_bits) {
  return rows << lane_bits < 32 * index_t{4096};
}

/// How often a warp takes the next rows: more than once where there are more than fill a device, so
/// that all blocks run at the same time (128 rows of 5120 channels: 27 us, in more waves 29 to 34).
inline index_t step_passes(index_t groups, index_t most) {
  return std::clamp<index_t>((groups + 2047) / 2048, 1, most);
}

/// The row of `Rows` that a lane finishes, and the first of the lanes that finish a row.
template <int Rows>
__device__ int row_of_lane(int lane) {
  return Rows == 1 ? 0 : lane % 2 * 2 + lane / 2 % 2;
}
__device__ inline int lane_of_row(int row) {
  return row / 2 + row % 2 * 2;
}

/// The sum of a row over the neighbouring `lanes` that share it, in the lanes that finish it.
__device__ inline float sum_of_row(float const (&part)[1], int, int lanes) {
  float sum = part[0];
  for (int far = 1; far < lanes; far *= 2) sum += __shfl_xor_sync(~0u, sum, far);
  return sum;
}
__device__ inline float sum_of_row(float const (&part)[4], int lane, int lanes) {
  bool const is_odd = lane % 2 != 0, is_second = lane / 2 % 2 != 0;
  float const first =
      (is_odd ? part[2] : part[0]) + __shfl_xor_sync(~0u, is_odd ? part[0] : part[2], 1);
  float const second =
      (is_odd ? part[3] : part[1]) + __shfl_xor_sync(~0u, is_odd ? part[1] : part[3], 1);
  float sum = (is_second ? second : first) + __shfl_xor_sync(~0u, is_second ? first : second, 2);
  for (int far = 4; far < lanes; far *= 2) sum += __shfl_xor_sync(~0u, sum, far);
  return sum;
}

/// The first `count` of four states that begin at `first`, the others 0. Dense: all or none.
template <bool Dense>
__device__ float4 load_states(float const* first, index_t stride, int count) {
  float4 four{};
  if constexpr (Dense) {
    if (count > 0) four = *reinterpret_cast<float4 const*>(first);
  } else {
    if (count > 0) four.x = first[0];
    if (count > 1) four.y = first[stride];
    if (count > 2) four.z = first[2 * stride];
    if (count > 3) four.w = first[3 * stride];
  }
  return four;
}

template <bool Dense>
__device__ void store_states(float* first, index_t stride, int count, float4 const& four) {
  if constexpr (Dense) {
    if (count > 0) __stwb(reinterpret_cast<float4*>(first), four);
  } else {
    if (count > 0) first[0] = four.x;
    if (count > 1) first[stride] = four.y;
    if (count > 2) first[2 * stride] = four.z;
    if (count > 3) first[3 * stride] = four.w;
  }
}

/// Whether all elements of a view with the same first index are less than 2^31 elements apart.
template <class T, int Rank>
bool has_near_elements(tensor_view<T, Rank, memory::device> const& view) {
  index_t reach = 0;
  for (int axis = 1; axis < Rank; ++axis)
    reach += std::abs(view.stride(axis)) * std::max<index_t>(view.extent(axis), 1);
  return reach < std::numeric_limits<std::int32_t>::max();
}

/// An element of a view. Near: of one with near elements, which 32 bits find in a quarter of the
/// instructions.
template <bool Near, class View, class... Index>
__device__ auto* element_at(View const& view, index_t first, Index... rest) {
  auto* const from = view.data_handle() + first * view.stride(0);
  int axis = 1;
  if constexpr (Near) {
    int offset = 0;
    ((offset += static_cast<int>(rest) * static_cast<int>(view.stride(axis++))), ...);
    return from + offset;
  } else {
    index_t offset = 0;
    ((offset += static_cast<index_t>(rest) * view.stride(axis++)), ...);
    return from + offset;
  }
}

/// Whether fours along the last axis of a view are whole and begin at multiples of what they take.
template <class T, int Rank>
bool has_dense_states(tensor_view<T, Rank, memory::device> const& view) {
  bool dense = view.stride(Rank - 1) == 1 && view.extent(Rank - 1) % 4 == 0 &&
               reinterpret_cast<std::uintptr_t>(view.data_handle()) % (4 * sizeof(T)) == 0;
  for (int axis = 0; axis < Rank - 1; ++axis) dense = dense && view.stride(axis) % 4 == 0;
  return dense;
}

}  // namespace ssm::gpu::detail
