// SPDX-License-Identifier: Apache-2.0
// selective_vjp_tile.cuh: what a block that differentiates Mamba's operator has in shared memory.
#pragma once

#include "ssm/detail/selective_problem.cuh"
#include "ssm/detail/selective_slots.cuh"

namespace ssm::gpu::detail {

/// A block has 16 states of 128 channels, a warp 32 of the channels, a thread half of the states of
/// two neighbouring ones. Eight steps are staged at a time, a packet for each thread, by each warp
/// for its own channels; four of them are differentiated at a time, with what they need again in
/// registers.
struct selective_vjp_tile {
  static constexpr int threads = 128;
  static constexpr int warps = threads / 32;
  static constexpr int channels = 128;
  static constexpr int warp_channels = channels / warps;
  static constexpr int states = 16;
  static constexpr int own_states = 8;
  static constexpr int steps = static_cast<int>(selective_scan_checkpoint_steps);
  static constexpr int together = 4;
  using grid = packet_grid<steps, warp_channels>;
  static constexpr int quads = 2 * steps * states / 4;  // of B and C
  static_assert(grid::packets == 32 && quads <= threads);

  using row = float[channels];
  using state_rows = row[states];

  template <class T, bool Packed>
  struct shared {
    state_rows eigenvalues;                      // A'
    state_rows entering[2];                      // the states entering this tile and the next
    float4 part[warps][together][2][9][4];       // of B and C, of four channels; row 8 is no
                                                 // channel's, so that B and C meet no bank twice
    float4 pair[steps][channels / 2];            // Δ before its factor and Δ x, of two channels
    row arriving[steps];                         // the cotangent past the gate
    row xs[steps], slopes[steps], gates[steps];  // slope of Δ, of y's factor; then the gradients of
                                                 // x, step_size and gate
    float4 projection[2][2][steps][states / 4];     // B and C, of this tile and the next
    float4 sums[warps][steps][2][states / 4];       // gradients of B and C of each warp
    packet_slots_of<T, threads, Packed> packet[4];  // as stored: x, step_size, y_cotangent, gate
    quad_slots_of<T, threads, Packed> quad;
    row bias, factor;
    // Where the block's first channel or state and the segment's first step are.
    T const *x, *step_size, *y_cotangent, *gate, *projections[2];
    float *to_x, *to_step_size, *to_gate;
    float const* block_states;
    unsigned starts[2];  // bit t: a sequence starts there
  };

  /// Where the pair of channels 2i and 2i + 1 is in an even row, so that a warp's packets meet no
  /// bank twice; in odd rows it is `apart` channels away.
  __device__ static int swizzled(int i) { return i ^ (i >> 3 & 1); }
  __device__ static int apart(int t) { return 4 * (t & 1); }
};

}  // namespace ssm::gpu::detail
