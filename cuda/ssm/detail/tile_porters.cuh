// SPDX-License-Identifier: Apache-2.0
// tile_porters.cuh: blocks to which the copy engine brings tiles, and takes away what comes out.
#pragma once

#include "ssm/detail/barrier.cuh"

namespace ssm::gpu::detail {

/// The barriers of a block's stages, for all of its threads. Of each phase `asking` arrivals say
/// that a tile is there, `working` that it has been run, `sending` that its memory is free again.
template <int Stages, class Memory>
__device__ void init_stages(Memory& memory, int asking, int working, int sending = 1) {
  if (threadIdx.x == 0) {
    for (int s = 0; s < Stages; ++s) {
      memory.arrived[s].init(asking), memory.done[s].init(working);
      memory.sent[s].init(sending);
    }
    publish_barriers();
  }
  __syncthreads();
}

/// `Workers` threads run tiles; of two warps beside them one thread asks for them, one sends them
/// off.
template <int Workers, class Walk>
__device__ void walk_with_porters(Walk& walk) {
  int const porter = static_cast<int>(threadIdx.x) - Workers;
  if (porter < 0) {
    walk.run();
  } else if (porter == 0) {
    walk.request();
  } else if (porter == 32) {
    walk.send();
  }
}

}  // namespace ssm::gpu::detail
