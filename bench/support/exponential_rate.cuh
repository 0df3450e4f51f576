// SPDX-License-Identifier: Apache-2.0
// exponential_rate.cuh: how many exponentials a GPU computes in a second, and nothing else.
#pragma once

#include "ssm/execution.cuh"
#include "ssm/tensor.cuh"

namespace ssm::bench {
namespace detail {

inline constexpr int exponential_chains = 8, exponential_steps = 512, exponential_threads = 256;

/// Chains x ← 2^x in each thread, on the unit that has the instruction.
template <int Chains>
__global__ void exponential_kernel(float* out) {
  float x[Chains];
  for (int i = 0; i < Chains; ++i) x[i] = -1e-3f * static_cast<float>(threadIdx.x + i);
  for (int step = 0; step < exponential_steps; ++step) {
#pragma unroll
    for (int i = 0; i < Chains; ++i) asm volatile("ex2.approx.ftz.f32 %0, %0;" : "+f"(x[i]));
  }
  float sum = 0;
  for (int i = 0; i < Chains; ++i) sum += x[i];
  if (sum == 0) *out = sum;  // never, but the compiler does not know
}

}  // namespace detail

/// About half a millisecond of exponentials.
class exponential_rate {
 public:
  explicit exponential_rate(gpu::on where) : out_(where, {1}) {
    int device = 0, processors = 0;
    gpu::check(cudaGetDevice(&device), "cudaGetDevice");
    gpu::check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device),
               "cudaDeviceGetAttribute");
    blocks_ = 64 * processors;
  }
  void run(gpu::on where) {
    detail::exponential_kernel<detail::exponential_chains>
        <<<static_cast<unsigned>(blocks_), detail::exponential_threads, 0, where.stream>>>(
            out_.view().data_handle());
    gpu::check(cudaGetLastError(), "exponential_kernel");
  }
  double count() const {
    return double(blocks_) * detail::exponential_threads * detail::exponential_chains *
           detail::exponential_steps;
  }

 private:
  gpu::tensor<float, 1> out_;
  int blocks_ = 0;
};

}  // namespace ssm::bench
