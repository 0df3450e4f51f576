// SPDX-License-Identifier: Apache-2.0
// selective_stage.cuh: what a squad of selective_scan reads, discretizes, and writes in the end.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/selective_problem.cuh"
#include "ssm/detail/selective_slots.cuh"

namespace ssm::gpu::detail {

/// The threads of a squad meet: 128 of a block that has several, which differ in threadIdx.y.
__device__ inline void meet_squad() {
  asm volatile("bar.sync %0, 128;" ::"r"(1 + static_cast<int>(threadIdx.y)) : "memory");
}
/// Also whether it is so for all of them.
__device__ inline bool meet_if_all(bool is_so) {
  int all;
  asm volatile(
      "{ .reg .pred p; setp.ne.s32 p, %2, 0; bar.red.and.pred p, %1, 128, p; "
      "selp.s32 %0, 1, 0, p; }"
      : "=r"(all)
      : "r"(1 + static_cast<int>(threadIdx.y)), "r"(static_cast<int>(is_so))
      : "memory");
  return all != 0;
}

/// What a squad does: `steps` steps of `channels` channels at a time. A thread has `States` states
/// of two neighbouring channels, `Lanes` lanes have all states of two channels.
/// Tiles on their way from those who bring them to those who step have two buffers.
template <class T, int States, int Lanes, bool Packed, int Buffers = 1>
struct selective_tile {
  using element = T;
  using packet_slots = packet_slots_of<T, 128, Packed>;
  using quad_slots = quad_slots_of<T, 128, Packed>;
  static constexpr int states_of_lane = States, lanes = Lanes, buffers = Buffers;
  static constexpr int threads = 128;
  static constexpr int steps = 16;
  static constexpr int channels = 2 * threads / Lanes;
  static constexpr int states = States * Lanes;
  using grid = packet_grid<steps, channels>;
  static constexpr int packets_per_thread = (grid::packets + threads - 1) / threads;
  static constexpr int quads = 2 * steps * states / 4;  // of B and C
  static constexpr int quads_per_thread = (quads + threads - 1) / threads;

  struct shared {
    // Δ of two channels, Δ·x of both; once read, what one lane has of Σ C·h of both, then another.
    float4 pair[Buffers * steps][channels / 2];
    float4 projection[2][Buffers * steps][states / 4];  // B and C
    float bias[channels], factor[channels], D[channels];
    float largest_rate[threads / 32];
    unsigned starts[Buffers];             // bit t: step t of a tile starts a sequence
    int is_small[Buffers][threads / 32];  // whether all exponents are, of a warp of porters
    // As they are stored; x is read again when its tile is done, and the next one has come by then:
    // porters keep it in registers.
    packet_slots x[Buffers == 1 ? 2 : 1][packets_per_thread];
    packet_slots step[packets_per_thread], gate[packets_per_thread];
    quad_slots quad[quads_per_thread];
  };

  /// Where the pair of channels 2i and 2i + 1 is, so that a warp's packets meet no bank twice.
  __device__ static int swizzled(int i) { return i ^ (i >> 3 & 3); }
};

/// A squad's channels and steps, and the way of a tile from memory to Δ, Δ·x, B and C in shared
/// memory, and from sums there to y.
template <class Tile, bool Packed, bool AlongTime>
struct selective_stage : channel_block {
  using tile = Tile;
  using T = typename tile::element;
  using shared = typename tile::shared;

  selective_problem<T> const& p;
  shared& s;
  index_t segment;
  index_t begin, end;  // steps
  bool has_gate;
  int2 place;  // step and channel of this thread's first packet in a tile
  int there;   // how many of the block's channels there are from there on; 0: no packet

  /// Squads have all segments of the first channels, then of the next.
  __device__ selective_stage(selective_problem<T> const& problem, shared& memory, index_t index)
      : channel_block(problem, index / problem.segments, tile::channels), p{problem}, s{memory} {
    segment = index % p.segments;
    begin = segment * p.segment_length;
    end = begin + p.segment_length < p.length ? begin + p.segment_length : p.length;
    has_gate = p.gate.data != nullptr;
    place = tile::grid::place(static_cast<int>(threadIdx.x), AlongTime);
    bool const has_packet = threadIdx.x < tile::grid::packets && place.y < channels;
    there = has_packet ? channels - place.y : 0;
  }

  /// How many steps the tile at t0 has; none, or fewer, after the last.
  __device__ int steps_from(index_t t0) const {
    index_t const left = end - t0;
    return static_cast<int>(left < tile::steps ? left : tile::steps);
  }
  /// The same, but so many that packets of the tile end before the last, if they can.
  __device__ int steps_ahead(index_t t0) const {
    index_t const left = end - t0;
    return static_cast<int>(left < 2 * tile::steps ? left : 2 * tile::steps);
  }
  /// Which of a tile's steps start a sequence, to shared memory.
  __device__ void find_starts(index_t t0, int buffer) {
    if (p.sequence.data_handle() == nullptr || threadIdx.x >= 32) return;
    bool const starts = threadIdx.x < tile::steps && p.starts_sequence(b, t0 + threadIdx.x);
    unsigned const all = __ballot_sync(~0u, starts);
    if (threadIdx.x == 0) s.starts[buffer] = all;
  }
  __device__ unsigned starts_of(int buffer) const {
    return p.sequence.data_handle() != nullptr ? s.starts[buffer] : 0;
  }

  __device__ void load_channels() {
    for (int c = static_cast<int>(threadIdx.x); c < tile::channels; c += tile::threads) {
      bool const is_there = c < channels;
      s.bias[c] = is_there ? p.bias(channel + c) : 0.0f;
      s.factor[c] = is_there ? p.scaling.step_factor(channel + c) : 0.0f;
      s.D[c] = is_there ? p.skip(channel + c) : 0.0f;
    }
  }

  /// One array's packets: the k-th of a tile is 8k steps after `at`.
  template <class U>
  struct cursor {
    U* at;
    index_t time, stride;
    __device__ U* packet(int k) const { return at + packet_elements * k * time; }
    __device__ void advance() { at += tile::steps * time; }
  };
  template <class U>
  __device__ cursor<U> cursor_of(selective_array<U> const& array) const {
    return {array.at(b, begin + place.x, channel + place.y), array.time, array.stride(AlongTime)};
  }
  /// How many elements there are from the k-th packet's first on, where `left` steps are left.
  __device__ int elements_ahead(int k, int left) const {
    int const steps = left - place.x - packet_elements * k;
    return steps <= 0 ? 0 : AlongTime && there > 0 ? steps : there;
  }
  /// And how many of them are the packet's.
  __device__ int elements(int k, int left) const {
    int const ahead = elements_ahead(k, left);
    return ahead < packet_elements ? ahead : packet_elements;
  }
  template <class U>
  __device__ void request(typename tile::packet_slots& to, cursor<U> const& from, int k, int left) {
    to.request(from.packet(k), from.stride, elements_ahead(k, left));
  }

  /// What is kept for one step of a channel and its neighbour.
  __device__ float4& pair(int t, int c) const { return s.pair[t][tile::swizzled(c / 2)]; }

  /// Eight numbers of the block's channels, those of this thread's packets.
  __device__ void of_channels(float const* from, float (&to)[packet_elements]) const {
    if constexpr (AlongTime) {
#pragma unroll
      for (float& number : to) number = from[place.y];
    } else {
#pragma unroll
      for (int i = 0; i < packet_elements; i += 4) {
        float4 const four = *reinterpret_cast<float4 const*>(from + place.y + i);
        to[i] = four.x, to[i + 1] = four.y, to[i + 2] = four.z, to[i + 3] = four.w;
      }
    }
  }

  /// Δ and Δ·x of a packet to shared memory, the tile's steps from `first` on; the largest |Δ|.
  __device__ float discretize(int first, int k, int left, float const (&bias)[packet_elements],
                              stored_packet<T> const& x, stored_packet<T> const& step_size) {
    if (tile::grid::packets < tile::threads && threadIdx.x >= tile::grid::packets) return 0.0f;
    int2 const at{first + place.x + packet_elements * k, place.y};
    float step[packet_elements];
    constexpr bool may_vote = Packed && tile::grid::packets % 32 == 0;  // whole warps
    if (!may_vote || !p.small_steps(step_size, bias, step)) p.steps(step_size, bias, step);
    if (p.scales_steps) {
      float factor[packet_elements];
      of_channels(s.factor, factor);
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) step[i] *= factor[i];
    }
    if (!Packed || left < tile::steps) {
      int const there = elements(k, left);
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) step[i] = i < there ? step[i] : 0.0f;
    }
    float largest = 0.0f;
#pragma unroll
    for (float const each : step) largest = larger(largest, fabsf(each));
    if constexpr (AlongTime) {
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) {
        auto* const of_channel = reinterpret_cast<float*>(&pair(at.x + i, at.y)) + at.y % 2;
        of_channel[0] = step[i], of_channel[2] = step[i] * x[i];
      }
    } else {
#pragma unroll
      for (int i = 0; i < packet_elements; i += 2) {
        pair(at.x, at.y + i) = {step[i], step[i + 1], step[i] * x[i], step[i + 1] * x[i + 1]};
      }
    }
    return largest;
  }

  /// y = (C·h + D x) silu(gate) of a packet, from the sums in shared memory.
  __device__ void read_out(cursor<T> const& to, int first, int k, int left,
                           float const (&D)[packet_elements], stored_packet<T> const& x,
                           stored_packet<T> const& gate) {
    if (tile::grid::packets < tile::threads && threadIdx.x >= tile::grid::packets) return;
    int2 const at{first + place.x + packet_elements * k, place.y};
    float y[packet_elements];
    if constexpr (AlongTime) {
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) {
        auto const* const sums = reinterpret_cast<float*>(&pair(at.x + i, at.y)) + at.y % 2;
        y[i] = sums[0] + sums[2];
      }
    } else {
#pragma unroll
      for (int i = 0; i < packet_elements; i += 2) {
        float4 const sums = pair(at.x, at.y + i);
        y[i] = sums.x + sums.z, y[i + 1] = sums.y + sums.w;
      }
    }
#pragma unroll
    for (int i = 0; i < packet_elements; ++i) y[i] = fmaf(D[i], x[i], y[i]);
    if (has_gate) {
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) y[i] *= gate[i] * sigmoid(gate[i]);
    }
    if constexpr (!Packed && AlongTime && tile::grid::packets % 32 == 0) {
      if (to.stride == 1) return store_across(to.packet(k), first, k, left, y);
    }
    store_packet<Packed>(to.packet(k), to.stride, elements(k, left), y);
  }

  /// Store packets of steps that begin anywhere: four of them at a time by eight neighbouring lanes
  /// each, for a store costs what each row of memory costs, however little goes there. `packet`: of
  /// this thread. From where the sums of the warp's packets were.
  __device__ void store_across(T* packet, int first, int k, int left,
                               float const (&y)[packet_elements]) {
    auto const number = [&](int t, int c) -> float& {
      return reinterpret_cast<float*>(&pair(first + t, c))[c % 2];
    };
#pragma unroll
    for (int i = 0; i < packet_elements; ++i) {
      number(place.x + packet_elements * k + i, place.y) = y[i];
    }
    __syncwarp();
    int const lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
    for (int i = 0; i < packet_elements; ++i) {
      int const other = static_cast<int>(threadIdx.x) - lane + 4 * i + lane / packet_elements;
      int2 const at = tile::grid::place(other, true);
      int const t = at.x + packet_elements * k + lane % packet_elements;
      if (at.y >= channels || t >= left) continue;
      T* const to = packet + (at.y - place.y) * p.y.channel + (t - place.x - packet_elements * k);
      *to = to_stored<T>(number(t, at.y));
    }
    __syncwarp();
  }

  /// The step and state where this thread's k-th quad of B or C begins.
  __device__ static int2 quad_place(int k, bool along_time) {
    int const i = (static_cast<int>(threadIdx.x) + k * tile::threads) % (tile::quads / 2);
    constexpr int across = tile::states / 4, along = tile::steps / 4;
    if (along_time) return {i % along * 4, i / along};
    return {i / across, i % across * 4};
  }
  __device__ static int quad(int k) {
    return static_cast<int>(threadIdx.x) + k * tile::threads;
  }

  __device__ selective_projection<T> const& projection(int k) const {
    return quad(k) < tile::quads / 2 ? p.B : p.C;
  }
  __device__ T const* first_quad(int k) const {
    int2 const at = quad_place(k, p.projections_along_time);
    return projection(k).at(b, begin + at.x, group, at.y);
  }
  __device__ void request_quad(T const*& quad_at, int k, int left) {
    int2 const at = quad_place(k, p.projections_along_time);
    bool const is_there = quad(k) < tile::quads && at.x < left && at.y < p.states;
    int const size = p.projections_along_time ? left - at.x : static_cast<int>(p.states) - at.y;
    s.quad[k].request(static_cast<int>(threadIdx.x), quad_at,
                      projection(k).stride(p.projections_along_time), is_there ? size : 0);
    quad_at += tile::steps * projection(k).time;
  }
  __device__ void store_quad(int first, int k) {
    if (quad(k) >= tile::quads) return;
    int2 const at = quad_place(k, p.projections_along_time);
    auto& to = s.projection[quad(k) < tile::quads / 2 ? 0 : 1];
    float4 const numbers = s.quad[k].get(static_cast<int>(threadIdx.x)).numbers();
    if (p.projections_along_time) {
      auto const element = [&](int t) -> float& {
        return reinterpret_cast<float*>(to[first + at.x + t])[at.y];
      };
      element(0) = numbers.x, element(1) = numbers.y;
      element(2) = numbers.z, element(3) = numbers.w;
    } else {
      to[first + at.x][at.y / 4] = numbers;
    }
  }
};

}  // namespace ssm::gpu::detail
