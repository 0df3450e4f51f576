// SPDX-License-Identifier: Apache-2.0
// tile_launch.cuh: how kernels that take tile after tile are launched: how many blocks, how much
// shared memory, and whether they must be there together.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "ssm/detail/device.cuh"
#include "ssm/detail/early_launch.cuh"
#include "ssm/detail/tile_walk.cuh"
#include "ssm/error.hpp"
#include "ssm/execution.cuh"

namespace ssm::gpu::detail {

inline index_t divide_up(index_t a, index_t b) {
  return (a + b - 1) / b;
}

/// How many blocks fit on the device, if `each` do on one of its multiprocessors.
inline index_t blocks_of_device(int each) {
  return index_t{multiprocessors()} * each;
}

/// Bytes of shared memory that a block of the pipeline needs.
template <class Tiles>
inline constexpr int pipeline_memory =
    static_cast<int>(sizeof(typename Tiles::stage_memory)) * pipeline_stages<Tiles>;

/// The same of a block of walks.
template <class Tiles>
inline constexpr int walk_memory =
    static_cast<int>(sizeof(typename Tiles::stage_memory)) * Tiles::walk_stages;

/// How many blocks of the pipeline run on a multiprocessor at a time, at most pipeline_blocks.
template <class Tiles>
int pipeline_blocks_that_fit() {
  auto* const kernel = pipeline_kernel<Tiles>;
  constexpr int memory = pipeline_memory<Tiles>;
  static_assert(Tiles::pipeline_blocks * memory <= 222 * 1024, "all fit where there are 228 KB");
  int fitting = 0;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, memory),
        "linear_scan: cudaFuncSetAttribute");
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&fitting, kernel, pipeline_threads<Tiles>,
                                                      memory),
        "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  return std::min(fitting, Tiles::pipeline_blocks);
}

/// Set words to 0, while the next kernel begins: it calls wait_for_earlier_kernels() before it
/// touches them.
template <class Word>
__global__ void clear_kernel(Word* words, index_t count) {
  wait_for_earlier_kernels();
  admit_next_kernel();
  index_t const i = index_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < count) words[i] = Word{};
}
inline void clear(on where, std::byte* memory, std::size_t bytes) {
  auto const count = static_cast<index_t>(bytes / sizeof(ulonglong2));
  constexpr unsigned threads = 256;
  launch_early(where, clear_kernel<ulonglong2>, static_cast<unsigned>(divide_up(count, threads)),
               threads, 0, "linear_scan: clear_kernel", reinterpret_cast<ulonglong2*>(memory),
               count);
}

/// Launch `blocks` of a kernel with so many bytes of shared memory. Where they wait for each other,
/// all of them must be there at once: `together`, or this fails. `early`: see early_launch.cuh.
template <class Problem>
void launch_blocks(on where, void (*kernel)(Problem), Problem const& p, index_t blocks, int threads,
                   int memory, bool together, bool early = false) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, memory),
        "cudaFuncSetAttribute");
  cudaLaunchAttribute attributes[2]{{}, begins_early()};
  attributes[0].id = cudaLaunchAttributeCooperative;
  attributes[0].val.cooperative = together;
  cudaLaunchConfig_t launch{};
  launch.gridDim = static_cast<unsigned>(blocks);
  launch.blockDim = static_cast<unsigned>(threads);
  launch.dynamicSmemBytes = static_cast<std::size_t>(memory);
  launch.stream = where.stream;
  launch.attrs = attributes;
  launch.numAttrs = early && is_compiled_for_hopper(kernel) ? 2 : 1;
  check(cudaLaunchKernelEx(&launch, kernel, p), "linear_scan: cudaLaunchKernelEx");
}

/// Launch `blocks` that have so many stages. They begin early.
template <class Tiles, class Problem>
void launch_tiles(on where, void (*kernel)(Problem), Problem const& p, index_t blocks, int threads,
                  int stages, bool together) {
  auto const memory = static_cast<int>(sizeof(typename Tiles::stage_memory)) * stages;
  launch_blocks(where, kernel, p, blocks, threads, memory, together, true);
}

/// Tiles of walks of which each block has a share of its own; of more it draws.
inline constexpr index_t few_drawn_tiles = 4096;

/// Launch walks, or not. Returns the bytes of workspace that they need where their tiles are many.
template <class Tiles>
std::size_t run_walks(on where, typename Tiles::problem p, std::byte* workspace, bool launches) {
  bool const draws = p.tiles > few_drawn_tiles;
  auto const slots = static_cast<std::size_t>(p.tiles_in_walk > 1 ? p.walks : 0);
  std::size_t const bytes = draws ? (1 + slots) * sizeof(*p.handed_on) : 0;
  if (!launches) return bytes;
  index_t blocks = blocks_of_device(Tiles::walk_blocks);
  if (draws) {
    // Blocks that wait for a state take memory from those that do not.
    if (p.walks < 2 * blocks) blocks = blocks_of_device(2);
    clear(where, workspace, bytes);
    p.drawn = reinterpret_cast<unsigned long long*>(workspace);
    p.handed_on = reinterpret_cast<decltype(p.handed_on)>(workspace) + 1;
  } else {
    blocks = divide_up(p.walks, divide_up(p.walks, blocks));  // so that all have the same to do
  }
  launch_tiles<Tiles>(where, draws ? walk_kernel<Tiles, true> : walk_kernel<Tiles, false>, p,
                      blocks, walk_threads<Tiles>, Tiles::walk_stages, false);
  return 0;
}

/// Launch the pipeline, or not. Returns the bytes of its `words`, which are in the workspace.
template <class Tiles>
std::size_t run_pipeline(on where, typename Tiles::problem p, index_t words, std::byte* workspace,
                         bool launches) {
  std::size_t const bytes = static_cast<std::size_t>(words) * sizeof(*p.words);
  if (!launches) return bytes;
  require<shape_error>(p.tiles < std::numeric_limits<std::int32_t>::max(), "linear_scan: ", p.tiles,
                       " tiles, expected less than 2^31");
  p.words = reinterpret_cast<decltype(p.words)>(workspace);
  clear(where, workspace, bytes);
  index_t const blocks = std::min(p.tiles, blocks_of_device(pipeline_blocks_that_fit<Tiles>()));
  launch_tiles<Tiles>(where, pipeline_kernel<Tiles>, p, blocks, pipeline_threads<Tiles>,
                      pipeline_stages<Tiles>, true);
  return bytes;
}

}  // namespace ssm::gpu::detail
