// SPDX-License-Identifier: Apache-2.0
// instruction_set.hpp: run one piece of code with the widest vector instructions of the machine.
#pragma once

#include <algorithm>
#include <type_traits>

#include "ssm/execution.hpp"

namespace ssm::detail {

/// The widest set that this machine has.
inline instruction_set machine_instruction_set() {
#if defined(__x86_64__)
  static instruction_set const found = [] {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
      return instruction_set::avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
      return instruction_set::avx2;
    }
    return instruction_set::baseline;
  }();
  return found;
#else
  return instruction_set::baseline;
#endif
}

/// Bytes in a vector register of a set, known to the compiler. `Build` keeps the wrappers of
/// different flags apart, but not what calls them: of an operator in two translation units the
/// linker keeps one, with that unit's flags. All units of a program need the same -m flags, or a
/// machine that has them all.
template <int Bytes, int Build>
struct vector_width {
  template <class T>
  static constexpr int lanes = Bytes / static_cast<int>(sizeof(T));
  static constexpr int bytes = Bytes;
};

inline constexpr int build_flags = 0
#if defined(__AVX512F__)
                                   + 8
#endif
#if defined(__AVX2__)
                                   + 4
#endif
#if defined(__FMA__)
                                   + 2
#endif
#if defined(__AVX__)
                                   + 1
#endif
    ;

#if defined(__x86_64__)
template <int Build, class Body>
__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))) void run_avx512(
    Body const& body) {
  body(vector_width<64, Build>{});
}

template <int Build, class Body>
__attribute__((target("avx2,fma"))) void run_avx2(Body const& body) {
  body(vector_width<32, Build>{});
}
#endif

template <int Build, class Body>
void run_baseline(Body const& body) {
  body(vector_width<16, Build>{});
}

/// Call body(vector_width<...>) with the instructions of `wanted`, or the best there are below it.
/// The body is a generic lambda marked __attribute__((always_inline)), as must be all that it
/// calls with packs: only code that is inlined here gets the instructions.
template <class Body>
void dispatch(instruction_set wanted, Body const& body) {
#if defined(__x86_64__)
  switch (std::min(wanted, machine_instruction_set())) {
    case instruction_set::avx512:
      return run_avx512<build_flags>(body);
    case instruction_set::avx2:
      return run_avx2<build_flags>(body);
    default:
      break;
  }
#endif
  run_baseline<build_flags>(body);
}

}  // namespace ssm::detail
