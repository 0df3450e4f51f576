// SPDX-License-Identifier: Apache-2.0
// cluster.cuh: how the blocks of a cluster hand each other words through shared memory.
#pragma once

#include <cstring>

#include "ssm/detail/barrier.cuh"

namespace ssm::gpu::detail {

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
/// The same in two parts: of what was stored before, others know new barriers alone.
__device__ inline void arrive_in_cluster() {
  asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
}
__device__ inline void wait_for_cluster() {
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}

/// A place of this block's shared memory as it is in that of another block.
__device__ inline unsigned in_block(void const* own, int rank) {
  unsigned address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(own)), "r"(rank));
  return address;
}

/// A barrier whose phases end when as many bytes as announced have been sent here.
class mailbox : public barrier {
 public:
  __device__ void init() {
    barrier::init(1);
    publish_barriers();
  }
  /// Of the phase that is under way, by one thread.
  __device__ void announce(int bytes) { arrive_expecting(static_cast<unsigned>(bytes)); }
  /// Send a value to where `to` is in block `rank`, whose mailbox of the same place counts it.
  template <class A>
  __device__ void send(A const& value, A* to, int rank) {
    if (blocks_in_cluster() == 1) return leave(value, to);  // memcheck wants two for the others
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
  /// The same in this block.
  template <class A>
  __device__ void leave(A const& value, A* to) {
    *to = value;
    __threadfence_block();
    asm volatile("mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(address()),
                 "n"(sizeof(A))
                 : "memory");
  }
};

}  // namespace ssm::gpu::detail
