// SPDX-License-Identifier: Apache-2.0
#include "ssm/state_space_dual.cuh"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "support/device.cuh"
#include "support/state_space_dual_device.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;

template <class T>
class StateSpaceDual : public testing::Test {};
using sixteen_bits = testing::Types<bfloat16, float16>;
TYPED_TEST_SUITE(StateSpaceDual, sixteen_bits);

TYPED_TEST(StateSpaceDual, IsTheDefinitionForAnyLength) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 1;
  for (index_t const length : {1, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 129, 300}) {
    for (auto const& how : dual_layouts) {
      expect_definition<TypeParam>({2, length, 3, 32, 1, 16}, {}, seed++, how);
    }
  }
  for (index_t const length : {2047, 2048, 2049}) {
    expect_definition<TypeParam>({1, length, 2, 32, 2, 16}, {}, seed++);
  }
}

TYPED_TEST(StateSpaceDual, IsTheDefinitionForAnySize) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 100;
  for (index_t const states : {0, 1, 7, 16, 17, 32, 64, 100, 128, 200, 256}) {
    expect_definition<TypeParam>({1, 100, 2, 64, 1, states}, {}, seed++);
  }
  for (index_t const head_dim : {1, 8, 16, 24, 32, 48, 64, 80, 128, 200}) {
    expect_definition<TypeParam>({1, 100, 5, head_dim, 1, 33}, {}, seed++);
  }
  for (index_t const groups : {1, 2, 7, 14}) {
    expect_definition<TypeParam>({2, 200, 14, 32, groups, 64}, {}, seed++, {}, {.segments = 2});
  }
}

TYPED_TEST(StateSpaceDual, IsTheDefinitionForEveryOption) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (unsigned bits = 0; bits < dual_options::combinations; bits += 7) {
    index_t const segments = 1 + bits % 3;
    expect_definition<TypeParam>({1, 300, 4, 16, 2, 16}, dual_options::of_bits(bits), 500 + bits,
                                 dual_layouts[bits % 4], {.segments = segments});
  }
}

TYPED_TEST(StateSpaceDual, IsTheDefinitionForAnyNumberOfSegments) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 2000;
  dual_options all;
  all.packed = all.step = all.linear = all.power = true;
  for (index_t const segments : {1, 2, 3, 5, 8}) {
    expect_definition<TypeParam>({2, 900, 3, 64, 1, 32}, {}, seed++, {}, {.segments = segments});
    expect_definition<TypeParam>({2, 900, 3, 64, 1, 32}, all, seed++, dual_layouts[2],
                                 {.segments = segments, .negligible = 0.0f});
  }
}

// What float16 cannot hold by itself: steps and states far below its normal range, and far above.
TYPED_TEST(StateSpaceDual, KeepsStepsAndStatesOfAnySize) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (float const size : {1e-6f, 1e-3f, 1e4f}) {
    dual_options options;
    options.softplus = options.bias = options.gate = false;
    options.D = 0;
    dual_case<TypeParam> of({1, 300, 2, 32, 1, 64}, options, 2500);
    tensor<float, 1> factor({2}, size), rate({2}, -1e-2f / size);
    of.step = factor, of.p.eigenvalue = rate;
    of.options.step = true;
    of.step_factor = dual_array<float, 1>(factor, {});
    of.eigenvalue = dual_array<float, 1>(rate, {});
    // y begins where float16 is subnormal; its own rounding is not what is tested.
    auto const found = of.run();
    ssd_truth const truth(of.host_inputs(), of.p.initial, 64);
    double error = 0, norm = 0;
    for (index_t i = 0; i < found.carry.size(); ++i) {
      double const expected = truth.carry.data()[i];
      error += std::pow(static_cast<double>(found.carry.data()[i]) - expected, 2);
      norm += expected * expected;
    }
    EXPECT_LE(std::sqrt(error / norm), 2 * (std::is_same_v<TypeParam, bfloat16> ? 0x1p-8 : 0x1p-11))
        << "steps of " << size;
  }
}

TEST(StateSpaceDualBfloat16, GivesTheSameBitsEveryTime) {
  SSM_SKIP_WITHOUT_DEVICE();
  dual_case<bfloat16> of({2, 1000, 5, 64, 1, 128}, {}, 4000);
  auto const once = of.run({}, {.segments = 4});
  for (int repeat = 0; repeat < 10; ++repeat) {
    auto const again = of.run({}, {.segments = 4});
    EXPECT_TRUE(same_bits(once.y, again.y));
    EXPECT_TRUE(same_bits(once.carry, again.carry));
  }
}

// The state after a part, and the second part from there, are those of the whole: to the last bit
// where parts end between chunks, for nothing else than the states crosses them.
TEST(StateSpaceDualBfloat16, EqualsItsPartsBitForBit) {
  SSM_SKIP_WITHOUT_DEVICE();
  dual_case<bfloat16> of({2, 300, 3, 64, 1, 64}, {}, 5000);
  auto const whole = of.run({}, {.segments = 1});
  for (index_t const cut : {64, 128, 256}) {
    dual_array<bfloat16, 4> y(of.p.x.extents(), {});
    dual_array<float, 4> carry(of.p.initial, {});
    for (auto const& [first, count] : {std::pair{index_t{0}, cut}, std::pair{cut, 300 - cut}}) {
      auto in = of.device_inputs();
      in.x = in.x.slice(1, first, count), in.step_size = in.step_size.slice(1, first, count);
      in.gate = in.gate.slice(1, first, count);
      in.B = in.B.slice(1, first, count), in.C = in.C.slice(1, first, count);
      gpu::state_space_dual_allocating({}, in, carry.view(), y.view().slice(1, first, count), {},
                                       {.segments = 1});
    }
    auto const parts = y.fetch();
    EXPECT_TRUE(same_bits(whole.y, parts)) << "cut at " << cut;
    auto const last = carry.fetch();
    EXPECT_TRUE(same_bits(whole.carry, last));
  }
}

TEST(StateSpaceDualBfloat16, LengthZeroLeavesTheCarryAsItIs) {
  SSM_SKIP_WITHOUT_DEVICE();
  dual_case<bfloat16> of({2, 0, 3, 32, 1, 16}, {}, 5500);
  auto const found = of.run();
  EXPECT_TRUE(same_bits(found.carry, of.p.initial));
}

TEST(StateSpaceDualBfloat16, WorkspaceIsLargeEnough) {
  SSM_SKIP_WITHOUT_DEVICE();
  dual_case<bfloat16> of({2, 1000, 6, 32, 1, 16}, {}, 5600);
  auto const in = of.device_inputs();
  dual_array<bfloat16, 4> y(of.p.x.extents(), {});
  dual_array<float, 4> carry(of.p.initial, {});
  gpu::state_space_dual_plan const plan{.segments = 2};
  std::size_t const bytes = 2u * 2 * 6 * (32 * 16 + 1) * sizeof(float);
  EXPECT_EQ(gpu::state_space_dual_workspace(in, carry.view(), y.view(), {}, plan), bytes);
  try {
    gpu::state_space_dual({}, in, carry.view(), y.view(), {}, {}, plan);
    FAIL() << "runs without a workspace";
  } catch (shape_error const& error) {
    EXPECT_EQ(error.what(), "state_space_dual: workspace has 0 bytes, expected at least " +
                                std::to_string(bytes));
  }
}

TEST(StateSpaceDualBfloat16, FollowsNoStateThatHasDecayed) {
  SSM_SKIP_WITHOUT_DEVICE();
  dual_case<bfloat16> of({1, 16384, 3, 64, 1, 16}, {}, 6000);
  dual_array<unsigned long long, 1> visited(tensor<unsigned long long, 1>({2}, 0ull), {});
  auto* const counts = visited.view().data_handle();
  auto const all = of.run({}, {.segments = 2, .negligible = 0, .visited = counts});
  auto const few = of.run({}, {.segments = 2, .visited = counts + 1});
  auto const found = visited.fetch();
  EXPECT_EQ(found(0), 8192u * 3);
  EXPECT_LT(found(1), found(0) / 4);
  EXPECT_GT(found(1), 0u);
  // 2^-20 of a state is far below what rounding leaves of it.
  for (index_t i = 0; i < few.y.size(); ++i) {
    auto const a = static_cast<float>(few.y.data()[i]), b = static_cast<float>(all.y.data()[i]);
    ASSERT_NEAR(a, b, 0x1p-7 * (0.01f + std::abs(b)));
  }
}

TEST(StateSpaceDualBfloat16, SavesWhatTheGradientNeeds) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (bool const packed : {false, true}) {
    dual_options options;
    options.packed = packed;
    dual_case<bfloat16> of({2, 500, 3, 32, 1, 64}, options, 7000);
    for (index_t const segments : {1, 3}) {
      auto const in = of.device_inputs();
      dual_array<bfloat16, 4> y(of.p.x.extents(), {});
      dual_array<float, 4> carry(of.p.initial, {}), ungated(of.p.x.extents(), {});
      dual_array<float, 5> states(index_array<5>{2, 4, 3, 32, 64}, {});
      gpu::state_space_dual_allocating({}, in, carry.view(), y.view(),
                                       {states.view(), ungated.view()}, {.segments = segments});
      // The CPU's, whose rounding is far smaller.
      ssd_result<bfloat16> host{tensor<bfloat16, 4>(of.p.x.extents()), of.p.initial};
      tensor<float, 4> host_ungated(of.p.x.extents());
      tensor<float, 5> host_states({2, 4, 3, 32, 64});
      state_space_dual(parallel{}, of.host_inputs(), host.carry.view(), host.y.view(),
                       {host_states.view(), host_ungated.view()});
      auto const distance = [](auto const& a, auto const& b) {
        double error = 0, norm = 0;
        for (index_t i = 0; i < a.size(); ++i) {
          error += std::pow(static_cast<double>(a.data()[i]) - b.data()[i], 2);
          norm += std::pow(static_cast<double>(b.data()[i]), 2);
        }
        return std::sqrt(error / norm);
      };
      // Independent roundings of three factors: a mean square of at most 3 · 2^-16 / 3.
      EXPECT_LE(distance(ungated.fetch(), host_ungated), 0x1p-8) << packed << segments;
      EXPECT_LE(distance(states.fetch(), host_states), 0x1p-8) << packed << segments;
    }
  }
}

TEST(StateSpaceDualBfloat16, RunsInAGraph) {
  SSM_SKIP_WITHOUT_DEVICE();
  dual_case<bfloat16> of({1, 700, 3, 64, 1, 64}, {}, 8000);
  auto const expected = of.run({}, {.segments = 2});
  auto const in = of.device_inputs();
  dual_array<bfloat16, 4> y(of.p.x.extents(), {});
  dual_array<float, 4> carry(of.p.initial, {}), initial(of.p.initial, {});
  auto const bytes =
      gpu::state_space_dual_workspace(in, carry.view(), y.view(), {}, {.segments = 2});
  dual_array<std::byte, 1> memory(index_array<1>{static_cast<index_t>(bytes)}, {});
  gpu::stream const stream;
  gpu::check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeGlobal), "capture");
  gpu::check(cudaMemcpyAsync(carry.view().data_handle(), initial.view().data_handle(),
                             sizeof(float) * static_cast<std::size_t>(of.p.initial.size()),
                             cudaMemcpyDeviceToDevice, stream.get()),
             "cudaMemcpyAsync");
  gpu::state_space_dual(stream, in, carry.view(), y.view(), memory.view(), {}, {.segments = 2});
  cudaGraph_t graph = nullptr;
  gpu::check(cudaStreamEndCapture(stream.get(), &graph), "cudaStreamEndCapture");
  cudaGraphExec_t program = nullptr;
  gpu::check(cudaGraphInstantiate(&program, graph, 0), "cudaGraphInstantiate");
  for (int replay = 0; replay < 3; ++replay) {
    gpu::check(cudaGraphLaunch(program, stream.get()), "cudaGraphLaunch");
  }
  stream.wait();
  auto const found = y.fetch();
  auto const last = carry.fetch();
  EXPECT_TRUE(same_bits(expected.y, found));
  EXPECT_TRUE(same_bits(expected.carry, last));
  gpu::check(cudaGraphExecDestroy(program), "cudaGraphExecDestroy");
  gpu::check(cudaGraphDestroy(graph), "cudaGraphDestroy");
}

// The last of many rows, which begins more than 2^31 elements from the first: the same numbers as
// from a tensor of its own. Rows between have stride but are never touched.
TEST(StateSpaceDualBfloat16, ReachesBeyondTwoToThe31) {
  SSM_SKIP_WITHOUT_DEVICE();
  index_t const far = (index_t{1} << 31) + 64;
  std::size_t free = 0, total = 0;
  gpu::check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  if (free < 12 * static_cast<std::size_t>(far)) GTEST_SKIP() << "too little memory";
  dual_case<bfloat16> of({2, 100, 3, 32, 1, 16}, {}, 9000);
  auto const expected = of.run();
  gpu::tensor<bfloat16, 1> x({}, {2 * far}), y({}, {2 * far});
  auto in = of.device_inputs();
  index_t const row = 100 * 3 * 32;
  for (index_t const b : {0, 1}) {
    gpu::check(cudaMemcpy(x.view().data_handle() + b * far, in.x.data_handle() + b * row,
                          static_cast<std::size_t>(2 * row), cudaMemcpyDeviceToDevice),
               "cudaMemcpy");
  }
  index_array<4> const strides{far, 3 * 32, 32, 1};
  in.x = {x.view().data_handle(), in.x.extents(), strides};
  dual_array<float, 4> carry(of.p.initial, {});
  tensor_view<bfloat16, 4, memory::device> const to{y.view().data_handle(), in.x.extents(),
                                                    strides};
  gpu::state_space_dual_allocating({}, in, carry.view(), to);
  tensor<bfloat16, 1> found({row});
  gpu::check(cudaMemcpy(found.data(), to.data_handle() + far, static_cast<std::size_t>(2 * row),
                        cudaMemcpyDeviceToHost),
             "cudaMemcpy");
  EXPECT_TRUE(
      std::memcmp(found.data(), expected.y.data() + row, static_cast<std::size_t>(2 * row)) == 0);
}

}  // namespace
