// SPDX-License-Identifier: Apache-2.0
// linear_rows_launch.cuh: which kernel runs rows that are contiguous in time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "ssm/detail/device.cuh"
#include "ssm/detail/linear_call.cuh"
#include "ssm/detail/linear_rows_engine.cuh"
#include "ssm/detail/linear_rows_loose.cuh"
#include "ssm/detail/linear_rows_single.cuh"
#include "ssm/detail/tile_launch.cuh"
#include "ssm/execution.cuh"

namespace ssm::gpu::detail {

/// Walks keep a device busy where there are many; few do where each has but a few tiles. Otherwise
/// tiles are handed out singly, in a pipeline.
inline constexpr index_t many_walks = 320, few_tiles = 4;

/// Launch the kernel that suits rows contiguous in time, or not. Returns the bytes that it needs.
template <bool Reversed, class T, class Step>
std::size_t run_rows(on where, linear_call<T, Step> const& call, std::byte* workspace,
                     bool launches) {
  constexpr index_t V = rows_packet<T>, line = rows_line<T>;
  rows_problem<T, Step> p{};
  p.rows = call.batch * call.channels, p.length = call.length;
  auto const pitch = [&](auto const& array) {
    return p.rows == 1 ? p.length : call.channels > 1 ? array.channel : array.batch;
  };
  auto const misplaced = [&](auto const& array) {  // elements past a line
    return static_cast<index_t>(reinterpret_cast<std::uintptr_t>(array.data) / sizeof(T)) % line;
  };
  index_t const lead = misplaced(call.out[0]), own_pitch = pitch(call.out[0]);
  bool is_flat = true, has_gaps = false;
  auto const give = [&](auto const& from, auto& data, index_t& data_pitch) {
    data = from.data;
    data_pitch = pitch(from);
    is_flat = is_flat && (data_pitch - own_pitch) % V == 0 && (misplaced(from) - lead) % V == 0;
    has_gaps = has_gaps || data_pitch != p.length;
  };
  for (int k = 0; k < Step::inputs; ++k) {
    give(call.in[k], p.in[k], p.in_pitch[k]);
    p.in_span[k] = (p.rows - 1) * p.in_pitch[k] + p.length;
  }
  for (int k = 0; k < Step::outputs; ++k) give(call.out[k], p.out[k], p.out_pitch[k]);
  p.initial = call.initial.data, p.initial_pitch = pitch(call.initial);
  p.final = call.final.data, p.final_pitch = pitch(call.final);
  p.edge = call.edge.data, p.edge_pitch = pitch(call.edge);

  constexpr int chunks = Step::inputs == 2 ? 3 : 2, tile = rows_tile_slots<T, chunks>;
  // Three fifths of its tiles. Other rows are faster loose, but for aligned ones without gaps.
  bool const fills = 5 * p.length >= 3 * tile * divide_up(p.length + line - 1, tile);
  if (has_gaps && !fills) is_flat = false;
  bool const is_aligned = is_flat && lead % V == 0 && p.length % V == 0 && own_pitch % V == 0;
  if (is_flat) p.front = Reversed ? -(lead + (p.rows - 1) * own_pitch + p.length) : lead;
  index_t const most_front = p.front % line == 0 && own_pitch % line == 0 ? 0 : line - 1;
  // Into tiles of so many slots; a tile has so many whole rows at most.
  auto const cut = [&](index_t slots, index_t most_rows = std::numeric_limits<index_t>::max()) {
    if (is_flat && has_gaps) most_rows = 1;
    p.walk_rows = std::clamp((slots - most_front) / p.length, index_t{1}, most_rows);
    p.walks = divide_up(p.rows, p.walk_rows);
    p.inverse_walks = 1 / static_cast<double>(p.walks);
    p.tiles_in_walk = divide_up(most_front + p.walk_rows * p.length, slots);
    p.tiles = p.walks * p.tiles_in_walk;
  };
  auto const run_chain = [&]<class Tiles>(std::type_identity<Tiles>) {
    cut(Tiles::slots);
    index_t const words = p.walks * words_in_walk(p.tiles_in_walk);
    return run_pipeline<Tiles>(where, p, words, workspace, launches);
  };

  using aligned_walks = rows_tiles<T, Step, rows_workers, chunks, rows_layout::aligned, Reversed>;
  using single_walks = single_row_tiles<T, Step, rows_workers, chunks, Reversed>;
  using few_walks = single_row_tiles<T, Step, all_rows_workers, chunks, Reversed>;
  using large = rows_tiles<T, Step, all_rows_workers, chunks, rows_layout::flat, Reversed>;
  using small = rows_tiles<T, Step, rows_workers, chunks, rows_layout::flat, Reversed>;
  using pitched = rows_tiles<T, Step, rows_workers, chunks, rows_layout::pitched, Reversed>;
  if (is_aligned) {
    using engine = rows_by_engine<T, Step, Reversed>;
    cut(engine::slots);
    bool const are_busy = p.walks >= many_walks || fills_device<engine>(p.walks);
    if (are_busy && allows_engine<engine>(p)) {
      return walk_by_engine<engine>(where, p, workspace, launches);
    }
  }
  cut(small::slots);
  if (p.rows >= many_walks || p.tiles_in_walk <= few_tiles) {
    if (!is_flat || !(is_aligned || fills)) return run_loose<Reversed>(where, p, launches);
    bool const has_ends = p.walk_rows == 1 && (!is_aligned || p.tiles_in_walk <= few_tiles);
    if (!has_ends) return run_walks<aligned_walks>(where, p, workspace, launches);
    // Where all run at once, what one row takes is what counts: larger tiles in its only block.
    if (p.tiles_in_walk > 1 && p.walks <= blocks_of_device(1) &&
        has_shared_memory(walk_memory<few_walks>)) {
      cut(few_walks::slots, 1);
      return run_walks<few_walks>(where, p, workspace, launches);
    }
    return run_walks<single_walks>(where, p, workspace, launches);
  }
  if (!is_flat) return run_chain(std::type_identity<pitched>{});
  return has_shared_memory(pipeline_memory<large>) ? run_chain(std::type_identity<large>{})
                                                   : run_chain(std::type_identity<small>{});
}

}  // namespace ssm::gpu::detail
