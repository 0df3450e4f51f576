// SPDX-License-Identifier: Apache-2.0
// linear_teams.cuh: the raw scan where channels are next to each other, by teams of blocks.
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
  __device__ void announce_maps(int round) const {
    maps(round).announce(blocks * own * static_cast<int>(sizeof(map)));
  }
  __device__ void announce_states(int round) const {
    states(round).announce((width + (Chained ? own : 0)) * static_cast<int>(sizeof(number)));
  }
  __device__ unsigned tile(int round) const {
    return static_cast<unsigned>((round * teams + turn) * blocks + rank);
  }

  __device__ void meet_workers() const { meet<Tiles::workers + 32>(1); }

  template <bool Inner>
  __device__ packet<map> fold(int round) const {
    int const row = width / P;  // lanes of a part
    auto upto = tiles.fold(tiles.template find<Inner>(tile(round)), round % S);
    for (int d = row; d < 32; d *= 2) {
      auto const earlier = from_lane(upto, lane - d);
#pragma unroll
      for (int c = 0; c < P; ++c) {
        if (lane >= d) upto.of[c] = then{}(earlier.of[c], upto.of[c]);
      }
    }
    auto before = from_lane(upto, lane - row);
    if (lane < row) before = {};
    if (lane >= 32 - row) *of_warp(round) = upto;
    return before;
  }
  __device__ packet<map>* of_warp(int round) const {
    return reinterpret_cast<packet<map>*>(
        &memory.stages[round % S].of_warp[tiles.warp][tiles.channel()]);
  }

  /// Rounds that are to be folded and run are inner ones.
  __device__ void work() const {
    auto const all_inner = static_cast<int>(p.inner), first = static_cast<int>(tile(0));
    int const inner = all_inner > first ? (all_inner - first - 1) / (teams * blocks) + 1 : 0;
    auto const request = [&](int round) {
      if (round < inner) {
        tiles.request(tiles.template find<true>(tile(round)), round % S);
      } else if (round < rounds) {
        tiles.request(tiles.template find<false>(tile(round)), round % S);
      }
      end_of_requests();
    };
    for (int round = 0; round < A; ++round) request(round);
    packet<map> before[D + 1];  // of the thread's part in its warp
    for (int round = 0; round < rounds + D; ++round) {
      wait_for_requests_but<A - 1>();
      __syncwarp();  // lanes have loaded for each other
      if (round < inner) {
        before[0] = fold<true>(round);
      } else if (round < rounds) {
        before[0] = fold<false>(round);
      }
      meet_workers();
      int const ready = round - D;
      if (ready >= 0) {
        states(ready).wait(parity(ready));
        if (threadIdx.x == 0) {
          announce_maps(ready);
          announce_states(ready);
        }
        packet<number> state;
        auto const warps_before = *of_warp(ready);
#pragma unroll
        for (int c = 0; c < P; ++c) {
          state.of[c] = memory.entering[ready % R][tiles.channel() + c];
          state.of[c] = before[D].of[c](warps_before.of[c](state.of[c]));
        }
        if (ready < inner) {
          tiles.run(tiles.template find<true>(tile(ready)), ready % S, state);
        } else {
          tiles.run(tiles.template find<false>(tile(ready)), ready % S, state);
        }
      }
      request(round + A);
#pragma unroll
      for (int d = D; d > 0; --d) before[d] = before[d - 1];
    }
  }

  /// A lane for each channel: what the warps before a warp are, and the whole for all of the team.
  __device__ void compose_warps() const {
    unsigned seen = ~0u;
    for (int round = 0; round < rounds + D; ++round) {
      if (!Chained && lane == 0 && round < rounds) p.pace.wait(round - team_slack, seen);
      meet_workers();
      if (!Chained && lane == 0 && round < rounds) {
        p.pace.reach(round);
        seen = p.pace.look(round + 1 - team_slack);  // comes while maps are composed
      }
      if (round >= rounds || lane >= width) continue;
      auto& of_warp = memory.stages[round % S].of_warp;
      map own[warps], upto{};
#pragma unroll
      for (int w = 0; w < warps; ++w) own[w] = of_warp[w][lane];
#pragma unroll
      for (int w = 0; w < warps; ++w) {
        auto const before = upto;
        upto = then{}(upto, own[w]);
        own[w] = before;
      }
      if (Chained) {
        int const owner = lane / share, c = lane - owner * share;
        maps(round).send(upto, &of_block(round, rank, c), owner);
      } else {
        for (int b = 0; b < blocks; ++b) maps(round).send(upto, &of_block(round, rank, lane), b);
      }
#pragma unroll
      for (int w = 0; w < warps; ++w) of_warp[w][lane] = own[w];  // others wait for what is sent
    }
  }

  /// One team: a lane for each channel walks through time.
  __device__ void walk() const {
    if (lane >= width) return;
    number state = tiles.initial(lane);
    for (int round = 0; round < rounds; ++round) {
      maps(round).wait(parity(round));
      number own = state;
      for (int b = 0; b < blocks; ++b) {
        if (b == rank) own = state;
        state = of_block(round, b, lane)(state);
      }
      states(round).send(own, &memory.entering[round % R][lane], rank);
    }
  }

  __device__ map whole(int round, int c) const {
    map all = of_block(round, 0, c);
    for (int b = 1; b < blocks; ++b) all = then{}(all, of_block(round, b, c));
    return all;
  }
  __device__ tile_slot<number>& word(int round, int team, int c) const {
    return p.words[(((index_t{band} * rounds + round) * teams + team) << p.width_bits) + first + c];
  }

  /// Many teams: a lane for each of the block's channels publishes what the team folded.
  __device__ void publish() const {
    if (lane >= own) return;
    for (int round = 0; round < rounds; ++round) {
      maps(round).wait(parity(round));
      word(round, turn, lane).publish({whole(round, lane), false});
    }
  }

  /// What enters, in every second round. Lanes are (channel, team), then (channel, block).
  __device__ void look_back(int first_round) const {
    int most = 1;
    while (most < teams || most < blocks) most *= 2;
    int const n = lane & (most - 1), at_once = 32 / most;
    // The teams since this one's last round: of that round those after it, of this those before.
    int const t = turn - teams + 1 + n, of_team = t < 0 ? t + teams : t;
    for (int round = first_round; round < rounds; round += 2) {
      int const of_round = t < 0 ? round - 1 : round;
      for (int k = 0; k < own; k += at_once) {
        int const c = k + lane / most;
        bool const is_here = c < own, reads = is_here && t < turn && of_round >= 0;
        auto& slot = word(reads ? of_round : round, reads ? of_team : turn, is_here ? c : 0);
        auto content = slot.load();
        map team_before{}, blocks_before{};
        number state{};
        if (is_here) {
          if (round > 0) {
            maps(round - 1).wait(parity(round - 1));
            team_before = whole(round - 1, c);
          } else {
            state = tiles.initial(first + c);
          }
          maps(round).wait(parity(round));
          for (int b = 0; b < blocks; ++b) {
            if (b < n) blocks_before = then{}(blocks_before, of_block(round, b, c));
          }
        }
        map upto{};
        if (reads) {
          while (content.is_empty()) content = slot.load();
          upto = content.map().map;
        }
        __syncwarp();
        for (int d = 1; d < most; d *= 2) {
          auto const later = from_lane(upto, lane + d);
          if (n % (2 * d) == 0) upto = then{}(upto, later);
        }
        upto = from_lane(upto, lane - n);
        if (is_here) {
          if (round > 0) {
            states(round - 1).wait(parity(round - 1));
            state = team_before(memory.entering_team[(round - 1) % R][c]);
          }
          state = upto(state);
          auto& box = states(round);
          if (n < blocks) box.send(blocks_before(state), &memory.entering[round % R][first + c], n);
          if (n == 0) box.send(state, &memory.entering_team[round % R][c], rank);
        }
        __syncwarp();
      }
    }
  }
};

/// A team walks a band of channels through time, a tile to each block in each round. In a round a
/// block folds a tile, sends its map to all blocks of the team, and runs the tile of team_delay
/// rounds before. Where a band has more than one team (`Chained`) they take its rounds in turn: the
/// team's map is published in memory, and a warp composes those since the team's last round.
template <class Tiles, bool Chained>
__global__ void __launch_bounds__(team_threads<Tiles, Chained>, 16 / Tiles::warps)
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
      block.announce_maps(round);
      block.announce_states(round);
    }
  }
  meet_cluster();
  int const role = tiles.warp - Tiles::warps;
  if (role < 0) {
    block.work();
  } else if (role == 0) {
    block.compose_warps();
  } else if (!Chained) {
    block.walk();
  } else if (role == 1) {
    block.publish();
  } else {
    block.look_back(role - 2);
  }
  __syncwarp();
  meet_cluster();  // nobody leaves while others send to it
#endif
}

}  // namespace ssm::gpu::detail
