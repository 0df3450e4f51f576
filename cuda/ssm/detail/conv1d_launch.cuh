// SPDX-License-Identifier: Apache-2.0
// conv1d_launch.cuh: which kernel has a causal convolution, how it is shared out, and its launch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "ssm/detail/conv1d_columns.cuh"
#include "ssm/detail/conv1d_rows.cuh"
#include "ssm/error.hpp"
#include "ssm/execution.cuh"

namespace ssm::gpu::detail {

/// Neighbouring channels of a thread of columns, where elements come together.
inline constexpr int conv1d_channels = 4;

/// How a convolution is run: over channels, one or several of a thread, or over steps.
enum class conv1d_order { channels, channels_together, steps };

/// Whether `count` neighbours along the channels begin at multiples of their size.
template <class T>
bool has_whole_columns(sequence_view<T, memory::device> const& view, int count) {
  auto const whole = [&](index_t number) { return number % count == 0; };
  return view.stride(2) == 1 && whole(view.extent(2)) && whole(view.stride(0)) &&
         whole(view.stride(1)) &&
         reinterpret_cast<std::uintptr_t>(view.data_handle()) % (sizeof(T) * count) == 0;
}

/// Whether time is dense in both and rows begin the same number of elements after a multiple of
/// `count` of them, 16 bytes of the larger.
template <class T, class U>
bool has_rows_alike(sequence_view<T, memory::device> const& a,
                    sequence_view<U, memory::device> const& b) {
  constexpr index_t count = 16 / static_cast<index_t>(std::max(sizeof(T), sizeof(U)));
  auto const first = [](auto const& view) {
    return static_cast<index_t>(reinterpret_cast<std::uintptr_t>(view.data_handle()) % 16 /
                                sizeof(*view.data_handle()));
  };
  auto const alike = [](index_t x, index_t y) { return (x - y) % count == 0; };
  return a.stride(1) == 1 && b.stride(1) == 1 && alike(first(a), first(b)) &&
         alike(a.stride(0), b.stride(0)) && alike(a.stride(2), b.stride(2));
}

inline conv1d_grid conv1d_grid_of(index_t lines, index_t places_of_line, char const* name) {
  conv1d_grid grid;
  while ((index_t{1} << grid.log_lanes) < std::min<index_t>(places_of_line, conv1d_threads)) {
    ++grid.log_lanes;
  }
  index_t const lanes = index_t{1} << grid.log_lanes, lines_of_block = conv1d_threads / lanes;
  index_t const blocks_of_line = (places_of_line + lanes - 1) / lanes;
  constexpr index_t most = std::numeric_limits<std::int32_t>::max();
  require<shape_error>(lines <= most, name, ": ", lines, " rows, expected less than 2^31");
  index_t const blocks = (lines + lines_of_block - 1) / lines_of_block * blocks_of_line;
  require<shape_error>(blocks <= most, name, ": ", blocks, " blocks, expected less than 2^31");
  grid.lines = static_cast<unsigned>(lines);
  grid.blocks_of_line = static_cast<unsigned>(blocks_of_line);
  grid.blocks = static_cast<unsigned>(blocks);
  return grid;
}

/// Work is cut for about so many threads, on any device.
inline constexpr index_t conv1d_busy_threads = index_t{1} << 19;

/// Cut time into pieces of `least` to `most` steps.
template <class T>
void cut_columns(conv1d_problem<T>& p, int channels, index_t least, index_t most,
                 char const* name) {
  auto const [batch, length, all_channels, width] = p.in.extents();
  index_t const places = (all_channels + channels - 1) / channels;
  index_t const steps = std::clamp(length * places / conv1d_busy_threads * batch, least, most);
  p.piece = (steps + conv1d_steps - 1) / conv1d_steps * conv1d_steps;
  index_t const pieces = (length + p.piece - 1) / p.piece;
  p.grid = conv1d_grid_of(batch * pieces, places, name);
  p.pieces = static_cast<unsigned>(pieces);
}

/// Threads have at most `most` packets, of rows in which each thread of a block can have so many.
template <class T>
void cut_rows(conv1d_problem<T>& p, index_t most, char const* name) {
  auto const [batch, length, channels, width] = p.in.extents();
  constexpr index_t largest_phase = 16 / sizeof(T) - 1;
  index_t const packets = (length + largest_phase + conv1d_packet - 1) / conv1d_packet;
  index_t const of_thread = packets * channels / conv1d_busy_threads * batch;
  p.piece =
      std::clamp<index_t>(of_thread, 1, std::clamp<index_t>(packets / conv1d_threads, 1, most));
  p.grid = conv1d_grid_of(batch * channels, (packets + p.piece - 1) / p.piece, name);
}

/// Kernels have up to 4 taps or up to 8.
template <class T, int Taps>
void launch_conv1d(on where, conv1d_problem<T> const& p, conv1d_order order) {
  auto* const kernel = order == conv1d_order::steps ? conv1d_rows_kernel<T, Taps>
                       : order == conv1d_order::channels_together
                           ? conv1d_columns_kernel<T, Taps, conv1d_channels>
                           : conv1d_columns_kernel<T, Taps, 1>;
  kernel<<<p.grid.blocks, conv1d_threads, 0, where.stream>>>(p);
  check(cudaGetLastError(), "conv1d_kernel");
}

template <class T>
void run_conv1d(on where, conv1d_problem<T>& p) {
  auto const& x = p.in.x;
  conv1d_order order = conv1d_order::channels;
  // Few steps are as fast as what comes before them: the fewer channels a thread, the better.
  if (x.extent(1) > conv1d_steps && has_whole_columns<T const>(x, conv1d_channels) &&
      has_whole_columns<T>(p.y, conv1d_channels)) {
    order = conv1d_order::channels_together;
  } else if (x.stride(2) != 1 && has_rows_alike<T const, T>(x, p.y)) {
    order = conv1d_order::steps;
  }
  if (order == conv1d_order::steps) {
    cut_rows(p, 16, "causal_conv1d");
  } else {
    cut_columns(p, order == conv1d_order::channels ? 1 : conv1d_channels, 8, 128, "causal_conv1d");
  }
  return p.in.weight.extent(1) <= 4 ? launch_conv1d<T, 4>(where, p, order)
                                    : launch_conv1d<T, 8>(where, p, order);
}

}  // namespace ssm::gpu::detail
