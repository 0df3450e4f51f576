// SPDX-License-Identifier: Apache-2.0
// linear_rows_stretch.cuh: elements right after each other, from anywhere in memory to shared
// memory and back, by several lanes, in packets of 16 bytes.
#pragma once

#include "ssm/detail/linear_rows_tile.cuh"

namespace ssm::gpu::detail {

/// In shared memory a stretch begins as far from a multiple of 16 bytes as it does in memory.
template <class T>
struct stretch_lanes {
  static constexpr int V = rows_packet<T>;

  int lane, lanes;  ///< this one, and how many there are

  /// Elements past a multiple of 16 bytes.
  __device__ static int misplaced(T const* first) {
    auto const low = static_cast<unsigned>(reinterpret_cast<std::uintptr_t>(first));
    return static_cast<int>(low / sizeof(T)) & (V - 1);
  }

  /// Ask for `count` elements from `first` on. The array is from `begin` to `end`; more of it than
  /// is wanted may be read.
  __device__ void request(T* to, T const* first, int count, T const* begin, T const* end) const {
    int const before = misplaced(first), stop = before + count;
    T const* const from = first - before;
    int const start = from < begin ? V : 0, whole = no_further((end - from) / V * V, stop);
#pragma unroll 2
    for (int i = start + lane * V; i < whole; i += lanes * V) request_bytes<16>(to + i, from + i);
    // What shares its packet with what is not of the array.
    if (start > 0) {
      for (int i = before + lane; i < V && i < stop; i += lanes) to[i] = from[i];
    }
    for (int i = max(start, whole) + lane; i < stop; i += lanes) to[i] = from[i];
  }

  /// Store `count` elements to where `first` is, and nothing else.
  __device__ void store(T* first, T const* from, int count) const {
    int const before = misplaced(first), stop = before + count;
    int const head = before > 0 ? V : 0, tail = max(head, stop & -V);
    T* const to = first - before;
#pragma unroll 2
    for (int i = head + lane * V; i < tail; i += lanes * V) {
      packet<T, V>::load_shared(from + i).store(to + i);
    }
    for (int i = before + lane; i < head && i < stop; i += lanes) to[i] = from[i];
    for (int i = tail + lane; i < stop; i += lanes) to[i] = from[i];
  }
};

}  // namespace ssm::gpu::detail
