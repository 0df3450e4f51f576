// SPDX-License-Identifier: Apache-2.0
// selective_porters.cuh: Mamba's operator by two squads for each block of channels: one steps the
// states, the other brings the next tile and takes away what the last one left.
#pragma once

#include "ssm/detail/selective_steps.cuh"

namespace ssm::gpu::detail {

/// What the two squads of a block wait for, as a tile's buffers come and go.
struct buffer_barriers {
  __device__ static void fill(int buffer) { arrive(2 + buffer); }
  __device__ static void wait_until_full(int buffer) { wait(2 + buffer); }
  __device__ static void leave(int buffer) { arrive(4 + buffer); }
  __device__ static void wait_until_left(int buffer) { wait(4 + buffer); }

 private:
  __device__ static void arrive(int barrier) {
    asm volatile("bar.arrive %0, 256;" ::"r"(barrier) : "memory");
  }
  __device__ static void wait(int barrier) {
    asm volatile("bar.sync %0, 256;" ::"r"(barrier) : "memory");
  }
};

/// The squad that steps.
template <class Tile, bool Packed, bool AlongTime>
class selective_stepper : selective_steps<Tile, Packed, AlongTime> {
  using base = selective_steps<Tile, Packed, AlongTime>;
  using base::p, base::s, base::begin, base::end;
  using typename base::tile;

 public:
  using base::base;

  __device__ void run() {
    this->load_states();
    buffer_barriers::leave(1);
    int buffer = 0;
#pragma unroll 1
    for (index_t t0 = begin; t0 < end; t0 += tile::steps, buffer ^= 1) {
      buffer_barriers::wait_until_full(buffer);
      bool all_small = true;
      for (int const of_warp : s.is_small[buffer]) all_small = all_small && of_warp != 0;
      this->step_tile(t0, buffer * tile::steps, this->steps_from(t0), this->starts_of(buffer),
                      all_small);
      buffer_barriers::leave(buffer);
    }
    if (end < p.length) return;
    this->store_states(&p.carry(this->b, this->channel, 0), p.carry.stride(1), p.carry.stride(2));
  }
};

/// The squad that brings and takes away. What it needs of x and the gate again stays in registers.
template <class Tile, bool Packed, bool AlongTime>
class selective_porter : selective_stage<Tile, Packed, AlongTime> {
  using base = selective_stage<Tile, Packed, AlongTime>;
  using base::p, base::s, base::begin, base::end, base::has_gate;
  using typename base::tile, typename base::T;
  static constexpr int packets = tile::packets_per_thread, quads = tile::quads_per_thread;

 public:
  using base::base;

  __device__ void run() {
    auto x_at = this->cursor_of(p.x), step_at = this->cursor_of(p.step_size),
         gate_at = this->cursor_of(p.gate);
    auto y_at = this->cursor_of(p.y);
    T const* quad_at[quads];
#pragma unroll
    for (int k = 0; k < quads; ++k) quad_at[k] = this->first_quad(k);
    auto const request_tile = [&](index_t t0) {
      int const left = this->steps_ahead(t0);
#pragma unroll
      for (int k = 0; k < packets; ++k) {
        this->request(s.x[0][k], x_at, k, left);
        this->request(s.step[k], step_at, k, left);
        this->request(s.gate[k], gate_at, k, has_gate ? left : 0);
      }
#pragma unroll
      for (int k = 0; k < quads; ++k) this->request_quad(quad_at[k], k, left);
      x_at.advance(), step_at.advance(), gate_at.advance();
    };
    request_tile(begin);
    buffer_barriers::wait_until_left(1);  // by states on their way to those who step
    float largest_rate = 0.0f;
    for (float const of_warp : s.largest_rate) largest_rate = larger(largest_rate, of_warp);
    float of_channel[packet_elements];  // bias, then D
    stored_packet<T> x[packets], gate[packets], next_x[packets], next_gate[packets];
    int buffer = 0;
#pragma unroll 1
    for (index_t t0 = begin; t0 < end + tile::steps; t0 += tile::steps, buffer ^= 1) {
      if (t0 < end) {
        int const left = this->steps_from(t0), first = buffer * tile::steps;
        float largest_step = 0.0f;
        wait_for_requests();
        this->of_channels(s.bias, of_channel);
#pragma unroll
        for (int k = 0; k < packets; ++k) {
          next_x[k] = s.x[0][k].get(), next_gate[k] = s.gate[k].get();
          largest_step = larger(largest_step, this->discretize(first, k, left, of_channel,
                                                               next_x[k], s.step[k].get()));
        }
#pragma unroll
        for (int k = 0; k < quads; ++k) this->store_quad(first, k);
        this->find_starts(t0, buffer);
        int const is_small = __all_sync(~0u, largest_step * largest_rate <= small_exponent);
        if (threadIdx.x % 32 == 0) s.is_small[buffer][threadIdx.x / 32] = is_small;
        buffer_barriers::fill(buffer);
        request_tile(t0 + tile::steps);  // nothing, after the last
      }
      if (t0 > begin) {
        buffer_barriers::wait_until_left(buffer ^ 1);
        this->of_channels(s.D, of_channel);
        int const left = this->steps_from(t0 - tile::steps);
#pragma unroll
        for (int k = 0; k < packets; ++k) {
          this->read_out(y_at, (buffer ^ 1) * tile::steps, k, left, of_channel, x[k], gate[k]);
        }
        y_at.advance();
      }
#pragma unroll
      for (int k = 0; k < packets; ++k) x[k] = next_x[k], gate[k] = next_gate[k];
    }
  }
};

template <class T, int States, int Lanes, bool Packed, bool AlongTime>
__global__ void __launch_bounds__(256, 2)
    selective_porters_kernel(__grid_constant__ selective_problem<T> const p) {
  extern __shared__ uint4 selective_porters_memory[];
  using tile = selective_tile<T, States, Lanes, Packed, 2>;
  auto& memory = *reinterpret_cast<typename tile::shared*>(selective_porters_memory);
  if (squad_in_block() == 0) {
    selective_stepper<tile, Packed, AlongTime>{p, memory, blockIdx.x}.run();
  } else {
    selective_porter<tile, Packed, AlongTime>{p, memory, blockIdx.x}.run();
  }
}

}  // namespace ssm::gpu::detail
