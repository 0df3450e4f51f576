// SPDX-License-Identifier: Apache-2.0
// conv1d_launch.cuh: which kernel has a causal convolution, how it is shared out, and its launch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "ssm/detail/conv1d_columns.cuh"
#include "ssm/detail/conv1d_rows.cuh"
#include "ssm/detail/conv1d_step.cuh"
#include "ssm/detail/device.cuh"
#include "ssm/error.hpp"
#include "ssm/execution.cuh"

namespace ssm::gpu::detail {

/// Neighbouring channels of a thread of columns, where elements come together.
inline constexpr int conv1d_channels = 4;

/// How a convolution is run: over channels, one or several of a thread, over steps, or over the
/// channels of a single step.
enum class conv1d_order { channels, channels_together, steps, step };

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

/// Threads of a kernel that the device runs at a time.
template <class Problem>
index_t threads_at_a_time(void (*kernel)(Problem)) {
  int blocks = 0;
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, conv1d_threads, 0),
        "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  return index_t{conv1d_threads} * multiprocessors() * blocks;
}

/// Cut time into pieces of at least `least` steps, so that all threads run at a time: what each
/// does before its first step costs as much as some of them.
template <class T>
void cut_columns(conv1d_problem<T>& p, int channels, index_t threads, index_t least,
                 char const* name) {
  auto const [batch, length, all_channels, width] = p.in.extents();
  index_t const places = (all_channels + channels - 1) / channels;
  conv1d_grid const line = conv1d_grid_of(1, places, name);
  index_t const lanes = batch * (index_t{line.blocks_of_line} << line.log_lanes);
  // Where few pieces fill the device, more than one wave of them: the last is seldom whole. Single
  // channels share what is loaded with their neighbours, so they had better be about the same time.
  index_t const waves = channels == 1 ? 16 : threads / lanes >= 8 ? 1 : 4;
  index_t const most_pieces = std::max<index_t>(waves * threads / lanes, 1);
  index_t const steps = std::max((length + most_pieces - 1) / most_pieces, least);
  p.piece = (steps + conv1d_steps - 1) / conv1d_steps * conv1d_steps;
  index_t const pieces = (length + p.piece - 1) / p.piece;
  p.grid = conv1d_grid_of(batch * pieces, places, name);
  p.pieces = static_cast<unsigned>(pieces);
}

/// Threads have at most `most` packets, of rows in which each thread of a block can have so many.
template <class T>
void cut_rows(conv1d_problem<T>& p, index_t most, char const* name) {
  auto const [batch, length, channels, width] = p.in.extents();
  constexpr index_t aligned = 16 / sizeof(T);
  auto const& x = p.in.x;
  bool const in_phase = reinterpret_cast<std::uintptr_t>(x.data_handle()) % 16 == 0 &&
                        x.stride(0) % aligned == 0 && x.stride(2) % aligned == 0;
  index_t const largest_phase = in_phase ? 0 : aligned - 1;
  index_t const packets = (length + largest_phase + conv1d_packet - 1) / conv1d_packet;
  constexpr index_t busy_threads = index_t{1} << 19;
  index_t const of_thread = packets * channels / busy_threads * batch;
  p.piece =
      std::clamp<index_t>(of_thread, 1, std::clamp<index_t>(packets / conv1d_threads, 1, most));
  p.grid = conv1d_grid_of(batch * channels, (packets + p.piece - 1) / p.piece, name);
}

template <class T>
conv1d_order order_of(conv1d_problem<T> const& p) {
  auto const& x = p.in.x;
  if (x.extent(1) == 1) return conv1d_order::step;
  if (x.extent(1) <= conv1d_steps) return conv1d_order::channels;  // the more threads, the better
  if (has_whole_columns<T const>(x, conv1d_channels) &&
      has_whole_columns<T>(p.y, conv1d_channels)) {
    return conv1d_order::channels_together;
  }
  bool const has_rows = x.stride(2) != 1 && has_rows_alike<T const, T>(x, p.y);
  return has_rows ? conv1d_order::steps : conv1d_order::channels;
}

/// Kernels have up to 4 taps or up to 8.
template <class T, int Taps>
void run_conv1d(on where, conv1d_problem<T>& p) {
  char const* const name = "causal_conv1d";
  void (*kernel)(conv1d_problem<T>) = nullptr;
  auto const cut = [&](int channels) {
    cut_columns(p, channels, threads_at_a_time(kernel), 8, name);
  };
  switch (order_of(p)) {
    case conv1d_order::step:
      kernel = conv1d_step_kernel<T, Taps>;
      p.grid = conv1d_grid_of(p.in.x.extent(0), p.in.x.extent(2), name);
      break;
    case conv1d_order::steps:
      kernel = conv1d_rows_kernel<T, Taps>;
      cut_rows(p, 16, name);
      break;
    case conv1d_order::channels_together:
      kernel = conv1d_columns_kernel<T, Taps, conv1d_channels>;
      cut(conv1d_channels);
      break;
    case conv1d_order::channels:
      kernel = conv1d_columns_kernel<T, Taps, 1>;
      cut(1);
  }
  kernel<<<p.grid.blocks, conv1d_threads, 0, where.stream>>>(p);
  check(cudaGetLastError(), "conv1d_kernel");
}

template <class T>
void run_conv1d(on where, conv1d_problem<T>& p) {
  return p.in.weight.extent(1) <= 4 ? run_conv1d<T, 4>(where, p) : run_conv1d<T, 8>(where, p);
}

}  // namespace ssm::gpu::detail
