// SPDX-License-Identifier: Apache-2.0
// selective_scan_kernel.cuh: Mamba's operator over one segment of time, from the state entering it.
#pragma once

#include "ssm/detail/selective_steps.cuh"

namespace ssm::gpu::detail {

template <class Tile, bool Packed, bool AlongTime>
class selective_squad : selective_steps<Tile, Packed, AlongTime> {
  using base = selective_steps<Tile, Packed, AlongTime>;
  using base::has_gate, base::p, base::s, base::b, base::channel, base::begin, base::end;
  using base::largest_rate;
  using typename base::tile, typename base::T;

 public:
  using base::base;

  __device__ void run() {
    auto x_at = this->cursor_of(p.x), step_at = this->cursor_of(p.step_size),
         gate_at = this->cursor_of(p.gate);
    auto y_at = this->cursor_of(p.y);
    T const* quad_at[tile::quads_per_thread];
#pragma unroll
    for (int k = 0; k < tile::quads_per_thread; ++k) quad_at[k] = this->first_quad(k);

    constexpr int packets = tile::packets_per_thread, quads = tile::quads_per_thread;
    auto const request_tile = [&](index_t t0, int stage) {
      int const left = this->steps_ahead(t0);
#pragma unroll
      for (int k = 0; k < packets; ++k) {
        this->request(s.x[stage][k], x_at, k, left);
        this->request(s.step[k], step_at, k, left);
      }
#pragma unroll
      for (int k = 0; k < quads; ++k) this->request_quad(quad_at[k], k, left);
      x_at.advance(), step_at.advance();
    };
    request_tile(begin, 0);
    this->load_states();
    int stage = 0;
#pragma unroll 1
    for (index_t t0 = begin; t0 < end; t0 += tile::steps, stage ^= 1) {
      int const left = this->steps_from(t0);
      float largest_step = 0.0f;
      wait_for_requests();
      float of_channel[packet_elements];  // bias, then D
      this->of_channels(s.bias, of_channel);
#pragma unroll
      for (int k = 0; k < packets; ++k) {
        largest_step = larger(largest_step, this->discretize(0, k, left, of_channel,
                                                             s.x[stage][k].get(), s.step[k].get()));
      }
#pragma unroll
      for (int k = 0; k < quads; ++k) this->store_quad(0, k);
      this->find_starts(t0, 0);
      bool const all_small = meet_if_all(largest_step * largest_rate <= small_exponent);
      request_tile(t0 + tile::steps, stage ^ 1);  // nothing, after the last
#pragma unroll
      for (int k = 0; k < packets; ++k) {
        this->request(s.gate[k], gate_at, k, has_gate ? this->steps_ahead(t0) : 0);
      }
      this->step_tile(t0, 0, left, this->starts_of(0), all_small);
      meet_squad();
      wait_for_requests();
      this->of_channels(s.D, of_channel);
#pragma unroll
      for (int k = 0; k < packets; ++k) {
        this->read_out(y_at, 0, k, left, of_channel, s.x[stage][k].get(), s.gate[k].get());
      }
      gate_at.advance(), y_at.advance();
    }
    if (end < p.length) return;
    this->store_states(&p.carry(b, channel, 0), p.carry.stride(1), p.carry.stride(2));
  }
};

/// Squads that a multiprocessor has at a time: as many as keep all they have in registers, for a
/// step that waits for what was spilled takes twice as long.
template <int States, int Lanes>
inline constexpr int selective_squads = Lanes > 8                 ? 2
                                        : Lanes > 2 && States > 4 ? 3
                                                                  : 4;

/// Squads wait for nobody else, but in one block their warps take turns evenly: of blocks the
/// oldest goes first, and the last ones end alone.
template <class T, int States, int Lanes, bool Packed, bool AlongTime>
__global__ void __launch_bounds__(128 * selective_squads<States, Lanes>)
    selective_scan_kernel(__grid_constant__ selective_problem<T> const p, int squads) {
  extern __shared__ uint4 selective_scan_memory[];
  int const here = squad_in_block();
  using tile = selective_tile<T, States, Lanes, Packed>;
  auto& memory = reinterpret_cast<typename tile::shared*>(selective_scan_memory)[here];
  int const index = static_cast<int>(blockIdx.x * blockDim.y) + here;
  if (index < squads) selective_squad<tile, Packed, AlongTime>{p, memory, index}.run();
}

}  // namespace ssm::gpu::detail
