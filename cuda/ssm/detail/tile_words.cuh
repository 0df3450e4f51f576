// SPDX-License-Identifier: Apache-2.0
// tile_words.cuh: how the blocks of one kernel hand each other affine maps through memory.
#pragma once

#include <cstring>

#include "ssm/affine_map.hpp"

namespace ssm::gpu::detail {

/// An affine map of which it is known whether it forgets: one that begins at the start of a row
/// has a value and no memory of what came before. Said by a flag, not by a decay of 0, because
/// 0·infinity is not 0.
template <class A>
struct tile_map {
  affine_map<A> map{};
  bool is_constant = false;

  __device__ A operator()(A const& h) const { return is_constant ? map.drive : map(h); }
};

/// First `earlier`, then `later`.
template <class A>
__device__ tile_map<A> compose(tile_map<A> const& earlier, tile_map<A> const& later) {
  return later.is_constant ? later
                           : tile_map<A>{then{}(earlier.map, later.map), earlier.is_constant};
}

/// A map in memory: 8 bytes of it to a word of 16, which is written and read as one, so that the
/// flag in it says that the 8 bytes are there. Words are 0 before a kernel starts.
template <class A>
class tile_slot {
 public:
  static constexpr int words = sizeof(affine_map<A>) / 8;

  __device__ void publish(tile_map<A> const& value) {
    unsigned long long part[words];
    memcpy(part, &value.map, sizeof(value.map));
    for (int i = 0; i < words; ++i) {
      // Relaxed: nothing but the word itself is handed over.
      asm volatile(
          "{ .reg .b128 w; mov.b128 w, {%1, %2}; st.relaxed.gpu.global.b128 [%0], w; }" ::"l"(
              __cvta_generic_to_global(&word_[i])),
          "l"(part[i]), "l"(static_cast<unsigned long long>(value.is_constant ? constant : plain))
          : "memory");
    }
  }

  /// What was there when it was read.
  class content {
   public:
    __device__ bool is_empty() const { return flag_ == empty; }  ///< not yet published
    __device__ tile_map<A> map() const {
      tile_map<A> value;
      memcpy(&value.map, part_, sizeof(value.map));
      value.is_constant = flag_ == constant;
      return value;
    }

   private:
    friend class tile_slot;
    unsigned long long part_[words];
    unsigned flag_ = empty;
  };
  __device__ content load() const {
    content found;
    found.flag_ = constant;
    for (int i = 0; i < words; ++i) {
      unsigned long long own;
      asm volatile("{ .reg .b128 w; ld.relaxed.gpu.global.b128 w, [%2]; mov.b128 {%0, %1}, w; }"
                   : "=l"(found.part_[i]), "=l"(own)
                   : "l"(__cvta_generic_to_global(&word_[i]))
                   : "memory");
      auto const flag = static_cast<unsigned>(own);
      found.flag_ =
          flag < found.flag_ ? flag : found.flag_;  // the same in all, once they are there
    }
    return found;
  }

 private:
  static constexpr unsigned empty = 0, plain = 1, constant = 2;
  ulonglong2 word_[words];
};

/// A state that one block hands to another, in a word of 16 bytes with the number of those who are
/// waiting for it, from 1 on. Words are 0 before a kernel starts.
template <class A>
class state_slot {
  static_assert(sizeof(A) <= 8);

 public:
  __device__ void hand_on(A const& state, int to) {
    unsigned long long bits = 0;
    memcpy(&bits, &state, sizeof(A));
    asm volatile(
        "{ .reg .b128 w; mov.b128 w, {%1, %2}; st.relaxed.gpu.global.b128 [%0], w; }" ::"l"(
            __cvta_generic_to_global(&word_)),
        "l"(bits), "l"(static_cast<unsigned long long>(to))
        : "memory");
  }
  __device__ A wait(int number) const {
    for (;;) {
      unsigned long long bits, to;
      asm volatile("{ .reg .b128 w; ld.relaxed.gpu.global.b128 w, [%2]; mov.b128 {%0, %1}, w; }"
                   : "=l"(bits), "=l"(to)
                   : "l"(__cvta_generic_to_global(&word_))
                   : "memory");
      if (to == static_cast<unsigned long long>(number)) {
        A state;
        memcpy(&state, &bits, sizeof(A));
        return state;
      }
      __nanosleep(100);
    }
  }

 private:
  ulonglong2 word_;
};

}  // namespace ssm::gpu::detail
