// SPDX-License-Identifier: Apache-2.0
// linear_teams_piece.cuh: what one block does with a tile of few channels, all steps of which are
// one piece of memory.
#pragma once

#include "ssm/detail/copy_engine.cuh"
#include "ssm/detail/linear_step.cuh"
#include "ssm/detail/linear_teams_problem.cuh"
#include "ssm/detail/tile_pipeline.cuh"

namespace ssm::gpu::detail {

/// At most 32 channels, all of a step right after those of the step before; arrays and batches of
/// them begin at multiples of 16 bytes. The copy engine brings whole tiles and takes away what was
/// computed, which lies where its inputs were. Tiles lie side by side from the beginning of memory,
/// so that each begins at a multiple of 16 bytes: backward, the first one may lack steps.
/// A warp has consecutive parts of a tile's steps, a thread S steps of one part for P channels.
/// `Even`: two channels are one access if they have 4 bytes, and parts of an odd number of steps
/// begin in different banks; those of an even number do where channels are odd.
template <class T, class Step, bool Even>
struct team_pieces {
  using stored = T;
  using number = accumulator_t<T>;
  using problem = team_problem<T, Step>;
  static constexpr bool is_brought = true;
  static constexpr int ahead = 3;  ///< rounds; with 2 all waited for what is brought
  static constexpr int size = static_cast<int>(sizeof(T)), V = 16 / size;
  static constexpr int most_width = 32;
  static constexpr int P = Even && size == 2 ? 2 : 1;
  static constexpr bool has_three = Step::inputs == 3;
  /// Few warps with many steps each have fewer instructions than twice as many with half of them,
  /// which two inputs of odd channels do not gain from. 20 steps of 16 bits meet no bank twice.
  static constexpr int warps = Even || has_three ? 8 : size == 2 ? 12 : 16;
  static constexpr int workers = 32 * warps;
  static constexpr int S = Even         ? has_three ? 11 : 15
                           : size == 2  ? 20
                           : !has_three ? 2 * V
                           : size == 4  ? 12
                                        : 4 * V;
  static constexpr int slots = workers * P * S;  ///< for steps of all channels
  static SSM_HD int steps_of(problem const& p) { return warps * parts_of(p) * S; }  ///< of a tile
  static_assert(warps * S * size % 16 == 0, "tiles begin at multiples of 16 bytes");
  static constexpr int neighbor = Step::reads_neighbor ? Step::inputs - 1 : -1;
  static constexpr int beyond = Step::reads_neighbor ? 32 : 0;
  template <class A>
  using packet = columns_packet<A, P>;
  struct alignas(tile_alignment) stage_memory {
    T in[Step::inputs * slots + beyond];
    barrier arrived, done;
  };

  problem const& p;
  stage_memory* stages;
  index_t outer;
  int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  int parts;  ///< of a warp
  int part;   ///< that the thread has, if it has one
  int first_channel;
  int pace;   ///< elements from step to step: less than 0 where the last step comes first
  int bytes;  ///< the same
  int own;    ///< where the thread's first step is in a tile
  int next;   ///< and its neighbor
  T const* lowest_in[Step::inputs];
  T* lowest_out[Step::outputs];

  __device__ team_pieces(problem const& all, stage_memory* memory, index_t o, index_t)
      : p(all), stages(memory), outer(o), pace(static_cast<int>(all.in[0].time)) {
    bytes = pace * size;
    // Or the compiler computes them again for each step, an eighth of all instructions.
    asm volatile("" : "+r"(lane), "+r"(warp), "+r"(bytes));
    parts = parts_of(p), part = lane * P / channels();
    first_channel = lane * P - part * channels();
    if (part == parts) part -= 1;  // and others run it
    asm volatile("" : "+r"(part), "+r"(parts), "+r"(first_channel));
    own = (is_backward() ? most_steps() - 1 - first_step() : first_step()) * channels() + channel();
    next = own + pace + (is_backward() ? overhang() : 0);
    index_t const lowest = is_backward() ? p.length - 1 : 0;
    for (int k = 0; k < Step::inputs; ++k) lowest_in[k] = p.in[k].at(outer, lowest, 0);
    for (int k = 0; k < Step::outputs; ++k) lowest_out[k] = p.out[k].at(outer, lowest, 0);
  }

  __device__ bool is_backward() const { return pace < 0; }
  __device__ int channels() const { return is_backward() ? -pace : pace; }
  __device__ int width() const { return channels(); }
  static SSM_HD int parts_of(problem const& p) { return 32 * P / static_cast<int>(p.channels); }
  __device__ int lanes() const { return parts * channels() / P; }  ///< that have a part
  __device__ int first_step() const { return (warp * parts + part) * S; }
  __device__ int channel() const { return first_channel; }
  __device__ int most_steps() const { return warps * parts * S; }
  /// Elements of a neighbor that come with a tile, before or after it: those of a step or more.
  __device__ int overhang() const { return (channels() + V - 1) / V * V; }

  __device__ bool is_inner(unsigned tile) const {
    return tile < p.inner && !(is_backward() && tile == 0);
  }
  __device__ void init(int stage) const {
    stages[stage].arrived.init(1);
    stages[stage].done.init(warps);
  }

  /// By one thread: have what lies at the tile's place brought.
  __device__ void request(unsigned tile, int stage) const {
    auto& to = stages[stage];
    auto const at = place_of(tile);
    index_t const around = beyond > 0 ? overhang() : 0;
    bool const is_whole = at.end - at.begin == most_steps() * channels();
    if (!is_whole || at.begin < around || at.end + around > elements())
      return request_edge(tile, stage);
    auto const bytes = static_cast<unsigned>(at.end - at.begin) * size;
    auto const more = static_cast<unsigned>(around) * size;
    to.arrived.arrive_expecting(Step::inputs * bytes + more);
#pragma unroll
    for (int k = 0; k < Step::inputs; ++k) {
      bool const is_earlier = k == neighbor && is_backward();
      hopper::load_bytes(to.in + k * slots, lowest_in[k] + at.begin - (is_earlier ? around : 0),
                         k == neighbor ? bytes + more : bytes, to.arrived);
    }
  }

  /// By the same thread: have what was computed taken away, until it has been read.
  __device__ void take(unsigned tile, int stage) const {
    auto const at = place_of(tile);
#pragma unroll
    for (int k = 0; k < Step::outputs; ++k) {
      T const* const from = stages[stage].in + k * slots;
      if (at.whole_bytes() > 0)
        hopper::store_bytes(lowest_out[k] + at.begin, from, at.whole_bytes());
#pragma unroll 1
      for (index_t e = at.whole_end(); e < at.end; ++e) lowest_out[k][e] = from[e - at.begin];
    }
    hopper::wait_for_reads_but<0>();
  }

  template <bool Inner>
  __device__ packet<affine_map<number>> fold(unsigned tile, int stage) const {
    packet<affine_map<number>> map{};
    packet<T> in[2][S];
    read<2>(stage, in);
    for_each_step<Inner>(tile, [&](int i) {
      auto const a = to_numbers(in[0][i]), b = to_numbers(in[1][i]);
#pragma unroll
      for (int c = 0; c < P; ++c) {
        number value[Step::inputs] = {a.of[c], b.of[c]};
        map.of[c] = Inner && i == 0 ? Step::map(value) : then{}(map.of[c], Step::map(value));
      }
    });
    return map;
  }

  /// `enter` waits for the states that enter the thread's part.
  template <bool Inner, class Enter>
  __device__ void run(unsigned tile, int stage, Enter const& enter) const {
    packet<T> in[Step::inputs][S];
    read<Step::inputs>(stage, in);
    auto carry = enter();
    if (lane < lanes()) {
      int const last = Inner ? -1 : last_step(tile) - first_step();
      for_each_step<Inner>(tile, [&](int i) {
        packet<T> out[Step::outputs];
        packet<number> numbers[Step::inputs];
#pragma unroll
        for (int k = 0; k < Step::inputs; ++k) numbers[k] = to_numbers(in[k][i]);
#pragma unroll
        for (int c = 0; c < P; ++c) {
          number value[Step::inputs], result[Step::outputs];
#pragma unroll
          for (int k = 0; k < Step::inputs; ++k) value[k] = numbers[k].of[c];
          if (!Inner && neighbor >= 0 && i == last) value[Step::inputs - 1] = edge(c);
          Step::run(value, carry.of[c], result);
#pragma unroll
          for (int k = 0; k < Step::outputs; ++k) out[k].of[c] = to_stored<T>(result[k]);
        }
#pragma unroll
        for (int k = 0; k < Step::outputs; ++k) {
          store_packet(out[k], at_step(stages[stage].in + own + k * slots, i));
        }
      });
      if (!Inner && last >= 0 && last < S && p.final.data != nullptr) {
        for (int c = 0; c < P; ++c) *p.final.at(outer, 0, channel() + c) = carry.of[c];
      }
    }
    hopper::publish_stores();
    stages[stage].done.arrive_for_warp();
  }

  __device__ number initial(int c) const {
    bool const is_given = p.initial.data != nullptr && c < p.channels;
    return is_given ? *p.initial.at(outer, 0, c) : number(0);
  }

 private:
  __device__ index_t elements() const {
    return p.length * channels();
  }
  /// Those of an array that a tile has, counted from the lowest.
  struct place {
    index_t begin = 0, end = 0;

    __device__ unsigned whole_bytes() const {
      return static_cast<unsigned>(end - begin) * size / 16 * 16;
    }
    __device__ index_t whole_end() const { return begin + whole_bytes() / size; }
  };
  __device__ place place_of(unsigned tile) const {
    index_t const n = elements(), most = most_steps() * channels();
    index_t const begin = most * (is_backward() ? p.inner - index_t{tile} : index_t{tile});
    if (begin < 0 || begin >= n) return {};
    return {begin, begin + most < n ? begin + most : n};
  }

  /// A tile at an end of time: what is not a multiple of 16 bytes is copied here.
  __device__ void request_edge(unsigned tile, int stage) const {
    auto& to = stages[stage];
    auto const place_of_input = [&](int k) {
      auto at = place_of(tile);
      if (k != neighbor || at.begin == at.end) return at;
      if (is_backward()) {
        at.begin = at.begin > 0 ? at.begin - overhang() : 0;
      } else {
        at.end = at.end + overhang() < elements() ? at.end + overhang() : elements();
      }
      return at;
    };
    auto const in_stage = [&](int k, index_t element) {
      index_t const earlier = k == neighbor && is_backward() ? overhang() : 0;
      return to.in + k * slots + (element - place_of(tile).begin + earlier);
    };
    unsigned bytes = 0;
    for (int k = 0; k < Step::inputs; ++k) {
      auto const at = place_of_input(k);
#pragma unroll 1
      for (index_t e = at.whole_end(); e < at.end; ++e) *in_stage(k, e) = lowest_in[k][e];
      bytes += at.whole_bytes();
    }
    to.arrived.arrive_expecting(bytes);
    for (int k = 0; k < Step::inputs; ++k) {
      auto const at = place_of_input(k);
      if (at.whole_bytes() == 0) continue;
      hopper::load_bytes(in_stage(k, at.begin), lowest_in[k] + at.begin, at.whole_bytes(),
                         to.arrived);
    }
  }

  /// Of the row, counted from the tile's first step; far away if it is not in the tile.
  __device__ int last_step(unsigned tile) const {
    if (tile != p.inner) return -(1 << 30);
    return is_backward() ? most_steps() - 1
                         : static_cast<int>(p.length - 1 - p.inner * most_steps());
  }

  /// i steps after one in shared memory.
  __device__ T* at_step(T* first, int i) const {
    return reinterpret_cast<T*>(reinterpret_cast<unsigned char*>(first) + i * bytes);
  }

  /// The first `Inputs` of the thread's part.
  template <int Inputs>
  __device__ void read(int stage, packet<T> (&in)[Inputs][S]) const {
#pragma unroll
    for (int k = 0; k < Inputs; ++k) {
      T* const from = stages[stage].in + k * slots + (k == neighbor ? next : own);
#pragma unroll
      for (int i = 0; i < S; ++i) in[k][i] = *reinterpret_cast<packet<T>*>(at_step(from, i));
    }
  }

  template <bool Inner, class F>
  __device__ void for_each_step(unsigned tile, F const& f) const {
    if constexpr (Inner) {
#pragma unroll
      for (int i = 0; i < S; ++i) f(i);
    } else {
      index_t const most = most_steps(), n = p.length;
      index_t const from = most * (is_backward() ? p.inner - index_t{tile} : index_t{tile});
      int const here = from < 0 || from >= n ? 0 : n - from < most ? int(n - from) : int(most);
      int const begin = is_backward() ? int(most) - here : 0;
      int const end = begin + here, first = first_step();
#pragma unroll
      for (int i = 0; i < S; ++i) {
        if (first + i >= begin && first + i < end) f(i);
      }
    }
  }

  __device__ number edge(int c) const {
    return p.edge.data == nullptr ? number(0) : *p.edge.at(outer, 0, channel() + c);
  }
};

}  // namespace ssm::gpu::detail
