// SPDX-License-Identifier: Apache-2.0
// long_patterns.cuh: numbers of arrays too large for the host, where element i is a function of i.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ssm/detail/half.hpp"
#include "ssm/tensor.cuh"

namespace ssm::test {

/// One of -3.5/4 to 3.5/4, exact in 16 bits.
SSM_HD inline float pattern(index_t i) {
  auto const word = static_cast<std::uint64_t>(i) * 0x9e3779b97f4a7c15u;
  return (static_cast<float>(word >> 61) - 3.5f) / 4;
}

template <class T>
__global__ void fill_pattern_kernel(T* to, index_t count) {
  for (index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += index_t{gridDim.x} * blockDim.x) {
    to[i] = T(pattern(i));
  }
}

template <class T>
void fill_pattern(gpu::on where, tensor_view<T, 1, memory::device> const& to) {
  fill_pattern_kernel<<<4096, 256, 0, where.stream>>>(to.data_handle(), to.size());
  gpu::check(cudaGetLastError(), "fill_pattern_kernel");
}

template <class T>
float element_of(tensor_view<T, 1, memory::device> const& from, index_t i) {
  T found{};
  gpu::check(cudaMemcpy(&found, from.data_handle() + i, sizeof found, cudaMemcpyDeviceToHost),
             "cudaMemcpy");
  return static_cast<float>(found);
}

/// The first and last steps, those at the edges of 2^31 elements and bytes, and some between.
inline std::vector<index_t> steps_to_look_at(index_t length, index_t first, index_t stride) {
  std::vector<index_t> steps{0, 1, length / 3, length / 2, length - 2, length - 1};
  for (index_t const edge : {index_t{1} << 30, index_t{1} << 31}) {
    steps.push_back((edge - first) / stride);
    steps.push_back((edge - first) / stride + 1);
  }
  std::erase_if(steps, [&](index_t t) { return t < 0 || t >= length; });
  return steps;
}

/// Whether so many bytes are free.
inline bool is_free(std::size_t bytes) {
  std::size_t free = 0, total = 0;
  gpu::check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return free >= bytes;
}

}  // namespace ssm::test
