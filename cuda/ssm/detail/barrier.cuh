// SPDX-License-Identifier: Apache-2.0
// barrier.cuh: barriers in shared memory, from sm_90 on.
#pragma once

#include <cstdint>

#include "ssm/config.hpp"

namespace ssm::gpu::detail {

__device__ inline unsigned shared_address(void const* memory) {
  return static_cast<unsigned>(__cvta_generic_to_shared(memory));
}

/// A barrier in shared memory. A phase ends when as many have arrived as init says, and all bytes
/// that were announced. Phases have parities 0, 1, 0, ...; wait(p) waits for the end of the current
/// phase if its parity is p, so a new barrier does not hold back wait(1).
class barrier {
 public:
  __device__ void init(unsigned arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(address()), "r"(arrivals));
  }
  __device__ void arrive() {
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(address()) : "memory");
  }
  __device__ void arrive_for_warp() {
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive();
  }
  /// Arrive, and announce what the copy engine or other blocks will bring.
  __device__ void arrive_expecting(unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(address()), "r"(bytes)
                 : "memory");
  }
  __device__ void wait(unsigned parity) {
    while (!is_past(parity)) {
    }
  }
  __device__ unsigned address() const { return shared_address(this); }

 private:
  __device__ bool is_past(unsigned parity) {
    unsigned past;
    asm volatile(
        "{\n.reg .pred past;\n"
        "mbarrier.try_wait.parity.shared.b64 past, [%1], %2;\n"
        "selp.u32 %0, 1, 0, past;\n}"
        : "=r"(past)
        : "r"(address()), "r"(parity)
        : "memory");
    return past != 0;
  }

  std::uint64_t word_;
};

/// New barriers become known to the copy engine and to the other blocks of a cluster.
__device__ inline void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

}  // namespace ssm::gpu::detail
