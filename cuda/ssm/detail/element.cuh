// SPDX-License-Identifier: Apache-2.0
// element.cuh: stored elements on the device: their numbers, and packets of 16 bytes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <complex>
#include <cstdint>
#include <cuda/std/complex>

#include "ssm/config.hpp"
#include "ssm/detail/half.hpp"
#include "ssm/scalar.hpp"

namespace ssm::gpu::detail {

/// A complex number for kernels: std::complex has no device functions, and the product of
/// cuda::std::complex branches to mend infinities.
template <class T>
struct complex {
  using value_type = T;

  complex() = default;
  SSM_HD explicit constexpr complex(T re, T im = T(0)) : re_{re}, im_{im} {}

  SSM_HD constexpr T real() const { return re_; }
  SSM_HD constexpr T imag() const { return im_; }

  friend SSM_HD constexpr complex operator+(complex const& a, complex const& b) {
    return complex(a.re_ + b.re_, a.im_ + b.im_);
  }
  friend SSM_HD constexpr complex operator*(complex const& a, complex const& b) {
    return complex(a.re_ * b.re_ - a.im_ * b.im_, a.re_ * b.im_ + a.im_ * b.re_);
  }
  friend constexpr bool operator==(complex const&, complex const&) = default;

 private:
  T re_{}, im_{};
};

template <class T>
struct element {
  using type = T;
};
template <class T>
struct element<std::complex<T>> {
  using type = complex<T>;
};
template <class T>
struct element<cuda::std::complex<T>> {
  using type = complex<T>;
};

/// How kernels see elements stored as T: the same bytes.
template <class T>
using element_t = typename element<T>::type;

template <class T>
__device__ accumulator_t<T> to_number(T stored) {
  return stored;
}
__device__ inline float to_number(bfloat16 stored) {
  return float(stored);
}
__device__ inline float to_number(float16 stored) {
  return __half2float(__builtin_bit_cast(__half, stored));
}

template <class T>
__device__ T to_stored(accumulator_t<T> number) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    return __builtin_bit_cast(T, __float2bfloat16_rn(number));
  } else if constexpr (std::is_same_v<T, float16>) {
    return __builtin_bit_cast(T, __float2half_rn(number));
  } else {
    return number;
  }
}

/// `Count` elements, 16 bytes, that are loaded and stored together. They are kept as words,
/// so that two 16-bit elements share a register.
template <class T, int Count>
class packet {
  static_assert(Count * sizeof(T) == 16);

 public:
  __device__ accumulator_t<T> operator[](int i) const {
    if constexpr (sizeof(T) == 2) {
      unsigned const half = i % 2 ? word_[i / 2] >> 16 : word_[i / 2] & 0xffffu;
      return to_number(T::from_bits(static_cast<std::uint16_t>(half)));
    } else {
      T value;
      constexpr int words = sizeof(T) / 4;
      unsigned part[words];
      for (int k = 0; k < words; ++k) part[k] = word_[i * words + k];
      memcpy(&value, part, sizeof(T));
      return value;
    }
  }

  __device__ void set(int i, accumulator_t<T> number) {
    T const value = to_stored<T>(number);
    if constexpr (sizeof(T) == 2) {
      unsigned const half = value.bits;
      word_[i / 2] =
          i % 2 ? (word_[i / 2] & 0xffffu) | half << 16 : (word_[i / 2] & 0xffff0000u) | half;
    } else {
      constexpr int words = sizeof(T) / 4;
      unsigned part[words];
      memcpy(part, &value, sizeof(T));
      for (int k = 0; k < words; ++k) word_[i * words + k] = part[k];
    }
  }

  /// The first element last.
  __device__ packet reversed() const {
    packet result;
    if constexpr (sizeof(T) == 2) {
      for (int k = 0; k < words; ++k) {
        result.word_[k] = __byte_perm(word_[words - 1 - k], 0, 0x1032);
      }
    } else {
      constexpr int size = sizeof(T) / 4;
      for (int i = 0; i < Count; ++i)
        for (int k = 0; k < size; ++k)
          result.word_[i * size + k] = word_[(Count - 1 - i) * size + k];
    }
    return result;
  }

  __device__ static packet load_shared(T const* from) {
    uint4 const words = *reinterpret_cast<uint4 const*>(from);
    packet result;
    result.word_[0] = words.x, result.word_[1] = words.y;
    result.word_[2] = words.z, result.word_[3] = words.w;
    return result;
  }

  __device__ void store_shared(T* to) const {
    *reinterpret_cast<uint4*>(to) = uint4{word_[0], word_[1], word_[2], word_[3]};
  }

  __device__ void store(T* to) const {
    __stcs(reinterpret_cast<uint4*>(to), uint4{word_[0], word_[1], word_[2], word_[3]});
  }

 private:
  static constexpr int words = 4;
  unsigned word_[words] = {};
};

/// Copy 4, 8 or 16 bytes from global to shared memory while the thread goes on.
template <int Bytes, class T>
__device__ void request_bytes(T* to_shared, T const* from_global) {
  auto const to = static_cast<unsigned>(__cvta_generic_to_shared(to_shared));
  auto const from = __cvta_generic_to_global(from_global);
  if constexpr (Bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(from), "n"(Bytes)
                 : "memory");
  }
}
__device__ inline void end_of_requests() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/// Until what this thread has requested is there for this thread, but for what the last `Groups`
/// end_of_requests() ended.
template <int Groups>
__device__ void wait_for_requests_but() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Groups) : "memory");
}

/// The value that another lane of the warp has.
template <class T>
__device__ T from_lane(T const& value, int lane) {
  static_assert(sizeof(T) % 4 == 0);
  unsigned word[sizeof(T) / 4];
  memcpy(word, &value, sizeof(T));
  for (unsigned& w : word) w = __shfl_sync(0xffffffffu, w, lane);
  T result;
  memcpy(&result, word, sizeof(T));
  return result;
}

}  // namespace ssm::gpu::detail
