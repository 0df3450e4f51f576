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

  static constexpr int C_first = steps * B_pitch;  // C follows B
  SSM_HD static constexpr int states_size(dual_shape const& shape) {
    return C_first + (shape.is_first_pass ? 0 : steps * C_pitch);
  }

  /// Where a thread goes on to load: the packets that it has of every so many rows.
  struct cursor {
    T const* from;  // in the next chunk
    int to;         // in the array in shared memory
    short row;      // the first, `steps` where it has none
    short count;    // elements of the packet that exist
  };

  /// Pointers into a block's shared memory, one array after another, each from 16 bytes on.
  struct shared {
    T* states;              // [stage]: B [step][state], C [step][state]
    T* x;                   // [stage][part][step][channel]
    T* gate;                // [part][step][channel]
    T* M;                   // [part][step][step]: C·B, decayed, times Δ / unit
    dual_steps<steps>* of;  // [chunk % 2][part]
    cursor* at;             // [B or C, x, gate][thread]
    int* first;             // [chunk % 2][step]: where its sequence starts, -1: before the chunk
    float* D;               // [warp][channel]
    float* walked;          // [warp]
    index_t* begin;         // [warp]

    SSM_HD shared(std::byte* memory, dual_shape const& shape) { take_all(shape, taken{memory}); }
    shared() = default;

    struct taken {
      std::byte*& memory;
      template <class U>
      SSM_HD void operator()(U*& array, int count) const {
        array = reinterpret_cast<U*>(memory);
        memory += count * static_cast<int>(sizeof(U));
      }
    };
    struct counted {
      std::size_t& bytes;
      template <class U>
      SSM_HD void operator()(U*&, int count) const {
        bytes += static_cast<std::size_t>(count) * sizeof(U);
      }
    };

    template <class Take>
    SSM_HD void take_all(dual_shape const& shape, Take const& take) {
      int const x_size = shape.parts * steps * x_pitch(shape.slices);
      int const is_main = shape.is_first_pass ? 0 : 1;
      take(states, shape.stages * states_size(shape));
      take(x, shape.stages * x_size);
      take(gate, x_size * is_main);
      take(M, shape.parts * steps * M_pitch * is_main);
      take(of, 2 * shape.parts);
      take(at, 3 * 32 * shape.warps());
      take(first, 2 * steps);
      take(D, 16 * most_warps);
      take(walked, most_warps);
      take(begin, most_warps);
    }
  };

  static std::size_t bytes(dual_shape const& shape) {
    std::size_t total = 0;
    shared{}.take_all(shape, typename shared::counted{total});
    return total;
  }
};

}  // namespace ssm::gpu::detail
