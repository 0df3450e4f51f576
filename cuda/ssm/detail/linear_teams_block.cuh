// SPDX-License-Identifier: Apache-2.0
// linear_teams_block.cuh: a block of a team: who folds and runs its tiles, and when.
#pragma once

#include "ssm/detail/linear_teams_memory.cuh"
#include "ssm/detail/tile_words.cuh"

namespace ssm::gpu::detail {

/// What is the same for all warps of a block of a team.
template <class Tiles, bool Chained>
struct team_block {
  using number = typename Tiles::number;
  using map = affine_map<number>;
  using memory_type = team_memory<Tiles, Chained>;
  static constexpr int R = memory_type::rounds, P = Tiles::P, warps = Tiles::warps;
  static constexpr int D = team_delay<Tiles, Chained>, S = team_stages<Tiles, Chained>, A = S - D;
  template <class X>
  using packet = columns_packet<X, P>;

  typename Tiles::problem const& p;
  Tiles const& tiles;
  memory_type& memory;
  int rank, blocks;       ///< in the team
  int band, turn, teams;  ///< of the band
  int rounds, width, lane;
  int share;       ///< of the channels for which a block finds out what enters
  int first, own;  ///< those of this block

  __device__ static unsigned parity(int round) { return static_cast<unsigned>(round / R) % 2; }
  __device__ mailbox& maps(int round) const { return memory.maps_are_here[round % R]; }
  __device__ mailbox& states(int round) const { return memory.states_are_here[round % R]; }
  /// Block b's map of one of this block's channels.
  __device__ map& of_block(int round, int b, int c) const {
    return memory.of_block[round % R][b * share + c];
  }
  /// That the maps and states of another round will come.
  __device__ void announce(int slot) const {
    memory.maps_are_here[slot].announce(blocks * own * static_cast<int>(sizeof(map)));
    memory.states_are_here[slot].announce(width * static_cast<int>(sizeof(number)));
  }
  __device__ unsigned tile(int round) const {
    return static_cast<unsigned>((round * teams + turn) * blocks + rank);
  }

  __device__ void meet_workers() const { meet<Tiles::workers + 32 * team_lanes<Tiles>>(1); }

  /// `at`: the thread's place among maps of warps.
  __device__ packet<map> fold(int round, int at, unsigned tile, int stage) const {
    int const row = width / P, lanes = tiles.lanes();  // of a part, of all
    auto upto = tiles.is_inner(tile) ? tiles.template fold<true>(tile, stage)
                                     : tiles.template fold<false>(tile, stage);
    for (int d = row; d < lanes; d *= 2) {
      auto const earlier = from_lane(upto, lane - d);
#pragma unroll
      for (int c = 0; c < P; ++c) {
        if (lane >= d) upto.of[c] = then{}(earlier.of[c], upto.of[c]);
      }
    }
    auto before = from_lane(upto, lane - row);
    if (lane < row) before = {};
    if (lane >= lanes - row && lane < lanes) of_warp(round, at) = upto;
    return before;
  }
  __device__ packet<map>& of_warp(int round, int at) const {
    return reinterpret_cast<packet<map>&>(memory.of_warp[round & 1][at]);
  }

  __device__ void work() const {
    Tiles own_tiles = tiles;  // which know where they are
    int const apart = teams * blocks;
    int own_map = tiles.warp * memory_type::width + tiles.channel();
    asm volatile("" : "+r"(own_map));  // or it is computed again in each round
    if constexpr (!Tiles::is_brought) own_tiles.begin(tile(0), apart);
    auto const request = [&](int round, unsigned tile, int stage) {
      if constexpr (!Tiles::is_brought) {
        if (round < rounds) own_tiles.request(tile, stage);
        end_of_requests();
      }
    };
    for (int round = 0; round < A; ++round) request(round, tile(round), round);
    int folded = 0, ready_stage = A;  // of the tiles that are folded and run
    int slot = R - D;                 // of what enters the latter
    unsigned phase = 1, now = tile(0);
    packet<map> before[D + 1];  // of the thread's part in its warp, then in its tile
    for (int round = 0; round < rounds + D; ++round) {
      if (round < rounds) {
        wait_for_tile(round);
        before[0] = fold(round, own_map, now, folded);
      }
      meet_workers();
      auto const warps_before = of_warp(round + 1, own_map);  // in the last round, if there was one
#pragma unroll
      for (int c = 0; c < P; ++c) {
        before[1].of[c] = then{}(warps_before.of[c], before[1].of[c]);
      }
      int const ready = round - D;
      if (ready >= 0) {
        auto const enter = [&] {
          memory.states_are_here[slot].wait(phase);
          packet<number> state;
#pragma unroll
          for (int c = 0; c < P; ++c) {
            state.of[c] = before[D].of[c](memory.entering[slot][tiles.channel() + c]);
          }
          return state;
        };
        unsigned const tile = now - static_cast<unsigned>(D * apart);
        if (tiles.is_inner(tile)) {
          own_tiles.template run<true>(tile, ready_stage, enter);
        } else {
          own_tiles.template run<false>(tile, ready_stage, enter);
        }
        if (threadIdx.x == 0) announce(slot);
      }
      request(round + A, now + static_cast<unsigned>(A * apart), ready_stage);
      now += static_cast<unsigned>(apart);
      if (++folded == S) folded = 0;
      if (++ready_stage == S) ready_stage = 0;
      if (++slot == R) slot = 0, phase ^= 1;
#pragma unroll
      for (int d = D; d > 0; --d) before[d] = before[d - 1];
    }
  }
  __device__ void wait_for_tile(int round) const {
    if constexpr (Tiles::is_brought) {
      memory.stages[round % S].arrived.wait(static_cast<unsigned>(round / S) % 2);
    } else {
      wait_for_requests_but<A - 1>();
      __syncwarp();  // lanes have loaded for each other
    }
  }

  /// One lane has tiles brought and taken away.
  __device__ void carry() const {
    if constexpr (Tiles::is_brought) {
      if (lane > 0) return;
      for (int round = 0; round < S && round < rounds; ++round) {
        tiles.request(tile(round), round);
      }
      for (int round = 0; round < rounds; ++round) {
        int const stage = round % S;
        memory.stages[stage].done.wait(static_cast<unsigned>(round / S) % 2);
        tiles.take(tile(round), stage);
        if (round + S < rounds) tiles.request(tile(round + S), stage);
      }
    }
  }

  /// A lane for each channel: what the warps before a warp are, and the whole for all of the team.
  __device__ void compose_warps(int channel) const {
    unsigned seen = ~0u;
    wait_for_earlier_kernels();
    for (int round = 0; round < rounds + D; ++round) {
      if (!Chained && channel == 0 && round < rounds) p.pace.wait(round - team_slack, seen);
      meet_workers();
      if (!Chained && channel == 0 && round < rounds) {
        p.pace.reach(round);
        seen = p.pace.look(round + 1 - team_slack);  // comes while maps are composed
      }
      if (round >= rounds || channel >= width) continue;
      auto& of_warp = memory.of_warp[round % 2];
      constexpr int W = memory_type::width;
      map own[warps], upto{};
#pragma unroll
      for (int w = 0; w < warps; ++w) own[w] = of_warp[w * W + channel];
#pragma unroll
      for (int w = 0; w < warps; ++w) {
        auto const before = upto;
        upto = then{}(upto, own[w]);
        own[w] = before;
      }
      // What is sent comes first, as others wait for it.
      if (Chained) {
        int const owner = channel / share, c = channel - owner * share;
        maps(round).send(upto, &of_block(round, rank, c), owner);
      } else {
        for (int b = 0; b < blocks; ++b) maps(round).send(upto, &of_block(round, rank, channel), b);
      }
#pragma unroll
      for (int w = 0; w < warps; ++w) of_warp[w * W + channel] = own[w];
    }
  }

  /// One team: a lane for each channel walks through time.
  __device__ void walk(int channel) const;

  // Many teams, for the channels of which this block finds out what enters.
  /// A lane for each publishes what the team folded.
  __device__ void publish() const;
  /// What lies between the team's last round and this one, and before each of its blocks, in every
  /// `pace`th round.
  __device__ void look_back(int first_round, int pace) const;
  /// Walk through the rounds, and send all blocks what enters them.
  __device__ void walk_rounds() const;

  __device__ map whole(int round, int c) const {
    map all = of_block(round, 0, c);
    for (int b = 1; b < blocks; ++b) all = then{}(all, of_block(round, b, c));
    return all;
  }
  __device__ tile_slot<number>& word(int round, int team, int c) const {
    return p.words[(((index_t{band} * rounds + round) * teams + team) << p.width_bits) + first + c];
  }

  /// The lanes of a channel are the teams since this one's last round, then the blocks.
  struct lane_of_channel {
    int most = 1, n, first, at_once;
  };
  __device__ lane_of_channel own_lane() const {
    lane_of_channel own_lane;
    while (own_lane.most < teams || own_lane.most < blocks) own_lane.most *= 2;
    own_lane.n = lane & (own_lane.most - 1), own_lane.first = lane / own_lane.most;
    own_lane.at_once = 32 / own_lane.most;
    return own_lane;
  }
};

}  // namespace ssm::gpu::detail
