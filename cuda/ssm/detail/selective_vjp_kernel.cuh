// SPDX-License-Identifier: Apache-2.0
// selective_vjp_kernel.cuh: the gradient of Mamba's operator over one segment of time.
#pragma once

#include "ssm/detail/selective_scan_inputs.hpp"
#include "ssm/detail/selective_vjp_step.cuh"

namespace ssm::gpu::detail {

/// One segment of time of 128 channels.
template <class T, packing Packing>
class selective_vjp_block : selective_vjp_steps<T, Packing> {
  using steps = selective_vjp_steps<T, Packing>;
  using steps::h_, steps::e_, steps::rate_, steps::to_rate_, steps::to_bias_, steps::to_input_,
      steps::to_D_;
  using steps::p, steps::s, steps::block, steps::begin, steps::end, steps::has;
  using steps::states, steps::together, steps::own_, steps::other_, steps::own_quads_, steps::swap_;
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
    int i = 0;
#pragma unroll 1
    for (index_t t0 = begin; t0 < end; t0 += tile::steps, i ^= 1) {
      this->store(t0, i, false);
      __syncthreads();
      this->request(t0 + tile::steps, false);
      if (t0 % selective_scan_block == 0) {
        this->each_state([&](int c, index_t n, int k, int j) {
          if (!has(c, n)) return;
          p.checkpoints(block.b, t0 / selective_scan_block, n, block.channel + c) = h_[k][j];
        });
      }
#pragma unroll 1
      for (int k = 0; k < tile::steps; k += together) this->advance(i, k);
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
    int last = static_cast<int>((end - 1 - t0) / tile::steps);
    request_block_state(t0, s.entering[next_block]);
    this->request(t0, last == 0);
#pragma unroll 1
    for (; t0 >= begin; t0 -= selective_scan_block) {
      sweep(t0, last);
#pragma unroll 1
      for (int i = last; i >= 0; --i) {
        index_t const first = t0 + i * tile::steps;
        if (i < last) {
          this->store(first, i, true);
          __syncthreads();
          this->request(i == 0 ? t0 - selective_scan_block : first - tile::steps, i > 0);
        }
        if (i == 0) {  // what enters later tiles is used up
          request_block_state(t0, s.entering[this_block]);
          if (t0 > begin) request_block_state(t0 - selective_scan_block, s.entering[next_block]);
        }
#pragma unroll 1
        for (int k = together; k >= 0; k -= together) {
          int const slot = 2 * i + (k == 0 ? -2 : -1);  // of what enters the four steps before
          this->back_and_forth(i, k, [&] {
            if (slot == -1) wait_for_requests();
            if (slot >= -1) this->get(h_, s.entering[slot == -1 ? this_block : slot]);
          });
        }
        this->leave(first);
        __syncthreads();
        leave_shared(first);
      }
      last = tile::most - 1;
    }
    leave_sums();
  }

 private:
  static constexpr int this_block = 1, next_block = 2;  // where entering states are put

  /// Forward through a block of time, from the states that enter it to those that enter its last
  /// four steps; what enters every fourth step is kept.
  __device__ void sweep(index_t t0, int last) {
#pragma unroll 1
    for (int i = 0;; ++i) {
      index_t const first = t0 + i * tile::steps;
      this->store(first, i, i == last);
      if (i == 0) this->get(h_, s.entering[next_block]);
      __syncthreads();
      if (i < last) {
        this->request(first + tile::steps, i + 1 == last);
      } else {
        this->request(last == 0 ? t0 - selective_scan_block : first - tile::steps, last > 0);
      }
#pragma unroll 1
      for (int k = 0; k < tile::steps; k += together) {
        int const slot = 2 * i - (k == 0);
        if (slot >= 0) this->put(s.entering[slot], h_);
        this->advance(i, k);
        if (i == last) return;
      }
    }
  }

  /// Ask for the states entering a block of time. A channel or state that is not there has those of
  /// one that is: no gradient hears of them.
  __device__ void request_block_state(index_t t0, tile::thread_states& to) const {
    auto const& from = p.block_states;
    float const* const row = &from(block.b, t0 / selective_scan_block, p.first_state, 0);
    int const last = block.channels - 1, states_left = static_cast<int>(p.states - p.first_state);
    index_t const next = from.stride(2);
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      int const c = k == 0 ? own_ : other_;
      float const* const channel = row + (block.channel + (c < last ? c : last)) * from.stride(3);
#pragma unroll
      for (int q = 0; q < states / 4; ++q) {
        int const quad = 4 * (own_quads_ + (q ^ swap_));
        float* const four = &to[states / 4 * k + q][threadIdx.x].x;
        if (states_left >= tile::states) {
          float const* const first = channel + quad * next;
#pragma unroll
          for (int j = 0; j < 4; ++j) request_if(true, four + j, first + j * next);
        } else {
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            int const n = quad + j < states_left ? quad + j : states_left - 1;
            request_if(true, four + j, channel + n * next);
          }
        }
      }
    }
  }

  /// What the block's channels add to the gradients of B and C from step t0 on.
  __device__ void leave_shared(index_t t0) const {
    if (p.shared == nullptr) return;
    int const i = 2 * own_;  // of (time, B or C, state)
    static_assert(tile::steps * 2 * tile::states == 2 * tile::threads);
    float2 sum{};
#pragma unroll
    for (auto const& warp : s.sums) {
      float2 const more = reinterpret_cast<float2 const*>(warp)[own_];
      sum.x += more.x, sum.y += more.y;
    }
    if (i / tile::states / 2 >= this->steps_from(t0)) return;
    auto* const row = p.shared + (blockIdx.x * p.length + t0) * 2 * tile::states;
    reinterpret_cast<float2&>(row[i]) = sum;
  }

  __device__ void leave_sums() {
    bool const is_scaled = p.scaling.step.data_handle() != nullptr;
    float through_rate[2] = {};
    this->each_state([&](int c, index_t n, int k, int j) {
      if (!has(c, n)) return;
      float const rate = is_scaled ? p.rate(block.channel + c, n) : rate_[k][j];
      through_rate[k] = fmaf(to_rate_[k][j], rate, through_rate[k]);
      p.sums[p.sum_row(block.b, blockIdx.y, n) + block.channel + c] = to_rate_[k][j] * s.factor[c];
      if (blockIdx.y == 0) p.carry_cotangent(block.b, block.channel + c, n) = e_[k][j];
    });
    float const to_factor = fmaf(this->over_states(through_rate), 1 / log2_of_e, to_input_);
    if (own_ >= block.channels) return;
    auto const sum = [&](channel_sum which) -> float& {
      index_t const row = p.states + static_cast<int>(which);
      return p.sums[p.sum_row(block.b, blockIdx.y, row) + block.channel + own_];
    };
    if (p.first_state == 0) {
      sum(channel_sum::D) = to_D_;
      sum(channel_sum::step_bias) = to_bias_;
      sum(channel_sum::step_factor) = to_factor;
    } else {  // the sum for D is not one over states
      sum(channel_sum::step_bias) += to_bias_;
      sum(channel_sum::step_factor) += to_factor;
    }
  }
};

/// The gradient, or the states entering each block of 32 steps where no forward run has left them.
template <class T, packing Packing>
__global__ void __launch_bounds__(128, 2)
    selective_vjp_kernel(__grid_constant__ selective_vjp_problem<T> const p,
                         bool leaves_checkpoints) {
  extern __shared__ uint4 selective_vjp_memory[];
  selective_vjp_block<T, Packing> block(
      p, *reinterpret_cast<selective_vjp_tile::shared<T>*>(selective_vjp_memory));
  if (leaves_checkpoints) {
    block.leave_checkpoints();
  } else {
    block.differentiate();
  }
}

}  // namespace ssm::gpu::detail
