// SPDX-License-Identifier: Apache-2.0
// linear_teams.cuh: the raw scan where channels are next to each other, by teams of blocks.
#pragma once

#include "ssm/detail/linear_teams_states.cuh"

namespace ssm::gpu::detail {

/// A team walks a band of channels through time, a tile to each block in each round. In a round a
/// block folds a tile, sends its map to all blocks of the team, and runs the tile of team_delay
/// rounds before. Where a band has more than one team (`Chained`) they take its rounds in turn: the
/// team's map is published in memory, and a warp composes those since the team's last round.
template <class Tiles, bool Chained>
__global__ void __launch_bounds__(team_threads<Tiles, Chained>, 1)
    team_kernel(typename Tiles::problem const p) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  using memory_type = team_memory<Tiles, Chained>;
  extern __shared__ __align__(tile_alignment) unsigned char bytes[];
  auto& memory = *reinterpret_cast<memory_type*>(bytes);
  int const rank = rank_in_cluster(), blocks = blocks_in_cluster();
  int const team = static_cast<int>(blockIdx.x) / blocks, teams = static_cast<int>(p.teams);
  int const band = team / teams, outer = band / static_cast<int>(p.across);
  index_t const first_channel = index_t{band - outer * static_cast<int>(p.across)} << p.width_bits;
  Tiles const tiles{p, memory.stages, outer, first_channel};
  int const width = tiles.width(), share = Chained ? (width + blocks - 1) / blocks : width;
  int const first = Chained ? rank * share : 0, left = width - first;
  team_block<Tiles, Chained> const block{p,
                                         tiles,
                                         memory,
                                         rank,
                                         blocks,
                                         band,
                                         team - band * teams,
                                         teams,
                                         static_cast<int>(p.rounds),
                                         width,
                                         tiles.lane,
                                         share,
                                         first,
                                         left < 0       ? 0
                                         : left < share ? left
                                                        : share};
  if (threadIdx.x == 0) {
    for (int round = 0; round < memory_type::rounds; ++round) {
      block.maps(round).init();
      block.states(round).init();
      block.announce(round);
      memory.has_found[round].init(1);
    }
    if constexpr (Tiles::is_brought) {
      for (int stage = 0; stage < block.S; ++stage) tiles.init(stage);
    }
    publish_barriers();
  }
  meet_cluster();
  constexpr int lanes = team_lanes<Tiles>, walkers = team_walkers<Tiles, Chained>,
                earlier = lanes + walkers + Tiles::is_brought;
  int const role = tiles.warp - Tiles::warps;
  if (role < 0) {
    block.work();
  } else if (role < lanes) {
    block.compose_warps(role * 32 + tiles.lane);
  } else if (role < lanes + walkers) {
    Chained ? block.walk_rounds() : block.walk((role - lanes) * 32 + tiles.lane);
  } else if (role < earlier) {
    block.carry();
  } else if (role == earlier) {
    block.publish();
  } else {
    block.look_back(role - earlier - 1, team_helpers<Tiles, Chained> - earlier - 1);
  }
  __syncwarp();
  meet_cluster();  // nobody leaves while others send to it
#endif
}

}  // namespace ssm::gpu::detail
