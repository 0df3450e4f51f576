// SPDX-License-Identifier: Apache-2.0
// tile_walk.cuh: blocks that each run parts of a scan that need nothing of each other.
#pragma once

#include "ssm/detail/tile_pipeline.cuh"

namespace ssm::gpu::detail {

/// The workers, and a warp that looks up the tiles to come.
template <class Tiles>
inline constexpr int walk_threads = Tiles::workers + 32;

/// A walk is a part of a scan in which whole rows begin and end. A block takes one after the other,
/// tile by tile, with the state in hand. It waits for no other block, and while it waits for memory
/// or at its own barrier, those beside it on the multiprocessor work.
/// `Tiles` has  problem: walks;  stage_memory;  tile_type: is_none, ends_walk;  maps;
///              workers, walk_stages, walk_blocks;  find_in_walk, request, fold, pass, run.
template <class Tiles>
__global__ void __launch_bounds__(walk_threads<Tiles>, Tiles::walk_blocks)
    walk_kernel(typename Tiles::problem const p) {
  using tile_type = typename Tiles::tile_type;
  constexpr int S = Tiles::walk_stages, known = 8;  // more than are under way
  extern __shared__ __align__(tile_alignment) unsigned char memory[];
  __shared__ tile_type ring[known];
  Tiles const tiles{p, reinterpret_cast<typename Tiles::stage_memory*>(memory)};
  auto const tile_of = [&](int round) -> tile_type& { return ring[round % known]; };

  if (threadIdx.x >= Tiles::workers) {
    index_t walk = blockIdx.x, step = 0;
    auto const find_next = [&](int round) {
      if (threadIdx.x % 32 != 0) return;
      auto const next = walk < p.walks ? tiles.find_in_walk(walk, step) : tile_type{};
      tile_of(round) = next;
      step += 1;
      if (next.ends_walk) walk += gridDim.x, step = 0;
    };
    for (int round = 0; round < S; ++round) find_next(round);
    meet<walk_threads<Tiles>>(1);
    for (int round = 0; !tile_of(round).is_none(); ++round) {
      find_next(round + S);
      meet<walk_threads<Tiles>>(1);
    }
    return;
  }
  meet<walk_threads<Tiles>>(1);
  for (int round = 0; round < S - 1; ++round) tiles.request(tile_of(round), round);
  typename Tiles::number carry{};
  for (int round = 0;; ++round) {
    tile_type const tile = tile_of(round);
    if (tile.is_none()) return;
    wait_for_requests_but<S - 2>();
    tiles.request(tile_of(round + S - 1), (round + S - 1) % S);
    typename Tiles::maps maps;
    tiles.fold(tile, round % S, maps);
    meet<walk_threads<Tiles>>(1);
    auto const entering = tiles.pass(tile, round % S, carry);
    tiles.run(tile, round % S, entering, maps);
  }
}

}  // namespace ssm::gpu::detail
