// SPDX-License-Identifier: Apache-2.0
// Mamba's operator on tensors of more than 2^31 elements, looked at in some places.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "compiled/selective_scan.cuh"
#include "support/device.cuh"
#include "support/long_patterns.cuh"
#include "support/selective_scan_problem.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

constexpr index_t states = 16;
constexpr index_t reach = 300;  // steps, after which 1e-16 of a state is left, or less

/// As in tests/selective_scan_test.cu.
constexpr double device_functions = 4, eps = 0x1p-23, rounding = 0x1p-8;

double B_of(index_t n) {
  return static_cast<double>(n % 5) - 2.5;
}
double C_of(index_t n) {
  return static_cast<double>(n % 3) - 0.75;
}
double eigenvalue_of(index_t n) {
  return -0.5 * static_cast<double>(n + 1);
}

/// Steps (first, first + count) of a lane, whose element t is element `lane + t · stride` of the
/// pattern, from zeros.
selective_problem<double> part_of(index_t lane, index_t stride, index_t first, index_t count) {
  selective_problem<double> p =
      random_selective<double>({1, count, 1, states}, 1, selective_options::of_bits(8), 1);
  for (index_t t = 0; t < count; ++t) {
    double const x = static_cast<double>(pattern(lane + (first + t) * stride));
    p.x(0, t, 0) = p.step_size(0, t, 0) = x;
    for (index_t n = 0; n < states; ++n) p.B(0, t, 0, n) = B_of(n), p.C(0, t, 0, n) = C_of(n);
  }
  for (index_t n = 0; n < states; ++n)
    p.eigenvalue(0, n) = eigenvalue_of(n), p.initial(0, 0, n) = 0;
  return p;
}

void expect_formula(index_array<3> const& shape, bool is_time_dense) {
  SCOPED_TRACE(to_string(shape) + (is_time_dense ? ", time dense" : ", channels dense"));
  auto const [batch, length, channels] = shape.value;
  index_t const count = batch * length * channels;
  ASSERT_GT(count, index_t{1} << 31);
  gpu::stream const stream;
  gpu::tensor<bfloat16, 1> x(stream, {count}), y(stream, {count}), BC(stream, {2 * states});
  gpu::tensor<float, 1> eigenvalue(stream, {states});
  gpu::tensor<float, 3> carry(stream, {batch, channels, states});
  fill_pattern(stream, x.view());
  gpu::check(cudaMemsetAsync(y.view().data_handle(), 0xff, sizeof(bfloat16) * std::size_t(count),
                             stream.get()),
             "cudaMemsetAsync");
  gpu::check(cudaMemsetAsync(carry.view().data_handle(), 0,
                             sizeof(float) * std::size_t(carry.view().size()), stream.get()),
             "cudaMemsetAsync");
  tensor<bfloat16, 1> constants({2 * states});
  tensor<float, 1> rates({states});
  for (index_t n = 0; n < states; ++n) {
    constants(n) = bfloat16(static_cast<float>(B_of(n)));
    constants(states + n) = bfloat16(static_cast<float>(C_of(n)));
    rates(n) = static_cast<float>(eigenvalue_of(n));
  }
  gpu::copy_to_device(stream, constants.const_view(), BC.view());
  gpu::copy_to_device(stream, rates.const_view(), eigenvalue.view());

  index_array<3> const strides = is_time_dense ? index_array<3>{length * channels, 1, length}
                                               : index_array<3>{length * channels, channels, 1};
  auto const constant = [&](index_t first) {
    return trajectory_view<bfloat16 const, memory::device>(
        BC.view().data_handle() + first, {batch, length, 1, states}, {0, 0, states, 1});
  };
  selective_scan_inputs<bfloat16, memory::device> in{};
  in.x = {x.view().data_handle(), shape, strides};
  in.step_size = in.x;
  in.step_rule.softplus = true;
  in.eigenvalue = {eigenvalue.view().data_handle(), {channels, states}, {0, 1}};
  in.B = constant(0), in.C = constant(states);
  gpu::selective_scan_allocating(stream, in, carry.view(),
                                 {y.view().data_handle(), shape, strides});
  stream.wait();

  double worst = 0;
  for (index_t const b : {index_t{0}, batch - 1})
    for (index_t const c : {index_t{0}, channels / 2, channels - 1}) {
      index_t const lane = b * strides[0] + c * strides[2];
      for (index_t const t : steps_to_look_at(length, lane, strides[1])) {
        index_t const first = std::max<index_t>(t - reach, 0), last = t - first;
        selective_truth<double> const truth(part_of(lane, strides[1], first, last + 1));
        double const expected = truth.y(0, last, 0);
        double const bound = device_functions * eps * truth.y_bound(0, last, 0);
        double const found = static_cast<double>(element_of(y.view(), lane + t * strides[1]));
        double const ratio =
            std::abs(found - expected) / (bound + rounding * (std::abs(expected) + bound));
        EXPECT_LE(ratio, 1) << "b " << b << ", t " << t << ", c " << c;
        worst = std::max(worst, ratio);
      }
    }
  EXPECT_GT(worst, 1e-3);  // bfloat16 rounds: what is never off was not computed
}

TEST(SelectiveScanLarge, GoesBeyondTwoToThe31Elements) {
  SSM_SKIP_WITHOUT_DEVICE();
  if (!is_free(std::size_t{16} << 30)) GTEST_SKIP() << "16 GiB are not free";
  expect_formula({1, 300001, 8000}, false);
  expect_formula({1, 300000001, 8}, false);
  expect_formula({1, 300000000, 8}, true);
  expect_formula({75000, 32, 1000}, false);
}

}  // namespace
