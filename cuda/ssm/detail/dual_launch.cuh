// SPDX-License-Identifier: Apache-2.0
// dual_launch.cuh: how Mamba-2's operator is cut into segments and blocks, and its launches.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>

#include "ssm/detail/device.cuh"
#include "ssm/detail/dual_entering.cuh"
#include "ssm/detail/dual_hopper_launch.cuh"
#include "ssm/detail/dual_step_kernel.cuh"
#include "ssm/detail/state_space_dual_inputs.hpp"
#include "ssm/error.hpp"
#include "ssm/execution.cuh"

namespace ssm::gpu::detail {

/// Steps are cut into segments of at least this many: each costs a pass over its states more.
inline constexpr index_t least_dual_segment = 4 * state_space_dual_device_block;

/// Call run(std::integral_constant) with the number of states of the kernel that has them.
template <class Run>
void with_states(index_t states, Run const& run) {
  if (states <= 16) return run(std::integral_constant<int, 16>{});
  if (states <= 64) return run(std::integral_constant<int, 64>{});
  if (states <= 128) return run(std::integral_constant<int, 128>{});
  run(std::integral_constant<int, 256>{});
}

/// Blocks have four warps or more, some of them of parts that are not there.
inline int least_parts(dual_shape const& shape) {
  return (3 + shape.slices) / shape.slices;
}

/// The largest blocks that fit on this device, of as many warps as share the parts of a group
/// evenly.
template <class T, int States>
dual_shape dual_shape_for(dual_problem<T> const& p) {
  using tile = dual_tile<T, States>;
  auto const memory =
      static_cast<std::size_t>(device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  index_t const squares = (p.head_dim + 15) / 16, tiles = (squares + 3) / 4;
  dual_shape shape{1, static_cast<int>((squares + tiles - 1) / tiles), 2, false};
  index_t const parts = parts_of_group(p, shape);
  index_t const most = std::min<index_t>(tile::most_warps / shape.slices, parts);
  for (int const stages : {2, 1}) {
    for (index_t fitting = most; fitting > 0; --fitting) {
      index_t const blocks = (parts + fitting - 1) / fitting;
      shape.parts = static_cast<int>((parts + blocks - 1) / blocks), shape.stages = stages;
      shape.parts = std::max(shape.parts, least_parts(shape));
      if (tile::bytes(shape) <= memory) return shape;
    }
  }
  require<shape_error>(false, "state_space_dual: ", tile::bytes(shape),
                       " bytes of shared memory are needed, expected at most ", memory);
  return shape;
}

/// Cut time into segments such that all blocks end together, `slots` of them at a time; `wanted` of
/// them if that is not 0.
template <class T>
void cut_into_segments(dual_problem<T>& p, index_t blocks, index_t slots, index_t wanted) {
  auto const cut = [&](index_t segments) {
    index_t const unit = state_space_dual_device_block;
    index_t const steps = ((p.length + segments - 1) / segments + unit - 1) / unit * unit;
    return std::pair{(p.length + steps - 1) / steps, steps};
  };
  std::tie(p.segments, p.segment_length) = cut(std::max<index_t>(wanted, 1));
  if (wanted != 0) return;
  // In steps: waves of blocks, each of which begins and ends, and the first pass, which costs half
  // as much and ends early where states decay.
  auto const cost = [&](index_t segments, index_t steps) {
    auto const waves = [&](index_t of) { return (blocks * of + slots - 1) / slots; };
    index_t const first_pass = segments > 1 ? std::min<index_t>(steps, 1024) / 2 + 64 : 0;
    return waves(segments) * (steps + 96) + waves(segments - 1) * first_pass;
  };
  index_t best = cost(p.segments, p.segment_length);
  for (index_t more = 2; more <= 64 && more * least_dual_segment <= p.length; ++more) {
    auto const [segments, steps] = cut(more);
    if (cost(segments, steps) >= best) continue;
    best = cost(segments, steps), p.segments = segments, p.segment_length = steps;
  }
}

template <class T>
unsigned dual_blocks(dual_problem<T> const& p, dual_shape const& shape) {
  index_t const parts = parts_of_group(p, shape);
  index_t const blocks = p.batch * p.groups * ((parts + shape.parts - 1) / shape.parts);
  require<shape_error>(blocks < std::numeric_limits<std::int32_t>::max(),
                       "state_space_dual: ", blocks, " blocks of heads, expected less than 2^31");
  return static_cast<unsigned>(blocks);
}

template <class T, int States>
void launch_dual(on where, dual_problem<T> const& p, dual_shape const& shape) {
  auto const bytes = dual_tile<T, States>::bytes(shape);
  auto* const kernel = dual_kernel<T, States>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(bytes)),
        "cudaFuncSetAttribute");
  dim3 const blocks(dual_blocks(p, shape), static_cast<unsigned>(p.segments));
  kernel<<<blocks, static_cast<unsigned>(32 * shape.warps()), bytes, where.stream>>>(p, shape);
  check(cudaGetLastError(), "dual_kernel");
}

/// Cut time into segments; the floats of workspace that they need.
template <class T>
index_t plan_dual(dual_problem<T>& p, index_t wanted) {
  p.segments = 1, p.segment_length = p.length;
  if (p.states > 0 && is_few_steps(p)) return 0;
  index_t const processors = multiprocessors();
  if (is_for_hopper(p)) {
    cut_into_segments(p, hopper_blocks(p), processors, wanted);
  } else {
    with_states(p.states, [&](auto states) {
      cut_into_segments(p, dual_blocks(p, dual_shape_for<T, states>(p)), processors, wanted);
    });
  }
  return p.segments == 1 ? 0 : p.batch * p.segments * p.heads * (p.head_dim * p.states + 1);
}

template <class T>
void run_dual(on where, dual_problem<T>& p, float* workspace) {
  if (p.states > 0 && is_few_steps(p)) return run_dual_steps(where, p);
  p.entering = workspace;
  p.decay = workspace + p.batch * p.segments * p.heads * p.head_dim * p.states;
  if (is_for_hopper(p)) return run_on_hopper(where, p);
  with_states(p.states, [&](auto states) {
    auto const shape = dual_shape_for<T, states>(p);
    // Heads decay at different rates: blocks of the first pass are small.
    if (p.segments > 1)
      launch_dual<T, states>(where, p, {least_parts(shape), shape.slices, 2, true});
    launch_dual<T, states>(where, p, shape);
  });
}

}  // namespace ssm::gpu::detail
