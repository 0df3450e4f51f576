// SPDX-License-Identifier: Apache-2.0
// dual_vjp_problem.cuh: the gradient of Mamba-2's operator as its kernels see it.
#pragma once

#include "ssm/detail/dual_problem.cuh"
#include "ssm/detail/state_space_dual_inputs.hpp"

namespace ssm::gpu::detail {

/// Time is cut into chunks of 64 steps, heads into tiles of 64 channels, which are heads of their
/// own in all that follows but share step sizes.
inline constexpr int vjp_steps = 64;
inline constexpr int vjp_channels = 64;

/// What is known of each step of a chunk, S being the sums of log2 of decays in it: Δ, S in two
/// parts, 2^S, 2^(S_last - S), and the last times Δ.
enum class step_number { step, high, low, entered, leaving, driven };
inline constexpr int step_numbers = 6 * vjp_steps;

/// log2 of what crosses the start of a sequence: more than all decays of a chunk make up for.
inline constexpr double log2_of_a_start = -0x1p17;

/// What steps add up for a head, one after another, then for each of its channels that of D.
enum class head_sum { eigenvalue, step_bias, step_factor };
inline constexpr int head_sums = 3;

/// The forward problem, the cotangents that arrive and the gradients that leave (null: not wanted),
/// and the parts of the workspace, in the order in which they come to be.
/// x, gate, B, C and y_cotangent have dense rows that begin at multiples of 16 bytes.
template <class T>
struct dual_vjp_problem : dual_problem<T> {
  template <class U, int Rank>
  using view = tensor_view<U, Rank, memory::device>;

  view<T const, 4> y_cotangent;  // (batch, time, head, head_dim)
  view<float, 4> carry_cotangent;
  view<float, 4> to_x, to_gate;       // (batch, time, head, head_dim)
  view<float, 3> to_step_size;        // (batch, time, head)
  view<float, 4> to_B, to_C;          // (batch, time, group, state)
  view<float const, 5> block_states;  // saved by a forward run, or null
  bool packed_x, packed_shared;  // pairs of to_x, of to_B and to_C begin at multiples of 8 bytes
  bool wants_D, wants_factor;
  bool accumulates;       // to what is there; else gradients are stored over it
  float log2_negligible;  // of what is not followed further away

  index_t chunks;         // of a row
  index_t channel_tiles;  // of a head
  index_t state_tiles;    // of so many states as a kernel takes at once
  index_t state_tile;     // the one that a launch is about
  index_t parts;          // of the tiles of a group's heads, a block each

  float* steps;  // (batch, head, chunk, step_number, 64)
  // (batch, segment, head, head_dim, state) and (batch, segment, head): the state that enters a
  // segment, the cotangent of the one that leaves it, and what a segment multiplies them with; the
  // first pass leaves in them what the segment before, or after, adds.
  float *arriving, *arriving_decay;
  void* states_of_chunks;  // (entering | leaving, batch, chunk, tile, state tile, 64, states of a
                           // tile)
  float* step_sums;        // (state tile, batch, tile, chunk, of the step | of its decay, 64)
  float* shared;           // (part, batch, group, chunk, of B | of C, 64, states of a tile)
  float* sums;             // (batch, chunk, head_sum: head | tile, channel)
  float* folded;           // (fold, as sums)
  index_t folds;

  /// What all states give an element, after the first of their tiles to what that gave.
  __device__ bool adds() const { return accumulates || state_tile > 0; }
  __device__ void give(float& to, float value) const { to = accumulates ? to + value : value; }
  __host__ __device__ index_t tiles() const { return this->heads * channel_tiles; }
  __device__ index_t segment_states(index_t b, index_t segment, index_t head) const {
    return segment_head(b, segment, head) * this->head_dim * this->states;
  }
  __device__ index_t segment_head(index_t b, index_t segment, index_t head) const {
    return (b * this->segments + segment) * this->heads + head;
  }
  __device__ index_t shared_of(index_t part, index_t b, index_t group, index_t chunk,
                               int tile_size) const {
    index_t const row = ((part * this->batch + b) * this->groups + group) * chunks + chunk;
    return row * (2 * vjp_steps * tile_size);
  }
  __host__ __device__ index_t sum_columns() const {
    return head_sums * this->heads + tiles() * vjp_channels;
  }
  __device__ float* steps_of(index_t b, index_t head, index_t chunk) const {
    return steps + ((b * this->heads + head) * chunks + chunk) * step_numbers;
  }
  __device__ float* step_sums_of(index_t tile_of_states, index_t b, index_t tile,
                                 index_t chunk) const {
    return step_sums + (((tile_of_states * this->batch + b) * tiles() + tile) * chunks + chunk) *
                           (2 * vjp_steps);
  }
  /// Which states: what enters a chunk (0), or the cotangent of what leaves it (1).
  __device__ index_t states_of(int which, index_t b, index_t chunk, index_t tile,
                               index_t tile_of_states, int tile_size) const {
    index_t const row = ((which * this->batch + b) * chunks + chunk) * tiles() + tile;
    return (row * state_tiles + tile_of_states) * (vjp_channels * tile_size);
  }
};

/// The steps of a chunk that there are.
template <class T>
__device__ int steps_in(dual_vjp_problem<T> const& p, index_t chunk) {
  index_t const left = p.length - chunk * vjp_steps;
  return static_cast<int>(left < vjp_steps ? left : vjp_steps);
}

/// The channels of a tile of a head, or the states of a tile, that there are.
__device__ inline int count_in(index_t all, index_t tile, int size) {
  index_t const left = all - tile * size;
  return static_cast<int>(left < size ? left : size);
}

}  // namespace ssm::gpu::detail
