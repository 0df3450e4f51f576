// SPDX-License-Identifier: Apache-2.0
// dual_vjp_chunk.cuh: what a block that pulls back a chunk of time works on, and the sums of a head
// that it leaves.
#pragma once

#include "ssm/detail/dual_vjp_loads.cuh"
#include "ssm/detail/dual_vjp_steps.cuh"

namespace ssm::gpu::detail {

/// Warps of a block are 4 bands of 16 rows of a product by 2 halves of its columns.
inline constexpr int vjp_bands = 4;
inline constexpr int vjp_halves = 2;

/// Sums over the fragments of warps, for each step of a chunk or channel.
struct alignas(256) chunk_sums {
  float drive[vjp_halves][vjp_steps];       // x·u, of the gradient of the step size
  float into_state[vjp_halves][vjp_steps];  // Δ_j x_j·(w_j B_j·g): terms that enter the state at j
  float from_state[vjp_halves][vjp_steps];  // C_i·(e_i dy_i·h): terms that leave it at i
  float crossing[vjp_bands][vjp_steps];     // terms from steps <= j of j's half to later rows
  float from_first_half[vjp_steps];         // terms from the first 32 steps to row i
  float D[vjp_bands][vjp_channels];
  float through[vjp_bands * vjp_halves];  // 2^S_last h·g
};

/// Shared memory: B and C, what mixes the steps of a chunk, sums of two heads, and stages of what
/// belongs to one head.
template <class T, int States>
struct chunk_shape {
  using stored = typename products_of<T>::stored;
  using step_tile = matrix_tile<stored, vjp_steps>;  // (step, step) or (step, channel)
  using state_tile = matrix_tile<stored, States>;    // (step, state) or (channel, state)
  static constexpr int threads = 32 * vjp_bands * vjp_halves;
  static constexpr int step_elements = vjp_steps * vjp_steps;
  static constexpr int state_elements = vjp_steps * States;
  static constexpr int sum_bytes = sizeof(chunk_sums);
  static_assert(vjp_steps == vjp_channels);

  SSM_HD static constexpr int stage(bool has_gate) {
    return static_cast<int>(sizeof(stored)) *
               (2 * state_elements + (has_gate ? 3 : 2) * step_elements) +
           static_cast<int>(sizeof(float)) * (step_numbers + vjp_channels);
  }
  static constexpr int fixed =
      static_cast<int>(sizeof(stored)) * (2 * state_elements + step_elements) + 2 * sum_bytes;
  static constexpr int bytes(int stages, bool has_gate) { return fixed + stages * stage(has_gate); }
};

template <class T, int States>
struct chunk_memory {
  using shape = chunk_shape<T, States>;
  using stored = typename shape::stored;
  using step_tile = typename shape::step_tile;
  using state_tile = typename shape::state_tile;

  /// What belongs to one tile of a head.
  struct head_stage {
    state_tile entering, leaving;  // (channel, state): the state, and the cotangent after
    step_tile x, cotangent, gate;  // (step, channel)
    float *steps, *D;
  };

  std::byte* data;
  int stage_bytes;

  __device__ stored* elements() const { return reinterpret_cast<stored*>(data); }
  __device__ state_tile B() const { return {elements()}; }
  __device__ state_tile C() const { return {elements() + shape::state_elements}; }
  __device__ step_tile mixing() const { return {elements() + 2 * shape::state_elements}; }
  __device__ chunk_sums& sums(int which) const {
    return reinterpret_cast<chunk_sums*>(mixing().data + shape::step_elements)[which];
  }
  __device__ head_stage stage(int which) const {
    auto* const first = reinterpret_cast<float*>(data + shape::fixed + which * stage_bytes);
    auto* const next = reinterpret_cast<stored*>(first + step_numbers + vjp_channels);
    stored* const steps = next + 2 * shape::state_elements;
    return {{next},
            {next + shape::state_elements},
            {steps},
            {steps + shape::step_elements},
            {steps + 2 * shape::step_elements},
            first,
            first + step_numbers};
  }
};

/// What a tile of a head gives two steps of a warp's lane: x·u, terms that enter the state at them,
/// that leave it, and that cross them from step to step; and 2^S_last h·g.
struct step_terms {
  float2 drive, into_state, from_state, crossing;
  float through;
};

/// The gradients of step sizes and of the logarithms of their decays. The latter is the sum of all
/// terms that crossed a step, in which nothing cancels (the notation is that of ssd_vjp_tile):
///   Σ_{i >= k > j} G_ij C_i·B_j + Σ_{i >= k} C_i·(e_i dy_i·h) + Σ_{j < k} Δ_j x_j·(w_j B_j·g)
///   + e_last h·g.
__device__ inline void store_step_gradients(step_terms const& s, float* to) {
  int const lane = static_cast<int>(threadIdx.x) % 32, k = 2 * lane;
  float2 const into = s.into_state, from = s.from_state;
  float const until = sum_until(into.x + into.y);
  float const before = __shfl_up_sync(~0u, until, 1);
  float const entered = lane > 0 ? before : 0.0f;
  float const since = sum_from(from.x + from.y);
  float const after = __shfl_down_sync(~0u, since, 1);
  float const left = lane < 31 ? after : 0.0f;
  float const log0 = s.through + entered + since + s.crossing.x;
  float const log1 = s.through + (entered + into.x) + (from.y + left) + s.crossing.y;
  *reinterpret_cast<float2*>(to + k) = s.drive;
  *reinterpret_cast<float2*>(to + vjp_steps + k) = {log0, log1};
}

/// The same from sums of fragments. Passes over further states have no terms between steps.
__device__ inline void store_step_sums(chunk_sums const& s, bool has_crossing, float* to) {
  int const lane = static_cast<int>(threadIdx.x) % 32, k = 2 * lane;
  auto const both = [&](float const(&halves)[vjp_halves][vjp_steps]) -> float2 {
    return {halves[0][k] + halves[1][k], halves[0][k + 1] + halves[1][k + 1]};
  };
  step_terms terms{both(s.drive), both(s.into_state), both(s.from_state), {0.0f, 0.0f}, 0.0f};
#pragma unroll
  for (float const each : s.through) terms.through += each;
  if (has_crossing) {
#pragma unroll
    for (auto const& rows : s.crossing) {
      if (k > 0) terms.crossing.x += rows[k - 1];
      terms.crossing.y += rows[k];
    }
    // What begins in the first half and crosses step 32 is in `crossing`; what crosses later steps
    // is not.
    float const first = s.from_first_half[k], second = s.from_first_half[k + 1];
    float const all = sum_from(first + second), later = __shfl_down_sync(~0u, all, 1);
    if (k > vjp_steps / 2) terms.crossing.x += all;
    if (k + 1 > vjp_steps / 2) terms.crossing.y += second + (lane < 31 ? later : 0.0f);
  }
  store_step_gradients(terms, to);
}

}  // namespace ssm::gpu::detail
