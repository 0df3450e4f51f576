// SPDX-License-Identifier: Apache-2.0
// dual_hopper_slab.cuh: Mamba-2's operator on Hopper for 64 channels of a head, by a warpgroup.
#pragma once

#include "ssm/detail/dual_hopper_block.cuh"
#include "ssm/detail/dual_hopper_products.cuh"
#include "ssm/detail/dual_hopper_state.cuh"
#include "ssm/detail/early_launch.cuh"

namespace ssm::gpu::detail::hopper {

/// What a thread of the warpgroup has of accumulators, and which 16 bytes of a tile (time, channel)
/// it addresses for four matrices.
struct slab_lane {
  int row, column;
  unsigned tile_offset;

  __device__ slab_lane() {
    int const lane = static_cast<int>(threadIdx.x) % 32;
    int const warp = static_cast<int>(threadIdx.x) / 32 % 4;
    row = 16 * warp + lane / 4, column = 2 * (lane % 4);
    int const sixteen_bytes = (2 * warp + lane / 8 % 2) ^ (lane % 8);
    tile_offset = static_cast<unsigned>((lane / 16 * 8 + lane % 8) * 128 + sixteen_bytes * 16);
  }

  /// Sixteen of the tile's rows, transposed: as accumulators, two columns a word.
  template <class T>
  __device__ void load(unsigned (&words)[4], tile<T> const& from, unsigned sixteen) const {
    load_transposed(words, shared_address(&from) + tile_offset + sixteen * sixteen_rows);
  }
  template <class T>
  __device__ void load(unsigned (&words)[4][4], tile<T> const& from) const {
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) load(words[i], from, i);
  }
};

/// X, whose columns are steps, times their weights in the state that leaves the chunk. `pairs`
/// begins with this lane's.
template <class T>
__device__ void weigh(unsigned const (&x)[4][4], step_pair const* pairs,
                      unsigned (&weighted)[4][4]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    uint2 const weight = *reinterpret_cast<uint2 const*>(&pairs[4 * i].weight);
#pragma unroll
    for (int j = i % 2 * 2; j < i % 2 * 2 + 2; ++j) {
      unsigned& word = weighted[i / 2][j];
      word = scaled<T>(x[i / 2][j], weight.x, weight.y);
    }
  }
}

/// A weight of 0 leaves nothing, even of an infinite x.
template <class T>
__device__ void forget(step_pair const* pairs, unsigned (&weighted)[4][4]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    unsigned const weight = pairs[4 * i].weight;
    unsigned const kept = (weight & 0xffffu ? 0xffffu : 0) | (weight >> 16 ? 0xffff0000u : 0);
    weighted[i / 2][i % 2 * 2] &= kept;
    weighted[i / 2][i % 2 * 2 + 1] &= kept;
  }
}

/// The two slabs of a block multiply in turn, so that each does what is not a product while the
/// other one's products run.
class turns {
 public:
  __device__ turns(int slab, int slabs) : own_{1 + slab}, other_{2 - slab}, is_shared_{slabs == 2} {
    if (is_shared_ && slab == 1) pass();
  }
  __device__ void take() const {
    if (is_shared_) asm volatile("bar.sync %0, 256;" ::"r"(own_) : "memory");
  }
  __device__ void pass() const {
    if (is_shared_) asm volatile("bar.arrive %0, 256;" ::"r"(other_) : "memory");
  }

 private:
  int own_, other_;
  bool is_shared_;
};

/// y, as accumulators, of this warp's 16 channels, to memory: through `own` shared memory, 16 steps
/// at a time, of which two lanes store 32 bytes of each.
template <class T>
__device__ void store_rows(float const (&y)[32], T* to, index_t stride, int left,
                           warp_rows (&own)[2]) {
  int const lane = static_cast<int>(threadIdx.x) % 32;
  int const row = lane / 2, written_row = lane / 16 * 8 + lane % 8;
  to += row * stride + lane % 2 * 8;
#pragma unroll
  for (int i = 0; i < 4; ++i, to += 16 * stride) {
    unsigned words[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) words[j] = to_word<T>(y[8 * i + 2 * j], y[8 * i + 2 * j + 1]);
    store_transposed(words, shared_address(&own[i % 2].at(written_row, lane / 8 % 2)));
    __syncwarp();
    uint4 const packet = own[i % 2].at(row, lane % 2);
    if (16 * i + row < left) *reinterpret_cast<uint4*>(to) = packet;
  }
}

/// One warpgroup: y and the state of slab k. For a chunk, with channels as rows:
///   Y = S C^T                              from the state that enters, in registers
///   Y = Y · left_t + X M^T                 and from x of the chunk, M of mix()
///   S = S · left_last + (X · weight_t) B   while the skip and the gate of y are done
template <class T, int States>
__device__ void run_slab(problem<T> const& problem, block_work const& w, block_memory<T, States>& m,
                         block_barriers& barriers, int k) {
  dual_problem<T> const& p = problem.of;
  slab_lane const lane;
  corner const first = problem.corner_of(w.slab + k, 0, w.b);
  int const head = first.head, channel = first.column + lane.row;
  float const skip[2] = {p.skip(head, channel), p.skip(head, channel + 8)};
  bool const is_gated = p.gate.data_handle() != nullptr;
  int const warp = static_cast<int>(threadIdx.x) / 32 % 4;
  T* to = &p.y(w.b, w.first_step, head, first.column + 16 * warp);
  slab_state<T, States> state(p, w.b, head, channel, lane.column);
  wait_for_earlier_kernels();  // but for the first pass, all had ended before this block began
  admit_next_kernel();
  state.enter(w.segment);
  turns const turn(k, w.slabs);

#pragma unroll 1
  for (int c = 0; c < w.chunks; ++c) {
    auto const [s, stage_parity] = stage_of(c);
    auto const [f, parity] = buffer_of(c);
    unsigned operand[state.count / 2];
#pragma unroll
    for (int i = 0; i < state.count / 2; ++i) {
      operand[i] = to_word<T>(state.sums[2 * i], state.sums[2 * i + 1]);
    }
    barriers.mixing_here[f].wait(parity);
    step_pair const* const pairs = m.pairs[f][k] + lane.column / 2;
    bool const is_cut = m.is_cut[f][k];
    state.decay(m.pairs[f][k][chunk / 2 - 1].left.y);
    barriers.tiles_here[s].wait(stage_parity);
    unsigned x[4][4];
    lane.load(x, m.x[s][k]);

    turn.take();
    float y[32];
    tile_rows const C = rows_of(m.C[s]);
    begin_products();
#pragma unroll
    for (unsigned n = 0; n < States / 16; ++n) {
      unsigned const at = n / 4 * sizeof(tile<T>) + n % 4 * 32;
      multiply_rows<T>(y, &operand[4 * n], C + at, n > 0);
    }
    end_products();
    float2 left[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) left[i] = pairs[4 * i].left;
    wait_for_products_but<0>();
    hold(y);
#pragma unroll
    for (int i = 0; i < 32; ++i) y[i] *= i % 2 ? left[i / 4].y : left[i / 4].x;
    if (__builtin_expect(is_cut, 0)) {  // nothing is left, even of a state that is infinite
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        if ((i % 2 ? left[i / 4].y : left[i / 4].x) == 0.0f) y[i] = 0.0f;
      }
    }
    hold(y);
    begin_products();
    tile_rows const mixing = rows_of(m.mixing[f][k]);
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) multiply_rows<T>(y, x[i], mixing + 32 * i, true);
    end_products();
    unsigned weighted[4][4];
    weigh<T>(x, pairs, weighted);
    if (__builtin_expect(is_cut, 0)) forget<T>(pairs, weighted);
    hold(state.sums);
    begin_products();
    state.add(weighted, rows_of(m.B[s]), is_cut);
    end_products();
    turn.pass();

    wait_for_products_but<1>();
    hold(y);
    barriers.mixing_free[f].arrive_for_warp();
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      float2 const in = from_word<T>(x[i / 4][i % 4]);
      y[2 * i] = fmaf(skip[i % 2], in.x, y[2 * i]);
      y[2 * i + 1] = fmaf(skip[i % 2], in.y, y[2 * i + 1]);
    }
    if (is_gated) {
      barriers.gate_here[f].wait(parity);
#pragma unroll
      for (unsigned i = 0; i < 4; ++i) {
        unsigned gate[4];
        lane.load(gate, m.gate[f][k], i);
#pragma unroll
        for (unsigned j = 0; j < 4; ++j) {
          float2 const z = from_word<T>(gate[j]);
          float* const out = &y[8 * i + 2 * j];
          out[0] *= z.x * sigmoid(z.x), out[1] *= z.y * sigmoid(z.y);
        }
      }
      barriers.gate_free[f].arrive_for_warp();
    }
    store_rows(y, to, p.y.stride(1), static_cast<int>(p.length) - w.time(c), m.rows[k][warp]);
    to += chunk * p.y.stride(1);
    wait_for_products_but<0>();
    hold(state.sums);
    barriers.tiles_free[s].arrive_for_warp();
  }
  if (w.segment == p.segments - 1) state.store(p.carry);
}

}  // namespace ssm::gpu::detail::hopper
