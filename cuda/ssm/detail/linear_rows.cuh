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

/// The state that enters a tile, by one warp: what left a group a few before its own, and the maps
/// of all tiles since, straight from the blocks that have them. They are composed in an order that
/// follows from the shape alone, so the bits never change: those of a group, these of groups, and
/// only then the state crosses.
template <class T, class Step>
__device__ accumulator_t<T> enter_tile(rows_problem<T, Step> const& p, rows_tile const& at) {
  using slot = tile_slot<accumulator_t<T>>;
  using map = tile_map<accumulator_t<T>>;
  constexpr int G = tiles_in_group, R = recent_groups;
  int const lane = static_cast<int>(threadIdx.x % 32);
  index_t const group = at.step / G;
  int const in_group = static_cast<int>(at.step % G);
  bool const ends_group = in_group == G - 1, needs_state = group > R;
  slot* const tiles = p.words + at.walk * words_in_walk(p.tiles_in_walk);
  slot* const states = tiles + p.tiles_in_walk;  // what leaves a group

  // All are asked for before one is waited for: mostly they are there.
  typename slot::content of_tile[R + 1], state;
  auto const needs = [&](int back) {
    return back > 0 ? group >= back : lane < in_group || (ends_group && lane == in_group);
  };
  auto const look = [&] {
#pragma unroll
    for (int back = R; back >= 0; --back) {
      if (needs(back) && of_tile[back].is_empty()) {
        of_tile[back] = tiles[(group - back) * G + lane].load();
      }
    }
    if (needs_state && state.is_empty()) state = states[group - R - 1].load();
  };
  auto const is_there = [&] {
    bool all = !needs_state || !state.is_empty();
#pragma unroll
    for (int back = R; back >= 0; --back) all = all && (!needs(back) || !of_tile[back].is_empty());
    return all;
  };
  for (look(); !__all_sync(0xffffffffu, is_there()); look()) __nanosleep(64);

  // In the order of time; lane 0 has the whole.
  auto const fold = [&](map one) {
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      auto const later = from_lane(one, lane + d);
      if (lane % (2 * d) == 0) one = compose(one, later);
    }
    return one;
  };
  map groups{};
#pragma unroll
  for (int back = R; back > 0; --back) {
    groups = compose(groups, fold(needs(back) ? of_tile[back].map() : map{}));
  }
  auto entering = compose(needs_state ? state.map() : map{}, groups);
  entering = compose(entering, fold(lane < in_group ? of_tile[0].map() : map{}));
  if (ends_group) {
    auto const own = from_lane(of_tile[0].map(), G - 1);
    if (lane == 0) states[group].publish(compose(entering, own));
  }
  return entering.map.drive;
}

/// Rows as tiles of the pipeline. A thread runs `Chunks` packets that follow each other in time; a
/// warp brings them from memory and back side by side, so that no warp reads what another has
/// loaded.
template <class T, class Step, int Workers, int Chunks, rows_layout Layout, bool Reversed>
struct rows_tiles {
  using number = accumulator_t<T>;
  using problem = rows_problem<T, Step>;
  using tile_type = rows_tile;
  static constexpr int workers = Workers, warps = Workers / 32;
  static constexpr int V = rows_packet<T>, J = Chunks, slots = rows_tile_slots<T, Chunks, Workers>;
  static constexpr int steps = J * V;  ///< of a thread
  static constexpr bool by_engine = Layout == rows_layout::engine;
  static constexpr int delay = 2, ahead = 2;
  static constexpr int pipeline_blocks = all_rows_workers / Workers;  ///< on a multiprocessor
  static constexpr int walk_blocks = (sizeof(number) == 4 ? 3 : 2) * rows_workers / Workers;
  static constexpr int walk_stages = 3;
  static constexpr bool carries_initial = false;  ///< the map of a row's first tile has it

  struct alignas(tile_alignment) stage_memory {
    T in[Step::inputs][slots];
    T beyond[V];  ///< the neighbors' packet after the tile, where the copy engine brings it
    tile_map<number> of_warp[warps];  ///< in a pipeline later: of all warps before it
  };
  using state_memory = number;
  /// upto: all that the warp has up to this lane's last step and with it.
  struct maps {
    affine_map<number> upto;
    T after_warp;  ///< see rows_chunk
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
        for (int j = 0; j < J; ++j) chunk(v, stage, side_by_side(j)).request();
      });
    }
    end_of_requests();
  }

  __device__ void fold(rows_tile const& tile, int stage, maps& result) const {
    __syncwarp();  // what its lanes have requested is there for all of them
    with_view(tile, [&](auto const& v) {
      auto map = chunk(v, stage, in_order(0)).fold();
#pragma unroll
      for (int j = 1; j < J; ++j) {
        auto const later = chunk(v, stage, in_order(j)).fold();
        map = v.pos(in_order(j) + V - 1) < V ? later : then{}(map, later);
      }
      int const last = in_order(J - 1), reach = v.pos(last + V - 1);  // steps in its row up to it
#pragma unroll
      for (int d = 1; d < 32; d *= 2) {
        auto const earlier = from_lane(map, lane - d);
        if (lane >= d && reach >= d * steps) map = then{}(earlier, map);
      }
      result.upto = map;
      if constexpr (Step::reads_neighbor) result.after_warp = after_warp(v, stage, last);
      if (lane == 31) stages[stage].of_warp[warp] = {map, reach < 32 * steps};
    });
  }

  __device__ void publish(rows_tile const& tile, int stage) const {
    auto& of_warp = stages[stage].of_warp;
    auto const upto = scan_warps(of_warp), before = from_lane(upto, lane - 1);
    if (lane == warps - 1)
      p.words[tile.walk * words_in_walk(p.tiles_in_walk) + tile.step].publish(upto);
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
      packet<T, V> in[J][Step::inputs];
#pragma unroll
      for (int j = 0; j < J; ++j) chunk(v, stage, in_order(j)).load_all(in[j]);
      constexpr int last = Step::inputs - 1;
      number after{};
      if constexpr (Step::reads_neighbor) {
        after = from_lane(in[0][last][0], lane + 1);
        if (lane == 31) after = to_number(folded.after_warp);
      }
      auto const earlier = from_lane(folded.upto, lane - 1);
      number carry = entering;
      // A lane that starts a row needs no state, whatever is in `earlier`.
      if (lane > 0) carry = v.pos(in_order(0)) <= lane * steps ? earlier.drive : earlier(entering);
#pragma unroll
      for (int j = 0; j < J; ++j) {
        number const next = j + 1 < J ? in[j + 1 < J ? j + 1 : 0][last][0] : after;
        chunk(v, stage, in_order(j)).run(in[j], next, carry);
      }
      if constexpr (!by_engine) {
        __syncwarp();
#pragma unroll
        for (int j = 0; j < J; ++j) chunk(v, stage, side_by_side(j)).store();
      }
    });
  }

 protected:
  /// The first slot of a packet: as a lane runs them, one after another, ...
  __device__ int in_order(int j) const {
    return (static_cast<int>(threadIdx.x) * J + j) * V;
  }
  /// ... and as a warp reads and writes them in memory.
  __device__ int side_by_side(int j) const {
    return ((warp * J + j) * 32 + lane) * V;
  }
  /// Where a packet is in shared memory, so that a warp meets all banks either way.
  __device__ static int place(int slot) {
    static_assert(!by_engine || J % 2 != 0);
    if constexpr (by_engine && Reversed) return slots - V - slot;
    if constexpr (J % 2 != 0) return slot;
    int const at = slot / V;
    return (at ^ (at / 8 % (J & -J))) * V;
  }

  /// See rows_chunk. What the engine has brought is there, and is not overwritten.
  template <class View>
  __device__ T after_warp(View const& v, int stage, int last) const {
    if constexpr (by_engine) {
      auto const& of = stages[stage];
      int const next = last + V;
      T const* const from = next < slots ? of.in[Step::inputs - 1] + place(next) : of.beyond;
      return lane == 31 ? from[Reversed ? V - 1 : 0] : T{};
    } else {
      return chunk(v, stage, last).after_warp();
    }
  }

  template <bool Inner>
  __device__ auto chunk(rows_view<T, Step, slots, Reversed, Inner> const& v, int stage,
                        int slot) const {
    return rows_chunk<T, Step, slots, Layout, Reversed, Inner>{v, slot,
                                                               stages[stage].in[0] + place(slot)};
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
};

}  // namespace ssm::gpu::detail
