// SPDX-License-Identifier: Apache-2.0
// linear_teams_states.cuh: how a block of a team finds out which states enter its tiles.
#pragma once

#include "ssm/detail/linear_teams_block.cuh"

namespace ssm::gpu::detail {

/// One team: a lane for each channel walks through time.
template <class Tiles, bool Chained>
__device__ void team_block<Tiles, Chained>::walk(int channel) const {
  if (channel >= width) return;
  number state = tiles.initial(channel);
  for (int round = 0; round < rounds; ++round) {
    maps(round).wait(parity(round));
    number own = state;
    for (int b = 0; b < blocks; ++b) {
      if (b == rank) own = state;
      state = of_block(round, b, channel)(state);
    }
    states(round).send(own, &memory.entering[round % R][channel], rank);
  }
}

/// Many teams: a lane for each of the block's channels publishes what the team folded.
template <class Tiles, bool Chained>
__device__ void team_block<Tiles, Chained>::publish() const {
  if (lane >= own) return;
  wait_for_earlier_kernels();
  for (int round = 0; round < rounds; ++round) {
    maps(round).wait(parity(round));
    word(round, turn, lane).publish({whole(round, lane), false});
  }
}

/// What lies between this team's last round and this one, and before each of its blocks, in every
/// `pace`th round.
template <class Tiles, bool Chained>
__device__ void team_block<Tiles, Chained>::look_back(int first_round, int pace) const {
  if (own == 0) return;  // nothing would hold it back
  wait_for_earlier_kernels();
  auto const [most, n, first_channel, at_once] = own_lane();
  // Of the last round those teams after this one, of this round those before.
  int const t = turn - teams + 1 + n, of_team = t < 0 ? t + teams : t;
  for (int round = first_round; round < rounds; round += pace) {
    int const of_round = t < 0 ? round - 1 : round;
    for (int k = 0; k < own; k += at_once) {
      int const c = k + first_channel;
      bool const is_here = c < own, reads = is_here && t < turn && of_round >= 0;
      auto& slot = word(reads ? of_round : round, reads ? of_team : turn, is_here ? c : 0);
      auto content = slot.load();
      map before_block{}, upto{};
      if (is_here) {
        maps(round).wait(parity(round));
        for (int b = 0; b < blocks; ++b) {
          if (b < n) before_block = then{}(before_block, of_block(round, b, c));
        }
      }
      if (reads) {
        while (content.is_empty()) content = slot.load();
        upto = content.map().map;
      }
      __syncwarp();
      for (int d = 1; d < most; d *= 2) {
        auto const later = from_lane(upto, lane + d);
        if (n % (2 * d) == 0) upto = then{}(upto, later);
      }
      auto& found = memory.found[round % R];
      if (is_here && n < blocks) found.before_block[n * share + c] = before_block;
      if (is_here && n == blocks - 1) {
        found.of_team[c] = then{}(before_block, of_block(round, n, c));
      }
      if (is_here && n == 0) found.of_others[c] = upto;
      __syncwarp();
    }
    memory.has_found[round % R].arrive_for_warp();
  }
}

/// Many teams: a lane for each block and channel walks through the rounds.
template <class Tiles, bool Chained>
__device__ void team_block<Tiles, Chained>::walk_rounds() const {
  if (own == 0) return;  // nobody looks back for it
  auto const [most, n, first_channel, at_once] = own_lane();
  auto& states_of_team = memory.entering_team;
  for (int round = 0; round < rounds; ++round) {
    memory.has_found[round % R].wait(parity(round));
    auto const& found = memory.found[round % R];
    for (int k = 0; k < own; k += at_once) {
      int const c = k + first_channel;
      number state{};
      if (c < own) {
        state = round == 0 ? tiles.initial(first + c)
                           : memory.found[(round - 1) % R].of_team[c](states_of_team[c]);
        state = found.of_others[c](state);
        if (n < blocks) {
          auto const before = found.before_block[n * share + c](state);
          states(round).send(before, &memory.entering[round % R][first + c], n);
        }
      }
      __syncwarp();
      if (c < own && n == 0) states_of_team[c] = state;
      __syncwarp();
    }
  }
}

}  // namespace ssm::gpu::detail
