// SPDX-License-Identifier: Apache-2.0
// linear_rows.cuh: the raw scan of rows that are contiguous in time, as tiles of a pipeline.
#pragma once

#include "ssm/detail/linear_rows_chunk.cuh"
#include "ssm/detail/tile_walk.cuh"

namespace ssm::gpu::detail {

/// Lane i gets all that is in the tile up to warp i and with it.
template <class A, int Warps>
__device__ tile_map<A> scan_warps(tile_map<A> const (&maps)[Warps]) {
  int const lane = static_cast<int>(threadIdx.x % 32);
  tile_map<A> upto = lane < Warps ? maps[lane] : tile_map<A>{};
#pragma unroll
  for (int d = 1; d < Warps; d *= 2) {
    auto const earlier = from_lane(upto, lane - d);
    if (lane >= d) upto = compose(earlier, upto);
  }
  return upto;
}

/// Where the maps of a walk are.
template <class T, class Step>
struct words_of_walk {
  using slot = tile_slot<accumulator_t<T>>;

  slot *tiles, *groups, *states;

  __device__ words_of_walk(rows_problem<T, Step> const& p, index_t walk) {
    index_t const count = p.tiles_in_walk, of_groups = groups_of(count);
    tiles = p.words + walk * words_in_walk(count);
    groups = tiles + count;
    states = groups + of_groups;
  }
};

/// The state that enters a tile, by one warp, which also tells later tiles what they need of it.
/// Maps are composed in an order that follows from the shape alone, so the bits never change:
/// those of tiles within their group, those of groups within theirs, and only then a state crosses.
template <class T, class Step>
__device__ accumulator_t<T> enter_tile(rows_problem<T, Step> const& p, rows_tile const& at) {
  using number = accumulator_t<T>;
  constexpr index_t G = tiles_in_group;
  int const lane = static_cast<int>(threadIdx.x % 32);
  index_t const group = at.step / G, block = group / G;
  int const in_group = static_cast<int>(at.step % G), in_block = static_cast<int>(group % G);
  words_of_walk<T, Step> const words(p, at.walk);
  auto* const tiles = words.tiles + group * G;
  auto* const groups = words.groups + block * G;
  auto* const states = words.states;
  bool const ends_group = in_group == G - 1, ends_block = ends_group && in_block == G - 1;

  bool const needs_tile = lane < in_group, needs_own = ends_group && lane == in_group;
  bool const needs_group = lane < in_block;
  bool const needs_state = block > 0;

  // All are asked for before one is waited for: mostly they are there. Lanes that need none look at
  // one that exists.
  auto& tile_of_lane = tiles[lane < in_group ? lane : in_group];
  auto& group_of_lane = groups[lane < in_block ? lane : in_block];
  auto& state_before = states[block > 0 ? block - 1 : 0];
  auto of_tile = tile_of_lane.load();
  auto of_group = group_of_lane.load();
  auto before = state_before.load();
  auto const wait_for = [](bool needs, auto& content, auto& slot) {
    while (!__all_sync(0xffffffffu, !needs || !content.is_empty())) {
      __nanosleep(64);
      content = slot.load();
    }
    return needs ? content.map() : tile_map<number>{};
  };

  // In the order of time; lane 0 has the whole.
  auto const fold = [&](tile_map<number> map) {
    for (int d = 1; d < 32; d *= 2) {
      auto const later = from_lane(map, lane + d);
      if (lane % (2 * d) == 0) map = compose(map, later);
    }
    return from_lane(map, 0);
  };
  auto const tile_map_of_lane = wait_for(needs_tile || needs_own, of_tile, tile_of_lane);
  auto const own = from_lane(tile_map_of_lane, G - 1);  // where the group ends here
  auto const in_group_before = fold(needs_tile ? tile_map_of_lane : tile_map<number>{});
  if (ends_group && lane == 0) groups[in_block].publish(compose(in_group_before, own));
  auto const in_block_before = fold(wait_for(needs_group, of_group, group_of_lane));
  auto const state = wait_for(needs_state, before, state_before);

  auto const entering = compose(compose(state, in_block_before), in_group_before);
  if (ends_block && lane == 0) states[block].publish(compose(entering, own));
  return entering.map.drive;
}

/// Rows as tiles of the pipeline. Thread and packet belong together: no thread reads what another
/// has loaded.
template <class T, class Step, int Workers, int Chunks, rows_layout Layout, bool Reversed>
struct rows_tiles {
  using number = accumulator_t<T>;
  using problem = rows_problem<T, Step>;
  using tile_type = rows_tile;
  static constexpr int workers = Workers, warps = Workers / 32;
  static constexpr int V = rows_packet<T>, J = Chunks, slots = rows_tile_slots<T, Chunks, Workers>;
  static constexpr int delay = 2, ahead = 2;
  static constexpr int pipeline_blocks = all_rows_workers / Workers;  ///< on a multiprocessor
  static constexpr int walk_blocks = sizeof(number) == 4 ? 3 : 2, walk_stages = 3;

  struct alignas(tile_alignment) stage_memory {
    T in[Step::inputs][slots];
    tile_map<number> of_warp[warps];  ///< in a pipeline later: of all warps before it
  };
  using state_memory = number;
  /// upto[j]: all that the warp has of chunk j up to this lane's packet and with it.
  struct maps {
    affine_map<number> upto[J];
    T after_warp[J];  ///< see rows_chunk
  };

  problem const& p;
  stage_memory* stages;
  int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);

  __device__ rows_tile find(index_t tile) const {
    if (tile >= p.tiles) return rows_tile{};
    // By a product, since blocks wait for this and a division of 64 bits takes a microsecond.
    auto step = static_cast<index_t>(double(tile) * p.inverse_walks);
    index_t walk = tile - step * p.walks;
    if (walk < 0) step -= 1, walk += p.walks;
    if (walk >= p.walks) step += 1, walk -= p.walks;
    return find_tile_in_walk<slots, Reversed>(p, walk, step);
  }
  __device__ rows_tile find_in_walk(index_t walk, index_t i) const {
    return find_tile_in_walk<slots, Reversed>(p, walk, i);
  }

  __device__ void request(rows_tile const& tile, int stage) const {
    if (!tile.is_none()) {
      with_view(tile, [&](auto const& v) {
#pragma unroll
        for (int j = 0; j < J; ++j) chunk(v, stage, j).request();
      });
    }
    end_of_requests();
  }

  __device__ void fold(rows_tile const& tile, int stage, maps& result) const {
    with_view(tile, [&](auto const& v) {
#pragma unroll
      for (int j = 0; j < J; ++j) {
        auto map = chunk(v, stage, j).fold();
        int const reach = v.pos(slot(j) + V - 1);  // steps in the last slot's row up to it
#pragma unroll
        for (int d = 1; d < 32; d *= 2) {
          auto const earlier = from_lane(map, lane - d);
          if (lane >= d && reach >= d * V) map = then{}(earlier, map);
        }
        result.upto[j] = map;
        if constexpr (Step::reads_neighbor) result.after_warp[j] = chunk(v, stage, j).after_warp();
      }
      tile_map<number> of_warp = whole_chunk(v, result, 0);
#pragma unroll
      for (int j = 1; j < J; ++j) of_warp = compose(of_warp, whole_chunk(v, result, j));
      if (lane == 0) stages[stage].of_warp[warp] = of_warp;
    });
  }

  __device__ void publish(rows_tile const& tile, int stage) const {
    auto& of_warp = stages[stage].of_warp;
    auto const upto = scan_warps(of_warp), before = from_lane(upto, lane - 1);
    if (lane == warps - 1) words_of_walk<T, Step>(p, tile.walk).tiles[tile.step].publish(upto);
    if (lane < warps) of_warp[lane] = lane == 0 ? tile_map<number>{} : before;
  }

  __device__ void enter(rows_tile const& tile, number& entering) const {
    auto const found = enter_tile(p, tile);
    if (lane == 0) entering = found;
  }
  /// What enters the warp, from what enters the tile.
  __device__ number entering(int stage, number const& of_tile) const {
    return stages[stage].of_warp[warp](of_tile);
  }
  /// The same in a walk, and `carry` goes on to the next tile.
  __device__ number pass(rows_tile const&, int stage, number& carry) const {
    auto const upto = scan_warps(stages[stage].of_warp);
    auto const before = from_lane(upto, warp - 1), whole = from_lane(upto, warps - 1);
    number const entering = warp == 0 ? carry : before(carry);
    carry = whole(carry);
    return entering;
  }

  /// From the state that enters the warp.
  __device__ void run(rows_tile const& tile, int stage, number entering, maps const& folded) const {
    with_view(tile, [&](auto const& v) {
#pragma unroll
      for (int j = 0; j < J; ++j) {
        auto const earlier = from_lane(folded.upto[j], lane - 1);
        number carry = entering;
        // A packet that starts a row needs no state, whatever is in `earlier`.
        if (lane > 0) carry = v.pos(slot(j)) <= lane * V ? earlier.drive : earlier(entering);
        chunk(v, stage, j).run(carry, folded.after_warp[j]);
        entering = whole_chunk(v, folded, j)(entering);
      }
    });
  }

 private:
  /// Where packet j is: a warp has consecutive slots.
  __device__ int slot(int j) const {
    return ((warp * J + j) * 32 + lane) * V;
  }

  template <bool Inner>
  __device__ auto chunk(rows_view<T, Step, slots, Reversed, Inner> const& v, int stage,
                        int j) const {
    return rows_chunk<T, Step, slots, Layout, Reversed, Inner>{v, slot(j),
                                                               stages[stage].in[0] + slot(j)};
  }

  /// Call f with the view of a tile that knows whether all of it is inside of a row.
  template <class F>
  __device__ void with_view(rows_tile const& tile, F const& f) const {
    if (tile.begin == 0 && tile.end == slots && tile.head > slots) {
      f(rows_view<T, Step, slots, Reversed, true>{p, tile});
    } else {
      f(rows_view<T, Step, slots, Reversed, false>{p, tile});
    }
  }

  template <bool Inner>
  __device__ tile_map<number> whole_chunk(rows_view<T, Step, slots, Reversed, Inner> const& v,
                                          maps const& of, int j) const {
    int const last = ((warp * J + j) * 32 + 32) * V - 1;
    return {from_lane(of.upto[j], 31), v.pos(last) < 32 * V};
  }
};

}  // namespace ssm::gpu::detail
