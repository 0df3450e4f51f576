// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "gpu/simulator.cuh"
#include "ssm/tensor.hpp"
#include "support/device.cuh"
#include "support/layer_spectra.hpp"
#include "theory/plain_simulator.hpp"

namespace ssm::theory {
namespace {

random_stream const stream{7, 11};

/// Decays 0, 1 and between, or eigenvalues (their logarithms), other in every replicate.
tensor<double, 2> decays(index_t replicates, index_t states) {
  tensor<double, 2> values({replicates, states});
  for (index_t i = 0; i < values.size(); ++i) values.data()[i] = stream.uniform(i);
  if (states > 1) values(0, 0) = 0, values(0, 1) = 1;
  return values;
}

tensor<double, 2> eigenvalues(index_t replicates, index_t states) {
  auto values = decays(replicates, states);
  for (double& value : values) value *= -3;
  return values;
}

/// The GPU against plain loops: each of some replicates, all of them together, and again.
template <class System>
void expect_equal(System const& system, tensor<double, 2> const& drawn, std::string const& name) {
  gpu::simulator gpu{192};  // layers in pieces of few steps, an odd number here and there
  plain_simulator plain;
  index_t const first = 5, count = drawn.extent(0);
  for (index_t const i : {index_t{0}, count - 1}) {
    auto const one = drawn.view().slice(0, i, 1);
    double const expected = plain.sum(system, {stream, first + i, 1}, one);
    EXPECT_GT(expected, 0) << name;
    EXPECT_NEAR(gpu.sum(system, {stream, first + i, 1}, one), expected, plain.tolerance)
        << name << ", replicate " << i;
  }
  double const expected = plain.sum(system, {stream, first, count}, drawn);
  double const found = gpu.sum(system, {stream, first, count}, drawn);
  EXPECT_NEAR(found, expected, plain.tolerance) << name;
  EXPECT_EQ(gpu.sum(system, {stream, first, count}, drawn), found) << name;
}

TEST(GpuSimulator, RunsLinearSystemsAsThePlainLoopsDo) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (bool const is_normalized : {false, true}) {
    for (linear_system const s : {linear_system{1, 1, 1}, {2, 1, 3}, {5, 3, 7}, {32, 8, 64}}) {
      linear_system const system{s.states, s.inputs, s.steps, is_normalized};
      expect_equal(system, decays(131, s.states), std::to_string(s.states) + " states");
    }
  }
}

TEST(GpuSimulator, RunsMambaChannelsAndHeadsAsThePlainLoopsDo) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (index_t const steps : {1, 3, 64}) {
    expect_equal(mamba1_channel{0.3, 5, steps}, eigenvalues(131, 5), "channel");
    expect_equal(mamba2_head{0.3, -0.7, 3, 5, steps}, tensor<double, 2>({131, 0}), "head");
  }
}

TEST(GpuSimulator, RunsLayersAsThePlainLoopsDo) {
  SSM_SKIP_WITHOUT_DEVICE();
  using test::mamba1_layer;
  using test::mamba2_layer;
  for (auto const& layer : {mamba1_layer(1, 1), mamba1_layer(7, 5), mamba2_layer(2, 1, 2, 1),
                            mamba2_layer(6, 3, 5, 2)}) {
    for (index_t const steps : {1, 65}) {
      layer_system const system{
          layer.has_heads, layer.eigenvalue, layer.step_size, layer.channels(),
          layer.states(),  layer.groups,     steps,           2.5};
      expect_equal(system, tensor<double, 2>({9, 0}), std::to_string(layer.channels()));
    }
  }
}

}  // namespace
}  // namespace ssm::theory
