// SPDX-License-Identifier: Apache-2.0
// linear_bands_launch.cuh: whether blocks walk the bands of a raw scan, and how many.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <limits>

#include "ssm/detail/device.cuh"
#include "ssm/detail/linear_bands.cuh"
#include "ssm/detail/tile_launch.cuh"

namespace ssm::gpu::detail {

/// So many bands keep the device busier than tiles of the pipeline do. Up to 66, teams do; of 16
/// bits up to 120, where there is time for them. Teams take no rows that begin anywhere, and tiles
/// of the pipeline take long for them, of 16 bits very long.
template <int Boxes, class T, class Step>
index_t many_bands(index_t length) {
  if (is_loose<Boxes>) return sizeof(T) == 2 ? 18 : 72;
  if (sizeof(T) == 2 && length >= 4096) return 121;
  return sizeof(T) == 2 && Step::inputs == 2 ? 75 : 67;
}
/// Blocks that have fewer steps do not drift far apart.
inline constexpr index_t few_band_steps = 1024;

/// Whether the copy engine takes boxes of every `boxes`th step of an array, whose steps must lie in
/// that order.
template <class T>
bool has_boxes(columns_array<T> const& array, index_t outer, int boxes, bool reversed) {
  auto const allows = [](index_t stride) {
    index_t const bytes = stride * index_t{sizeof(T)};
    return bytes > 0 && bytes % 16 == 0 && bytes >> 40 == 0;
  };
  auto const place = reinterpret_cast<std::uintptr_t>(array.data);
  return array.channel == 1 && (array.time < 0) == reversed &&
         place % (boxes == 1 ? 16 : sizeof(T)) == 0 && allows(boxes * std::abs(array.time)) &&
         (outer == 1 || allows(array.outer));
}

/// Whether blocks may walk the bands here.
template <int Boxes, class T, class Step>
bool allows_bands(columns_problem<T, Step> const& p) {
  constexpr index_t most = std::numeric_limits<std::int32_t>::max() / 4;
  index_t const bands = divide_up(p.channels, band_channels<Boxes>) * p.outer;
  bool all = bands >= many_bands<Boxes, T, Step>(p.length) && bands < most && p.length < most &&
             p.length >= Boxes && p.channels < most;
  bool const reversed = p.out[0].time < 0;
  for (auto const& array : p.in) all = all && has_boxes(array, p.outer, Boxes, reversed);
  for (auto const& array : p.out) all = all && has_boxes(array, p.outer, Boxes, reversed);
  return all && is_compiled_for_hopper(bands_kernel<T, Step, Boxes>) &&
         has_shared_memory(sizeof(band_memory<T, Step, Boxes>));
}

/// Columns of the memory of a step, counted from the lowest, between a multiple of 16 bytes and the
/// array's.
template <class T>
int lead_of(columns_array<T> const& array, index_t length, index_t step) {
  auto const* const at =
      array.data + (array.time < 0 ? (length - 1 - step) * array.time : step * array.time);
  return static_cast<int>(reinterpret_cast<std::uintptr_t>(at) % 16 / sizeof(T));
}

/// Those of the steps `first`, first + Boxes, ... in memory.
template <int Boxes, class Step, class T, class Stored>
CUtensorMap boxes_of_band(columns_array<T> const& array, columns_problem<Stored, Step> const& p,
                          int first) {
  constexpr index_t size = sizeof(T), word = std::min<index_t>(size, 8), words = size / word;
  constexpr auto type = word == 2   ? CU_TENSOR_MAP_DATA_TYPE_UINT16
                        : word == 4 ? CU_TENSOR_MAP_DATA_TYPE_UINT32
                                    : CU_TENSOR_MAP_DATA_TYPE_UINT64;
  using stage = band_stage<Stored, Step, Boxes>;
  index_t const pitch = std::abs(array.time);
  int const lead = lead_of(array, p.length, first);
  auto const* lowest = array.data + (array.time < 0 ? (p.length - 1) * array.time : 0);
  lowest += first * pitch - lead;
  auto const bytes = [](index_t stride) { return static_cast<cuuint64_t>(stride * size); };
  cuuint64_t const extents[] = {static_cast<cuuint64_t>((lead + p.channels) * words), 1,
                                static_cast<cuuint64_t>(divide_up(p.length - first, Boxes)),
                                static_cast<cuuint64_t>(p.outer)};
  cuuint64_t const strides[] = {16, bytes(Boxes * pitch), p.outer > 1 ? bytes(array.outer) : 16};
  cuuint32_t const box[] = {static_cast<cuuint32_t>(stage::width * words), 1, stage::box_steps, 1};
  return hopper::encode_boxes(type, lowest, extents, strides, box, CU_TENSOR_MAP_SWIZZLE_NONE,
                              CU_TENSOR_MAP_L2_PROMOTION_NONE);
}

/// Launch a block for each band, or for several where they are more than fit, or not. Returns the
/// bytes of workspace.
template <int Boxes, class T, class Step>
std::size_t walk_bands(on where, columns_problem<T, Step> const& of, std::byte* workspace,
                       bool launches) {
  bool const keeps_pace = of.length > few_band_steps;
  std::size_t const bytes = keeps_pace ? lock_step::bytes : 0;
  if (!launches) return bytes;
  bands_problem<T, Step, Boxes> p{};
  p.of = of;
  p.of.across = divide_up(of.channels, band_channels<Boxes>), p.of.bands = p.of.across * of.outer;
  p.reversed = of.out[0].time < 0;
  using stage = band_stage<T, Step, Boxes>;
  for (int k = 0; k < Step::inputs; ++k) {
    bool const is_neighbor = Step::reads_neighbor && k + 1 == Step::inputs;
    int const further = is_neighbor ? (p.reversed ? -1 : 1) : 0;
    for (int b = 0; b < Boxes; ++b) {
      p.in[k][b] = boxes_of_band<Boxes>(of.in[k], of, b);
      int const memory_box = p.reversed ? Boxes - 1 - b : b;
      int const lead = lead_of(of.in[k], of.length, (memory_box + further + Boxes) % Boxes);
      p.place[k][b] = (k * Boxes + memory_box) * stage::box_elements + lead +
                      (p.reversed ? (stage::box_steps - 1) * stage::width : 0);
    }
  }
  if constexpr (!is_loose<Boxes>) {
    for (int k = 0; k < Step::outputs; ++k) p.out[k] = boxes_of_band<1>(of.out[k], of, 0);
  }
  if (keeps_pace) {
    check(cudaMemsetAsync(workspace, 0, bytes, where.stream), "cudaMemsetAsync");
    p.pace.reached = reinterpret_cast<unsigned*>(workspace);
  }
  constexpr auto memory = static_cast<int>(sizeof(band_memory<T, Step, Boxes>));
  auto* const kernel = bands_kernel<T, Step, Boxes>;
  int fitting = 0;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, memory),
        "cudaFuncSetAttribute");
  check(
      cudaOccupancyMaxActiveBlocksPerMultiprocessor(&fitting, kernel, band_threads<Boxes>, memory),
      "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  index_t const passes = divide_up(p.of.bands, blocks_of_device(fitting));
  p.passes = static_cast<int>(passes);
  launch_blocks(where, kernel, p, divide_up(p.of.bands, passes), band_threads<Boxes>, memory,
                keeps_pace);
  return bytes;
}

}  // namespace ssm::gpu::detail
