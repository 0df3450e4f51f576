// SPDX-License-Identifier: Apache-2.0
// linear_rows_tile.cuh: how rows that are contiguous in time are cut into tiles.
#pragma once

#include "ssm/detail/element.cuh"
#include "ssm/detail/tile_pipeline.cuh"
#include "ssm/detail/tile_words.cuh"

namespace ssm::gpu::detail {

/// Rows one after another are one sequence: a step that begins a row forgets what came before it.
/// A walk is a part of it in which whole rows begin and end; each is cut into tiles. Places in them
/// are slots; with some unused ones before the first step, slot 0 lies at a multiple of 128 bytes.
template <class T, class Step>
struct rows_problem {
  using number = accumulator_t<T>;

  T const* in[Step::inputs];
  index_t in_pitch[Step::inputs];  ///< from row to row, in elements
  index_t in_span[Step::inputs];   ///< from the first element to the last and with it
  T* out[Step::outputs];
  index_t out_pitch[Step::outputs];
  number const* initial;  ///< what enters each row; nullptr: 0
  index_t initial_pitch;
  number* final;  ///< what leaves it; nullptr: not wanted
  index_t final_pitch;
  number const* edge;  ///< what the neighbor of a row's last step is; nullptr: 0
  index_t edge_pitch;

  index_t rows, length;
  index_t front;      ///< unused slots before the first walk, where rows are flat
  index_t walk_rows;  ///< rows in a walk, more than one where a tile holds them
  index_t walks, tiles_in_walk, tiles;
  double inverse_walks;
  unsigned long long* drawn;      ///< parts of walks that have been, where blocks draw them
  state_slot<number>* handed_on;  ///< for each walk
  tile_slot<number>* words;       ///< of each walk: tiles, and what leaves groups of them
};

template <class T>
inline constexpr int rows_packet = 16 / static_cast<int>(sizeof(T));
/// Tiles begin at lines of memory.
template <class T>
inline constexpr int rows_line = 128 / static_cast<int>(sizeof(T));

/// Threads that fold and run tiles: of one of a few blocks on a multiprocessor, or of its only one.
inline constexpr int rows_workers = 256, all_rows_workers = 512;

/// A thread has so many packets of each input.
template <class T, int Chunks, int Workers = rows_workers>
inline constexpr int rows_tile_slots = Workers* rows_packet<T>* Chunks;

/// A warp reads the maps of a group of tiles at once: of its own tile's group and of those right
/// before it, two of which are half of what 132 blocks have under way. More of them took longer.
inline constexpr int tiles_in_group = 32, recent_groups = 2;
/// Words of a walk of so many tiles: one for each, and one for what leaves each group.
SSM_HD inline index_t words_in_walk(index_t tiles) {
  return tiles + (tiles + tiles_in_group - 1) / tiles_in_group;
}

/// Where the slots of a tile are, counted from its first: 32 bits are enough for that.
struct rows_tile {
  static constexpr int far = 1 << 29;  ///< more than a tile has

  index_t first;       ///< slot 0 counted from the first step: negative before that
  index_t lowest_row;  ///< of the walk's first row, in memory
  index_t flat;        ///< lowest element of the packet in slot 0 from there on, if flat
  index_t row;         ///< the one before the row that begins at `head`
  index_t walk, step;  ///< this is tile `step` of the walk
  int begin, end;      ///< slots that are steps
  int head;            ///< the first slot that begins a row; may lie beyond the tile
  int length;          ///< of a row, or far
  float inverse_length;
  bool ends_walk;       ///< no tile of the same walk comes after it
  int part;             ///< of the walk
  bool continues_walk;  ///< first tile of its part, which is not the walk's first
  bool ends_part;       ///< last tile of its part, which is not the walk's last
  bool exists;

  __device__ bool is_none() const { return !exists; }
  __device__ bool is_empty() const { return end <= 0; }  ///< some walks have a tile less
};

inline __device__ int no_further(index_t slot, int than) {
  return slot < than ? static_cast<int>(slot) : than;
}

/// Tile `i` of a walk.
template <int Slots, bool Reversed, class T, class Step>
__device__ rows_tile find_tile_in_walk(rows_problem<T, Step> const& p, index_t walk, index_t i) {
  index_t const row = walk * p.walk_rows, left = p.rows - row, start = row * p.length;
  index_t const rows = left < p.walk_rows ? left : p.walk_rows;
  auto const front = static_cast<int>((p.front + row * p.out_pitch[0]) & (rows_line<T> - 1));
  rows_tile t{.walk = walk, .step = i, .exists = true};
  t.first = start - front + i * Slots;
  index_t const end = start + rows * p.length - t.first;
  t.begin = i == 0 ? front : 0;
  t.end = no_further(end, Slots);
  t.lowest_row = Reversed ? p.rows - 1 - row : row;
  t.flat = Reversed ? p.length - (t.first - start) - rows_packet<T> : t.first - start;
  t.row = i == 0 ? row - 1 : row;
  t.head = i == 0 ? front : no_further(end, rows_tile::far);
  t.length = no_further(p.length, rows_tile::far);
  t.inverse_length = 1 / float(t.length);
  t.ends_walk = end <= Slots;
  return t;
}

/// How rows lie in memory. Walks have more than one row only where there are no gaps between them
/// or where they are pitched. `aligned`: every row begins and ends at a multiple of 16 bytes, so
/// that a packet is one access to one row. `engine`: as `aligned`, and tiles lie in shared memory
/// as the copy engine brings them. `flat`: every row begins as far from such a multiple in all
/// arrays, so that a packet is one access. `pitched`: any.
enum class rows_layout { aligned, engine, flat, pitched };

/// The tile as its kernel sees it, with all that is the same for every thread. `Inner`: all slots
/// are steps in the middle of one row, so nothing has to be asked. `Reversed`: the last row and its
/// last step come first.
template <class T, class Step, int Slots, bool Reversed, bool Inner>
struct rows_view {
  using problem = rows_problem<T, Step>;
  static constexpr int V = rows_packet<T>, slots = Slots;
  static constexpr int far = rows_tile::far;

  problem const& p;
  rows_tile const& t;

  __device__ bool is_step(int slot) const { return Inner || (slot >= t.begin && slot < t.end); }

  /// By the length of a row that is shorter than a tile. Divisions take long; with half a step more
  /// the quotient is exact, since steps are few.
  __device__ int quotient(int steps) const {
    return static_cast<int>((float(steps) + 0.5f) * t.inverse_length);
  }
  /// Steps from the start of its row to a slot; far if that is before this tile.
  __device__ int pos(int slot) const {
    if constexpr (Inner) return far;
    int const since = slot - t.head;
    if (t.length < slots) {
      int const steps = since + t.length;
      return steps - quotient(steps) * t.length;
    }
    return since < 0 ? far : since < t.length ? since : since - t.length;
  }
  /// Slots until a row begins.
  __device__ int until_head(int slot) const {
    if constexpr (Inner) return far;
    if (slot <= t.head) return t.head - slot;
    int const since = pos(slot);
    return since == 0 ? 0 : t.length - since;
  }
  __device__ index_t row(int slot) const {
    int const since = slot - t.head;
    if (since < 0) return t.row;
    return t.row + 1 + (t.length < slots ? quotient(since) : 0);
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
  __device__ index_t flat_element(int slot, index_t pitch) const {
    return t.lowest_row * pitch + t.flat + (Reversed ? -slot : slot);
  }
};

}  // namespace ssm::gpu::detail
