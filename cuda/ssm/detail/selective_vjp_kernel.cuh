// SPDX-License-Identifier: Apache-2.0
// selective_vjp_kernel.cuh: the gradient of Mamba's operator over one segment of time.
#pragma once

#include "ssm/detail/selective_scan_inputs.hpp"
#include "ssm/detail/selective_vjp_step.cuh"

namespace ssm::gpu::detail {

/// One segment of time of 128 channels.
template <class T, bool Packed>
class selective_vjp_block : selective_vjp_steps<T, Packed> {
  using steps = selective_vjp_steps<T, Packed>;
  using steps::h_, steps::e_, steps::to_rate_, steps::to_bias_, steps::to_factor_, steps::to_D_;
  using steps::p, steps::s, steps::block, steps::begin, steps::end, steps::has;
  using steps::states, steps::own_, steps::other_, steps::own_quads_, steps::swap_;
  using tile = selective_vjp_tile;

 public:
  using steps::steps;

  /// The states entering each block of time.
  __device__ void leave_checkpoints() {
    this->each_state([&](int c, index_t n, int k, int j) {
      if (!has(c, n)) return;
      h_[k][j] = p.segments > 1
                     ? p.entering[p.segment_state(block.b, blockIdx.y, n, block.channel + c)]
                     : p.initial(block.b, block.channel + c, n);
    });
    this->request(begin, false);
#pragma unroll 1
    for (index_t t0 = begin; t0 < end; t0 += tile::steps) {
      this->store(t0, false);
      __syncthreads();
      this->request(t0 + tile::steps, false);
      if (t0 % selective_scan_block == 0) {
        this->each_state([&](int c, index_t n, int k, int j) {
          if (!has(c, n)) return;
          p.checkpoints(block.b, t0 / selective_scan_block, n, block.channel + c) = h_[k][j];
        });
      }
      this->advance();
      __syncthreads();
    }
  }

  __device__ void differentiate() {
    this->each_state([&](int c, index_t n, int k, int j) {
      if (!has(c, n)) return;
      e_[k][j] = p.segments > 1
                     ? p.arriving[p.segment_state(block.b, blockIdx.y, n, block.channel + c)]
                     : p.carry_cotangent(block.b, block.channel + c, n);
    });
    index_t t0 = (end - 1) / selective_scan_block * selective_scan_block;
    int tiles = static_cast<int>((end - t0 + tile::steps - 1) / tile::steps);
    this->request(t0, tiles == 1);
    load_block_state(t0);
#pragma unroll 1
    for (; t0 >= begin; t0 -= selective_scan_block) {
#pragma unroll 1
      for (int i = 0; i < tiles - 1; ++i) {  // forward, to the states that enter the tiles
        this->store(t0 + i * tile::steps, false);
        __syncthreads();
        this->request(t0 + (i + 1) * tile::steps, i == tiles - 2);
        this->advance();
        if (i < tiles - 2) this->put(s.entering[i], h_);
        __syncthreads();
      }
#pragma unroll 1
      for (int i = tiles - 1; i >= 0; --i) {
        index_t const first = t0 + i * tile::steps;
        this->store(first, true);
        __syncthreads();
        this->request(i == 0 ? t0 - selective_scan_block : first - tile::steps, i > 0);
        // The states that come next travel while time goes back.
        auto const load_next = [&] {
          if (i > 1) return this->get(h_, s.entering[i - 2]);
          index_t const block_start = i == 1 ? t0 : t0 - selective_scan_block;
          if (block_start >= begin) load_block_state(block_start);
        };
        if (this->starts() == 0) {
          this->template differentiate_tile<false>(load_next);
        } else {
          this->template differentiate_tile<true>(load_next);
        }
        __syncthreads();
        leave_shared(first);
        this->add(first);
        __syncthreads();
      }
      tiles = selective_scan_block / tile::steps;
    }
    leave_sums();
  }

 private:
  static_assert(selective_scan_block / tile::steps <= 4);  // as many tiles as states are kept for

  /// The states entering a block of time. A channel or state that is not there has those of one
  /// that is: no gradient hears of them.
  __device__ void load_block_state(index_t t0) {
    auto const& from = p.block_states;
    float const* const row = &from(block.b, t0 / selective_scan_block, p.first_state, 0);
    int const last = block.channels - 1, states_left = static_cast<int>(p.states - p.first_state);
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      int const c = k == 0 ? own_ : other_;
      float const* const channel = row + (block.channel + (c < last ? c : last)) * from.stride(3);
#pragma unroll
      for (int j = 0; j < states; ++j) {
        int const n = 4 * own_quads_ + (j ^ 4 * swap_);
        h_[k][j] = channel[(n < states_left ? n : states_left - 1) * from.stride(2)];
      }
    }
  }

  /// What the block's channels add to the gradients of B and C from step t0 on.
  __device__ void leave_shared(index_t t0) const {
    if (p.shared == nullptr) return;
    index_t const row = (blockIdx.x * p.length + t0) * 2 * tile::states;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      int const i = own_ + k * tile::threads;  // of (time, B or C, state)
      int const n = i % tile::states, which = i / tile::states % 2, t = i / tile::states / 2;
      float sum = 0.0f;
#pragma unroll
      for (auto const& warp : s.sums[which]) sum += warp[t][n];
      if (t0 + t < end) p.shared[row + i] = sum;
    }
  }

  __device__ void leave_sums() {
    this->each_state([&](int c, index_t n, int k, int j) {
      if (!has(c, n)) return;
      p.sums[p.sum_row(block.b, blockIdx.y, n) + block.channel + c] = to_rate_[k][j];
      if (blockIdx.y == 0) p.carry_cotangent(block.b, block.channel + c, n) = e_[k][j];
    });
    if (own_ >= block.channels) return;
    auto const sum = [&](channel_sum which) -> float& {
      index_t const row = p.states + static_cast<int>(which);
      return p.sums[p.sum_row(block.b, blockIdx.y, row) + block.channel + own_];
    };
    if (p.first_state == 0) {
      sum(channel_sum::D) = to_D_;
      sum(channel_sum::step_bias) = to_bias_;
      sum(channel_sum::step_factor) = to_factor_;
    } else {  // the sum for D is not one over states
      sum(channel_sum::step_bias) += to_bias_;
      sum(channel_sum::step_factor) += to_factor_;
    }
  }
};

/// The gradient, or the states entering each block of 32 steps where no forward run has left them.
template <class T, bool Packed>
__global__ void __launch_bounds__(128, 2)
    selective_vjp_kernel(__grid_constant__ selective_vjp_problem<T> const p,
                         bool leaves_checkpoints) {
  extern __shared__ uint4 selective_vjp_memory[];
  selective_vjp_block<T, Packed> block(
      p, *reinterpret_cast<selective_vjp_tile::shared*>(selective_vjp_memory));
  if (leaves_checkpoints) {
    block.leave_checkpoints();
  } else {
    block.differentiate();
  }
}

}  // namespace ssm::gpu::detail
