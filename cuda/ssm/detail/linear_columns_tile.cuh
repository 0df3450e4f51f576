// SPDX-License-Identifier: Apache-2.0
// linear_columns_tile.cuh: how time and channels are cut into tiles where rows are not contiguous.
#pragma once

#include <cstring>
#include <type_traits>

#include "ssm/detail/element.cuh"
#include "ssm/detail/half.hpp"
#include "ssm/detail/tile_words.cuh"

namespace ssm::gpu::detail {

/// One array: element (outer, step, channel) at data[outer·s0 + step·s1 + channel·s2], steps in the
/// order in which they run.
template <class T>
struct columns_array {
  T* data;
  index_t outer, time, channel;

  __device__ T* at(index_t o, index_t t, index_t c) const {
    return data + o * outer + t * time + c * channel;
  }
};

template <class T, class Step>
struct columns_problem {
  using number = accumulator_t<T>;

  columns_array<T const> in[Step::inputs];
  columns_array<T> out[Step::outputs];
  // As in rows_problem; their stride in time is 0.
  columns_array<number const> initial;
  columns_array<number> final;
  columns_array<number const> edge;

  index_t outer, length, channels;
  int width_bits;            ///< a tile has 2^width_bits channels
  index_t across;            ///< tiles side by side
  index_t bands;             ///< those of all of outer
  index_t stretches;         ///< of time
  index_t groups;            ///< of stretches, see group_size
  index_t tiles;             ///< bands for each stretch
  tile_slot<number>* words;  ///< of stretches, of groups of them, of what enters groups of groups
};

/// What P channels have at a step.
template <class A, int P>
struct alignas(P * sizeof(A)) columns_packet {
  A of[P];
};

template <class T, int P>
__device__ columns_packet<accumulator_t<T>, P> to_numbers(columns_packet<T, P> const& stored) {
  if constexpr (std::is_same_v<T, bfloat16> && P == 2) {  // an instruction each, not two
    unsigned word;
    memcpy(&word, &stored, sizeof(word));
    return {{__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000u)}};
  } else {
    columns_packet<accumulator_t<T>, P> numbers;
    for (int c = 0; c < P; ++c) numbers.of[c] = to_number(stored.of[c]);
    return numbers;
  }
}

template <class T, int P>
__device__ void store_packet(columns_packet<T, P> const& values, T* to) {
  if constexpr (sizeof(values) == 4) {  // of two halves the compiler makes two accesses
    unsigned word;
    memcpy(&word, &values, sizeof(word));
    *reinterpret_cast<unsigned*>(to) = word;
  } else {
    *reinterpret_cast<columns_packet<T, P>*>(to) = values;
  }
}

/// A stretch of time of a few channels.
template <class T, class Step>
struct columns_tile {
  T const* in[Step::inputs];  ///< of its first step and channel; a neighbor is a step further
  T* out[Step::outputs];
  index_t stretch, band, outer, channel;
  int steps, channels;
  int last;  ///< the row's last step, counted from the tile's first; far away if not in it

  __device__ bool is_none() const { return steps == 0; }
};

}  // namespace ssm::gpu::detail
