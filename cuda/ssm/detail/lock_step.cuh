// SPDX-License-Identifier: Apache-2.0
// lock_step.cuh: blocks that walk through memory side by side.
#pragma once

#include <cstddef>

namespace ssm::gpu::detail {

/// Blocks that take pieces of the same rows of an array keep together: each holds a round back
/// until all blocks have reached one a few rounds before. If they drift apart, each piece of a row
/// is needed at another time and opens a page of memory of its own.
/// By one thread of each block. All blocks are there at once, and have as many rounds.
struct lock_step {
  static constexpr int words = 64;  ///< more than the rounds that blocks may be apart
  static constexpr std::size_t bytes = words * sizeof(unsigned);

  unsigned* reached = nullptr;  ///< for each round of `words`: 0 before the kernel; none: no wait

  __device__ void reach(int round) const {
    if (reached != nullptr) atomicAdd(reached + round % words, 1u);
  }
  /// How many blocks have reached this round, and those `words`, 2·words, ... before it.
  __device__ unsigned look(int round) const {
    bool const is_known = reached == nullptr || round < 0;
    return is_known ? ~0u : *static_cast<unsigned volatile*>(reached + round % words);
  }
  /// Until all have reached it, of which `seen` were looked up before.
  __device__ void wait(int round, unsigned seen) const {
    while (seen < gridDim.x * (static_cast<unsigned>(round) / words + 1)) seen = look(round);
  }
};

}  // namespace ssm::gpu::detail
