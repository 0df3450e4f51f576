// SPDX-License-Identifier: Apache-2.0
// dual_hopper_block.cuh: a block of Mamba-2's kernel on Hopper: which heads and steps it has, what
// it keeps in shared memory, and its warps that bring tiles and step sizes.
#pragma once

#include "ssm/detail/dual_hopper_instructions.cuh"
#include "ssm/detail/dual_hopper_products.cuh"
#include "ssm/detail/dual_problem.cuh"

namespace ssm::gpu::detail::hopper {

/// Steps that are worked on at once, and channels of a slab: a head has one slab or two.
inline constexpr int chunk = 64, slab_channels = 64;
/// Slabs of a block, which share B and C; a warpgroup each.
inline constexpr int block_slabs = 2;
/// Chunks whose tiles are in shared memory, and chunks that all else is kept of: one is worked on
/// while the next ones are brought and made.
inline constexpr int stages = 3, buffers = 2;

/// What the kernel is given: the problem, and its inputs as the copy engine sees them, axes
/// (state or channel, group or head, time, batch), in boxes of 64 columns of 64 steps.
template <class T>
struct problem {
  dual_problem<T> of;
  CUtensorMap x, gate, B, C;
  int slabs, group_slabs;  // of a head, of a group

  __device__ corner corner_of(int slab, int time, int b) const {
    return {slab % slabs * slab_channels, slab / slabs, time, b};
  }
};

/// 64 rows of 64 elements, swizzled: 16 bytes c of row r are at c ^ (r % 8).
template <class T>
struct alignas(1024) tile {
  T element[64 * 64];
};

template <class T>
__device__ tile_rows rows_of(tile<T> const& first) {
  return {shared_address(&first) / 16};
}
template <class T, int Count>
__device__ tile_rows rows_of(tile<T> const (&tiles)[Count]) {
  return rows_of(tiles[0]);
}

/// What is known of two steps that follow each other: what is left of the state that enters the
/// chunk, and the weights of their x in the state that leaves it, as words of 16 bits: rounded, and
/// what that left out.
struct step_pair {
  float2 left;
  unsigned weight, weight_rest;
};

/// 16 rows of 32 bytes, two packets, such that no bank meets itself.
struct warp_rows {
  uint4 packet[32];
  __device__ uint4& at(int row, int half) { return packet[2 * row + (half ^ (row / 4 % 2))]; }
};

template <class T, int States>
struct block_memory {
  static constexpr int columns = States / 64;
  tile<T> B[stages][columns], C[stages][columns];
  tile<T> x[stages][block_slabs];
  tile<T> gate[buffers][block_slabs];
  tile<T> mixing[buffers][block_slabs];  // row t: what y_t takes from x_s of the chunk
  warp_rows rows[block_slabs][4][2];     // y on its way to memory
  step_pair pairs[buffers][block_slabs][chunk / 2];
  // For each step of a chunk: Σ of log2 of the decays up to it, and Δ; Δ times the decay to the end
  // of its 16 steps; the step that its sequence begins with, -1 for one that goes on.
  float2 sums[buffers][block_slabs][chunk];
  float nearby[buffers][block_slabs][chunk];
  int first[buffers][block_slabs][chunk];
  bool is_cut[buffers][block_slabs];   // whether a sequence begins in the chunk
  bool is_over[buffers][block_slabs];  // whether nothing before the chunk is left (first pass)
};

/// What says that something is there, and when its place is free again: tiles (B, C and x), gates,
/// and what is made of step sizes and then of those, C and B.
struct block_barriers {
  barrier tiles_here[stages], tiles_free[stages];
  barrier gate_here[buffers], gate_free[buffers];
  barrier steps_here[buffers], mixing_here[buffers], mixing_free[buffers];

  /// `readers` of step sizes and mixings besides the slabs.
  __device__ void init(int slabs, unsigned readers) {
    unsigned const steps_warps = static_cast<unsigned>(slabs), slab_warps = 4 * steps_warps;
    for (int s = 0; s < stages; ++s) {
      tiles_here[s].init(1), tiles_free[s].init(slab_warps);
    }
    for (int s = 0; s < buffers; ++s) {
      gate_here[s].init(1), gate_free[s].init(slab_warps);
      steps_here[s].init(steps_warps), mixing_here[s].init(4),
          mixing_free[s].init(slab_warps + readers);
    }
    publish_barriers();
  }
};

/// What this block works on: up to two slabs of a group and the chunks of one segment of time.
/// Blocks (pair of slabs, segment, batch): those that run at the same time share B and C.
struct block_work {
  int slab, slabs, group, chunks;  // slab: the first
  int first_step, segment, b;

  template <class T>
  __device__ explicit block_work(problem<T> const& p) {
    int const group_slabs = static_cast<int>(p.group_slabs);
    int const pairs = (group_slabs + block_slabs - 1) / block_slabs;
    int const pair = static_cast<int>(blockIdx.x) % pairs;
    group = static_cast<int>(blockIdx.x) / pairs;
    slab = group * group_slabs + pair * block_slabs;
    slabs = group_slabs - pair * block_slabs < block_slabs ? 1 : block_slabs;
    segment = static_cast<int>(blockIdx.y), b = static_cast<int>(blockIdx.z);
    int const length = static_cast<int>(p.of.length);
    int const segment_length = static_cast<int>(p.of.segment_length);
    first_step = segment * segment_length;
    int const left = length - first_step;
    chunks = ((left < segment_length ? left : segment_length) + chunk - 1) / chunk;
  }
  __device__ int time(int c) const { return first_step + c * chunk; }
};

/// Where chunk c is kept of `Places` chunks, and the parity of its turn there.
template <unsigned Places>
struct place_of {
  unsigned place, parity;
  __device__ explicit place_of(int c)
      : place{unsigned(c) % Places}, parity{unsigned(c) / Places % 2} {}
};
using stage_of = place_of<stages>;
using buffer_of = place_of<buffers>;

/// One thread: ask for the tiles of chunk after chunk. Gates, of which fewer chunks are kept, are
/// asked for one chunk later.
template <class T, int States>
__device__ void load_tiles(problem<T> const& p, block_work const& w, block_memory<T, States>& m,
                           block_barriers& barriers) {
  constexpr unsigned bytes = sizeof(tile<T>);
  bool const reads_gate = p.of.gate.data_handle() != nullptr;
  unsigned const slabs = static_cast<unsigned>(w.slabs);
#pragma unroll 1
  for (int c = 0; c < w.chunks + (reads_gate ? 1 : 0); ++c) {
    if (c < w.chunks) {
      auto const [s, parity] = stage_of(c);
      barriers.tiles_free[s].wait(parity ^ 1);
      barriers.tiles_here[s].arrive_expecting((slabs + 2 * m.columns) * bytes);
      for (int n = 0; n < m.columns; ++n) {
        corner const at{64 * n, w.group, w.time(c), w.b};
        load_box(&m.C[s][n], p.C, at, barriers.tiles_here[s]);
        load_box(&m.B[s][n], p.B, at, barriers.tiles_here[s]);
      }
#pragma unroll 1
      for (int k = 0; k < w.slabs; ++k) {
        load_box(&m.x[s][k], p.x, p.corner_of(w.slab + k, w.time(c), w.b), barriers.tiles_here[s]);
      }
    }
    if (!reads_gate || c == 0) continue;
    auto const [f, parity] = buffer_of(c - 1);
    barriers.gate_free[f].wait(parity ^ 1);
    barriers.gate_here[f].arrive_expecting(slabs * bytes);
#pragma unroll 1
    for (int k = 0; k < w.slabs; ++k) {
      load_box(&m.gate[f][k], p.gate, p.corner_of(w.slab + k, w.time(c - 1), w.b),
               barriers.gate_here[f]);
    }
  }
}

/// Of the steps up to lane's pair, the last one that begins a sequence: bits of the first and of
/// the second steps of all pairs. -1: none.
__device__ inline int last_start(unsigned first, unsigned second) {
  int const a = first == 0 ? -1 : 2 * (31 - __clz(static_cast<int>(first)));
  int const b = second == 0 ? -1 : 2 * (31 - __clz(static_cast<int>(second))) + 1;
  return a > b ? a : b;
}

/// Whether nothing before a chunk of the first pass is left, in all slabs.
template <class T, int States>
__device__ bool is_over(block_memory<T, States> const& m, unsigned f, int slabs) {
  return m.is_over[f][0] && (slabs == 1 || m.is_over[f][1]);
}

/// One warp: step sizes and decays of slab k, two steps a lane, of chunk after chunk. In the first
/// pass from the last one back, weights up to the end of the segment, until nothing that is further
/// back is left; then what is left of the state that entered before the chunks.
template <bool IsFirstPass, class T, int States>
__device__ float find_steps(problem<T> const& problem, block_work const& w,
                            block_memory<T, States>& m, block_barriers& barriers, int k) {
  dual_problem<T> const& p = problem.of;
  int const lane = static_cast<int>(threadIdx.x) % 32;
  int const head = (w.slab + k) / problem.slabs;
  float const rate = p.rate(head), bias = p.bias(head), factor = p.scaling.step_factor(head);
  bool const has_sequences = p.sequence.data_handle() != nullptr;
  index_t const stride = p.step_size.stride(1);
  constexpr int advance = IsFirstPass ? -chunk : chunk;
  float const least = p.negligible > 0.0f ? log2f(p.negligible) : -INFINITY;
  float passed = 0.0f;  // of the chunks so far, log2 of their decay
  int t = w.time(IsFirstPass ? w.chunks - 1 : 0) + 2 * lane, left = static_cast<int>(p.length) - t;
  T const* from = &p.step_size(w.b, t, head);
  T next[2];
  auto const request = [&] {
    next[0] = left > 0 ? from[0] : T{};
    next[1] = left > 1 ? from[stride] : T{};
  };
  request();
#pragma unroll 1
  for (int c = 0; c < w.chunks; ++c) {
    float step[2] = {to_number(next[0]), to_number(next[1])};
    bool const is_step[2] = {left > 0, left > 1};
    int begin[2] = {-1, -1}, last = -1;
    if (has_sequences) {
      unsigned const first = __ballot_sync(~0u, p.starts_sequence(w.b, t));
      unsigned const second = __ballot_sync(~0u, p.starts_sequence(w.b, t + 1));
      unsigned const up_to = ~0u >> (31 - lane);
      begin[0] = last_start(first & up_to, second & (up_to >> 1));
      begin[1] = last_start(first & up_to, second & up_to);
      last = last_start(first, second);
    }
    t += advance, left -= advance, from += advance * stride;
    if (c + 1 < w.chunks) request();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      // Steps after the last one change nothing.
      step[i] = is_step[i] ? p.step(step[i], bias, factor) : 0.0f;
    }
    float const decay = p.log2_decay(rate, step[0]);
    float sum = decay + p.log2_decay(rate, step[1]);
#pragma unroll
    for (int far = 1; far < 32; far *= 2) {
      float const before = __shfl_up_sync(~0u, sum, static_cast<unsigned>(far));
      if (lane >= far) sum += before;
    }
    float const all = __shfl_sync(~0u, sum, 31), end = __shfl_sync(~0u, sum, lane | 7);
    float const before = __shfl_up_sync(~0u, sum, 1);
    float const here = lane == 0 ? decay : before + decay;
    float2 const left_here{begin[0] < 0 ? exp2(here) : 0.0f, begin[1] < 0 ? exp2(sum) : 0.0f};
    float const after = passed + all;
    float2 const weight{2 * lane >= last ? step[0] * exp2(after - here) : 0.0f,
                        2 * lane + 1 >= last ? step[1] * exp2(after - sum) : 0.0f};
    unsigned const rounded = to_word<T>(weight.x, weight.y);
    float2 const stored = from_word<T>(rounded);

    auto const [s, parity] = buffer_of(c);
    barriers.mixing_free[s].wait(parity ^ 1);
    m.pairs[s][k][lane] = {left_here, rounded,
                           to_word<T>(weight.x - stored.x, weight.y - stored.y)};
    if (lane == 0) m.is_cut[s][k] = last >= 0;
    if constexpr (IsFirstPass) {
      passed = last >= 0 ? -INFINITY : after;
      if (lane == 0) m.is_over[s][k] = passed < least || last >= 0;
      barriers.steps_here[s].arrive_for_warp();
      barriers.steps_here[s].wait(parity);
      if (is_over(m, s, w.slabs)) return c + 1 < w.chunks ? 0.0f : exp2(passed);
      continue;
    }
    reinterpret_cast<float4*>(m.sums[s][k])[lane] = {here, step[0], sum, step[1]};
    reinterpret_cast<float2*>(m.nearby[s][k])[lane] = {step[0] * exp2(end - here),
                                                       step[1] * exp2(end - sum)};
    reinterpret_cast<int2*>(m.first[s][k])[lane] = {begin[0], begin[1]};
    barriers.steps_here[s].arrive_for_warp();
  }
  return exp2(passed);
}

}  // namespace ssm::gpu::detail::hopper
