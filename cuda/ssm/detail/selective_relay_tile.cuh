// SPDX-License-Identifier: Apache-2.0
// selective_relay_tile.cuh: what a block of the relay has in shared memory, and how its warps wait
// for each other. From sm_90 on.
#pragma once

#include "ssm/detail/barrier.cuh"
#include "ssm/detail/selective_problem.cuh"
#include "ssm/detail/selective_slots.cuh"

namespace ssm::gpu::detail {

/// B or C of a step.
template <class T>
struct alignas(16) projection_row {
  static constexpr int states = 16, pieces = states * sizeof(T) / 16;
  T state[states];

  __device__ float2 two(int first) const {
    if constexpr (sizeof(T) == 2) {
      auto const word = reinterpret_cast<unsigned const&>(state[first]);
      auto const number = [](unsigned half) {
        return to_number(T::from_bits(static_cast<std::uint16_t>(half)));
      };
      return {number(word & 0xffffu), number(word >> 16)};
    } else {
      return reinterpret_cast<float2 const&>(state[first]);
    }
  }
};

/// What a block does: 64 steps of up to 12 channels at a time, as groups of four channels. Four
/// warps have a group, each 16 of the steps; a lane has two states of one channel. Two more
/// warps a group bring sequences and take away what was found; two bring B and C.
struct relay_tile {
  static constexpr int parts = 4, part_steps = 16, steps = parts * part_steps;
  static constexpr int group_channels = 4, most_groups = 3;
  static constexpr int channels = group_channels * most_groups;
  static constexpr int states = 16, lanes = states / 2;        // of a channel
  static constexpr int workers = 32 * parts, porters = steps;  // threads of a group
  static constexpr int other_porters = 64;                     // of a block
  static constexpr int most_threads = (workers + porters) * most_groups + other_porters;
  static constexpr int buffers = 3;  // of tiles
  static constexpr int stored = 4;   // tiles as they are in memory
  // Rows of steps, of a channel or of one lane of a channel, and groups of them begin at banks that
  // threads of a warp do not meet in.
  static constexpr int drive_row = steps + 2, drive_group = group_channels * drive_row + 4;
  static constexpr int sum_row = steps + 4, sum_group = group_channels * lanes * sum_row + 12;

  template <class T>
  struct sequence_slots {
    union {
      quad_slots<T, porters * most_groups> quads;
      covered_row<T, steps> rows[channels];
    };
  };

  template <class T>
  struct shared {
    // Of a few tiles: Δ and Δ·x; what each lane has of Σ C·h; whether all exponents are small, as
    // far as each warp of porters knows.
    float2 drives[buffers][most_groups * drive_group];
    float sums[buffers][most_groups * sum_group];
    int is_small[buffers][porters / 32 * most_groups];
    float2 state[most_groups][32];  // where a part hands them to the next
    float4 bias[most_groups], factor[most_groups], D[most_groups];
    float largest_rate[workers / 32 * most_groups];
    // As they are stored: quads of channels, or rows of steps; B and C, which every lane converts
    // for itself, as that takes less of shared memory's time than rows of floats.
    sequence_slots<T> x[stored], step[stored], gate[stored];
    projection_row<T> projection[stored][2][steps];
    covered_row<T, steps> turned[2][2][states];  // B and C of two tiles along time
  };
};

/// All threads of the block meet, wherever in the program they do; of __syncthreads the compiler
/// may think that it is one place.
__device__ inline void meet_block() {
  asm volatile("barrier.sync 0, %0;" ::"r"(blockDim.x) : "memory");
}

/// A tile is full when porters have brought it, empty when workers need it no more; parts hand on
/// the states of a group.
class relay_barriers {
 public:
  static constexpr int buffers = relay_tile::buffers;

  __device__ void init(int groups) {
    for (auto& each : full_)
      each.init(static_cast<unsigned>(groups * relay_tile::porters + relay_tile::other_porters) /
                32);
    for (auto& each : empty_) each.init(static_cast<unsigned>(groups * relay_tile::parts));
    for (auto& of_group : handed_)
      for (auto& each : of_group) each.init(1);
  }
  __device__ void fill(int tile) { full_[tile % buffers].arrive_for_warp(); }
  __device__ void wait_until_full(int tile) { full_[tile % buffers].wait(tile / buffers % 2); }
  __device__ void leave(int tile) { empty_[tile % buffers].arrive_for_warp(); }
  __device__ void wait_until_left(int tile) { empty_[tile % buffers].wait(tile / buffers % 2); }
  __device__ void hand_on(int group, int part) { handed_[group][part].arrive_for_warp(); }
  __device__ void take_over(int group, int part, int tile, unsigned zero) {
    // A new barrier does not hold back wait(1).
    int const before = part > 0 ? part - 1 : relay_tile::parts - 1;
    unsigned const parity = static_cast<unsigned>(part > 0 ? tile : tile - 1) % 2;
    handed_[group][before].wait(parity ^ zero);
  }

 private:
  barrier full_[buffers], empty_[buffers], handed_[relay_tile::most_groups][relay_tile::parts];
};

template <class T>
struct relay_block : channel_block {
  using tile = relay_tile;
  using shared = tile::shared<T>;

  selective_problem<T> const& p;
  shared& s;
  relay_barriers& barriers;
  int groups, tiles;

  __device__ relay_block(selective_problem<T> const& problem, shared& memory,
                         relay_barriers& of_block, int block_groups)
      : channel_block(problem, blockIdx.x, block_groups * tile::group_channels),
        p{problem},
        s{memory},
        barriers{of_block},
        groups{block_groups},
        tiles{static_cast<int>((p.length + tile::steps - 1) / tile::steps)} {}
};

}  // namespace ssm::gpu::detail
