// SPDX-License-Identifier: Apache-2.0
// The causal convolution of tensors of more than 2^31 elements, looked at in some places.
#include <gtest/gtest.h>

#include <cmath>

#include "ssm/causal_conv1d.cuh"
#include "support/device.cuh"
#include "support/long_patterns.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;

constexpr float weights[] = {0.5f, -1.0f, 0.25f, 2.0f};  // the last on the present input
constexpr index_t width = 4;

double sum_at(index_t lane, index_t stride, index_t t) {
  double sum = 0;
  for (index_t lag = 0; lag < width && lag <= t; ++lag) {
    sum += static_cast<double>(weights[width - 1 - lag]) *
           static_cast<double>(pattern(lane + (t - lag) * stride));
  }
  return sum;
}
double share(double x) {
  return 1 / (1 + std::exp(-x));
}

struct problem {
  index_array<3> shape, strides;
  gpu::stream stream;
  gpu::tensor<bfloat16, 1> x;
  gpu::tensor<float, 1> weight;

  problem(index_array<3> const& of, bool is_time_dense)
      : shape{of},
        strides{is_time_dense ? index_array<3>{of[1] * of[2], 1, of[1]}
                              : index_array<3>{of[1] * of[2], of[2], 1}},
        x(stream, {of[0] * of[1] * of[2]}),
        weight(stream, {width}) {
    fill_pattern(stream, x.view());
    gpu::check(cudaMemcpyAsync(weight.view().data_handle(), weights, sizeof weights,
                               cudaMemcpyHostToDevice, stream.get()),
               "cudaMemcpyAsync");
  }
  causal_conv1d_inputs<bfloat16, memory::device> inputs() {
    return {.x = {x.view().data_handle(), shape, strides},
            .weight = {weight.view().data_handle(), {shape[2], width}, {0, 1}},
            .activation = activation::silu};
  }
  template <class T>
  void fill_bytes(gpu::tensor<T, 1>& of, int byte) {
    gpu::check(cudaMemsetAsync(of.view().data_handle(), byte,
                               sizeof(T) * std::size_t(of.view().size()), stream.get()),
               "cudaMemsetAsync");
  }
  /// Calls visit(lane, t) for the steps that are looked at; element t is at lane + t · stride.
  template <class Visit>
  void look(Visit const& visit) {
    stream.wait();
    for (index_t const b : {index_t{0}, shape[0] - 1})
      for (index_t const c : {index_t{0}, shape[2] / 2, shape[2] - 1}) {
        index_t const lane = b * strides[0] + c * strides[2];
        for (index_t const t : steps_to_look_at(shape[1], lane, strides[1])) {
          SCOPED_TRACE(testing::Message() << "b " << b << ", t " << t << ", c " << c);
          visit(lane, t);
        }
      }
  }
};

void expect_formula(index_array<3> const& shape, bool is_time_dense) {
  SCOPED_TRACE(to_string(shape) + (is_time_dense ? ", time dense" : ", channels dense"));
  problem p(shape, is_time_dense);
  ASSERT_GT(p.x.view().size(), index_t{1} << 31);
  gpu::tensor<bfloat16, 1> y(p.stream, p.x.view().extents());
  p.fill_bytes(y, 0xff);
  gpu::causal_conv1d(p.stream, p.inputs(), {}, {y.view().data_handle(), shape, p.strides});
  p.look([&](index_t lane, index_t t) {
    double const sum = sum_at(lane, p.strides[1], t), expected = sum * share(sum);
    double const found = static_cast<double>(element_of(y.view(), lane + t * p.strides[1]));
    EXPECT_NEAR(found, expected, 0x1p-8 * std::abs(expected) + 1e-5);  // sums are below 4
  });
}

TEST(CausalConv1dLarge, GoesBeyondTwoToThe31Elements) {
  SSM_SKIP_WITHOUT_DEVICE();
  if (!is_free(std::size_t{16} << 30)) GTEST_SKIP() << "16 GiB are not free";
  expect_formula({1, 300001, 8000}, false);
  expect_formula({1, 300001, 7999}, false);
  expect_formula({1, 300000001, 8}, false);
  expect_formula({1, 300000001, 8}, true);
  expect_formula({500000000, 1, 5}, false);
}

// The same cotangent arrives at every step.
TEST(CausalConv1dLarge, ItsGradientGoesBeyondTwoToThe31Elements) {
  SSM_SKIP_WITHOUT_DEVICE();
  if (!is_free(std::size_t{16} << 30)) GTEST_SKIP() << "16 GiB are not free";
  index_t const length = 300001;
  problem p({1, length, 8000}, false);
  gpu::tensor<float, 1> to_x(p.stream, p.x.view().extents()), one(p.stream, {p.shape[2]});
  p.fill_bytes(to_x, 0);
  p.fill_bytes(one, 0x3f);
  gpu::causal_conv1d_vjp_allocating<bfloat16>(
      p.stream, p.inputs(), {}, {one.view().data_handle(), p.shape, {0, 0, 1}}, {},
      {.x = {to_x.view().data_handle(), p.shape, p.strides}});
  double const arriving = static_cast<double>(__builtin_bit_cast(float, 0x3f3f3f3f));
  p.look([&](index_t lane, index_t s) {
    double expected = 0;
    for (index_t lag = 0; lag < width && s + lag < length; ++lag) {
      double const sum = sum_at(lane, p.strides[1], s + lag);
      double const slope = share(sum) * (1 + sum * (1 - share(sum)));
      expected += static_cast<double>(weights[width - 1 - lag]) * arriving * slope;
    }
    EXPECT_NEAR(static_cast<double>(element_of(to_x.view(), lane + s * p.strides[1])), expected,
                2e-5);
  });
}

}  // namespace
