// SPDX-License-Identifier: Apache-2.0
// pack_function.hpp: a function of packs on many numbers, by each instruction set.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "ssm/detail/instruction_set.hpp"
#include "ssm/detail/simd.hpp"
#include "support/error_in_ulp.hpp"

namespace ssm::test {

inline constexpr instruction_set all_sets[] = {instruction_set::baseline, instruction_set::avx2,
                                               instruction_set::avx512};

template <class T>
using block = std::array<T, 64>;

/// f of 64 numbers, by the instructions of `set`.
template <class T, class Function>
block<T> evaluate(instruction_set set, block<T> const& x, Function) {
  block<T> y;
  detail::dispatch(
      set, [&](auto width) __attribute__((always_inline)) {
        constexpr int lanes = decltype(width)::template lanes<T>;
        for (std::size_t i = 0; i < x.size(); i += lanes) {
          Function::call(detail::pack<T, lanes>::load(&x[i])).store(&y[i]);
        }
      });
  return y;
}

/// The largest error in ulp over floats of every sign and exponent, each `stride` patterns.
template <class Function, class Truth>
void expect_ulp(double bound, Function function, Truth const& truth, float limit = 1e38f) {
  constexpr std::uint64_t stride = 9973;
  for (auto const set : all_sets) {
    double worst = 0;
    float at = 0;
    block<float> x;
    for (std::uint64_t pattern = 0; pattern < std::uint64_t{1} << 32;) {
      for (float& element : x) {
        element = std::bit_cast<float>(static_cast<std::uint32_t>(pattern));
        if (!(std::abs(element) <= limit)) element = 0;
        pattern += stride;
      }
      auto const y = evaluate(set, x, function);
      for (std::size_t i = 0; i < x.size(); ++i) {
        double const error = error_in_ulp(y[i], truth(static_cast<double>(x[i])));
        if (error > worst) worst = error, at = x[i];
      }
    }
    EXPECT_LE(worst, bound) << "set " << static_cast<int>(set) << ", at " << at;
  }
}

}  // namespace ssm::test
