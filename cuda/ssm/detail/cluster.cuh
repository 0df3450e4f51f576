// SPDX-License-Identifier: Apache-2.0
// cluster.cuh: how the blocks of a cluster hand each other words through shared memory.
#pragma once

#include <cstdint>
#include <cstring>

#include "ssm/config.hpp"

namespace ssm::gpu::detail {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

__device__ inline int rank_in_cluster() {
  unsigned rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
}
__device__ inline int blocks_in_cluster() {
  unsigned blocks;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(blocks));
  return static_cast<int>(blocks);
}
/// All threads of all its blocks.
__device__ inline void meet_cluster() {
  asm volatile(
      "barrier.cluster.arrive.release;\n"
      "barrier.cluster.wait.acquire;" ::
          : "memory");
}

/// A place of this block's shared memory as it is in that of another block.
__device__ inline unsigned in_block(void const* own, int rank) {
  unsigned address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;"
      : "=r"(address)
      : "r"(static_cast<unsigned>(__cvta_generic_to_shared(own))), "r"(rank));
  return address;
}

/// A barrier in shared memory whose phases end when as many bytes as announced have been sent here.
/// Phases have parities 0, 1, 0, ...
class mailbox {
 public:
  __device__ void init() {
    asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(address()));
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  /// Of the phase that is under way, by one thread.
  __device__ void announce(int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(address()), "r"(bytes)
                 : "memory");
  }
  /// Until the phase of this parity has ended.
  __device__ void wait(unsigned parity) {
    unsigned past = 0;
    while (past == 0) {
      asm volatile(
          "{\n.reg .pred past;\n"
          "mbarrier.try_wait.parity.shared.b64 past, [%1], %2;\n"
          "selp.u32 %0, 1, 0, past;\n}"
          : "=r"(past)
          : "r"(address()), "r"(parity)
          : "memory");
    }
  }
  /// Send a value to where `to` is in block `rank`, whose mailbox of the same place counts it.
  template <class A>
  __device__ void send(A const& value, A const* to, int rank) {
    constexpr int words = sizeof(A) / 4;
    unsigned word[words];
    memcpy(word, &value, sizeof(A));
    unsigned const at = in_block(to, rank), box = in_block(this, rank);
    if constexpr (words == 1) {
      asm volatile(
          "st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(at),
          "r"(word[0]), "r"(box)
          : "memory");
    } else {
      for (int i = 0; i < words; i += 2) {
        asm volatile(
            "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%0], {%1, %2}, "
            "[%3];" ::"r"(at + 4 * static_cast<unsigned>(i)),
            "r"(word[i]), "r"(word[i + 1]), "r"(box)
            : "memory");
      }
    }
  }

 private:
  __device__ unsigned address() const {
    return static_cast<unsigned>(__cvta_generic_to_shared(this));
  }

  std::uint64_t word_;
};

#else  // older devices have no clusters, and no kernel of them is launched there

__device__ inline int rank_in_cluster() {
  return 0;
}
__device__ inline int blocks_in_cluster() {
  return 1;
}
__device__ inline void meet_cluster() {}

class mailbox {
 public:
  __device__ void init() {}
  __device__ void announce(int) {}
  __device__ void wait(unsigned) {}
  template <class A>
  __device__ void send(A const&, A const*, int) {}

 private:
  std::uint64_t word_;
};

#endif

}  // namespace ssm::gpu::detail
