// SPDX-License-Identifier: Apache-2.0
// selective_vjp_kernel.cuh: the gradient of Mamba's operator over one segment of time.
#pragma once

#include "ssm/detail/early_launch.cuh"
#include "ssm/detail/selective_vjp_step.cuh"

namespace ssm::gpu::detail {

/// One segment of time of 128 channels.
template <class T, packing Packing>
class selective_vjp_block : selective_vjp_steps<T, Packing> {
  using steps = selective_vjp_steps<T, Packing>;
  using steps::h_, steps::e_, steps::to_rate_, steps::to_bias_, steps::to_input_, steps::to_D_;
  using steps::p, steps::s, steps::block, steps::begin, steps::length;
  using steps::together, steps::own_;
  using tile = selective_vjp_tile;

 public:
  using steps::steps;

  /// The states entering each tile.
  __device__ void leave_checkpoints() {
    auto& states = s.entering[0];
    if (p.segments > 1) {
      index_t const first = p.segment_state(block.b, blockIdx.y, p.first_state, block.channel);
      this->request_states(states, p.entering + first, 1, p.channels);
    } else {
      request_states_of(states, p.initial);
    }
    this->request(0, false);
    this->receive();
    this->get(h_, states);
    int i = 0;
#pragma unroll 1
    for (int t0 = 0; t0 < length; t0 += tile::steps, i ^= 1) {
      this->store(t0, i, false);
      __syncthreads();
      this->request(t0 + tile::steps, false);
      index_t const number = (begin + t0) / tile::steps;
      this->put(states, h_);
      __syncwarp();
      this->each_state([&](int n) {
        p.checkpoints(block.b, number, p.first_state + n, block.channel + own_) = states[n][own_];
      });
#pragma unroll 1
      for (int k = 0; k < tile::steps; k += together) this->advance(i, k);
    }
  }

  __device__ void differentiate() {
    int t0 = (length - 1) / tile::steps * tile::steps;
    if (p.states_packed) {
      request_entering<true>(t0);
    } else {
      request_entering<false>(t0);
    }
    this->request(t0, true);
    wait_for_earlier_kernels();  // all had ended but the one that says what arrives
    auto& arriving = s.entering[number(t0 + tile::steps) % 2];
    if (p.segments > 1) {
      index_t const walk = (blockIdx.y + 1) * p.walks - 1;
      index_t const first = p.walk_state(block.b, walk, p.first_state, block.channel);
      this->request_states(arriving, p.arriving + first, 1, p.channels);
    } else {
      request_states_of(arriving, p.carry_cotangent);
    }
    this->receive();
    this->get(e_, arriving);
#pragma unroll 1
    for (; t0 >= 0; t0 -= tile::steps) differentiate_tile(t0);
    leave_sums();
  }

 private:
  /// Which of the segment's tiles begins at step t0.
  __device__ static int number(int t0) {
    return t0 / tile::steps;
  }

  template <class View>
  __device__ void request_states_of(tile::state_rows& to, View const& from) const {
    this->request_states(to, &from(block.b, block.channel, p.first_state), from.stride(1),
                         from.stride(2));
  }

  /// Forward to the last four steps, back through them, and from what entered the first four back
  /// through these.
  __device__ void differentiate_tile(int t0) {
    this->store(t0, 0, true);
    __syncthreads();
    auto const& entering = s.entering[number(t0) & 1];
    this->get(h_, entering);
    if (p.states_packed && this->starts(0) == 0) {
      this->advance_beside(0, 0, [&] {
        this->request(t0 - tile::steps, true);
        request_entering<true>(t0 - tile::steps);
      });
    } else {
      this->request(t0 - tile::steps, true);
      request_entering<false>(t0 - tile::steps);
      this->advance(0, 0);
    }
#pragma unroll 1
    for (int k = together;; k -= together) {  // a loop, so that its instructions stay near
      this->back_and_forth(0, k);
      if (k == 0) break;
      this->get(h_, entering);
    }
    this->leave(t0);
    __syncthreads();
    leave_shared(t0);
  }

  /// Ask for the states entering a tile, each warp for those of its channels; none are before the
  /// first.
  template <bool StatesPacked>
  __device__ void request_entering(int t0) const {
    auto& to = s.entering[number(t0) & 1];
    auto const& from = p.block_states;
    float const* const first = s.block_states + number(t0) * from.stride(1);
    bool const is_there = t0 >= 0;
    if (!StatesPacked) {
      if (is_there) this->request_states(to, first, from.stride(3), from.stride(2));
      return;
    }
    unsigned const i = this->thread();
    int const n = static_cast<int>(i % 32 / 8), stride = static_cast<int>(from.stride(2));
    int const c = static_cast<int>(i / 32 * tile::warp_channels + i % 8 * 4);
    int const there =
        is_there && c < block.channels ? static_cast<int>(p.states - p.first_state) : 0;
#pragma unroll
    for (int k = 0; k < tile::states; k += 4) {
      request_if(n + k < there, reinterpret_cast<uint4*>(&to[n + k][c]),
                 this->far(first + c, n + k, stride));
    }
  }

  /// What the block's channels add to the gradients of B and C from step t0 on.
  __device__ void leave_shared(int t0) const {
    if (p.shared == nullptr) return;
    int const own = static_cast<int>(this->thread() % tile::threads);
    int const i = 2 * own;  // of (time, B or C, state)
    static_assert(tile::steps * 2 * tile::states == 2 * tile::threads);
    float2 sum{};
#pragma unroll
    for (auto const& warp : s.sums) {
      float2 const more = reinterpret_cast<float2 const*>(warp)[own];
      sum.x += more.x, sum.y += more.y;
    }
    if (i / tile::states / 2 >= this->steps_from(t0)) return;
    auto* const row = p.shared + (blockIdx.x * p.length + begin + t0) * 2 * tile::states;
    reinterpret_cast<float2&>(row[i]) = sum;
  }

  __device__ void leave_sums() {
    wait_for_requests();  // those beyond the first tile clear the rows that are used here
    __syncwarp();
    auto &to_rates = s.entering[0], &cotangents = s.entering[1];
    this->put(to_rates, to_rate_), this->put(cotangents, e_);
    __syncwarp();
    float to_factor = to_input_;
    this->each_state([&](int n) {
      float const to_rate = to_rates[n][own_];
      to_factor = fmaf(to_rate, s.eigenvalues[n][own_], to_factor);
      p.sums[p.sum_row(block.b, blockIdx.y, p.first_state + n) + block.channel + own_] =
          to_rate * s.factor[own_];
      if (blockIdx.y == 0) {
        p.carry_cotangent(block.b, block.channel + own_, p.first_state + n) = cotangents[n][own_];
      }
    });
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

/// The gradient, or the states entering each tile where no forward run has left them.
template <class T, packing Packing>
__global__ void __launch_bounds__(128, 2)
    selective_vjp_kernel(__grid_constant__ selective_vjp_problem<T> const p,
                         bool leaves_checkpoints) {
  extern __shared__ uint4 selective_vjp_memory[];
  selective_vjp_block<T, Packing> block(
      p, *reinterpret_cast<selective_vjp_tile::shared<T, Packing != packing::none>*>(
             selective_vjp_memory));
  if (leaves_checkpoints) {
    block.leave_checkpoints();
  } else {
    block.differentiate();
  }
}

}  // namespace ssm::gpu::detail
