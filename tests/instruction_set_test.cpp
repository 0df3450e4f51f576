// SPDX-License-Identifier: Apache-2.0
// instruction_set_test.cpp: which instructions run is told by how a product and a sum round.
#include "ssm/detail/instruction_set.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "ssm/detail/simd.hpp"

namespace {

using namespace ssm;

constexpr float eps = std::numeric_limits<float>::epsilon();

// Without optimization no compiler fuses a product and a sum; elsewhere than on x86-64 baseline
// may, and is all there is.
#if defined(__OPTIMIZE__) && defined(__x86_64__)
/// (1 + eps)² - (1 + 2 eps), which is eps² where one instruction does both, and 0 where two do.
float rounding_of(instruction_set set) {
  float volatile const factor = 1 + eps, rest = -(1 + 2 * eps);  // unknown to the compiler
  float result = 0;
  detail::dispatch(
      set, [&](auto width) __attribute__((always_inline)) {
        using pack = detail::pack<float, decltype(width)::template lanes<float>>;
        float const a = factor, b = rest;
        result = detail::multiply_add(pack(a), pack(a), pack(b)).v[0];
      });
  return result;
}

TEST(InstructionSet, IsTheOneAskedForOrTheWidestOfTheMachine) {
#if defined(__FMA__)
  float const baseline = eps * eps;
#else
  float const baseline = 0;
#endif
  bool const wide = detail::machine_instruction_set() != instruction_set::baseline;
  float const widest = wide ? eps * eps : baseline;
  EXPECT_EQ(rounding_of(instruction_set::baseline), baseline);
  EXPECT_EQ(rounding_of(instruction_set::avx2), widest);
  EXPECT_EQ(rounding_of(instruction_set::avx512), widest);
  EXPECT_EQ(rounding_of(instruction_set::widest), widest);
}
#endif

TEST(InstructionSet, HasPacksOfItsRegisters) {
  auto const bytes = [](instruction_set set) {
    int found = 0;
    detail::dispatch(
        set, [&](auto width) __attribute__((always_inline)) { found = decltype(width)::bytes; });
    return found;
  };
  int const widest = bytes(instruction_set::widest);
  EXPECT_EQ(bytes(instruction_set::baseline), 16);
  EXPECT_EQ(bytes(instruction_set::avx2), std::min(widest, 32));
  EXPECT_EQ(bytes(instruction_set::avx512), widest);
}

}  // namespace
