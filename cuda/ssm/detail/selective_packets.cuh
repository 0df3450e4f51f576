// SPDX-License-Identifier: Apache-2.0
// selective_packets.cuh: how the kernels of selective_scan read and write its sequences.
#pragma once

#include <cstdint>
#include <type_traits>

#include "ssm/config.hpp"
#include "ssm/detail/element.cuh"

namespace ssm::gpu::detail {

/// Sequences (batch, time, channel) are read in packets of eight elements along the axis that is
/// dense in memory.
inline constexpr int packet_elements = 8;

/// Eight elements as they are stored.
template <class T>
struct stored_packet {
  static constexpr int words = packet_elements * sizeof(T) / 4;
  unsigned word[words];

  __device__ float operator[](int i) const {
    if constexpr (sizeof(T) == 2) {
      unsigned const half = i % 2 ? word[i / 2] >> 16 : word[i / 2] & 0xffffu;
      return to_number(T::from_bits(static_cast<std::uint16_t>(half)));
    } else {
      return __uint_as_float(word[i]);
    }
  }
  __device__ void set(int i, T value) {
    if constexpr (sizeof(T) == 2) {
      unsigned const half = value.bits;
      word[i / 2] = i % 2 ? (word[i / 2] & 0xffffu) | half << 16 : (word[i / 2] & ~0xffffu) | half;
    } else {
      word[i] = __float_as_uint(value);
    }
  }
  __device__ void set_all(float const (&values)[packet_elements]) {
#pragma unroll
    for (int i = 0; i < words; ++i) {
      if constexpr (std::is_same_v<T, bfloat16>) {
        auto const two = __floats2bfloat162_rn(values[2 * i], values[2 * i + 1]);
        memcpy(&word[i], &two, sizeof two);
      } else if constexpr (std::is_same_v<T, float16>) {
        auto const two = __floats2half2_rn(values[2 * i], values[2 * i + 1]);
        memcpy(&word[i], &two, sizeof two);
      } else {
        word[i] = __float_as_uint(values[i]);
      }
    }
  }
};

/// Load 16 or 8 bytes where `is_wanted`: a predicate and not a branch, or the loads of a tile would
/// wait for each other.
__device__ inline void load_if(bool is_wanted, void const* from, unsigned (&word)[4]) {
  asm volatile(
      "{ .reg .pred p; setp.ne.s32 p, %5, 0; @p ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4]; }"
      : "+r"(word[0]), "+r"(word[1]), "+r"(word[2]), "+r"(word[3])
      : "l"(from), "r"(static_cast<int>(is_wanted)));
}
__device__ inline void load_if(bool is_wanted, void const* from, unsigned (&word)[2]) {
  asm volatile("{ .reg .pred p; setp.ne.s32 p, %3, 0; @p ld.global.nc.v2.u32 {%0, %1}, [%2]; }"
               : "+r"(word[0]), "+r"(word[1])
               : "l"(from), "r"(static_cast<int>(is_wanted)));
}

/// Copy the first `bytes` of 4, 8 or 16 to shared memory while the thread goes on, zeros beyond.
template <class Bytes>
__device__ void request_bytes(int bytes, Bytes* to, void const* from) {
  static_assert(sizeof(Bytes) == 4 || sizeof(Bytes) == 8 || sizeof(Bytes) == 16);
  auto const address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  if constexpr (sizeof(Bytes) == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from),
                 "r"(bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;" ::"r"(address), "l"(from),
                 "r"(bytes), "n"(sizeof(Bytes))
                 : "memory");
  }
}
/// All of them, or zeros.
template <class Bytes>
__device__ void request_if(bool is_wanted, Bytes* to, void const* from) {
  request_bytes(is_wanted ? static_cast<int>(sizeof(Bytes)) : 0, to, from);
}
/// Until all that this thread has asked for is there, for this thread.
__device__ inline void wait_for_requests() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}
/// What was asked for since the last call is one batch; and until all but the last is there.
__device__ inline void end_batch_of_requests() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
__device__ inline void wait_for_all_but_last_batch() {
  asm volatile("cp.async.wait_group 1;" ::: "memory");
}

/// The first `count` of some elements as they are stored, the others 0.
template <int Elements, class T, int Words>
__device__ void load_elements(T const* first, index_t stride, int count, unsigned (&word)[Words]) {
  static_assert(Elements * sizeof(T) == 4 * Words);
#pragma unroll
  for (int i = 0; i < Elements; ++i) {
    T const value = i < count ? first[i * stride] : T{};
    if constexpr (sizeof(T) == 2) {
      unsigned const half = unsigned{value.bits} << 16 * (i % 2);
      word[i / 2] = i % 2 ? word[i / 2] | half : half;
    } else {
      word[i] = __float_as_uint(value);
    }
  }
}

/// The first `count` elements of a packet that begins at `first`, the others 0. Packed: all or none
/// of them, at a multiple of 16 bytes.
template <bool Packed, class T>
__device__ stored_packet<T> load_packet(T const* first, index_t stride, int count) {
  stored_packet<T> result;
  for (unsigned& word : result.word) word = 0;
  if constexpr (Packed) {
    constexpr int words = stored_packet<T>::words;
    for (int i = 0; i < words; i += 4) {
      unsigned part[4] = {};
      load_if(count > 0, reinterpret_cast<unsigned const*>(first) + i, part);
      for (int k = 0; k < 4; ++k) result.word[i + k] = part[k];
    }
  } else {
    load_elements<packet_elements>(first, stride, count, result.word);
  }
  return result;
}

template <bool Packed, class T>
__device__ void store_packet(T* first, index_t stride, int count,
                             float const (&values)[packet_elements]) {
  if constexpr (Packed) {
    stored_packet<T> packet;
    packet.set_all(values);
    if (count == 0) return;
    auto* const words = reinterpret_cast<uint4*>(first);
    for (int i = 0; i < stored_packet<T>::words / 4; ++i) {
      __stcs(words + i, uint4{packet.word[4 * i], packet.word[4 * i + 1], packet.word[4 * i + 2],
                              packet.word[4 * i + 3]});
    }
  } else {
#pragma unroll
    for (int i = 0; i < packet_elements; ++i) {
      if (i < count) first[i * stride] = to_stored<T>(values[i]);
    }
  }
}

/// How the packets of a tile of `Steps` steps and `Channels` channels are shared out.
template <int Steps, int Channels>
struct packet_grid {
  static constexpr int packets = Steps * Channels / packet_elements;

  /// The first step and channel of packet i.
  __device__ static int2 place(int i, bool along_time) {
    if (along_time) return {i / Channels * packet_elements, i % Channels};
    constexpr int row = Channels / packet_elements;
    return {i / row, i % row * packet_elements};
  }
};

/// Two numbers of 16 bits.
template <class T>
__device__ float2 two_numbers(unsigned word) {
  auto const number = [](unsigned half) {
    return to_number(T::from_bits(static_cast<std::uint16_t>(half)));
  };
  return {number(word & 0xffffu), number(word >> 16)};
}

/// Four neighbouring states of a step, or steps of a state, of B or C as they are stored.
template <class T>
struct stored_quad {
  unsigned word[sizeof(T)];  // 2 or 4

  __device__ static stored_quad of(float const (&values)[4]) {
    T const numbers[] = {to_stored<T>(values[0]), to_stored<T>(values[1]), to_stored<T>(values[2]),
                         to_stored<T>(values[3])};
    stored_quad result;
    memcpy(result.word, numbers, sizeof numbers);
    return result;
  }
  /// To four elements that begin at a multiple of their size.
  __device__ void store(T* first) const {
    if constexpr (sizeof(T) == 2) {
      *reinterpret_cast<uint2*>(first) = {word[0], word[1]};
    } else {
      *reinterpret_cast<uint4*>(first) = {word[0], word[1], word[2], word[3]};
    }
  }

  __device__ float4 numbers() const {
    if constexpr (sizeof(T) == 2) {
      float2 const first = two_numbers<T>(word[0]), last = two_numbers<T>(word[1]);
      return {first.x, first.y, last.x, last.y};
    } else {
      return {__uint_as_float(word[0]), __uint_as_float(word[1]), __uint_as_float(word[2]),
              __uint_as_float(word[3])};
    }
  }
};

/// The first `count` of four elements that begin at `first`, the others 0. Packed: all or none.
template <bool Packed, class T>
__device__ stored_quad<T> load_quad_of(T const* first, index_t stride, int count) {
  stored_quad<T> result;
  for (unsigned& word : result.word) word = 0;
  if constexpr (Packed) {
    load_if(count > 0, first, result.word);
  } else {
    load_elements<4>(first, stride, count, result.word);
  }
  return result;
}

}  // namespace ssm::gpu::detail
