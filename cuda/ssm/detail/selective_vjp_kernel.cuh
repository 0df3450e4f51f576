// SPDX-License-Identifier: Apache-2.0
// selective_vjp_kernel.cuh: the gradient of Mamba's operator over one segment of time.
#pragma once

#include "ssm/detail/selective_vjp_step.cuh"

namespace ssm::gpu::detail {

/// One segment of time of 128 channels.
template <class T, packing Packing>
class selective_vjp_block : selective_vjp_steps<T, Packing> {
  using steps = selective_vjp_steps<T, Packing>;
  using steps::h_, steps::e_, steps::rate_, steps::to_rate_, steps::to_bias_, steps::to_input_,
      steps::to_D_;
  using steps::p, steps::s, steps::block, steps::begin, steps::length, steps::has;
  using steps::states, steps::together, steps::own_, steps::other_, steps::own_quads_, steps::swap_;
  using tile = selective_vjp_tile;

 public:
  using steps::steps;

  /// The states entering each tile.
  __device__ void leave_checkpoints() {
    this->each_state([&](int c, index_t n, int i) {
      this->kept(s.own[0], i) =
          !has(c, n)       ? 0.0f
          : p.segments > 1 ? p.entering[p.segment_state(block.b, blockIdx.y, n, block.channel + c)]
                           : p.initial(block.b, block.channel + c, n);
    });
    this->get(h_, s.own[0]);
    this->request(0, false);
    int i = 0;
#pragma unroll 1
    for (int t0 = 0; t0 < length; t0 += tile::steps, i ^= 1) {
      this->store(t0, i, false);
      __syncthreads();
      this->request(t0 + tile::steps, false);
      index_t const number = (begin + t0) / tile::steps;
      this->put(s.own[0], h_);
      this->each_state([&](int c, index_t n, int k) {
        if (!has(c, n)) return;
        p.checkpoints(block.b, number, n, block.channel + c) = this->kept(s.own[0], k);
      });
#pragma unroll 1
      for (int k = 0; k < tile::steps; k += together) this->advance(i, k);
    }
  }

  __device__ void differentiate() {
    this->each_state([&](int c, index_t n, int i) {
      this->kept(s.own[0], i) =
          !has(c, n)       ? 0.0f
          : p.segments > 1 ? p.arriving[p.walk_state(block.b, (blockIdx.y + 1) * p.walks - 1, n,
                                                     block.channel + c)]
                           : p.carry_cotangent(block.b, block.channel + c, n);
    });
    this->get(e_, s.own[0]);
    int t0 = (length - 1) / tile::steps * tile::steps;
    request_states(t0);
    this->request(t0, true);
#pragma unroll 1
    for (; t0 >= 0; t0 -= tile::steps) differentiate_tile(t0);
    leave_sums();
  }

 private:
  static constexpr int entering = 1, next_entering = 2;  // where states are in s.own

  /// Forward to the last four steps, back through them, and from what entered the first four back
  /// through these.
  __device__ void differentiate_tile(int t0) {
    this->store(t0, 0, true);
    this->get(h_, s.own[next_entering]), this->put(s.own[entering], h_);
    __syncthreads();
    this->request(t0 - tile::steps, true);
    if (t0 > 0) request_states(t0 - tile::steps);
    this->advance(0, 0);
#pragma unroll 1
    for (int k = together; k >= 0; k -= together) {  // a loop, so that its instructions stay near
      this->back_and_forth(0, k, [&] {
        if (k > 0) this->get(h_, s.own[entering]);
      });
    }
    this->leave(t0);
    __syncthreads();
    leave_shared(t0);
  }

  /// Ask for the states entering a tile. A channel or state that is not there has those of
  /// one that is: no gradient hears of them.
  __device__ void request_states(int t0) const {
    auto& to = s.own[next_entering];
    auto const& from = p.block_states;
    int const last = block.channels - 1, own = own_ < last ? own_ : last;
    int const other = other_ < last ? other_ : last;
    index_t const next = from.stride(2), to_other = (other - own) * from.stride(3);
    index_t const states_left = p.states - p.first_state;
    int const left = states_left < tile::states ? static_cast<int>(states_left) : tile::states;
    float const* const channel =
        s.block_states + (t0 / tile::steps * from.stride(1) + own * from.stride(3));
#pragma unroll
    for (int q = 0; q < states / 4; ++q) {
      int const n = 4 * (own_quads_ + (q ^ swap_));
      float const* state = channel + (n < left ? n : left - 1) * next;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        request_if(true, &to[q][threadIdx.x].x + j, state);
        request_if(true, &to[states / 4 + q][threadIdx.x].x + j, state + to_other);
        state += n + j + 1 < left ? next : 0;
      }
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
    bool const is_scaled = p.scaling.step.data_handle() != nullptr;
    float through_rate[2] = {};
    auto &to_rates = s.own[0], &rates = s.own[1], &cotangents = s.own[2];
    this->put(to_rates, to_rate_), this->put(rates, rate_), this->put(cotangents, e_);
    this->each_state([&](int c, index_t n, int i) {
      if (!has(c, n)) return;
      float const rate = is_scaled ? p.rate(block.channel + c, n) : this->kept(rates, i);
      float const to_rate = this->kept(to_rates, i);
      float& through = through_rate[c == own_ ? 0 : 1];
      through = fmaf(to_rate, rate, through);
      p.sums[p.sum_row(block.b, blockIdx.y, n) + block.channel + c] = to_rate * s.factor[c];
      if (blockIdx.y == 0) {
        p.carry_cotangent(block.b, block.channel + c, n) = this->kept(cotangents, i);
      }
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

/// The gradient, or the states entering each tile where no forward run has left them.
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
