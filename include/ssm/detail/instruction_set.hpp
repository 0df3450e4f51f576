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

/// What dispatch() runs where `wanted` is asked for.
inline instruction_set chosen_instruction_set([[maybe_unused]] instruction_set wanted) {
#if defined(__CUDACC__)  // nvcc hands a lambda's attributes on to nobody
  return instruction_set::baseline;
#else
  return std::min(wanted, machine_instruction_set());
#endif
}

/// Bytes in a vector register of a set, known to the compiler.
template <int Bytes>
struct vector_width {
  template <class T>
  static constexpr int lanes = Bytes / static_cast<int>(sizeof(T));
  static constexpr int bytes = Bytes;
};

#if defined(__x86_64__) && !defined(__CUDACC__)
template <class Body>
__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))) void run_avx512(
    Body const& body) {
  body(vector_width<64>{});
}

template <class Body>
__attribute__((target("avx2,fma"))) void run_avx2(Body const& body) {
  body(vector_width<32>{});
}
#endif

/// Call body(vector_width<...>) with the instructions of `wanted`, or the best there are below it.
/// The body is a generic lambda marked __attribute__((always_inline)), as must be all that it
/// calls with packs: only code that is inlined here gets the instructions.
///
/// Units of one program may have different -m flags, for a machine that has all of them: of an
/// inline function that two units share, ours or the standard library's, the linker keeps one, with
/// the flags of either. A name of ours for each set of flags would not change the latter, and a
/// tensor could not pass between the units. So is it with an operator of the CPU that is called
/// from a CUDA source too, where it keeps to the baseline: call it from C++ alone where speed
/// counts.
template <class Body>
void dispatch([[maybe_unused]] instruction_set wanted, Body const& body) {
#if defined(__x86_64__) && !defined(__CUDACC__)
  switch (chosen_instruction_set(wanted)) {
    case instruction_set::avx512:
      return run_avx512(body);
    case instruction_set::avx2:
      return run_avx2(body);
    default:
      break;
  }
#endif
  body(vector_width<16>{});
}

}  // namespace ssm::detail
