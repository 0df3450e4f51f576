// SPDX-License-Identifier: Apache-2.0
// tile_walk.cuh: blocks that run parts of a scan that need little of each other.
#pragma once

#include <type_traits>

#include "ssm/detail/early_launch.cuh"
#include "ssm/detail/tile_pipeline.cuh"

namespace ssm::gpu::detail {

/// The workers, and a warp that looks up the tiles to come.
template <class Tiles>
inline constexpr int walk_threads = Tiles::workers + 32;

/// A walk is a part of a scan in which whole rows begin and end. A block takes walks, or parts of
/// them, tile by tile with the state in hand, and while it waits for memory or at its own barrier,
/// those beside it on the multiprocessor work.
/// Where there are few tiles each block has a share of whole walks.
template <class Tiles>
class walk_share {
 public:
  using tile_type = typename Tiles::tile_type;

  __device__ explicit walk_share(typename Tiles::problem const& p) : p_{p} {}

  /// The next tile, none after the last walk.
  __device__ tile_type next(Tiles const& tiles) {
    auto const tile = walk_ < p_.walks ? tiles.find_in_walk(walk_, step_) : tile_type{};
    step_ += 1;
    if (tile.ends_walk) walk_ += gridDim.x, step_ = 0;
    return tile;
  }

 private:
  typename Tiles::problem const& p_;
  index_t walk_ = blockIdx.x, step_ = 0;
};

/// Where there are many, blocks draw walks in turn, and the last ones are cut into parts, each half
/// of what remains, so that blocks end together however fast each is: the first parts of those
/// walks come before the second ones, and the state is handed on between them. A walk of few tiles
/// is one part.
template <class Tiles>
class walk_parts {
 public:
  using problem = typename Tiles::problem;
  using tile_type = typename Tiles::tile_type;

  __device__ explicit walk_parts(problem const& p)
      : p_{p},
        whole_{p.walks > cut_walks() ? p.walks - cut_walks() : 0},
        before_{whole_},
        tiles_{p.tiles_in_walk},
        left_{p.tiles_in_walk} {
    draw(blockIdx.x);
  }

  /// The next tile, none after the last part.
  __device__ tile_type next(Tiles const& tiles) {
    tile_type tile{};
    while (tiles_ > 0) {
      tile = tiles.find_in_walk(walk_, first_ + step_);
      if (!tile.is_empty()) break;
      draw(next_part());  // walks may differ by a tile
    }
    if (tiles_ == 0) return tile_type{};
    tile.walk = walk_, tile.part = part_;
    tile.continues_walk = step_ == 0 && part_ > 0;
    step_ += 1;
    tile.ends_part = !tile.ends_walk && step_ == tiles_;
    if (tile.ends_walk || tile.ends_part) draw(next_part());
    return tile;
  }

 private:
  static constexpr index_t few = 4;
  __device__ static index_t cut_walks() { return 2 * index_t{gridDim.x}; }

  __device__ index_t next_part() {
    wait_for_earlier_kernels();
    return gridDim.x + static_cast<index_t>(atomicAdd(p_.drawn, 1ull));
  }
  __device__ void draw(index_t number) {
    step_ = 0, walk_ = number;
    if (number < whole_) return;
    if (tiles_ == left_ && tiles_ > few) tiles_ = (left_ + 1) / 2;  // from now on parts
    index_t const walks = p_.walks - whole_;
    while (tiles_ > 0 && number >= before_ + walks) {
      before_ += walks, part_ += 1;
      first_ += tiles_, left_ -= tiles_;
      tiles_ = (left_ + 1) / 2;
    }
    walk_ = whole_ + number - before_;
  }

  problem const& p_;
  index_t whole_;   ///< walks that are not cut
  index_t before_;  ///< parts with a lower number than those of which one is taken
  index_t walk_ = 0, first_ = 0, step_ = 0;
  index_t tiles_, left_;  ///< in this part, and from its beginning on
  int part_ = 0;
};

/// Run all walks, whose parts blocks draw or have a share of.
/// `Tiles` has  problem: walks, tiles_in_walk, drawn, handed_on;  stage_memory;  number;  maps;
///              tile_type: is_none, is_empty, ends_walk, walk, part, continues_walk, ends_part;
///              workers, walk_stages, walk_blocks;  find_in_walk, request, fold, pass, run;
///              carries_initial: what enters a walk's first tile is initial(tile).
template <class Tiles, bool Draws>
__global__ void __launch_bounds__(walk_threads<Tiles>, Tiles::walk_blocks)
    walk_kernel(typename Tiles::problem const p) {
  using tile_type = typename Tiles::tile_type;
  using number = typename Tiles::number;
  constexpr int S = Tiles::walk_stages, known = 8;  // more than are under way
  extern __shared__ __align__(tile_alignment) unsigned char memory[];
  __shared__ tile_type ring[known];
  __shared__ number handed[2];
  Tiles const tiles{p, reinterpret_cast<typename Tiles::stage_memory*>(memory)};
  auto const tile_of = [&](int round) -> tile_type& { return ring[round % known]; };

  if (!Draws) wait_for_earlier_kernels();  // else the one before this is clear_kernel
  if (threadIdx.x >= Tiles::workers) {
    bool const leads = threadIdx.x % 32 == 0;
    std::conditional_t<Draws, walk_parts<Tiles>, walk_share<Tiles>> parts(p);
    auto const find_next = [&](int round) {
      if (leads) tile_of(round) = parts.next(tiles);
    };
    for (int round = 0; round < S; ++round) find_next(round);
    meet<walk_threads<Tiles>>(1);
    for (int round = 0; !tile_of(round).is_none(); ++round) {
      find_next(round + S);
      auto const& tile = tile_of(round);
      if (Draws && leads && tile.continues_walk)
        handed[round % 2] = p.handed_on[tile.walk].wait(tile.part);
      if constexpr (Tiles::carries_initial) {
        if (leads && tile.step == 0) handed[round % 2] = tiles.initial(tile);
      }
      meet<walk_threads<Tiles>>(1);
    }
    return;
  }
  meet<walk_threads<Tiles>>(1);
  for (int round = 0; round < S - 1; ++round) tiles.request(tile_of(round), round);
  number carry{};
  for (int round = 0;; ++round) {
    tile_type const tile = tile_of(round);
    if (tile.is_none()) return;
    wait_for_requests_but<S - 2>();
    tiles.request(tile_of(round + S - 1), (round + S - 1) % S);
    typename Tiles::maps maps;
    tiles.fold(tile, round % S, maps);
    meet<walk_threads<Tiles>>(1);
    bool const is_first = Tiles::carries_initial && tile.step == 0;
    if ((Draws && tile.continues_walk) || is_first) carry = handed[round % 2];
    auto const entering = tiles.pass(tile, round % S, carry);
    if (Draws && tile.ends_part && threadIdx.x == 0) {
      wait_for_earlier_kernels();
      p.handed_on[tile.walk].hand_on(carry, tile.part + 1);
    }
    tiles.run(tile, round % S, entering, maps);
  }
}

}  // namespace ssm::gpu::detail
