// SPDX-License-Identifier: Apache-2.0
// selective_moments_tile.cuh: what a squad of the first passes by moments has in shared memory.
#pragma once

#include "ssm/detail/selective_slots.cuh"
#include "ssm/detail/selective_warp_sums.cuh"

namespace ssm::gpu::detail {

struct moments_tile {
  static constexpr int threads = 128, warps = threads / 32;  // of a squad
  static constexpr int squads = 4;                           // of a multiprocessor
  static constexpr int channels = warps * warp_tile::channels;
  static constexpr int steps = warp_tile::steps, states = warp_tile::states;

  template <class T, bool Packed>
  struct shared {
    warp_tile::shared warp[warps];
    // Of channels; what rounding left out of Σ Δ.
    alignas(16) float bias[threads], factor[threads], center[threads], lost[threads];
    quad_slots_of<T, threads, Packed> from[4], step[4];
    quad_slots_of<T, states / 4 * steps, Packed> projection[warps];
  };
  template <class T, bool Packed>
  struct gated : shared<T, Packed> {
    quad_slots_of<T, threads, Packed> gate[4];
  };
};

}  // namespace ssm::gpu::detail
