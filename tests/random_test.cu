// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "ssm/random.hpp"
#include "ssm/tensor.cuh"
#include "ssm/tensor.hpp"
#include "support/device.cuh"

namespace {

using namespace ssm;

__global__ void draw_kernel(random_stream stream, tensor_view<double, 1, memory::device> uniforms,
                            tensor_view<double, 1, memory::device> normals) {
  index_t const i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < uniforms.extent(0)) {
    uniforms(i) = stream.uniform(i);
    normals(i) = stream.normal(i);
  }
}

TEST(RandomStreamOnDevice, GivesTheNumbersOfTheCpuBitForBit) {
  SSM_SKIP_WITHOUT_DEVICE();
  index_t const count = 1 << 16;
  random_stream const numbers{7, 11};
  gpu::stream const stream;
  gpu::tensor<double, 1> d_uniforms(stream, {count}), d_normals(stream, {count});
  draw_kernel<<<count / 256, 256, 0, stream.get()>>>(numbers, d_uniforms, d_normals);
  gpu::check(cudaGetLastError(), "draw_kernel");
  tensor<double, 1> uniforms({count}), normals({count});
  gpu::copy_to_host(stream, std::as_const(d_uniforms).view(), uniforms.view());
  gpu::copy_to_host(stream, std::as_const(d_normals).view(), normals.view());
  stream.wait();
  for (index_t i = 0; i < count; ++i) {
    ASSERT_EQ(uniforms(i), numbers.uniform(i)) << "element " << i;
    ASSERT_EQ(normals(i), numbers.normal(i)) << "element " << i;
  }
}

}  // namespace
