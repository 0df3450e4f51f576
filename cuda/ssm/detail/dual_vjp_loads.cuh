// SPDX-License-Identifier: Apache-2.0
// dual_vjp_loads.cuh: from inputs and workspace to tiles in shared memory, and back to gradients.
#pragma once

#include "ssm/detail/dual_vjp_problem.cuh"
#include "ssm/detail/dual_vjp_products.cuh"

namespace ssm::gpu::detail {

/// Copy 16 bytes to shared memory while the thread goes on, of which all but the first `bytes` are
/// zeros.
template <class T>
__device__ void request_unit(T* to_shared, void const* from_global, int bytes) {
  auto const to = static_cast<unsigned>(__cvta_generic_to_shared(to_shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to),
               "l"(__cvta_generic_to_global(from_global)), "r"(bytes)
               : "memory");
}

/// Thread `thread` of some asks for 64 rows of a tile, `pitch` elements apart, zeros beyond the
/// first `rows` and `columns`. The tile is there after the end of these requests and a barrier.
/// Where nothing is wanted nothing is read, wherever that lies.
template <int Threads, class Tile, class T>
__device__ void request_rows(int thread, Tile const& tile, T const* first, index_t pitch, int rows,
                             int columns) {
  constexpr int unit = Tile::unit, line = 8 * unit, step = Threads / 8;  // eight units, rows
  static_assert(step % 8 == 0 && vjp_steps % step == 0);
  int const row = thread / 8, column = thread % 8 * unit;
#pragma unroll
  for (int more = 0; more < Tile::columns; more += line) {
    int const left = min(max(columns - column - more, 0), unit) * static_cast<int>(sizeof(T));
    T const* from = first + row * pitch + column + more;
#pragma unroll
    for (int i = 0; i < vjp_steps; i += step, from += step * pitch) {
      request_unit(tile.at(row, column, more, i), from, i + row < rows ? left : 0);
    }
  }
}

/// Ask for a tile as it lies in the workspace, row by row.
template <int Threads, class Tile, class Stored>
__device__ void request_states(int thread, Tile const& tile, Stored const* from) {
  request_rows<Threads>(thread, tile, from, Tile::columns, vjp_channels, Tile::columns);
}

/// Ask for what dual_vjp_steps_kernel left of a chunk.
template <int Threads>
__device__ void request_steps(int thread, float* to, float const* from) {
#pragma unroll
  for (int i = 4 * thread; i < step_numbers; i += 4 * Threads) request_unit(to + i, from + i, 16);
}

/// Ask for the skips D of 64 channels, zeros beyond the first `channels`.
__device__ inline void request_skips(int thread, float* to, float const* from, index_t stride,
                                     int channels) {
  if (thread >= vjp_channels) return;
  bool const is_there = thread < channels;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(
                   static_cast<unsigned>(__cvta_generic_to_shared(to + thread))),
               "l"(__cvta_generic_to_global(from + (is_there ? thread * stride : 0))),
               "r"(is_there ? 4 : 0)
               : "memory");
}

/// The numbers of a chunk's steps in shared memory.
struct chunk_steps {
  float const* data;

  __device__ float const* all(step_number number) const {
    return data + static_cast<int>(number) * vjp_steps;
  }
  __device__ float step(int i) const { return all(step_number::step)[i]; }
  __device__ float high(int i) const { return all(step_number::high)[i]; }
  __device__ float low(int i) const { return all(step_number::low)[i]; }
  __device__ float entered(int i) const { return all(step_number::entered)[i]; }
  __device__ float leaving(int i) const { return all(step_number::leaving)[i]; }
  __device__ float driven(int i) const { return all(step_number::driven)[i]; }
};

/// From cotangents of y and gates those before the gate, g silu(z); and what their gradients are
/// with y before the gate, g silu'(z), in place of gates.
template <int Threads, class Tile>
__device__ void pull_back_gates(Tile const& cotangents, Tile const& gates) {
#pragma unroll 4
  for (int i = 0; i < vjp_steps * vjp_channels / 2 / Threads; ++i) {
    int const at = i * Threads + static_cast<int>(threadIdx.x);
    int const row = at / (vjp_channels / 2), column = at % (vjp_channels / 2) * 2;
    float2 const g = cotangents.pair(row, column), z = gates.pair(row, column);
    float const s0 = sigmoid(z.x), s1 = sigmoid(z.y);
    cotangents.set_pair(row, column, 0, g.x * z.x * s0, g.y * z.y * s1);
    // silu' = s (1 + z (1 - s)); 1 - s(z) = s(-z)
    gates.set_pair(row, column, 0, g.x * s0 * fmaf(z.x, sigmoid(-z.x), 1.0f),
                   g.y * s1 * fmaf(z.y, sigmoid(-z.y), 1.0f));
  }
}

/// Add to two neighbours that no other thread reaches, or store over them, without waiting where
/// the device can.
__device__ inline void give_pair(float* to, float a, float b, bool adds) {
  float2& two = *reinterpret_cast<float2*>(to);
  if (!adds) {
    two = {a, b};
    return;
  }
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(to), "f"(a), "f"(b) : "memory");
#else
  float2 const was = two;
  two = {was.x + a, was.y + b};
#endif
}

/// The same where `is_wanted`, on Hopper, without a branch.
__device__ inline void give_pair_if(bool is_wanted, float* to, float a, float b, bool adds) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n.reg .pred wanted, adds;\nsetp.ne.b32 adds, %4, 0;\n"
      "setp.ne.and.b32 wanted, %3, 0, adds;\n"
      "@wanted red.global.add.v2.f32 [%0], {%1, %2};\n"
      "setp.ne.and.b32 wanted, %3, 0, !adds;\n"
      "@wanted st.global.v2.f32 [%0], {%1, %2};\n}" ::"l"(to),
      "f"(a), "f"(b), "r"(int(is_wanted)), "r"(int(adds))
      : "memory");
#else
  if (is_wanted) give_pair(to, a, b, adds);
#endif
}

}  // namespace ssm::gpu::detail
