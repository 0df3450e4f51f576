// SPDX-License-Identifier: Apache-2.0
// Mamba's operator and its gradient in CUDA graphs: what a graph does is what the calls do.
#include <gtest/gtest.h>

#include <utility>

#include "compiled/selective_scan.cuh"
#include "ssm/graph.cuh"
#include "support/device.cuh"
#include "support/selective_vjp_device.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;

template <int Rank>
bool same_bits(tensor<float, Rank> const& a, tensor<float, Rank> const& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

template <class To, class From>
void assign(gpu::on where, To&& to, From const& from) {
  gpu::copy_to_device(where, from.view(), to.view());
}

// A prompt in one segment and in several, a few steps, and a single one.
TEST(SelectiveScanGraph, RunsTheForwardAsOftenAsItIsLaunched) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const stream;
  for (auto const& [length, segments] :
       {std::pair{index_t{700}, index_t{1}}, {700, 0}, {700, 5}, {4, 0}, {1, 0}}) {
    SCOPED_TRACE(testing::Message() << "length " << length << ", segments " << segments);
    auto const p = random_selective<float>({1, length, 70, 16}, 2, {}, 100);
    device_problem<float> on(p, {});
    gpu::selective_scan_plan const plan{.segments = segments};
    auto const direct = on.run(plan);

    auto const in = on.inputs();
    gpu::tensor<float, 3> carry({}, p.initial.extents()), y({}, p.x.extents());
    gpu::tensor<std::byte, 1> own(
        {}, {index_t(gpu::selective_scan_workspace(in, carry.view(), y.view(), plan))});
    gpu::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    gpu::graph const program(stream, [&] {
      gpu::selective_scan(stream, in, carry.view(), y.view(), own.view(), {}, plan);
    });
    for (int launch = 0; launch < 2; ++launch) {
      assign(stream, y, tensor<float, 3>(p.x.extents(), not_a_number<float>()));
      assign(stream, carry, p.initial);
      program.launch(stream);
      stream.wait();
      EXPECT_TRUE(same_bits(on_host(y), direct.y)) << "launch " << launch;
      EXPECT_TRUE(same_bits(on_host(carry), direct.carry)) << "launch " << launch;
    }
  }
}

TEST(SelectiveScanGraph, RunsTheGradientAsOftenAsItIsLaunched) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const stream;
  for (index_t const segments : {1, 3}) {
    auto const p = random_selective<float>({1, 500, 70, 16}, 2, {}, 200);
    gpu::selective_scan_plan const plan{.segments = segments};
    device_gradients<float> direct(p, {}), on(p, {});
    direct.add<false>(plan);

    auto const in = on.problem.inputs();
    auto const to = on.gradients();
    auto const start = on_device(p.initial);
    gpu::tensor<float, 3> cotangent({}, p.initial.extents());
    gpu::tensor<std::byte, 1> own(
        {}, {index_t(gpu::selective_scan_vjp_workspace(in, start.view(), on.y_cotangent.view(),
                                                       cotangent.view(), to, {}, plan))});
    gpu::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    gpu::graph const program(stream, [&] {
      gpu::selective_scan_vjp(stream, in, start.view(), on.y_cotangent.view(), cotangent.view(), to,
                              own.view(), {}, plan);
    });
    auto const expected = direct.download();
    for (int launch = 0; launch < 2; ++launch) {
      selective_gradient<float> const zeros(p);
      assign(stream, on.x, zeros.x), assign(stream, on.step_size, zeros.x);
      assign(stream, on.gate, zeros.x), assign(stream, on.B, zeros.B);
      assign(stream, on.C, zeros.C), assign(stream, on.eigenvalue, zeros.eigenvalue);
      assign(stream, on.D, zeros.D), assign(stream, on.step_bias, zeros.step_bias);
      assign(stream, cotangent, p.final_cotangent);
      program.launch(stream);
      stream.wait();
      on.initial = on_device(on_host(cotangent));
      auto const found = on.download();
      SCOPED_TRACE(testing::Message() << segments << " segments, launch " << launch);
      EXPECT_TRUE(same_bits(found.x, expected.x));
      EXPECT_TRUE(same_bits(found.step_size, expected.step_size));
      EXPECT_TRUE(same_bits(found.gate, expected.gate));
      EXPECT_TRUE(same_bits(found.B, expected.B));
      EXPECT_TRUE(same_bits(found.C, expected.C));
      EXPECT_TRUE(same_bits(found.eigenvalue, expected.eigenvalue));
      EXPECT_TRUE(same_bits(found.D, expected.D));
      EXPECT_TRUE(same_bits(found.step_bias, expected.step_bias));
      EXPECT_TRUE(same_bits(found.initial, expected.initial));
    }
  }
}

}  // namespace
