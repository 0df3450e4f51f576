// SPDX-License-Identifier: Apache-2.0
// conv1d_elements.cuh: neighbouring elements, moved together between memory and registers.
#pragma once

#include <cstdint>
#include <type_traits>

#include "ssm/config.hpp"
#include "ssm/detail/element.cuh"

namespace ssm::gpu::detail {

/// What 2, 4, 8 or 16 bytes are moved as.
template <int Bytes>
struct bytes_together;
template <>
struct bytes_together<2> {
  using type = std::uint16_t;
};
template <>
struct bytes_together<4> {
  using type = unsigned;
};
template <>
struct bytes_together<8> {
  using type = uint2;
};
template <>
struct bytes_together<16> {
  using type = uint4;
};

/// `Count` elements as at most 16 bytes at a time; these begin at multiples of their size.
template <class T, int Count>
struct together {
  static constexpr int count = Count * sizeof(T) < 16 ? Count : 16 / static_cast<int>(sizeof(T));
  static constexpr int parts = Count / count;
  using type = typename bytes_together<count* static_cast<int>(sizeof(T))>::type;
};

/// The numbers of a word.
__device__ inline float2 two_numbers(bfloat16, unsigned word) {
  return {__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000u)};
}
__device__ inline float2 two_numbers(float16, unsigned word) {
  __half2 two;
  memcpy(&two, &word, sizeof word);
  return __half22float2(two);
}

/// `Count` elements as they are stored, which no kernel writes meanwhile. To be asked for some time
/// before they are needed.
template <class T, int Count>
class stored_elements {
 public:
  __device__ void load(T const* from) {
#pragma unroll
    for (int i = 0; i < move::parts; ++i) {
      part_[i] = __ldg(reinterpret_cast<typename move::type const*>(from + i * move::count));
    }
  }
  __device__ void numbers(float (&to)[Count]) const {
#pragma unroll
    for (int i = 0; i < move::parts; ++i) {
      float* const first = to + i * move::count;
      if constexpr (sizeof(T) == 2 && move::count > 1) {
        unsigned words[move::count / 2];
        memcpy(words, &part_[i], sizeof words);
#pragma unroll
        for (int k = 0; k < move::count; k += 2) {
          float2 const two = two_numbers(T{}, words[k / 2]);
          first[k] = two.x, first[k + 1] = two.y;
        }
      } else {
        T stored[move::count];
        memcpy(stored, &part_[i], sizeof stored);
#pragma unroll
        for (int k = 0; k < move::count; ++k) first[k] = to_number(stored[k]);
      }
    }
  }

 private:
  using move = together<T, Count>;
  typename move::type part_[move::parts];
};

template <int Count, class T>
__device__ void load_elements(T const* from, float (&to)[Count]) {
  stored_elements<T, Count> stored;
  stored.load(from);
  stored.numbers(to);
}

/// Two numbers as they are stored in 16 bits, rounded by one instruction.
template <class T>
__device__ unsigned two_stored(float low, float high) {
  unsigned result;
  if constexpr (std::is_same_v<T, bfloat16>) {
    auto const two = __floats2bfloat162_rn(low, high);
    memcpy(&result, &two, sizeof two);
  } else {
    auto const two = __floats2half2_rn(low, high);
    memcpy(&result, &two, sizeof two);
  }
  return result;
}

template <int Count, class T>
__device__ void store_elements(T* to, float const (&from)[Count]) {
  using move = together<T, Count>;
#pragma unroll
  for (int part = 0; part < move::parts; ++part) {
    float const* const first = from + part * move::count;
    typename move::type bytes;
    if constexpr (sizeof(T) == 2 && move::count > 1) {
      unsigned words[move::count / 2];
#pragma unroll
      for (int i = 0; i < move::count; i += 2) {
        words[i / 2] = two_stored<T>(first[i], first[i + 1]);
      }
      memcpy(&bytes, words, sizeof bytes);
    } else {
      T stored[move::count];
#pragma unroll
      for (int i = 0; i < move::count; ++i) stored[i] = to_stored<T>(first[i]);
      memcpy(&bytes, stored, sizeof bytes);
    }
    *reinterpret_cast<typename move::type*>(to + part * move::count) = bytes;
  }
}

/// Add to elements without waiting for them; in order, as no other thread adds to them.
template <int Count>
__device__ void add_elements(float* to, float const (&terms)[Count]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if constexpr (Count % 4 == 0) {
#pragma unroll
    for (int i = 0; i < Count; i += 4) {
      asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to + i), "f"(terms[i]),
                   "f"(terms[i + 1]), "f"(terms[i + 2]), "f"(terms[i + 3])
                   : "memory");
    }
  } else if constexpr (Count == 2) {
    asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(to), "f"(terms[0]), "f"(terms[1])
                 : "memory");
  } else
#endif
  {
#pragma unroll
    for (int i = 0; i < Count; ++i) atomicAdd(to + i, terms[i]);
  }
}

}  // namespace ssm::gpu::detail
