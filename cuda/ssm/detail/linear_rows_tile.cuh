// SPDX-License-Identifier: Apache-2.0
// linear_rows_tile.cuh: how rows that are contiguous in time are cut into tiles.
#pragma once

#include "ssm/detail/element.cuh"
#include "ssm/detail/tile_pipeline.cuh"
#include "ssm/detail/tile_words.cuh"

namespace ssm::gpu::detail {

/// Rows one after another are one sequence: a step that begins a row forgets what came before it.
/// Places in it are slots; with `front` unused ones before the first, slot 0 lies at a multiple of
/// 16 bytes. Either the whole sequence is cut into tiles, or that of each walk.
template <class T, class Step>
struct rows_problem {
  using number = accumulator_t<T>;

  T const* in[Step::inputs];
  index_t in_pitch[Step::inputs];  ///< from row to row, in elements
  T* out[Step::outputs];
  index_t out_pitch[Step::outputs];
  number const* initial;  ///< what enters each row; nullptr: 0
  index_t initial_pitch;
  number* final;  ///< what leaves it; nullptr: not wanted
  index_t final_pitch;
  number const* edge;  ///< what the neighbor of a row's last step is; nullptr: 0
  index_t edge_pitch;

  index_t rows, length;
  double inverse_length;
  index_t front;      ///< unused slots before the first
  index_t tiles;      ///< of all rows as one sequence
  index_t walk_rows;  ///< rows in a walk, more than one where a tile holds them
  index_t walks;
  tile_slot<number>* words;  ///< tiles, then groups of tiles, then what enters groups of groups
};

template <class T>
inline constexpr int rows_packet = 16 / static_cast<int>(sizeof(T));

/// Threads that fold and run tiles.
inline constexpr int rows_workers = 256, rows_warps = rows_workers / 32;

/// A thread has so many packets of each input.
template <class T, int Chunks>
inline constexpr int rows_tile_slots = rows_workers* rows_packet<T>* Chunks;

/// Tiles that publish to each other directly, and groups of them: a warp reads either at once.
inline constexpr int tiles_in_group = 32;

/// Where the slots of a tile are, counted from its first: 32 bits are enough for that.
struct rows_tile {
  static constexpr int far = 1 << 29;  ///< more than a tile has

  index_t tile;
  index_t first;         ///< slot 0 counted from the first step: negative before that
  index_t flat;          ///< lowest element of the packet in slot 0, where memory is flat
  index_t row;           ///< the one before the row that begins at `head`
  index_t tiles_before;  ///< into which slot 0's row reaches back
  int begin, end;        ///< slots that are steps; end <= 0: no tile
  int head;              ///< the first slot that begins a row; may lie beyond the tile
  int length;            ///< of a row, or far
  float inverse_length;
  bool ends_walk;  ///< no tile of the same walk comes after it

  __device__ bool is_none() const { return end <= 0; }
};

inline __device__ int no_further(index_t slot, int than) {
  return slot < than ? static_cast<int>(slot) : than;
}

/// A tile of all rows. It is left to the caller that there is one.
template <int Chunks, bool Reversed, class T, class Step>
__device__ rows_tile find_tile(rows_problem<T, Step> const& p, index_t tile) {
  constexpr int slots = rows_tile_slots<T, Chunks>;
  rows_tile t{.tile = tile};
  t.first = tile * slots - p.front;
  t.begin = t.first < 0 ? static_cast<int>(-t.first) : 0;
  t.end = no_further(p.rows * p.length - t.first, slots);
  t.flat = Reversed ? p.rows * p.length - t.first - rows_packet<T> : t.first;
  // By a product, since blocks wait for this and a division of 64 bits takes a microsecond.
  index_t row = t.first < 0 ? 0 : static_cast<index_t>(double(t.first) * p.inverse_length);
  index_t pos = t.first - row * p.length;
  if (t.first >= 0 && pos < 0) row -= 1, pos += p.length;
  if (pos >= p.length) row += 1, pos -= p.length;
  index_t const head = pos > 0 ? p.length - pos : -pos;
  t.row = pos > 0 ? row : row - 1;
  t.tiles_before = pos > 0 ? (pos + slots - 1) / slots : 0;
  t.head = no_further(head, rows_tile::far);
  t.length = no_further(p.length, rows_tile::far);
  t.inverse_length = 1 / float(t.length);
  return t;
}

/// Tile `i` of a walk.
template <int Chunks, bool Reversed, class T, class Step>
__device__ rows_tile find_tile_in_walk(rows_problem<T, Step> const& p, index_t walk, index_t i) {
  constexpr int slots = rows_tile_slots<T, Chunks>;
  index_t const row = walk * p.walk_rows, left = p.rows - row, start = row * p.length;
  index_t const rows = left < p.walk_rows ? left : p.walk_rows;
  auto const front = static_cast<int>((p.front + start) % rows_packet<T>);
  rows_tile t{};
  t.first = start - front + i * slots;
  index_t const end = start + rows * p.length - t.first;
  t.begin = i == 0 ? front : 0;
  t.end = no_further(end, slots);
  t.flat = Reversed ? p.rows * p.length - t.first - rows_packet<T> : t.first;
  t.row = i == 0 ? row - 1 : row;
  t.head = i == 0 ? front : no_further(end, rows_tile::far);
  t.length = no_further(p.length, rows_tile::far);
  t.inverse_length = 1 / float(t.length);
  t.ends_walk = end <= slots;
  return t;
}

/// How rows lie in memory. `aligned`: without gaps, every row and array beginning at a multiple of
/// 16 bytes, so that a packet is one access to one row. `flat`: without gaps, and every array
/// begins at the same distance from such a multiple, so that a packet is one access. `pitched`:
/// any.
enum class rows_layout { aligned, flat, pitched };

/// The tile as its kernel sees it, with all that is the same for every thread. `Inner`: all slots
/// are steps in the middle of one row, so nothing has to be asked. `Reversed`: the last row and its
/// last step come first.
template <class T, class Step, int Chunks, bool Reversed, bool Inner>
struct rows_view {
  using problem = rows_problem<T, Step>;
  static constexpr int V = rows_packet<T>, slots = rows_tile_slots<T, Chunks>;
  static constexpr int far = rows_tile::far;

  problem const& p;
  rows_tile const& t;

  __device__ bool is_step(int slot) const { return Inner || (slot >= t.begin && slot < t.end); }

  /// Steps from the start of its row to a slot; far if that is before this tile.
  __device__ int pos(int slot) const {
    if constexpr (Inner) return far;
    int const since = slot - t.head;
    if (t.length < slots) {
      // Divisions take long; with half a step more the quotient is exact, since steps are few.
      int const steps = since + t.length;
      return steps - static_cast<int>((float(steps) + 0.5f) * t.inverse_length) * t.length;
    }
    return since < 0 ? far : since < t.length ? since : since - t.length;
  }
  __device__ index_t row(int slot) const {
    return slot < t.head ? t.row : t.row + 1 + (slot - t.head) / t.length;
  }

  /// All slots of the packet are steps.
  __device__ bool is_whole(int slot) const {
    return Inner || (slot >= t.begin && slot + V <= t.end);
  }
  /// And none of them begins or ends a row.
  __device__ bool is_inside(int slot) const {
    return Inner || (is_whole(slot) && pos(slot + V) > V);
  }

  __device__ index_t memory_row(int slot) const {
    return Reversed ? p.rows - 1 - row(slot) : row(slot);
  }
  /// Of a step's element, by division.
  __device__ index_t element(int slot, index_t pitch) const {
    index_t const step = t.first + slot - row(slot) * p.length;
    return memory_row(slot) * pitch + (Reversed ? p.length - 1 - step : step);
  }
  /// Of the lowest of a packet's elements, where memory is flat.
  __device__ index_t flat_element(int slot) const { return t.flat + (Reversed ? -slot : slot); }
};

}  // namespace ssm::gpu::detail
