// SPDX-License-Identifier: Apache-2.0
// tensor_rate.cuh: how fast a GPU multiplies matrices of bfloat16, and nothing else.
#pragma once

#include <cstdint>

#include "ssm/detail/half.hpp"
#include "ssm/execution.cuh"
#include "ssm/tensor.cuh"

namespace ssm::bench {
namespace detail {

inline constexpr int tensor_threads = 256, tensor_steps = 1024;

/// Products of tiles in shared memory, numbers about 1, added up in registers: of 64 x 16 and
/// 16 x 128 by four warps where the device can (sm_90a), else of 16 x 16 and 16 x 8 by each.
__global__ void __launch_bounds__(tensor_threads) tensor_kernel(float* out) {
  float sum = 0;
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ alignas(128) std::uint16_t tiles[2 * (64 + 128) * 16];
  for (unsigned i = threadIdx.x; i < sizeof tiles / 2; i += blockDim.x) {
    tiles[i] = static_cast<std::uint16_t>((i * 40503u >> 9 & 0x807fu) | 0x3f00u);  // ± [0.5, 1)
  }
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
  auto const tile = static_cast<std::uint32_t>(
      __cvta_generic_to_shared(tiles + threadIdx.x / 128 * (64 + 128) * 16));
  // No swizzle: cores of 8 rows of 16 bytes, 128 bytes apart along k, 256 along the other axis.
  auto const descriptor = [](std::uint32_t address) {
    return std::uint64_t{(address & 0x3ffffu) >> 4} | std::uint64_t{128 >> 4} << 16 |
           std::uint64_t{256 >> 4} << 32;
  };
  std::uint64_t const a = descriptor(tile), b = descriptor(tile + 64 * 16 * 2);
  float c[64] = {};
  for (int step = 0; step < tensor_steps; ++step) {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      asm volatile(
          "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
          "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "
          "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "
          "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "
          "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, %64, %65, 1, 1, 1, 0, 0;"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]),
            "+f"(c[7]), "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]),
            "+f"(c[14]), "+f"(c[15]), "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]),
            "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), "+f"(c[24]), "+f"(c[25]),
            "+f"(c[26]), "+f"(c[27]), "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31]),
            "+f"(c[32]), "+f"(c[33]), "+f"(c[34]), "+f"(c[35]), "+f"(c[36]), "+f"(c[37]),
            "+f"(c[38]), "+f"(c[39]), "+f"(c[40]), "+f"(c[41]), "+f"(c[42]), "+f"(c[43]),
            "+f"(c[44]), "+f"(c[45]), "+f"(c[46]), "+f"(c[47]), "+f"(c[48]), "+f"(c[49]),
            "+f"(c[50]), "+f"(c[51]), "+f"(c[52]), "+f"(c[53]), "+f"(c[54]), "+f"(c[55]),
            "+f"(c[56]), "+f"(c[57]), "+f"(c[58]), "+f"(c[59]), "+f"(c[60]), "+f"(c[61]),
            "+f"(c[62]), "+f"(c[63])
          : "l"(a), "l"(b));
    }
    asm volatile("wgmma.commit_group.sync.aligned;\n wgmma.wait_group.sync.aligned 0;" ::
                     : "memory");
  }
  for (float each : c) sum += each;
#else
  constexpr int chains = 8;
  float c[chains][4] = {};
  unsigned const a[4] = {0x3f803f00u + threadIdx.x, 0x3f403f60u, 0xbf203f10u, 0x3f50bf70u};
  unsigned const b[2] = {0x3f103f80u + threadIdx.x, 0xbf303f50u};
  for (int step = 0; step < 4 * tensor_steps; ++step) {
#pragma unroll
    for (auto& d : c) {
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
          "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
  }
  for (auto const& d : c) sum += d[0] + d[1] + d[2] + d[3];
#endif
  if (sum == 0.123f) *out = sum;  // never, but the compiler does not know
}

}  // namespace detail

/// About a millisecond of products.
class tensor_rate {
 public:
  explicit tensor_rate(gpu::on where) : out_(where, {1}) {
    int device = 0, processors = 0, major = 0;
    gpu::check(cudaGetDevice(&device), "cudaGetDevice");
    gpu::check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device),
               "cudaDeviceGetAttribute");
    gpu::check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
               "cudaDeviceGetAttribute");
    cudaFuncAttributes code{};
    gpu::check(cudaFuncGetAttributes(&code, detail::tensor_kernel), "cudaFuncGetAttributes");
    blocks_ = 4 * processors;
    double const of_a_step = major == 9 && code.sharedSizeBytes > 0
                                 ? detail::tensor_threads / 128 * 4 * 2. * 64 * 128 * 16
                                 : detail::tensor_threads / 32 * 4 * 8 * 2. * 16 * 8 * 16;
    count_ = of_a_step * detail::tensor_steps * blocks_;
  }
  void run(gpu::on where) {
    detail::
        tensor_kernel<<<static_cast<unsigned>(blocks_), detail::tensor_threads, 0, where.stream>>>(
            out_.view().data_handle());
    gpu::check(cudaGetLastError(), "tensor_kernel");
  }
  /// Multiplications and additions, as two.
  double count() const { return count_; }

 private:
  gpu::tensor<float, 1> out_;
  int blocks_ = 0;
  double count_ = 0;
};

}  // namespace ssm::bench
