// SPDX-License-Identifier: Apache-2.0
// dual_vjp_hopper_block.cuh: a block of the gradient of Mamba-2's operator on Hopper: which chunks
// of time and heads it has, what it keeps in shared memory, and its warps that bring it.
#pragma once

#include "ssm/detail/dual_hopper_block.cuh"
#include "ssm/detail/dual_vjp_chunk.cuh"

namespace ssm::gpu::detail::hopper {

/// Tiles of heads in shared memory: one is worked on while others are brought.
inline constexpr int vjp_stages = 3;
inline constexpr int vjp_states = 128;
static_assert(chunk == vjp_steps && slab_channels == vjp_channels);

/// What the kernel is given: the problem, and what it reads as the copy engine sees it, in boxes of
/// 64 columns of 64 rows: x, cotangents, B and C as the forward kernel does; states of all chunks
/// as (entering | leaving, batch, chunk) x (tile, channel) x 1 x state.
template <class T>
struct vjp_problem {
  dual_vjp_problem<T> of;
  CUtensorMap x, cotangent, B, C, states, to_x;
};

/// 16 rows of 32 gradients of x, swizzled as tiles are: what a warp has them added to memory in.
struct alignas(1024) vjp_drives {
  static constexpr int columns = 32, rows = 16;
  float element[rows * columns];
};

/// What belongs to one tile of a head.
template <class T>
struct vjp_head {
  tile<T> x, cotangent;             // (step, channel)
  tile<T> entering[2], leaving[2];  // (channel, state): the state, and the cotangent after
  float steps[step_numbers], D[vjp_channels];

  static constexpr unsigned copied = 6 * sizeof(tile<T>) + step_numbers * sizeof(float);
};

/// Sums for each step of a chunk, as chunk_sums has them, each made by one warp.
struct vjp_sums {
  float drive[vjp_steps], into_state[vjp_steps], from_state[vjp_steps];
  float crossing[4][vjp_steps];  // of each warp's 16 steps
  float D[vjp_channels];
};

template <class T>
struct vjp_memory {
  vjp_head<T> heads[vjp_stages];
  tile<T> B[2], C[2];
  tile<T> later;          // row k: 1 in the columns i >= k
  tile<T> G[2];           // (from, to) and (to, from), over all heads
  vjp_drives to_x[4][2];  // of each warp's steps, halves of the channels
  vjp_sums sums[buffers];

  /// Without what its alignment adds at the end.
  static constexpr int bytes = (6 + vjp_stages * 6) * int{sizeof(tile<T>)} + vjp_stages * 2048 +
                               8 * int{sizeof(vjp_drives)} + int{sizeof(tile<T>)} +
                               buffers * int{sizeof(vjp_sums)};
};

/// Warps that compute, which all use what is brought; one warp uses sums.
inline constexpr unsigned vjp_warps = 12;

struct vjp_barriers {
  barrier head_here[vjp_stages], head_free[vjp_stages];
  barrier projections_here, projections_free;
  barrier G_here;
  barrier sums_here[buffers], sums_free[buffers];
  float through[buffers][4];  // of sums, for which they have no room

  __device__ void init() {
    for (int s = 0; s < vjp_stages; ++s) head_here[s].init(2), head_free[s].init(vjp_warps);
    projections_here.init(1), projections_free.init(vjp_warps);
    G_here.init(4);
    for (int s = 0; s < buffers; ++s) sums_here[s].init(vjp_warps), sums_free[s].init(1);
    publish_barriers();
  }
};

/// What a thread of a warpgroup has of accumulators: the rows `row` and row + 8, and of the columns
/// 8 n + column and the next one for each n; likewise of a tile in shared memory. An address is
/// found by one exclusive or.
struct own_elements {
  int warp, row, column;

  __device__ own_elements()
      : warp{static_cast<int>(threadIdx.x) % 128 / 32},
        row{16 * warp + lane_row()},
        column{2 * lane_pair()} {}

  /// The address of the first pair.
  template <class T>
  __device__ unsigned first_of(tile<T> const& of) const {
    return shared_address(&of) + static_cast<unsigned>(row * 128 + row % 8 * 16 + column * 2);
  }
  /// Pair n of the first row, or of the one eight rows down.
  template <class T>
  __device__ static float2 pair(unsigned first, unsigned n, unsigned down) {
    return from_word<T>(load_word((first ^ 16 * n) + down * 8 * 128));
  }
};

/// Keeps the compiler from finding what follows from `value` ahead of time, for want of registers.
__device__ inline unsigned not_ahead(unsigned value) {
  asm volatile("" : "+r"(value));
  return value;
}

/// Where what comes in turn is kept of `Places`, and the parity of its turn there.
template <unsigned Places>
struct ring {
  unsigned place = 0, parity = 0;
  __device__ void advance() {
    if (++place == Places) place = 0, parity ^= 1;
  }
};

/// A chunk of time and a part of a group's heads. Blocks take them in turn.
struct vjp_work {
  int chunk, part, group, b, first_tile, last_tile;

  template <class T>
  __device__ vjp_work(dual_vjp_problem<T> const& p, int number) {
    int const parts = static_cast<int>(p.parts), chunks = static_cast<int>(p.chunks);
    int const groups = static_cast<int>(p.groups);
    part = number % parts, chunk = number / parts % chunks;
    int const row = number / parts / chunks;
    group = row % groups, b = row / groups;
    int const tiles = static_cast<int>(p.group_heads * p.channel_tiles);
    first_tile = group * tiles + part * tiles / parts;
    last_tile = group * tiles + (part + 1) * tiles / parts;
  }
  /// f(work) for all that this block does.
  template <class T, class F>
  __device__ static void for_each(dual_vjp_problem<T> const& p, F const& f) {
    int const count = static_cast<int>(p.parts * p.chunks * p.batch * p.groups);
#pragma unroll 1
    for (int i = static_cast<int>(blockIdx.x); i < count; i += static_cast<int>(gridDim.x)) {
      f(vjp_work(p, i));
    }
  }
  /// f(tile) for all tiles of heads.
  template <class F>
  __device__ void for_each_tile(F const& f) const {
#pragma unroll 1
    for (int tile = first_tile; tile < last_tile; ++tile) f(tile);
  }
};

/// One thread: ask for tile after tile.
template <class T>
__device__ void load_heads(vjp_problem<T> const& problem, vjp_memory<T>& m, vjp_barriers& bar) {
  dual_vjp_problem<T> const& p = problem.of;
  ring<vjp_stages> at;
  vjp_work::for_each(p, [&](vjp_work const& w) {
    w.for_each_tile([&](int tile) {
      barrier& here = bar.head_here[at.place];
      bar.head_free[at.place].wait(at.parity ^ 1);
      here.arrive_expecting(vjp_head<T>::copied);
      vjp_head<T>& to = m.heads[at.place];
      int const slabs = static_cast<int>(p.channel_tiles), head = tile / slabs;
      corner const steps{tile % slabs * vjp_channels, head, w.chunk * vjp_steps, w.b};
      load_box(&to.x, problem.x, steps, here);
      load_box(&to.cotangent, problem.cotangent, steps, here);
      for (int which = 0; which < 2; ++which) {
        int const row = static_cast<int>((which * p.batch + w.b) * p.chunks) + w.chunk;
        for (int n = 0; n < 2; ++n) {
          load_box(which == 0 ? &to.entering[n] : &to.leaving[n], problem.states,
                   {64 * n, 0, tile * vjp_channels, row}, here);
        }
      }
      load_bytes(to.steps, p.steps_of(w.b, head, w.chunk), sizeof(to.steps), here);
      at.advance();
    });
  });
}

/// One thread: ask for B and C of chunk after chunk.
template <class T>
__device__ void load_projections(vjp_problem<T> const& problem, vjp_memory<T>& m,
                                 vjp_barriers& bar) {
  unsigned parity = 0;
  vjp_work::for_each(problem.of, [&](vjp_work const& w) {
    bar.projections_free.wait(parity ^ 1);
    bar.projections_here.arrive_expecting(sizeof(m.B) + sizeof(m.C));
    for (int n = 0; n < 2; ++n) {
      corner const at{64 * n, w.group, w.chunk * vjp_steps, w.b};
      load_box(&m.B[n], problem.B, at, bar.projections_here);
      load_box(&m.C[n], problem.C, at, bar.projections_here);
    }
    parity ^= 1;
  });
}

/// One warp: the skips of tile after tile.
template <class T>
__device__ void load_skips(dual_vjp_problem<T> const& p, vjp_memory<T>& m, vjp_barriers& bar) {
  ring<vjp_stages> at;
  int const lane = static_cast<int>(threadIdx.x) % 32, slabs = static_cast<int>(p.channel_tiles);
  vjp_work::for_each(p, [&](vjp_work const& w) {
    w.for_each_tile([&](int tile) {
      float D[2];
      for (int i = 0; i < 2; ++i) {
        D[i] = p.skip(tile / slabs, tile % slabs * vjp_channels + lane + 32 * i);
      }
      bar.head_free[at.place].wait(at.parity ^ 1);
      for (int i = 0; i < 2; ++i) m.heads[at.place].D[lane + 32 * i] = D[i];
      bar.head_here[at.place].arrive_for_warp();
      at.advance();
    });
  });
}

/// One warp: from the sums of tile after tile to memory.
template <class T>
__device__ void store_sums(dual_vjp_problem<T> const& p, vjp_memory<T>& m, vjp_barriers& bar) {
  ring<buffers> at;
  int const k = 2 * (static_cast<int>(threadIdx.x) % 32);
  vjp_work::for_each(p, [&](vjp_work const& w) {
    w.for_each_tile([&](int tile) {
      vjp_sums const& s = m.sums[at.place];
      bar.sums_here[at.place].wait(at.parity);
      auto const two = [&](float const(&of)[vjp_steps]) {
        return *reinterpret_cast<float2 const*>(&of[k]);
      };
      float2 crossing{0.0f, 0.0f};
      float through = 0.0f;
      for (int i = 0; i < 4; ++i) {
        crossing.x += two(s.crossing[i]).x, crossing.y += two(s.crossing[i]).y;
        through += bar.through[at.place][i];
      }
      store_step_gradients({two(s.drive), two(s.into_state), two(s.from_state), crossing, through},
                           p.step_sums_of(0, w.b, tile, w.chunk));
      if (p.wants_D) {
        float* const to = p.sums + (w.b * p.chunks + w.chunk) * p.sum_columns() +
                          head_sums * p.heads + tile * vjp_channels + k;
        to[0] = s.D[k], to[1] = s.D[k + 1];
      }
      bar.sums_free[at.place].arrive_for_warp();
      at.advance();
    });
  });
}

}  // namespace ssm::gpu::detail::hopper
