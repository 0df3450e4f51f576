// SPDX-License-Identifier: Apache-2.0
// simd.hpp: several numbers at once, as one register of whatever width the machine has.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "ssm/config.hpp"
#include "ssm/detail/half.hpp"

namespace ssm::detail {

/// `Lanes` numbers that the compiler keeps in one vector register (or in several narrower ones).
/// A struct around the compilers' vector extension, so that functions can return it where the
/// instructions that pass it in a register are not enabled. All that touches it is always_inline:
/// it then becomes part of the function that dispatch() enables the instructions for.
template <class T, int Lanes>
struct pack {
  using value_type = T;
  static constexpr int lanes = Lanes;
  typedef T vector __attribute__((vector_size(sizeof(T) * Lanes)));

  vector v;

  pack() = default;
  [[gnu::always_inline]] pack(vector const& value) : v(value) {}
  /// The same number in all lanes, for constants. One that is only known at run time goes into the
  /// operators that take a T, or g++ inserts it lane by lane.
  [[gnu::always_inline]] pack(T value) : v(value - vector{}) {}

  /// In a loop, where g++ inserts even T(0) lane by lane.
  [[gnu::always_inline]] static pack zeros() { return vector{}; }

  [[gnu::always_inline]] static pack load(T const* from) {
    pack result;
    __builtin_memcpy(&result.v, from, sizeof(vector));
    return result;
  }
  [[gnu::always_inline]] void store(T* to) const { __builtin_memcpy(to, &v, sizeof(vector)); }

  // clang-format off
  [[gnu::always_inline]] friend pack operator+(pack const& a, pack const& b) { return a.v + b.v; }
  [[gnu::always_inline]] friend pack operator-(pack const& a, pack const& b) { return a.v - b.v; }
  [[gnu::always_inline]] friend pack operator*(pack const& a, pack const& b) { return a.v * b.v; }
  [[gnu::always_inline]] friend pack operator/(pack const& a, pack const& b) { return a.v / b.v; }
  [[gnu::always_inline]] friend pack operator+(pack const& a, T b) { return a.v + b; }
  [[gnu::always_inline]] friend pack operator-(pack const& a, T b) { return a.v - b; }
  [[gnu::always_inline]] friend pack operator*(pack const& a, T b) { return a.v * b; }
  [[gnu::always_inline]] friend pack operator-(pack const& a) { return -a.v; }
  [[gnu::always_inline]] pack& operator+=(pack const& b) { v += b.v; return *this; }
  [[gnu::always_inline]] pack& operator*=(pack const& b) { v *= b.v; return *this; }
  // clang-format on
};

/// a·b + c, in one rounding where there is such an instruction. (clang fuses only what stands in
/// one expression.)
template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> multiply_add(pack<T, Lanes> const& a,
                                                          pack<T, Lanes> const& b,
                                                          pack<T, Lanes> const& c) {
  return a.v * b.v + c.v;
}

template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> multiply_add(pack<T, Lanes> const& a, T b,
                                                          pack<T, Lanes> const& c) {
  return a.v * b + c.v;
}

template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> multiply_add(pack<T, Lanes> const& a,
                                                          pack<T, Lanes> const& b, T c) {
  return a.v * b.v + c;
}

template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> multiply_add(pack<T, Lanes> const& a, T b, T c) {
  return a.v * b + c;
}

/// The larger of the two; b where either is NaN. (g++ makes a comparison and a selection of what
/// clang knows to be one instruction.)
template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> larger(pack<T, Lanes> const& a,
                                                    pack<T, Lanes> const& b) {
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
  if constexpr (std::is_same_v<T, float> && sizeof(a) >= 32) {
    typename pack<T, Lanes>::vector result;
    asm("vmaxps {%2, %1, %0|%0, %1, %2}" : "=v"(result) : "v"(a.v), "v"(b.v));
    return result;
  }
#endif
  return a.v > b.v ? a.v : b.v;
}

/// The smaller of the two; b where either is NaN.
template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> smaller(pack<T, Lanes> const& a,
                                                     pack<T, Lanes> const& b) {
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
  if constexpr (std::is_same_v<T, float> && sizeof(a) >= 32) {
    typename pack<T, Lanes>::vector result;
    asm("vminps {%2, %1, %0|%0, %1, %2}" : "=v"(result) : "v"(a.v), "v"(b.v));
    return result;
  }
#endif
  return a.v < b.v ? a.v : b.v;
}

/// yes where a > b, elsewhere no.
template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> where_greater(pack<T, Lanes> const& a,
                                                           pack<T, Lanes> const& b,
                                                           pack<T, Lanes> const& yes,
                                                           pack<T, Lanes> const& no) {
  return a.v > b.v ? yes.v : no.v;
}

/// Hide from the compiler where `a` comes from, so that it is computed once. Without this g++
/// fuses a product into each of its two uses, which costs a second multiplication.
template <class T, int Lanes>
[[gnu::always_inline]] inline void keep(pack<T, Lanes>& a) {
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__OPTIMIZE__)
  asm("" : "+v"(a.v));
#else
  (void)a;
#endif
}

/// Call body(integral_constant<int, i>) for i = 0 ... Count - 1, written out by the compiler at
/// every optimization level, so that an array of packs becomes registers.
template <int Count, class Body>
[[gnu::always_inline]] inline void unrolled(Body const& body) {
  [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
    (body(std::integral_constant<int, i>{}), ...);
  }
  (std::make_integer_sequence<int, Count>{});
}

/// Numbers as they are stored, in the type they are computed with.
template <class T, int Lanes, class Storage>
[[gnu::always_inline]] inline pack<T, Lanes> load_as(Storage const* from) {
  if constexpr (std::is_same_v<T, Storage>) {
    return pack<T, Lanes>::load(from);
  } else if constexpr (std::is_same_v<Storage, bfloat16>) {
    auto const stored = pack<std::uint16_t, Lanes>::load(&from->bits);
    typename pack<std::uint32_t, Lanes>::vector const bits =
        __builtin_convertvector(stored.v, typename pack<std::uint32_t, Lanes>::vector) << 16;
    pack<T, Lanes> result;
    __builtin_memcpy(&result.v, &bits, sizeof bits);
    return result;
  } else {
    pack<T, Lanes> result;
    for (int i = 0; i < Lanes; ++i) result.v[i] = static_cast<T>(from[i]);
    return result;
  }
}

template <class T, int Lanes, class Storage>
[[gnu::always_inline]] inline void store_as(pack<T, Lanes> const& value, Storage* to) {
  if constexpr (std::is_same_v<T, Storage>) {
    value.store(to);
  } else if constexpr (std::is_same_v<Storage, bfloat16>) {
    using words = typename pack<std::uint32_t, Lanes>::vector;
    words bits;
    __builtin_memcpy(&bits, &value.v, sizeof bits);
    words const rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    words const quiet_nan = (bits >> 16) | 0x40u;
    words const kept = (bits & 0x7fff'ffffu) > 0x7f80'0000u ? quiet_nan : rounded;
    pack<std::uint16_t, Lanes>(
        __builtin_convertvector(kept, typename pack<std::uint16_t, Lanes>::vector))
        .store(&to->bits);
  } else {
    for (int i = 0; i < Lanes; ++i) to[i] = static_cast<Storage>(T(value.v[i]));
  }
}

/// The sum of all lanes: of each 16 bytes first, across them last.
template <class T, int Lanes>
[[gnu::always_inline]] inline T sum_of_lanes(pack<T, Lanes> const& a) {
  constexpr int few = 16 / static_cast<int>(sizeof(T));  // every x86-64 machine has these
  T lanes[Lanes];
  a.store(lanes);
  auto sum = pack<T, few>::load(lanes);
  unrolled<Lanes / few - 1>([&](auto i) __attribute__((always_inline)) {
    sum += pack<T, few>::load(lanes + (decltype(i)::value + 1) * few);
  });
  if constexpr (few == 2) {
    return sum.v[0] + sum.v[1];
  } else {
    return (sum.v[0] + sum.v[2]) + (sum.v[1] + sum.v[3]);
  }
}

/// The lanes `From` of a and, counted on, of b.
template <int... From, class A, int Lanes>
[[gnu::always_inline]] inline pack<A, static_cast<int>(sizeof...(From))> shuffled(
    pack<A, Lanes> const& a, pack<A, Lanes> const& b) {
#if defined(__CUDACC__)  // nvcc drops the dots from the arguments of a builtin
  return typename pack<A, static_cast<int>(sizeof...(From))>::vector{
      (From < Lanes ? a.v[From % Lanes] : b.v[From % Lanes])...};
#else
  return __builtin_shufflevector(a.v, b.v, From...);
#endif
}

/// Half as many sums of lanes as there were: in each part of Part lanes those of a, then those of
/// b, where Width lanes next to each other have been one sum.
template <int Part, int Width, class A, int Lanes>
[[gnu::always_inline]] inline pack<A, Lanes> fold_lanes(pack<A, Lanes> const& a,
                                                        pack<A, Lanes> const& b) {
  constexpr auto source = [](int lane, int second) {
    constexpr int half_part = Part / 2, half_width = Width / 2;
    int const i = lane % half_part, from = lane % Part < half_part ? 0 : Lanes;
    return from + lane / Part * Part + i / half_width * Width + second * half_width +
           i % half_width;
  };
  return [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
    return shuffled<source(i, 0)...>(a, b) + shuffled<source(i, 1)...>(a, b);
  }
  (std::make_integer_sequence<int, Lanes>{});
}

/// All of them folded into one.
template <int Part, int Width, class A, int Lanes, std::size_t Count>
[[gnu::always_inline]] inline pack<A, Lanes> fold_all_lanes(pack<A, Lanes> const (&packs)[Count]) {
  if constexpr (Count == 1) {
    return packs[0];
  } else {
    pack<A, Lanes> half[Count / 2];
    unrolled<Count / 2>([&](auto i) __attribute__((always_inline)) {
      constexpr int k = 2 * decltype(i)::value;
      half[decltype(i)::value] = fold_lanes<Part, Width>(packs[k], packs[k + 1]);
    });
    return fold_all_lanes<Part, Width / 2>(half);
  }
}

/// The sums of the lanes of Lanes packs, pack_of(integral_constant<int, i>), in (Lanes - 1)·3
/// instructions.
template <class A, int Lanes, class PackOf>
[[gnu::always_inline]] inline pack<A, Lanes> sums_of_lanes(PackOf const& pack_of) {
  constexpr int few = 16 / sizeof(A), parts = Lanes / few;  // 16 bytes stay where they are
  pack<A, Lanes> across[few];
  unrolled<few>([&](auto q) __attribute__((always_inline)) {
    pack<A, Lanes> packs[parts];
    unrolled<parts>([&](auto k) __attribute__((always_inline)) {
      constexpr int i = few * decltype(k)::value + decltype(q)::value;
      packs[decltype(k)::value] = pack_of(std::integral_constant<int, i>{});
    });
    across[decltype(q)::value] = fold_all_lanes<Lanes, Lanes>(packs);
  });
  return fold_all_lanes<few, few>(across);
}

}  // namespace ssm::detail
