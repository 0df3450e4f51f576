// SPDX-License-Identifier: Apache-2.0
// Decays of 0, 1, above 1 and too small to be normal, and numbers that are none.
#include "compiled/linear_scan.cuh"

#include <gtest/gtest.h>

#include "support/device.cuh"
#include "support/linear_scan_problem.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;

/// Decays all `decay` but for every fifth, which is `other`.
template <class T>
void expect_states_with(double decay, double other, index_t length) {
  for (auto const order : both_ways)
    for (auto const& how : {rows, pitched_rows, columns}) {
      linear_case const of = linear_case{.shape = {3, length, 8}, .order = order}.all(how);
      SCOPED_TRACE(describe<T>(of) << ", decays " << decay << " and " << other);
      gpu::stream const stream;
      linear_problem<T> problem(stream, of);
      index_t i = 0;
      problem.decay.each([&](auto... at) {
        problem.decay(at...) = rounded<T>(exact_t<T>(i++ % 5 == 4 ? other : decay));
      });
      problem.run(stream);
      problem.check();
    }
}

TEST(LinearScanSpecial, TakesGatesAtTheEdgesOfTheirRange) {
  SSM_SKIP_WITHOUT_DEVICE();
  for_types<float, double, bfloat16, float16, std::complex<float>>([](auto type) {
    using T = typename decltype(type)::type;
    for (index_t const length : {33, 7001}) {
      expect_states_with<T>(0, 0, length);
      expect_states_with<T>(-0.0, 0.5, length);
      expect_states_with<T>(1, 1, length);
      expect_states_with<T>(1, 0, length);
      expect_states_with<T>(-1, -0.25, length);
      double const denormal = std::is_same_v<T, double>    ? 1e-310
                              : std::is_same_v<T, float16> ? 1e-7
                                                           : 1e-40;
      expect_states_with<T>(denormal, 1, length);
    }
    expect_states_with<T>(1.25, -1.5, 33);
    expect_states_with<T>(2, 1, 8);
  });
}

TEST(LinearScanSpecial, KeepsNaNAndInfinityInTheirRow) {
  SSM_SKIP_WITHOUT_DEVICE();
  for_types<float, bfloat16>([](auto type) {
    using T = typename decltype(type)::type;
    for (auto const order : both_ways)
      for (auto const& how : {rows, shifted_rows, pitched_rows, columns})
        for (index_t const length : {31, 4001}) {
          linear_case const of = linear_case{.shape = {1, length, 40}, .order = order}.all(how);
          SCOPED_TRACE(describe<T>(of));
          gpu::stream const stream;
          linear_problem<T> clean(stream, of), spoilt(stream, of);
          index_t const at = length / 2;
          spoilt.drive(0, at, 5) = T(std::numeric_limits<float>::quiet_NaN());
          spoilt.decay(0, at, 11) = T(std::numeric_limits<float>::infinity());
          spoilt.initial(0, 0, 17) = std::numeric_limits<float>::infinity();
          clean.run(stream);
          spoilt.run(stream);
          mismatches<T> others("states", true);
          clean.states.each([&](index_t b, index_t t, index_t c) {
            bool const reached = order == direction::forward ? t >= at : t <= at;
            if (((c == 5 || c == 11) && reached) || c == 17) return;
            others.compare(spoilt.states(b, t, c), exactly(clean.states(b, t, c)), 0, b, t, c);
          });
          EXPECT_TRUE(std::isnan(exactly(spoilt.states(0, at, 5))));
          EXPECT_TRUE(std::isnan(spoilt.final(0, 0, 5)));
          EXPECT_FALSE(std::isfinite(exactly(spoilt.states(0, at, 11))));
          index_t const first = order == direction::forward ? 0 : length - 1;
          EXPECT_TRUE(std::isinf(exactly(spoilt.states(0, first, 17))));
        }
  });
}

}  // namespace
