// SPDX-License-Identifier: Apache-2.0
// dual_chunk_tile.cuh: what a block of the portable kernel of state_space_dual does, and its shared
// memory.
#pragma once

#include <cstddef>
#include <type_traits>

#include "ssm/config.hpp"

namespace ssm::gpu::detail {

/// A block has up to `parts` parts of heads of one group, up to 64 channels of a head each, which
/// share B and C. A warp has a slice of 16 channels and all states of these in registers.
struct dual_shape {
  int parts;           // of heads
  int slices;          // 16 channels each, of a part
  int stages;          // chunks whose inputs are in shared memory: 2 where they fit
  bool is_first_pass;  // which reads no C and writes no y

  SSM_HD int warps() const { return parts * slices; }
  SSM_HD int channels() const { return 16 * slices; }
};

/// What all channels of a head know of a chunk of `Steps` steps.
template <int Steps>
struct dual_steps {
  float sum[Steps];      // Σ log2 of the decays up to this step, and
  float sum_low[Steps];  // what rounding left of it
  float drive[Steps];    // Δ / unit
  float weight[Steps];   // Δ / unit, decayed until the end of the chunk; 0 before a cut
  float growth[Steps];   // what the state that enters is multiplied with; 0 after a cut
  float through;         // and until the end of the chunk
  float unit;            // a power of 2; 1 where T has the exponents of float
  float padding[2];
};

/// A chunk of steps of all states, and rows of shared memory such that no two of a square's meet.
template <class T, int States>
struct dual_tile {
  static constexpr int steps = sizeof(T) == 2 ? 64 : 32;
  static constexpr int squares = steps / 16;
  static constexpr int most_warps = States <= 128 ? 12 : 8;
  static constexpr int packet = 16 / sizeof(T);  // elements
  static constexpr int B_pitch = States + packet;
  static constexpr int C_pitch = States + 8;
  static constexpr int M_pitch = steps + 8;
  SSM_HD static constexpr int x_pitch(int slices) { return 16 * slices + packet; }

  /// Pointers into a block's shared memory, one array after another, each from 16 bytes on.
  struct shared {
    T *B, *C;               // [stage][step][state]
    T* x;                   // [stage][part][step][channel]
    T* y;                   // [part][step][channel]: the gate, and then y
    T* M;                   // [part][step][step]: C·B, decayed, times Δ / unit
    dual_steps<steps>* of;  // [chunk % 2][part]
    int* first;             // [chunk % 2][step]: where its sequence starts, -1: before the chunk
    float* D;               // [warp][channel]
    float* walked;          // [warp]
    index_t* begin;         // [warp]

    __device__ shared(std::byte* memory, dual_shape const& shape) {
      int const x_size = steps * x_pitch(shape.slices), is_main = shape.is_first_pass ? 0 : 1;
      take(memory, B, shape.stages * steps * B_pitch);
      take(memory, C, shape.stages * steps * C_pitch * is_main);
      take(memory, x, shape.stages * shape.parts * x_size);
      take(memory, y, shape.parts * x_size * is_main);
      take(memory, M, shape.parts * steps * M_pitch * is_main);
      take(memory, of, 2 * shape.parts);
      take(memory, first, 2 * steps);
      take(memory, D, 16 * most_warps);
      take(memory, walked, most_warps);
      take(memory, begin, most_warps);
    }

   private:
    template <class U>
    __device__ static void take(std::byte*& memory, U*& array, int count) {
      array = reinterpret_cast<U*>(memory);
      memory += count * static_cast<int>(sizeof(U));
    }
  };

  static std::size_t bytes(dual_shape const& shape) {
    int const x_size = steps * x_pitch(shape.slices), is_main = shape.is_first_pass ? 0 : 1;
    int const elements =
        shape.stages * (steps * (B_pitch + C_pitch * is_main) + shape.parts * x_size) +
        shape.parts * (x_size + steps * M_pitch) * is_main;
    return static_cast<std::size_t>(elements) * sizeof(T) +
           2 * static_cast<std::size_t>(shape.parts) * sizeof(dual_steps<steps>) +
           2 * steps * sizeof(int) + most_warps * (17 * sizeof(float) + sizeof(index_t));
  }
};

}  // namespace ssm::gpu::detail
