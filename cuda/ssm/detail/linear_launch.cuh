// SPDX-License-Identifier: Apache-2.0
// linear_launch.cuh: which kernel runs a raw scan, from the strides of its arrays.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "ssm/detail/device.cuh"
#include "ssm/detail/linear_bands_launch.cuh"
#include "ssm/detail/linear_brief.cuh"
#include "ssm/detail/linear_call.cuh"
#include "ssm/detail/linear_columns.cuh"
#include "ssm/detail/linear_rows_launch.cuh"
#include "ssm/detail/linear_teams_launch.cuh"
#include "ssm/detail/tile_launch.cuh"
#include "ssm/execution.cuh"
#include "ssm/execution.hpp"

namespace ssm::gpu::detail {

/// Teams have that many tiles of a band at least.
inline constexpr index_t few_team_tiles = 16;

/// A call whose axes are what they will be in the kernels, but for how time is cut.
template <class T, class Step>
columns_problem<T, Step> bands_of(linear_call<T, Step> const& call) {
  columns_problem<T, Step> p{};
  auto const give = [&](auto& to, auto const& from) {
    to = {from.data, from.batch, from.time, from.channel};
    if (!call.reversed || from.time == 0) return;
    to.data += (call.length - 1) * from.time;
    to.time = -from.time;
  };
  for (int k = 0; k < Step::inputs; ++k) give(p.in[k], call.in[k]);
  for (int k = 0; k < Step::outputs; ++k) give(p.out[k], call.out[k]);
  give(p.initial, call.initial);
  give(p.final, call.final);
  give(p.edge, call.edge);
  p.outer = call.batch, p.length = call.length, p.channels = call.channels;
  while (p.width_bits < 5 && index_t{1} << p.width_bits < p.channels) ++p.width_bits;
  p.across = divide_up(p.channels, index_t{1} << p.width_bits);
  p.bands = p.outer * p.across;
  return p;
}

/// Launch teams, or `others` where there is little time or the device has none. Returns the bytes
/// that either needs.
template <class Teams, class T, class Step, class Others>
std::size_t run_teams_or(on where, columns_problem<T, Step> const& p, std::byte* workspace,
                         bool launches, Others const& others) {
  typename Teams::problem own{};
  static_cast<columns_problem<T, Step>&>(own) = p;
  if (p.length < few_team_tiles * Teams::steps_of(own)) return others();
  if (launches && run_teams<Teams>(where, own, workspace)) return 0;
  return std::max(others(), static_cast<std::size_t>(team_words<Teams>(own)) * sizeof(*p.words));
}

/// `Vectors`: see columns_tiles.
template <bool Vectors, class T, class Step>
std::size_t run_bands(on where, columns_problem<T, Step> p, std::byte* workspace, bool launches) {
  using tiles = columns_tiles<T, Step, Vectors>;
  int const width = 1 << p.width_bits;
  if (allows_bands<1>(p)) return walk_bands<1>(where, p, workspace, launches);
  if constexpr (Vectors) {
    if (!has_shared_memory(pipeline_memory<tiles>))  // some devices have 99 KB for a block
      return run_bands<false>(where, p, workspace, launches);
  } else if (allows_bands<16 / sizeof(T)>(p)) {
    return walk_bands<16 / sizeof(T)>(where, p, workspace, launches);
  }
  if (p.length <= most_brief_steps<T> && launches && run_brief(where, p)) return 0;
  auto const by_pipeline = [&] {
    using of_words = columns_words<T, Step>;
    p.stretches = divide_up(p.length, tiles::stretch_steps(width));
    p.groups = divide_up(p.stretches, of_words::group_size(width));
    p.tiles = p.stretches * p.bands;
    index_t const blocks = divide_up(p.groups, of_words::block_size(width));
    index_t const words = (p.stretches + p.groups + blocks) * p.bands * width;
    return run_pipeline<tiles>(where, p, words, workspace, launches);
  };
  if constexpr (Vectors)
    return run_teams_or<team_tiles<T, Step>>(where, p, workspace, launches, by_pipeline);
  else
    return by_pipeline();
}

template <class T, class Step>
std::size_t run_columns(on where, linear_call<T, Step> call, std::byte* workspace, bool launches) {
  auto const swap_axes = [&] {
    std::swap(call.batch, call.channels);
    call.each_array([](auto& array) { std::swap(array.batch, array.channel); });
  };
  // Side by side go those that are next to each other in memory, all of them if they can.
  auto const is_dense = [&] {
    return call.all_arrays([&](auto const& array) {
      return array.batch == call.channels * array.channel || call.batch == 1;
    });
  };
  bool const unit_batch =
      std::all_of(call.in.begin(), call.in.end(), [](auto const& a) { return a.batch == 1; });
  if (call.channels == 1 || (unit_batch && !is_dense())) swap_axes();
  if (call.batch > 1 && is_dense()) {
    call.channels *= call.batch;
    call.batch = 1;
  }

  constexpr index_t V = 16 / sizeof(T), P = columns_tiles<T, Step, true>::P;
  auto const in_packets = [&](auto const& array, index_t packet) {
    return array.channel == 1 && array.time % packet == 0 && array.batch % packet == 0 &&
           reinterpret_cast<std::uintptr_t>(array.data) % (packet * sizeof(T)) == 0;
  };
  bool const is_packed = call.channels % V == 0 &&
                         std::all_of(call.in.begin(), call.in.end(),
                                     [&](auto const& a) { return in_packets(a, V); }) &&
                         std::all_of(call.out.begin(), call.out.end(),
                                     [&](auto const& a) { return in_packets(a, P); });
  auto const p = bands_of(call);
  auto const run_all = [&] {
    return is_packed ? run_bands<true>(where, p, workspace, launches)
                     : run_bands<false>(where, p, workspace, launches);
  };
  // All steps of few channels right after each other are one piece of memory.
  auto const is_piece = [&](auto const& array) {
    return array.channel == 1 && array.time == call.channels &&
           reinterpret_cast<std::uintptr_t>(array.data) % 16 == 0 &&
           (call.batch == 1 || array.batch % V == 0);
  };
  bool const are_pieces = call.channels <= 32 &&
                          std::all_of(call.in.begin(), call.in.end(), is_piece) &&
                          std::all_of(call.out.begin(), call.out.end(), is_piece);
  if (!are_pieces || p.length <= most_brief_steps<T>) return run_all();
  if constexpr (sizeof(T) <= 4) {
    if (call.channels % 2 == 0)
      return run_teams_or<team_pieces<T, Step, true>>(where, p, workspace, launches, run_all);
  }
  return run_teams_or<team_pieces<T, Step, false>>(where, p, workspace, launches, run_all);
}

/// Where there are no steps, what enters a row leaves it.
template <class A>
__global__ void hand_on_kernel(linear_array<A const> from, linear_array<A> to, index_t channels,
                               index_t rows) {
  index_t const row = index_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  index_t const b = row / channels, c = row % channels;
  A const state = from.data == nullptr ? A(0) : from.data[b * from.batch + c * from.channel];
  to.data[b * to.batch + c * to.channel] = state;
}

template <class T, class Step>
void hand_on(on where, linear_call<T, Step> const& call) {
  index_t const rows = call.batch * call.channels, threads = 256;
  if (rows == 0 || call.final.data == nullptr) return;
  hand_on_kernel<<<static_cast<unsigned>(divide_up(rows, threads)), static_cast<unsigned>(threads),
                   0, where.stream>>>(call.initial, call.final, call.channels, rows);
  check(cudaGetLastError(), "hand_on_kernel");
}

/// Run the call, or with launches = false say how many bytes of workspace it needs.
template <class T, class Step>
std::size_t run_linear(on where, linear_call<T, Step> call, std::byte* workspace, bool launches) {
  if (call.length == 0 && launches) hand_on(where, call);
  if (call.batch == 0 || call.length == 0 || call.channels == 0) return 0;
  auto const in_time = [](auto const& array) { return array.time == 1; };
  bool const is_rows = std::all_of(call.in.begin(), call.in.end(), in_time) &&
                       std::all_of(call.out.begin(), call.out.end(), in_time);
  if (!is_rows) return run_columns(where, call, workspace, launches);
  bool const is_one = call.batch == 1 || call.channels == 1 || call.all_arrays([&](auto const& a) {
    return a.batch == call.channels * a.channel;
  });
  if (!is_one) {  // one after the other, which share the workspace
    std::size_t bytes = 0;
    index_t const batch = std::exchange(call.batch, 1);
    for (index_t b = 0; b < batch; ++b) {
      bytes = std::max(bytes, run_linear(where, call, workspace, launches));
      call.each_array([](auto& array) { array.data += array.batch; });
    }
    return bytes;
  }
  return call.reversed ? run_rows<true>(where, call, workspace, launches)
                       : run_rows<false>(where, call, workspace, launches);
}

}  // namespace ssm::gpu::detail
