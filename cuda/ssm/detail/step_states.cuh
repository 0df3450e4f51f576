// SPDX-License-Identifier: Apache-2.0
// step_states.cuh: how kernels for a few steps move states: fours of neighbours in four rows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <limits>

#include "ssm/tensor_view.hpp"

namespace ssm::gpu::detail {

/// Most threads of a block, and rows of states that a thread loads before it computes anything:
/// what rows share is loaded once, and one row at a time is no faster where there are few.
inline constexpr int step_threads = 128, step_rows = 4;

/// Threads of a warp that share the states of a row, as a power of two, each with four states or,
/// of more than 128, twice four; at least four threads, so that of four rows each has one that
/// finishes it.
inline int step_lane_bits(index_t states) {
  int bits = 2;
  while (bits < 5 && 4 << bits < states) ++bits;
  return bits;
}

/// How often a warp takes the next rows: more than once where there are more than fill a device, so
/// that all blocks run at the same time (128 rows of 5120 channels of Mamba on an H200: 24 us in
/// one wave, 27 to 34 in others).
inline index_t step_passes(index_t groups, index_t most) {
  constexpr index_t at_a_time = 132 * 20;  // warps
  return std::clamp<index_t>((groups + at_a_time - 1) / at_a_time, 1, most);
}

/// The row that a lane finishes, and the first of the lanes that finish a row.
__device__ inline int row_of_lane(int lane) {
  return lane % 2 * 2 + lane / 2 % 2;
}
__device__ inline int lane_of_row(int row) {
  return row / 2 + row % 2 * 2;
}

/// The sum of a row over the neighbouring `lanes` that share it, in the lanes that finish it.
__device__ inline float sum_of_row(float const (&part)[step_rows], int lane, int lanes) {
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

/// Whether all elements of a view that differ from `axis` on are less than 2^31 elements apart.
template <class T, int Rank>
bool has_near_elements(tensor_view<T, Rank, memory::device> const& view, int axis = 1) {
  index_t reach = 0;
  for (; axis < Rank; ++axis)
    reach += std::abs(view.stride(axis)) * std::max<index_t>(view.extent(axis), 1);
  return reach < std::numeric_limits<std::int32_t>::max();
}

/// An array as step kernels know it: less than a view says, because a kernel that takes two
/// microseconds waits for every line of its parameters and counts every instruction. Offsets are
/// int where the elements of a row of the batch are near each other.
template <class U, class Offset>
struct step_array {
  U* data;
  index_t batch;
  Offset second, third, fourth;

  step_array(U* first, index_t row, index_t i, index_t j, index_t k)
      : data{first},
        batch{row},
        second{static_cast<Offset>(i)},
        third{static_cast<Offset>(j)},
        fourth{static_cast<Offset>(k)} {}
  template <int Rank>
  explicit step_array(tensor_view<U, Rank, memory::device> const& view)
      : step_array(view.data_handle(), view.stride(0), view.stride(1),
                   Rank > 2 ? view.stride(Rank > 2 ? 2 : 0) : 0,
                   Rank > 3 ? view.stride(Rank > 3 ? 3 : 0) : 0) {}

  __device__ U* at(index_t b, Offset i, Offset j = 0, Offset k = 0) const {
    return data + b * batch + (i * second + j * third + k * fourth);
  }
};

/// A parameter of each head or channel, 0 where there is none.
template <class Offset>
struct step_parameter {
  float const* data;
  Offset first, second;

  template <int Rank>
  explicit step_parameter(tensor_view<float const, Rank, memory::device> const& view)
      : data{view.data_handle()},
        first{static_cast<Offset>(view.stride(0))},
        second{Rank > 1 ? static_cast<Offset>(view.stride(Rank > 1 ? 1 : 0)) : 0} {}

  __device__ float at(Offset i, Offset j = 0) const {
    return data == nullptr ? 0.0f : data[i * first + j * second];
  }
};

/// How a projection becomes a step size.
struct step_rule {
  bool softplus, limited;
  float smallest, largest;
};

/// Whether fours along the last axis of a view are whole and begin at multiples of what they take.
template <class T, int Rank>
bool has_dense_states(tensor_view<T, Rank, memory::device> const& view) {
  bool dense = view.stride(Rank - 1) == 1 && view.extent(Rank - 1) % 4 == 0 &&
               reinterpret_cast<std::uintptr_t>(view.data_handle()) % (4 * sizeof(T)) == 0;
  for (int axis = 0; axis < Rank - 1; ++axis) dense = dense && view.stride(axis) % 4 == 0;
  return dense;
}

}  // namespace ssm::gpu::detail
