// SPDX-License-Identifier: Apache-2.0
// tile_pipeline.cuh: blocks that stay and take tile after tile of a scan, each in its turn.
#pragma once

#include "ssm/config.hpp"
#include "ssm/detail/element.cuh"

namespace ssm::gpu::detail {

/// Threads that fold and run tiles, the workers.
inline constexpr int worker_threads = 256, worker_warps = worker_threads / 32;
/// Rounds between folding a tile and running it: by then what enters it is mostly known.
inline constexpr int pipeline_delay = 2;
/// Tiles of a block in shared memory: one is folded, others wait, one arrives.
inline constexpr int pipeline_stages = pipeline_delay + 2;
/// What enters a tile is read while that of the next in its turn is found out.
inline constexpr int pipeline_entering = 2 * pipeline_delay;
inline constexpr int pipeline_threads = worker_threads + 32 * (2 + pipeline_delay);

/// A barrier of `threads` threads of the block.
template <int Threads>
__device__ void meet(int barrier) {
  __syncwarp();
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "n"(Threads) : "memory");
}

/// The rounds of a block. In each the workers
///   fold the tile that has arrived to a map for each of its lanes,
///   run the tile of pipeline_delay rounds before from the state that enters it, and
///   request the tile after the next.
/// One warp publishes the maps of each folded tile and never waits for another block; one looks up
/// the tiles to come; and as many as there are rounds of delay find out what enters. All blocks are
/// there at once and take tiles in turn, so those before one are done or under way.
/// `Tiles` has  problem: tiles, chained;  shared;  tile_type, maps;
///              find, request, fold, publish, enter, run.
template <class Tiles>
__global__ void __launch_bounds__(pipeline_threads, Tiles::blocks)
    pipeline_kernel(typename Tiles::problem const p) {
  using tile_type = typename Tiles::tile_type;
  constexpr int D = pipeline_delay, known = 8;  // more tiles than can be under way
  constexpr int folded = 1, entered = 2;
  extern __shared__ __align__(16) unsigned char memory[];
  __shared__ tile_type ring[known];
  Tiles const tiles{p, *reinterpret_cast<typename Tiles::shared*>(memory)};
  auto const tile_of = [&](int round) -> tile_type& { return ring[round % known]; };
  auto const find_next = [&](int round) {
    if (threadIdx.x % 32 != 0) return;
    tile_of(round) = tiles.find(blockIdx.x + round * index_t{gridDim.x});
  };
  int const role = static_cast<int>(threadIdx.x) / 32 - worker_warps;

  for (int round = 0; round < 2; ++round) {
    if (role == 1) find_next(round);
    __syncthreads();
    if (role < 0) tiles.request(tile_of(round), round);
  }
  if (role < 0) {
    typename Tiles::maps maps[D + 1];
    for (int round = 0;; ++round) {
      tile_type const tile = tile_of(round);
      wait_for_all_requests_but_one();
      if (!tile.is_none()) tiles.fold(tile, round % pipeline_stages, maps[0]);
      meet<worker_threads + 64>(folded);
      if (round >= D) {
        tile_type const ready = tile_of(round - D);
        if (ready.is_none()) return;
        if (p.chained) meet<worker_threads + 32>(entered + round % D);
        tiles.run(ready, (round - D) % pipeline_stages, (round - D) % pipeline_entering, maps[D]);
      }
      tiles.request(tile_of(round + 2), (round + 2) % pipeline_stages);
#pragma unroll
      for (int d = D; d > 0; --d) maps[d] = maps[d - 1];
    }
  } else if (role < 2) {
    for (int round = 0;; ++round) {
      if (role == 1) find_next(round + 2);
      meet<worker_threads + 64>(folded);
      if (round >= D && tile_of(round - D).is_none()) return;
      if (role == 0 && !tile_of(round).is_none()) {
        tiles.publish(tile_of(round), round % pipeline_stages);
      }
    }
  } else if (p.chained) {
    for (int round = role - 2;; round += D) {
      tile_type const tile = tile_of(round);
      if (tile.is_none()) return;
      tiles.enter(tile, round % pipeline_entering);
      meet<worker_threads + 32>(entered + role - 2);
    }
  }
}

}  // namespace ssm::gpu::detail
