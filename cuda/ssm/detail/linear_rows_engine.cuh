// SPDX-License-Identifier: Apache-2.0
// linear_rows_engine.cuh: walks along many rows whose tiles the copy engine brings and takes away,
// from sm_90 on.
#pragma once

#include <cstddef>

#include "ssm/detail/copy_engine.cuh"
#include "ssm/detail/linear_rows.cuh"
#include "ssm/detail/tile_launch.cuh"
#include "ssm/detail/tile_porters.cuh"

namespace ssm::gpu::detail {

/// Aligned rows. What comes out lies where the inputs were, and goes back from there.
template <class T, class Step, bool Reversed>
struct rows_by_engine
    : rows_tiles<T, Step, rows_workers, Step::inputs == 2 ? 3 : 1, rows_layout::engine, Reversed> {
  using base =
      rows_tiles<T, Step, rows_workers, Step::inputs == 2 ? 3 : 1, rows_layout::engine, Reversed>;
  using base::p, base::stages, base::slots, base::V;
  static constexpr int K = Step::inputs, outputs = Step::outputs;
  static constexpr int blocks = 2;  ///< on a multiprocessor, which has 228 KB
  static constexpr int stages_of_block =
      114000 / static_cast<int>(sizeof(typename base::stage_memory));
  /// Tiles that are under way to a block. More take bandwidth from other blocks: without a limit
  /// 512 and 1536 rows took 1 to 1.5 % longer.
  static constexpr int ahead = K == 2 ? 1 : 2;

  struct memory_type {
    typename base::stage_memory of[stages_of_block];
    rows_tile tile[stages_of_block];
    typename base::number entering[stages_of_block];  ///< a part that is not its walk's first
    barrier arrived[stages_of_block], done[stages_of_block], sent[stages_of_block];
  };

  /// Ask for a tile, by one thread.
  __device__ void bring(rows_tile const& t, int stage, barrier& arrived) const {
    stretch const s(t);
    using view = rows_view<T, Step, slots, Reversed, false>;
    bool const has_beyond =
        Step::reads_neighbor && t.end == slots && view{p, t}.until_head(slots) > 0;
    arrived.arrive_expecting(s.bytes * K + (has_beyond ? sizeof(stages[stage].beyond) : 0));
#pragma unroll
    for (int k = 0; k < K; ++k) {
      hopper::load_bytes(stages[stage].in[k] + s.slot,
                         p.in[k] + t.lowest_row * p.in_pitch[k] + s.element, s.bytes, arrived);
    }
    if (has_beyond) {
      hopper::load_bytes(stages[stage].beyond,
                         p.in[K - 1] + t.lowest_row * p.in_pitch[K - 1] + s.element +
                             (Reversed ? -V : slots - t.begin),
                         sizeof(stages[stage].beyond), arrived);
    }
  }
  /// Send what came out of it, by one thread.
  __device__ void send(rows_tile const& t, int stage) const {
    stretch const s(t);
#pragma unroll
    for (int k = 0; k < outputs; ++k) {
      hopper::store_bytes(p.out[k] + t.lowest_row * p.out_pitch[k] + s.element,
                          stages[stage].in[k] + s.slot, s.bytes);
    }
  }

 private:
  /// The steps of a tile in shared memory and in the row's memory, from the lowest on.
  struct stretch {
    __device__ explicit stretch(rows_tile const& t)
        : slot{Reversed ? slots - t.end : t.begin},
          element{Reversed ? t.flat + V - t.end : t.flat + t.begin},
          bytes{static_cast<unsigned>(t.end - t.begin) * static_cast<unsigned>(sizeof(T))} {}
    int slot;
    index_t element;
    unsigned bytes;
  };
};

/// The workers, a warp that asks for tiles and one that sends them off, one thread of each.
template <class Tiles>
inline constexpr int engine_threads = Tiles::workers + 64;

/// One block, as each of its threads has it.
template <class Tiles>
struct engine_walk {
  static constexpr int S = Tiles::stages_of_block;
  using memory_type = typename Tiles::memory_type;

  typename Tiles::problem const& p;
  memory_type& memory;
  Tiles tiles{{p, memory.of}};
  int stage = 0;
  unsigned parity = 0;

  __device__ void next_stage() {
    if (++stage == S) stage = 0, parity ^= 1;
  }

  __device__ void request() {
    walk_parts<Tiles> parts(p);
    for (int asked = 0;; next_stage(), ++asked) {
      auto const tile = parts.next(tiles);
      memory.sent[stage].wait(parity ^ 1);
      if (asked >= Tiles::ahead) {
        bool const wraps = stage < Tiles::ahead;
        memory.arrived[stage - Tiles::ahead + (wraps ? S : 0)].wait(wraps ? parity ^ 1 : parity);
      }
      memory.tile[stage] = tile;
      auto& arrived = memory.arrived[stage];
      if (tile.is_none()) {
        arrived.arrive(), arrived.arrive();
        return;
      }
      tiles.bring(tile, stage, arrived);
      if (tile.continues_walk) memory.entering[stage] = p.handed_on[tile.walk].wait(tile.part);
      arrived.arrive();
    }
  }

  __device__ void send() {
    int before = -1;
    for (;; next_stage()) {
      memory.arrived[stage].wait(parity);
      auto const tile = memory.tile[stage];
      if (tile.is_none()) break;
      memory.done[stage].wait(parity);
      tiles.send(tile, stage);
      hopper::wait_for_reads_but<Tiles::outputs>();
      if (before >= 0) memory.sent[before].arrive();
      before = stage;
    }
    hopper::wait_for_reads_but<0>();
  }

  __device__ void run() {
    typename Tiles::number carry{};
    for (;; next_stage()) {
      memory.arrived[stage].wait(parity);
      auto const tile = memory.tile[stage];
      if (tile.is_none()) return;
      typename Tiles::maps maps;
      tiles.fold(tile, stage, maps);
      meet<Tiles::workers>(1);
      if (tile.continues_walk) carry = memory.entering[stage];
      auto const entering = tiles.pass(tile, stage, carry);
      if (tile.ends_part && threadIdx.x == 0) {
        wait_for_earlier_kernels();
        p.handed_on[tile.walk].hand_on(carry, tile.part + 1);
      }
      tiles.run(tile, stage, entering, maps);
      hopper::publish_stores();
      memory.done[stage].arrive_for_warp();
    }
  }
};

/// Run all walks. The kernel before it is clear_kernel.
template <class Tiles>
__global__ void __launch_bounds__(engine_threads<Tiles>, Tiles::blocks)
    engine_kernel(typename Tiles::problem const p) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  extern __shared__ __align__(tile_alignment) unsigned char bytes[];
  auto& memory = *reinterpret_cast<typename Tiles::memory_type*>(bytes);
  init_stages<Tiles::stages_of_block>(memory, 2, Tiles::warps);
  engine_walk<Tiles> walk{p, memory};
  walk_with_porters<Tiles::workers>(walk);
#endif
}

/// Whether nearly every block has a walk and none has two: 256 rows take 4 to 8 % less time than in
/// the pipeline, 132 or 300 take more.
template <class Tiles>
bool fills_device(index_t walks) {
  index_t const blocks = blocks_of_device(Tiles::blocks);
  return walks <= blocks && 16 * walks >= 15 * blocks;
}

/// Whether there are many tiles and the device has a copy engine.
template <class Tiles>
bool allows_engine(typename Tiles::problem const& p) {
  return p.tiles > few_drawn_tiles && is_compiled_for_hopper(engine_kernel<Tiles>) &&
         has_shared_memory(sizeof(typename Tiles::memory_type));
}

/// Launch them, or not. Returns the bytes of workspace.
template <class Tiles>
std::size_t walk_by_engine(on where, typename Tiles::problem p, std::byte* workspace,
                           bool launches) {
  std::size_t const bytes = static_cast<std::size_t>(1 + p.walks) * sizeof(*p.handed_on);
  if (!launches) return bytes;
  // All blocks must be there, as each waits for what others have drawn before.
  static_assert(Tiles::blocks * (sizeof(typename Tiles::memory_type) + 1024) <= 228 * 1024);
  clear(where, workspace, bytes);
  p.drawn = reinterpret_cast<unsigned long long*>(workspace);
  p.handed_on = reinterpret_cast<decltype(p.handed_on)>(workspace) + 1;
  launch_blocks(where, engine_kernel<Tiles>, p, blocks_of_device(Tiles::blocks),
                engine_threads<Tiles>, static_cast<int>(sizeof(typename Tiles::memory_type)), false,
                true);
  return bytes;
}

}  // namespace ssm::gpu::detail
