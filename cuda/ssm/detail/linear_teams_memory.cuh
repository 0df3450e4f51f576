// SPDX-License-Identifier: Apache-2.0
// linear_teams_memory.cuh: how many blocks are a team, and what each has in shared memory.
#pragma once

#include "ssm/detail/cluster.cuh"
#include "ssm/detail/linear_teams_piece.cuh"
#include "ssm/detail/linear_teams_tile.cuh"

namespace ssm::gpu::detail {

/// The blocks of a cluster are a team, at most so many.
inline constexpr int most_blocks_of_team = 8;
/// Teams of a band, at most so many.
inline constexpr int most_teams_of_band = 16;

/// Tiles in shared memory: as many as there is room for beside what blocks send each other, and as
/// gain anything.
template <class Tiles, bool Chained>
inline constexpr int team_stages = [] {
  constexpr int map = sizeof(affine_map<typename Tiles::number>),
                beside = 2 * (Tiles::warps + (Chained ? 16 : 30)) * Tiles::most_width * map;
  constexpr int fitting =
      (227 * 1024 - beside) / static_cast<int>(sizeof(typename Tiles::stage_memory));
  constexpr int most = Chained ? 8 : 5;
  return fitting < most ? fitting : most;
}();
/// Rounds from the fold of a tile until it runs. Where no other team is waited for, tiles of twice
/// as many elements rather arrive earlier.
template <class Tiles, bool Chained>
inline constexpr int team_delay = Chained ? team_stages<Tiles, true> - Tiles::ahead
                                          : (team_stages<Tiles, false> -
                                             (sizeof(typename Tiles::stored) == 2)) /
                                                2;

template <class Tiles, bool Chained>
struct team_memory {
  using map = affine_map<typename Tiles::number>;
  /// What blocks of a team may differ by: where they are chained, all wait for all.
  static constexpr int delay = team_delay<Tiles, Chained>;
  static constexpr int rounds = Chained ? delay + 2 : 2 * delay + 2;
  /// Of all blocks, for the channels that this block cares for.
  static constexpr int width = Tiles::most_width;
  static constexpr int maps = Chained ? width + most_blocks_of_team : width * most_blocks_of_team;

  typename Tiles::stage_memory stages[team_stages<Tiles, Chained>];
  map of_warp[2][Tiles::warps * width];  ///< in a round: later of all warps before it
  map of_block[rounds][maps];
  typename Tiles::number entering[rounds][width];   ///< the block's tile
  typename Tiles::number entering_team[width / 2];  ///< for the block's channels
  /// What lies between the team's last round and this one, for the block's channels.
  struct {
    map of_others[width / 2];                       ///< of other teams
    map of_team[width / 2];                         ///< of this one in this round
    map before_block[width + most_blocks_of_team];  ///< and before each of its blocks
  } found[rounds];
  mailbox maps_are_here[rounds], states_are_here[rounds];
  barrier has_found[rounds];
};

/// Warps that have a lane for each channel.
template <class Tiles>
inline constexpr int team_lanes = Tiles::most_width / 32;
/// Warps that walk through the rounds.
template <class Tiles, bool Chained>
inline constexpr int team_walkers = Chained ? 1 : team_lanes<Tiles>;
/// Warps beside the workers: some compose what they folded, some walk through the rounds, one has
/// tiles brought; where teams are chained, one publishes their maps and others look back.
template <class Tiles, bool Chained>
inline constexpr int team_helpers = team_lanes<Tiles> + team_walkers<Tiles, Chained> +
                                    Tiles::is_brought + (Chained ? 4 : 0);
template <class Tiles, bool Chained>
inline constexpr int team_threads = Tiles::workers + 32 * team_helpers<Tiles, Chained>;

}  // namespace ssm::gpu::detail
