// SPDX-License-Identifier: Apache-2.0
// linear_teams_problem.cuh: what teams of blocks are to scan, and how it is cut into tiles.
#pragma once

#include "ssm/detail/linear_columns_tile.cuh"
#include "ssm/detail/lock_step.cuh"

namespace ssm::gpu::detail {

/// Rounds that teams of different bands may be apart; 3 and 6 took a hundredth longer.
inline constexpr int team_slack = 4;

template <class T, class Step>
struct team_problem : columns_problem<T, Step> {
  index_t teams;   ///< of a band: they take its time in turn
  index_t rounds;  ///< of each team
  index_t inner;   ///< tiles, in the order of time, that have all their steps and are not the last
  lock_step pace;  ///< of the blocks of all teams, where each band has one
};

/// A stretch of time of the channels of a band. `Inner`: all of its steps are there, and a step
/// after them, so nothing has to be asked.
template <class T, class Step, bool Inner>
struct team_tile {
  int count;  ///< of steps, where not all are there
  int end;    ///< the row's last step, counted from the tile's first; far away if not in it

  __device__ int steps(int most) const { return Inner ? most : count; }
  __device__ int last() const { return Inner ? 1 << 30 : end; }
};

}  // namespace ssm::gpu::detail
