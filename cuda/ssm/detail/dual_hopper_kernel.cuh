// SPDX-License-Identifier: Apache-2.0
// dual_hopper_kernel.cuh: Mamba-2's operator on Hopper: the warpgroups of a block and their work.
#pragma once

#include "ssm/detail/dual_hopper_block.cuh"
#include "ssm/detail/dual_hopper_products.cuh"
#include "ssm/detail/dual_hopper_slab.cuh"

namespace ssm::gpu::detail::hopper {

/// In 16 rows of a mixing, leave nothing of the steps before a row's sequence.
template <class T, int States>
__device__ void forget_other_sequences(block_memory<T, States>& m, unsigned f, int k, int row) {
  __syncwarp();
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x) % 32; i < 16 * chunk; i += 32) {
    int const r = row + i / chunk, from = i % chunk;
    if (from < m.first[f][k][r]) {
      m.mixing[f][k].element[r * 64 + ((from / 8) ^ (r % 8)) * 8 + from % 8] = T{};
    }
  }
}

/// Of both slabs, 16 rows of what each step takes from the x of the chunk: C B^T, decayed and
/// rounded, up to the diagonal. The decay between two blocks of 16 steps is that to the end of the
/// first, times that from there. Slabs side by side, so that one's numbers come while the other's
/// are used (1 x 80 x 65536 0.89 to 0.80 ms).
template <class T, int States>
__device__ void mix_rows(float const (&product)[32], block_memory<T, States>& m, unsigned f,
                         int slabs) {
  int const lane = static_cast<int>(threadIdx.x) % 32;
  int const warp = static_cast<int>(threadIdx.x) / 32 % 4;
  int const row = 16 * warp + lane / 4, column = 2 * (lane % 4);  // of the accumulators
  int const stored_row = 16 * warp + lane % 16, stored_half = lane / 16;
  unsigned const to = shared_address(&m.mixing[f]) + static_cast<unsigned>(stored_row) * 128;
  // As in the accumulators: two columns, eight rows further down, eight columns on.
  float weight[block_slabs][8];
  auto const store = [&](float const* block, int i) {
    auto const sixteen_bytes = static_cast<unsigned>((2 * i + stored_half) ^ (stored_row % 8));
#pragma unroll
    for (unsigned k = 0; k < block_slabs; ++k) {
      unsigned words[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        words[j] =
            to_word<T>(block[2 * j] * weight[k][2 * j], block[2 * j + 1] * weight[k][2 * j + 1]);
      }
      store_matrices(words, to + k * sizeof(tile<T>) + sixteen_bytes * 16);
    }
  };
  float own[block_slabs][2];
#pragma unroll
  for (int k = 0; k < block_slabs; ++k) {
    own[k][0] = m.sums[f][k][row].x, own[k][1] = m.sums[f][k][row + 8].x;
  }
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    if (i >= warp) break;
#pragma unroll
    for (int k = 0; k < block_slabs; ++k) {
      float const end = m.sums[f][k][16 * i + 15].x;
      float const beyond[2] = {exp2(own[k][0] - end), exp2(own[k][1] - end)};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        auto const* const nearby = &m.nearby[f][k][16 * i + 8 * half + column];
        float2 const near = *reinterpret_cast<float2 const*>(nearby);
#pragma unroll
        for (int below = 0; below < 2; ++below) {
          weight[k][4 * half + 2 * below] = beyond[below] * near.x;
          weight[k][4 * half + 2 * below + 1] = beyond[below] * near.y;
        }
      }
    }
    store(product + 8 * i, i);
  }
  float diagonal[8];
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    float const low = warp % 2 == 0 ? product[j] : product[8 + j];
    float const high = warp % 2 == 0 ? product[16 + j] : product[24 + j];
    diagonal[j] = warp < 2 ? low : high;
  }
#pragma unroll
  for (int k = 0; k < block_slabs; ++k) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int const from = 8 * half + column;
      float4 const two = *reinterpret_cast<float4 const*>(&m.sums[f][k][16 * warp + from]);
#pragma unroll
      for (int below = 0; below < 2; ++below) {
        int const after = lane / 4 + 8 * below - from;
        float const decay[2] = {exp2(own[k][below] - two.x), exp2(own[k][below] - two.z)};
        weight[k][4 * half + 2 * below] = after >= 0 ? decay[0] * two.y : 0.0f;
        weight[k][4 * half + 2 * below + 1] = after >= 1 ? decay[1] * two.w : 0.0f;
      }
    }
  }
  store(diagonal, warp);
#pragma unroll 1
  for (int k = 0; k < slabs; ++k) {
    if (m.is_cut[f][k]) forget_other_sequences(m, f, k, row / 16 * 16);
  }
}

/// A warpgroup: C B^T of a chunk, once for both slabs, and the decays of each.
template <class T, int States>
__device__ void mix(block_work const& w, block_memory<T, States>& m, block_barriers& barriers) {
#pragma unroll 1
  for (int c = 0; c < w.chunks; ++c) {
    auto const [s, stage_parity] = stage_of(c);
    auto const [f, parity] = buffer_of(c);
    float product[32];
    barriers.tiles_here[s].wait(stage_parity);
    tile_rows const C = rows_of(m.C[s]), B = rows_of(m.B[s]);
    begin_products();
#pragma unroll
    for (unsigned n = 0; n < States / 16; ++n) {
      unsigned const at = n / 4 * sizeof(tile<T>) + n % 4 * 32;
      multiply_rows<T>(product, C + at, B + at, n > 0);
    }
    end_products();
    barriers.steps_here[f].wait(parity);
    barriers.mixing_free[f].wait(parity ^ 1);
    wait_for_products_but<0>();
    hold(product);
    mix_rows(product, m, f, w.slabs);
    publish_stores();
    barriers.mixing_here[f].arrive_for_warp();
  }
}

inline constexpr unsigned block_threads = 128 * (2 + block_slabs);

/// Mamba-2's operator over one segment of time for up to two slabs of 64 channels. Four
/// warpgroups: one brings tiles and step sizes, one multiplies C and B and spreads the decays, and
/// two have a slab each (run_slab). Compiled for sm_90a alone; elsewhere it is empty and has no
/// static shared memory, which is how is_compiled_for_hopper knows.
template <class T, int States>
__global__ void __launch_bounds__(block_threads, 1)
    dual_hopper_kernel(__grid_constant__ problem<T> const p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char dynamic[];
  __shared__ block_barriers barriers;
  auto& m = *reinterpret_cast<block_memory<T, States>*>(dynamic);
  block_work const w(p);
  if (p.of.segments == 1) wait_for_earlier_kernels();  // or the first pass has
  if (threadIdx.x == 0) barriers.init(w.slabs, 0);
  // What is above the diagonal stays zero.
  for (unsigned i = threadIdx.x; i < sizeof(m.mixing) / 16; i += block_threads) {
    reinterpret_cast<uint4*>(m.mixing)[i] = uint4{};
  }
  publish_stores();
  __syncthreads();

  int const group = static_cast<int>(threadIdx.x) / 128, warp = static_cast<int>(threadIdx.x) / 32;
  if (group == 0) {
    give_registers<40>();
    if (warp < w.slabs) find_steps<false>(p, w, m, barriers, warp);
    if (threadIdx.x == 32 * block_slabs) load_tiles(p, w, m, barriers);
  } else if (group == 1) {
    give_registers<88>();
    mix(w, m, barriers);
  } else {
    take_registers<192>();
    if (group - 2 < w.slabs) run_slab(p, w, m, barriers, group - 2);
  }
#endif
}

}  // namespace ssm::gpu::detail::hopper
