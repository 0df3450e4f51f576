// SPDX-License-Identifier: Apache-2.0
// tile_pipeline.cuh: blocks that stay and take tile after tile of a scan, each in its turn.
#pragma once

#include "ssm/config.hpp"
#include "ssm/detail/early_launch.cuh"
#include "ssm/detail/element.cuh"

namespace ssm::gpu::detail {

/// Of a tile in shared memory. Copies that arrive 16 bytes off took a tenth more time in all.
inline constexpr int tile_alignment = 128;

/// A barrier of `threads` threads of the block.
template <int Threads>
__device__ void meet(int barrier) {
  __syncwarp();
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "n"(Threads) : "memory");
}

/// Tiles of a block in shared memory: one is folded, `delay` wait, the others arrive.
template <class Tiles>
inline constexpr int pipeline_stages = Tiles::delay + Tiles::ahead;
template <class Tiles>
inline constexpr int pipeline_threads = Tiles::workers + 32 * (2 + Tiles::delay);

/// The rounds of a block. In each the workers
///   fold the tile that has arrived to a map for each of its lanes,
///   run the tile of `delay` rounds before from the state that enters it, and
///   request the tile of `ahead` rounds later.
/// One warp publishes the maps of each folded tile and never waits for another block; one looks up
/// the tiles to come; and as many as there are rounds of delay find out what enters. All blocks are
/// there at once and take tiles in turn, so those before one are done or under way.
/// `Tiles` has  problem: tiles;  stage_memory, state_memory;  tile_type: is_none;  maps;  workers
///              (threads that fold and run), delay, ahead, pipeline_blocks;
///              find, request, fold, publish, enter, entering, run.
template <class Tiles>
__global__ void __launch_bounds__(pipeline_threads<Tiles>, Tiles::pipeline_blocks)
    pipeline_kernel(typename Tiles::problem const p) {
  using tile_type = typename Tiles::tile_type;
  constexpr int D = Tiles::delay, A = Tiles::ahead, look_ahead = D > A ? D : A;
  constexpr int stages = pipeline_stages<Tiles>, known = 16;  // more tiles than can be under way
  constexpr int places = 2 * D;  // what enters is read while that of later tiles is found out
  constexpr int folded = 1, entered = 2;
  extern __shared__ __align__(tile_alignment) unsigned char memory[];
  __shared__ tile_type ring[known];
  __shared__ typename Tiles::state_memory entering[places];
  Tiles const tiles{p, reinterpret_cast<typename Tiles::stage_memory*>(memory)};
  auto const tile_of = [&](int round) -> tile_type& { return ring[round % known]; };
  auto const find_next = [&](int round) {
    if (threadIdx.x % 32 != 0) return;
    tile_of(round) = tiles.find(blockIdx.x + round * index_t{gridDim.x});
  };
  int const role = static_cast<int>(threadIdx.x) / 32 - Tiles::workers / 32;

  for (int round = 0; round < look_ahead; ++round) {
    if (role == 1) find_next(round);
    __syncthreads();
    if (role < 0 && round < A) tiles.request(tile_of(round), round);
  }
  if (role < 0) {
    typename Tiles::maps maps[D + 1];
    for (int round = 0;; ++round) {
      tile_type const tile = tile_of(round);
      wait_for_requests_but<A - 1>();
      if (!tile.is_none()) tiles.fold(tile, round % stages, maps[0]);
      meet<Tiles::workers + 64>(folded);
      if (round >= D) {
        tile_type const ready = tile_of(round - D);
        if (ready.is_none()) return;
        meet<Tiles::workers + 32>(entered + round % D);
        int const stage = (round - D) % stages, place = (round - D) % places;
        tiles.run(ready, stage, tiles.entering(stage, entering[place]), maps[D]);
      }
      tiles.request(tile_of(round + A), (round + A) % stages);
#pragma unroll
      for (int d = D; d > 0; --d) maps[d] = maps[d - 1];
    }
  } else if (role < 2) {
    wait_for_earlier_kernels();
    for (int round = 0;; ++round) {
      if (role == 1) find_next(round + look_ahead);
      meet<Tiles::workers + 64>(folded);
      if (round >= D && tile_of(round - D).is_none()) return;
      if (role == 0 && !tile_of(round).is_none()) {
        tiles.publish(tile_of(round), round % stages);
      }
    }
  } else {
    wait_for_earlier_kernels();
    for (int round = role - 2;; round += D) {
      tile_type const tile = tile_of(round);
      if (tile.is_none()) return;
      tiles.enter(tile, entering[round % places]);
      meet<Tiles::workers + 32>(entered + role - 2);
    }
  }
}

}  // namespace ssm::gpu::detail
