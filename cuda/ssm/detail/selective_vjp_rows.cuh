// SPDX-License-Identifier: Apache-2.0
// selective_vjp_rows.cuh: eight steps of a block's channels in shared memory, and the gradients
// that leave from there.
#pragma once

#include "ssm/detail/selective_vjp_problem.cuh"
#include "ssm/detail/selective_vjp_tile.cuh"

namespace ssm::gpu::detail {

/// Which channels and steps a block has, and what of them is this thread's to load, convert and
/// leave.
template <class T, packing Packing>
class selective_vjp_rows {
 protected:
  using tile = selective_vjp_tile;
  static constexpr bool Packed = Packing != packing::none;
  using shared = tile::shared<T, Packed>;

  selective_vjp_problem<T> const& p;
  shared& s;
  channel_block block;
  index_t begin;
  int length;  // of the segment: its steps count from 0

  __device__ selective_vjp_rows(selective_vjp_problem<T> const& problem, shared& memory)
      : p{problem}, s{memory}, block(problem, blockIdx.x, tile::channels) {
    begin = blockIdx.y * p.segment_length;
    index_t const left = p.length - begin;
    length = static_cast<int>(left < p.segment_length ? left : p.segment_length);
    if (threadIdx.x > 0) return;
    auto const first = [&](auto const& array) { return array.at(block.b, begin, block.channel); };
    s.x = first(p.x), s.step_size = first(p.step_size);
    s.y_cotangent = first(p.y_cotangent), s.gate = first(p.gate);
    s.to_x = first(p.to_x), s.to_step_size = first(p.to_step_size), s.to_gate = first(p.to_gate);
    s.projections[0] = p.B.at(block.b, begin, block.group, p.first_state);
    s.projections[1] = p.C.at(block.b, begin, block.group, p.first_state);
    auto const& states = p.block_states;
    s.block_states = states.data_handle() +
                     (block.b * states.stride(0) + begin / tile::steps * states.stride(1) +
                      p.first_state * states.stride(2) + block.channel * states.stride(3));
  }

  __device__ bool along_time() const {
    return Packed ? Packing == packing::of_steps : p.along_time;
  }

  /// threadIdx.x, read again: what is made of it takes no register while steps are differentiated.
  __device__ static unsigned thread() {
    unsigned result;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(result));
    return result;
  }
  /// This thread's packet of eight steps.
  __device__ int2 place() const {
    unsigned const i = thread();
    int2 const in_warp = tile::grid::place(static_cast<int>(i % 32), along_time());
    return {in_warp.x, in_warp.y + static_cast<int>(i / 32 * tile::warp_channels)};
  }

  /// Where a channel's pair is in an even row.
  __device__ static int place_of(int c) { return 2 * tile::swizzled(c / 2) + c % 2; }
  __device__ float2* pairs(int t) const { return reinterpret_cast<float2*>(s.pair[t]); }

  /// An element of an array whose first one here is known. Strides of packed arrays are short.
  template <class Element, class Array>
  __device__ Element* element(Element* first, Array const& array, int2 const& at) const {
    if constexpr (Packing == packing::of_channels) {
      return far(first + at.y, at.x, static_cast<int>(array.time));
    } else if constexpr (Packing == packing::of_steps) {
      return far(first + at.x, at.y, static_cast<int>(array.channel));
    } else {
      return first + (at.x * array.time + at.y * array.channel);
    }
  }
  /// first + i·stride in one instruction.
  template <class Element>
  __device__ static Element* far(Element* first, int i, int stride) {
    Element* result;
    asm("mad.wide.s32 %0, %1, %2, %3;"
        : "=l"(result)
        : "r"(i), "r"(stride * static_cast<int>(sizeof(Element))), "l"(first));
    return result;
  }

  /// How many of the eight steps from t0 on are the segment's.
  __device__ int steps_from(int t0) const {
    return t0 < 0 ? 0 : length - t0 < tile::steps ? length - t0 : tile::steps;
  }

  /// How many elements there are from `at` on, along the dense axis; none without a packet there.
  __device__ int count_ahead(int2 const& at, int t0) const {
    int const steps = steps_from(t0) - at.x, channels = block.channels - at.y;
    if (steps <= 0 || channels <= 0) return 0;
    return along_time() ? length - t0 - at.x : channels;
  }
  /// And how many of them are the packet's.
  __device__ int count(int2 const& at, int t0) const {
    int const ahead = count_ahead(at, t0);
    return ahead < packet_elements ? ahead : packet_elements;
  }

  /// Leave the gradients of the eight steps from t0 on.
  __device__ void leave(int t0) const {
    if (p.adds()) {
      leave_all<true>(t0);
    } else {
      leave_all<false>(t0);
    }
  }

  /// Eight numbers of the block's channels, those of this thread's packet.
  __device__ void of_channels(int2 const& at, tile::row const& from,
                              float (&to)[packet_elements]) const {
    if (along_time()) {
#pragma unroll
      for (float& number : to) number = from[at.y];
    } else {
#pragma unroll
      for (int i = 0; i < packet_elements; i += 4) {
        float4 const four = reinterpret_cast<float4 const&>(from[at.y + i]);
        to[i] = four.x, to[i + 1] = four.y, to[i + 2] = four.z, to[i + 3] = four.w;
      }
    }
  }

  __device__ void put_pairs(int2 const& at, float const (&first)[packet_elements],
                            float const (&second)[packet_elements]) const {
    if (along_time()) {
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) {
        pairs(i)[place_of(at.y) ^ tile::apart(i)] = {first[i], second[i]};
      }
    } else {
#pragma unroll
      for (int i = 0; i < packet_elements; i += 2) {
        s.pair[at.x][tile::swizzled((at.y + i) / 2) ^ tile::apart(at.x) / 2] = {
            first[i], second[i], first[i + 1], second[i + 1]};
      }
    }
  }
  __device__ void put(int2 const& at, tile::row* to, float const (&values)[packet_elements]) const {
    if (along_time()) {
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) to[i][at.y ^ tile::apart(i)] = values[i];
    } else {
#pragma unroll
      for (int i = 0; i < packet_elements; i += 4) {
        reinterpret_cast<float4&>(to[at.x][(at.y + i) ^ tile::apart(at.x)]) = {
            values[i], values[i + 1], values[i + 2], values[i + 3]};
      }
    }
  }
  __device__ void get(int2 const& at, tile::row const* from,
                      float (&values)[packet_elements]) const {
    if (along_time()) {
#pragma unroll
      for (int i = 0; i < packet_elements; ++i) values[i] = from[i][at.y ^ tile::apart(i)];
    } else {
#pragma unroll
      for (int i = 0; i < packet_elements; i += 4) {
        auto const& first = from[at.x][(at.y + i) ^ tile::apart(at.x)];
        float4 const four = reinterpret_cast<float4 const&>(first);
        values[i] = four.x, values[i + 1] = four.y;
        values[i + 2] = four.z, values[i + 3] = four.w;
      }
    }
  }

 private:
  /// Neighbouring lanes leave neighbouring quads.
  __device__ int2 leaving_place() const {
    if (Packing != packing::of_channels) return place();
    unsigned const i = thread();
    return {static_cast<int>(i % 32 / 8),
            static_cast<int>(i / 32 * tile::warp_channels + i % 8 * 4)};
  }

  /// All loads come before what is stored.
  template <bool Adds>
  __device__ void leave_all(int t0) const {
    tile::row const* const rows[] = {s.xs, s.slopes, s.gates};
    selective_array<float> const* const arrays[] = {&p.to_x, &p.to_step_size, &p.to_gate};
    float* const firsts[] = {s.to_x, s.to_step_size, s.to_gate};
    if (!Packed && along_time()) {
#pragma unroll
      for (int i = 0; i < 3; ++i) {
        if (arrays[i]->data != nullptr) leave_across<Adds>(firsts[i], *arrays[i], rows[i], t0);
      }
      return;
    }
    int2 const at = leaving_place();
    alignas(16) float values[3][packet_elements];
    float* first[3];
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      first[i] = element(firsts[i], *arrays[i], {t0 + at.x, at.y});
      get_leaving(at, rows[i], values[i]);
    }
    int const steps = at.y < block.channels ? steps_from(t0) - at.x : 0, elements = count(at, t0);
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      bool const is_wanted = arrays[i]->data != nullptr;
      auto const* const four = reinterpret_cast<float4 const*>(values[i]);
      if constexpr (Packing == packing::of_channels) {
        leave_four<Adds>(is_wanted && steps > 0, first[i], four[0]);
        leave_four<Adds>(is_wanted && steps > 4, first[i] + 4 * arrays[i]->time, four[1]);
      } else if constexpr (Packed) {
        leave_four<Adds>(is_wanted && elements > 0, first[i], four[0]);
        leave_four<Adds>(is_wanted && elements > 0, first[i] + 4, four[1]);
      } else {
        index_t const stride = arrays[i]->stride(along_time());
#pragma unroll
        for (int k = 0; k < packet_elements; ++k) {
          if (!is_wanted || k >= elements) continue;
          leave_one<Adds>(first[i] + k * stride, values[i][k]);
        }
      }
    }
  }

  /// Packets of steps that begin anywhere: four of them at a time by eight neighbouring lanes each,
  /// for a store costs what each row of memory costs, however little goes there.
  template <bool Adds>
  __device__ void leave_across(float* first, selective_array<float> const& array,
                               tile::row const* from, int t0) const {
    unsigned const i = thread();
    int const t = static_cast<int>(i % tile::steps), steps = steps_from(t0);
#pragma unroll
    for (int k = 0; k < packet_elements; ++k) {
      int const c = static_cast<int>(i / 32 * tile::warp_channels + 4 * k + i % 32 / tile::steps);
      if (t >= steps || c >= block.channels) continue;
      leave_one<Adds>(element(first, array, {t0 + t, c}), from[t][c ^ tile::apart(t)]);
    }
  }
  /// Without waiting for what is there; no other thread adds to it.
  template <bool Adds>
  __device__ static void leave_one(float* to, float value) {
    if constexpr (Adds) {
      atomicAdd(to, value);
    } else {
      *to = value;
    }
  }

  /// What this thread leaves: a packet, or a quad of one step and that of four steps later, which
  /// lie beside those of neighbouring lanes.
  __device__ void get_leaving(int2 const& at, tile::row const* from,
                              float (&values)[packet_elements]) const {
    if constexpr (Packing == packing::of_channels) {
      int const c = at.y ^ tile::apart(at.x);
      auto* const four = reinterpret_cast<float4*>(values);
      four[0] = reinterpret_cast<float4 const&>(from[at.x][c]);
      four[1] = reinterpret_cast<float4 const&>(from[at.x + 4][c]);
    } else {
      get(at, from, values);
    }
  }
};

}  // namespace ssm::gpu::detail
