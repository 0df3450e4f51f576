// SPDX-License-Identifier: Apache-2.0
// lock_step.cuh: blocks that walk through memory side by side.
#pragma once

#include <cstddef>

namespace ssm::gpu::detail {

/// Blocks that take pieces of the same rows of an array keep together: each holds a round back
/// until all blocks have reached the one `slack` before. If they drift apart, each piece of a row
/// is needed at another time and opens a page of memory of its own.
struct lock_step {
  static constexpr int words = 64;  ///< more than the rounds that blocks may be apart

  static constexpr std::size_t bytes = words * sizeof(unsigned);

  unsigned* reached = nullptr;  ///< for each round of `words`: 0 before the kernel; none: no wait

  /// By one thread of each block. All blocks are there at once, and have as many rounds.
  __device__ void begin(int round, int slack) const {
    if (reached == nullptr) return;
    atomicAdd(reached + round % words, 1u);
    int const before = round - slack;
    if (before < 0) return;
    unsigned const all = gridDim.x * (static_cast<unsigned>(before / words) + 1);
    auto const* const count = static_cast<unsigned volatile*>(reached + before % words);
    while (*count < all) {
    }
  }
};

}  // namespace ssm::gpu::detail
