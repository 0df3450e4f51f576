// SPDX-License-Identifier: Apache-2.0
#include <ssm/affine_map.hpp>
#include <ssm/tensor.cuh>

__global__ void step_kernel(ssm::affine_map<float> step,
                            ssm::tensor_view<float, 1, ssm::memory::device> h) {
  h(threadIdx.x) = step(h(threadIdx.x));
}

// The kernel is only compiled: the machine that builds may have no GPU.
int main() {
  ssm::affine_map const step{0.5f, 1.0f};
  return ssm::then{}(step, step)(2.0f) == 2.0f ? 0 : 1;  // 2 is the fixed point of h/2 + 1
}
