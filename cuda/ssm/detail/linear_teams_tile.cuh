// SPDX-License-Identifier: Apache-2.0
// linear_teams_tile.cuh: what one block does with a tile of channels that are next to each other.
#pragma once

#include <cstdint>

#include "ssm/detail/linear_step.cuh"
#include "ssm/detail/linear_teams_problem.cuh"
#include "ssm/detail/tile_pipeline.cuh"

namespace ssm::gpu::detail {

/// A tile has 2^width_bits channels. A warp has consecutive parts of its steps, a thread S steps of
/// one part for P channels.
template <class T, class Step>
struct team_tiles {
  using stored = T;
  using number = accumulator_t<T>;
  using problem = team_problem<T, Step>;
  static constexpr bool is_brought = false;
  static constexpr int most_width = sizeof(T) == 2 ? 64 : 32;  ///< channels: of 16 bits a line
  static constexpr int ahead = 2;                              ///< rounds
  static constexpr int size = static_cast<int>(sizeof(T)), V = 16 / size;
  /// Few warps with many steps each have fewer instructions than twice as many with half of them.
  static constexpr int warps = size == 2 && Step::inputs == 2 ? 12 : 8, workers = 32 * warps;
  static constexpr int P = size <= 4 ? 2 : 1, S = 4 * V / P;
  static constexpr int slots = workers * P * S;  ///< for steps of all channels
  static SSM_HD int steps_of(problem const& p) { return slots >> p.width_bits; }  ///< of a tile
  static constexpr int room = 32 * P * S;                                         ///< of a warp
  static constexpr int neighbor = Step::reads_neighbor ? Step::inputs - 1 : -1;
  template <class A>
  using packet = columns_packet<A, P>;
  struct alignas(tile_alignment) stage_memory {
    T in[Step::inputs][warps][room];
  };

  problem const& p;
  stage_memory* stages;
  index_t outer, first_channel;
  int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  /// Where the thread asks for and stores its first packet of its next tile, and from tile to tile.
  T const* next_in[Step::inputs];
  index_t in_pace[Step::inputs];
  T* next_out[Step::outputs];
  index_t out_pace[Step::outputs];
  int asks_here, runs_here;  ///< whether it has these channels

  __device__ team_tiles(problem const& all, stage_memory* memory, index_t o, index_t c)
      : p(all), stages(memory), outer(o), first_channel(c) {
    // Or the compiler computes these and what is asked below again in each round, a fifth of all
    // instructions.
    asm volatile("" : "+r"(lane), "+r"(warp));
  }

  /// From now on `first_tile` and those that are so far apart are asked for, and run, in this
  /// order.
  __device__ void begin(unsigned first_tile, int apart) {
    index_t const first = index_t{first_tile} * most_steps(), pace = index_t{apart} * most_steps();
    for (int k = 0; k < Step::inputs; ++k) {
      next_in[k] = p.in[k].at(outer, first + request_step() + (k == neighbor), first_channel) +
                   request_channel();
      in_pace[k] = pace * p.in[k].time;
    }
    for (int k = 0; k < Step::outputs; ++k) {
      next_out[k] = p.out[k].at(outer, first + first_step(), first_channel) + channel();
      out_pace[k] = pace * p.out[k].time;
    }
    asks_here = first_channel + request_channel() < p.channels;
    runs_here = first_channel + channel() < p.channels;
    asm volatile("" : "+r"(asks_here), "+r"(runs_here));
    for (auto& pace_of_one : in_pace) asm volatile("" : "+l"(pace_of_one));
    for (auto& pace_of_one : out_pace) asm volatile("" : "+l"(pace_of_one));
  }

  __device__ int width() const { return 1 << p.width_bits; }
  __device__ int parts() const { return (32 * P) >> p.width_bits; }  ///< of a warp
  __device__ int first_step() const { return (warp * parts() + ((lane * P) >> p.width_bits)) * S; }
  __device__ int channel() const { return (lane * P) & (width() - 1); }
  __device__ static constexpr int lanes() { return 32; }  ///< that have a part
  /// Of the thread's packets of 16 bytes, which take the steps of all parts of the warp in turn, so
  /// that shared memory is the same for any width.
  __device__ int request_step() const {
    int const row = (lane * V) >> p.width_bits;
    return (warp * parts() + row % parts()) * S + row / parts();
  }
  __device__ int request_channel() const { return (lane * V) & (width() - 1); }

  __device__ int most_steps() const { return steps_of(p); }

  __device__ bool is_inner(unsigned tile) const { return tile < p.inner; }

  /// Tile i of the band.
  template <bool Inner>
  __device__ team_tile<T, Step, Inner> find(unsigned i) const {
    team_tile<T, Step, Inner> at;
    if (!Inner) {
      index_t const left = p.length - index_t{i} * most_steps();
      at.count = left <= 0 ? 0 : left < most_steps() ? static_cast<int>(left) : most_steps();
      at.end = left <= 0 || left > most_steps() ? 1 << 30 : static_cast<int>(left) - 1;
    }
    return at;
  }

  /// Each warp asks for its own parts.
  __device__ void request(unsigned tile, int stage) {
    is_inner(tile) ? request(find<true>(tile), stage) : request(find<false>(tile), stage);
  }
  template <bool Inner>
  __device__ void request(team_tile<T, Step, Inner> const& at, int stage) {
    __syncwarp();  // all lanes have read what this overwrites
    T* const to = stages[stage].in[0][warp] + lane * V;
#pragma unroll
    for (int k = 0; k < Step::inputs; ++k) {
      int const steps = at.steps(most_steps());
      int const end = k == neighbor && at.last() < steps ? at.last() : steps;
      T const* from = next_in[k];
#pragma unroll
      for (int j = 0; j < P * S / V; ++j) {
        if ((Inner || request_step() + j * (V / P) < end) && asks_here) {
          request_bytes<16>(to + k * (warps * room) + j * (32 * V), from);
        }
        from += V / P * p.in[k].time;
      }
      next_in[k] += in_pace[k];
    }
  }

  template <bool Inner>
  __device__ packet<affine_map<number>> fold(unsigned tile, int stage) const {
    auto const at = find<Inner>(tile);
    packet<affine_map<number>> map{};
    packet<T> in[S][2];
    read(stage, in);
    for_each_step(at, [&](int i) {
      auto const a = to_numbers(in[i][0]), b = to_numbers(in[i][1]);
#pragma unroll
      for (int c = 0; c < P; ++c) {
        number value[Step::inputs] = {a.of[c], b.of[c]};
        map.of[c] = i == 0 ? Step::map(value) : then{}(map.of[c], Step::map(value));
      }
    });
    return map;
  }

  /// `enter` waits for the states that enter the thread's part.
  template <bool Inner, class Enter>
  __device__ void run(unsigned tile, int stage, Enter const& enter) {
    auto const at = find<Inner>(tile);
    packet<T> in[S][Step::inputs];
    read(stage, in);  // all of it before the first store, which may be to anywhere
    auto carry = enter();
    if (runs_here) {
      T* to[Step::outputs];
#pragma unroll
      for (int k = 0; k < Step::outputs; ++k) to[k] = next_out[k];
      for_each_step(at, [&](int i) {
        packet<T> out[Step::outputs];
        packet<number> numbers[Step::inputs];
#pragma unroll
        for (int k = 0; k < Step::inputs; ++k) numbers[k] = to_numbers(in[i][k]);
#pragma unroll
        for (int c = 0; c < P; ++c) {
          number value[Step::inputs], result[Step::outputs];
#pragma unroll
          for (int k = 0; k < Step::inputs; ++k) value[k] = numbers[k].of[c];
          if (!Inner && neighbor >= 0 && first_step() + i == at.last())
            value[Step::inputs - 1] = edge(c);
          Step::run(value, carry.of[c], result);
#pragma unroll
          for (int k = 0; k < Step::outputs; ++k) out[k].of[c] = to_stored<T>(result[k]);
        }
#pragma unroll
        for (int k = 0; k < Step::outputs; ++k) {
          store_packet(out[k], to[k]);
          to[k] += p.out[k].time;
        }
      });
      int const last = at.last() - first_step();
      if (!Inner && last >= 0 && last < S && p.final.data != nullptr) {
        for (int c = 0; c < P; ++c) {
          *p.final.at(outer, 0, first_channel + channel() + c) = carry.of[c];
        }
      }
    }
#pragma unroll
    for (int k = 0; k < Step::outputs; ++k) next_out[k] += out_pace[k];
  }

  __device__ number initial(int c) const {
    bool const is_given = p.initial.data != nullptr && first_channel + c < p.channels;
    return is_given ? *p.initial.at(outer, 0, first_channel + c) : number(0);
  }

 private:
  /// The first `Inputs` of the thread's part.
  template <int Inputs>
  __device__ void read(int stage, packet<T> (&in)[S][Inputs]) const {
    T const* const own = stages[stage].in[0][warp] + lane * P;
#pragma unroll
    for (int i = 0; i < S; ++i) {
#pragma unroll
      for (int k = 0; k < Inputs; ++k) {
        T const* const from = own + i * (32 * P) + k * (warps * room);
        in[i][k] = *reinterpret_cast<packet<T> const*>(from);
      }
    }
  }

  template <bool Inner, class F>
  __device__ void for_each_step(team_tile<T, Step, Inner> const& at, F const& f) const {
    int const steps = at.steps(most_steps()) - first_step();
#pragma unroll
    for (int i = 0; i < S; ++i) {
      if (Inner || i < steps) f(i);
    }
  }

  __device__ number edge(int c) const {
    return p.edge.data == nullptr ? number(0) : *p.edge.at(outer, 0, first_channel + channel() + c);
  }
};

}  // namespace ssm::gpu::detail
