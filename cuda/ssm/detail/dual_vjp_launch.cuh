// SPDX-License-Identifier: Apache-2.0
// dual_vjp_launch.cuh: the kernels of the gradient of Mamba-2's operator, one after another.
#pragma once

#include <algorithm>
#include <limits>

#include "ssm/detail/device.cuh"
#include "ssm/detail/dual_vjp_copies.cuh"
#include "ssm/detail/dual_vjp_entering.cuh"
#include "ssm/detail/dual_vjp_hopper_launch.cuh"
#include "ssm/detail/dual_vjp_kernel.cuh"
#include "ssm/detail/dual_vjp_states.cuh"
#include "ssm/detail/dual_vjp_sums.cuh"
#include "ssm/error.hpp"
#include "ssm/execution.cuh"

namespace ssm::gpu::detail {

/// A grid of `threads` for each of so many things.
inline unsigned vjp_blocks(index_t things, index_t threads) {
  index_t const blocks = (things + threads - 1) / threads;
  require<shape_error>(blocks < std::numeric_limits<std::int32_t>::max(),
                       "state_space_dual_vjp: ", blocks, " blocks, expected less than 2^31");
  return static_cast<unsigned>(blocks);
}

/// States that kernels take at once: as many as fit beside the rest in shared memory.
template <class T>
int vjp_tile_states(index_t states) {
  return std::is_same_v<T, bfloat16> && states > 64 ? 128 : 64;
}

/// What sharing out costs: each block, and once if there is more than one in the place of one.
struct division_cost {
  index_t block, once;
};
/// The count from 1 to `most` for which waves of `slots` blocks take least time, where the work of
/// `blocks` blocks is shared out to so many times as many.
inline index_t best_division(index_t blocks, index_t work, division_cost cost, index_t most,
                             index_t slots) {
  index_t best = 1, least = std::numeric_limits<index_t>::max();
  for (index_t count = 1; count <= most; ++count) {
    index_t const waves = (blocks * count + slots - 1) / slots;
    index_t const time =
        waves * ((work + count - 1) / count + cost.block) + (count > 1 ? cost.once : 0);
    if (time < least) least = time, best = count;
  }
  return best;
}

/// The workspace in floats, and where each part of it begins.
struct dual_vjp_memory {
  index_t steps, entering, arriving, decay, arriving_decay, states, step_sums, shared, sums, folded,
      end;
};

/// What of the inputs is copied first.
template <class T>
struct dual_vjp_copies {
  input_copy<T> x, gate, y_cotangent, B, C, step_size;  // step_size as (batch, time, head, 1)
};

/// Cut time and heads, and share out the workspace.
template <class T>
dual_vjp_memory plan_dual_vjp(dual_vjp_problem<vjp_stored<T>>& p, dual_vjp_copies<T>& copies,
                              index_t wanted) {
  using stored = vjp_stored<T>;
  int const states = vjp_tile_states<stored>(p.states);
  p.chunks = (p.length + vjp_steps - 1) / vjp_steps;
  p.channel_tiles = (p.head_dim + vjp_channels - 1) / vjp_channels;
  p.state_tiles = std::max<index_t>(1, (p.states + states - 1) / states);
  index_t const processors = multiprocessors();
  index_t const blocks = p.batch * p.tiles() * p.state_tiles;
  index_t const state_blocks =
      (p.length + state_space_dual_device_block - 1) / state_space_dual_device_block;
  p.segments = wanted;
  if (wanted == 0) {
    constexpr int resident = 3;  // blocks of dual_vjp_states_kernel, by their registers
    p.segments = best_division(2 * blocks, state_blocks, {5, 12},
                               std::clamp<index_t>(state_blocks / 2, 1, 64), resident * processors);
  }
  p.segment_length = (state_blocks + p.segments - 1) / p.segments * state_space_dual_device_block;
  p.segments = (p.length + p.segment_length - 1) / p.segment_length;
  index_t const tiles = p.group_heads * p.channel_tiles;
  p.parts = best_division(p.batch * p.groups * p.chunks, tiles, {2, 5},
                          std::min<index_t>(tiles, 64), processors);
  p.folds = std::clamp<index_t>(p.batch * p.chunks / 32, 1, 32);

  dual_vjp_memory m{};
  index_t next = 0;
  auto const take = [&](index_t floats) {
    index_t const first = next;
    next += (floats + 31) / 32 * 32;
    return first;
  };
  index_t const decays = p.segments > 1 ? p.batch * p.segments * p.heads : 0;
  index_t const carry = decays * p.head_dim * p.states;
  index_t const tile = vjp_channels * states;
  index_t const shared = p.to_B.data_handle() != nullptr || p.to_C.data_handle() != nullptr;
  m.steps = take(p.batch * p.heads * p.chunks * step_numbers);
  m.entering = take(carry);
  m.arriving = take(carry);
  m.decay = take(decays);
  m.arriving_decay = take(decays);
  m.states = take(2 * p.chunks * blocks * tile * index_t{sizeof(stored)} / index_t{sizeof(float)});
  m.step_sums = take(p.chunks * blocks * 2 * vjp_steps);
  m.shared = take(
      p.parts > 1 ? shared * p.parts * p.batch * p.groups * p.chunks * 2 * vjp_steps * states : 0);
  m.sums = take(p.batch * p.chunks * p.sum_columns());
  m.folded = take(p.folds * p.sum_columns());
  for (auto* copy :
       {&copies.x, &copies.gate, &copies.y_cotangent, &copies.B, &copies.C, &copies.step_size}) {
    copy->place = take(copy->floats());
  }
  m.end = next;
  return m;
}

template <class T, int States>
void launch_dual_vjp(on where, dual_vjp_problem<T>& p) {
  auto const allow = [](auto* kernel, int bytes) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
          "cudaFuncSetAttribute");
  };
  bool const has_gate = p.gate.data_handle() != nullptr;
  bool const has_states = p.block_states.data_handle() != nullptr;
  unsigned const tiles = vjp_blocks(p.batch * p.tiles() * p.state_tiles, 1);

  auto* const states_kernel = dual_vjp_states_kernel<T, States>;
  constexpr int threads = state_pass_shape<T, States>::threads;
  int const state_bytes = state_pass_shape<T, States>::bytes(has_gate);
  allow(states_kernel, state_bytes);
  auto const segments = static_cast<unsigned>(p.segments);
  unsigned const carries = vjp_blocks(p.head_dim * p.states, 128);
  auto const run_states = [&](dim3 blocks, bool is_first) {
    launch_early(where, states_kernel, blocks, threads, state_bytes, "dual_vjp_states_kernel", p,
                 is_first);
  };
  if (segments > 1) run_states({tiles, segments - 1, has_states ? 1u : 2u}, true);
  if (segments > 1 && carries > 0) {
    dim3 const blocks(carries, static_cast<unsigned>(p.heads), static_cast<unsigned>(2 * p.batch));
    launch_early(where, dual_vjp_fold_kernel<T>, blocks, 128, 0, "dual_vjp_fold_kernel", p);
  }
  run_states({tiles, segments, 2}, false);

  auto const rows = static_cast<unsigned>(p.batch * p.groups);
  bool const wants_shared = p.to_B.data_handle() != nullptr || p.to_C.data_handle() != nullptr;
  auto const add_shared = [&] {
    if (p.parts == 1 || !wants_shared) return;
    dim3 const blocks(vjp_blocks(p.chunks * 2 * vjp_steps * States, 256), rows);
    launch_early(where, dual_vjp_add_shared_kernel<T>, blocks, 256, 0, "dual_vjp_add_shared_kernel",
                 p, States);
  };
  if constexpr (std::is_same_v<T, bfloat16>) {
    if (is_for_hopper(p)) {
      pull_back_on_hopper(where, p, multiprocessors());
      return add_shared();
    }
  }
  auto* const kernel = dual_vjp_kernel<T, States>;
  using shape = chunk_shape<T, States>;
  int const most = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  int const stages = shape::bytes(2, has_gate) <= most ? 2 : 1;
  int const bytes = shape::bytes(stages, has_gate);
  allow(kernel, bytes);
  auto const parts = static_cast<unsigned>(p.parts);
  for (p.state_tile = 0; p.state_tile < p.state_tiles; ++p.state_tile) {
    kernel<<<dim3(vjp_blocks(p.chunks, 1), parts, rows), shape::threads, bytes, where.stream>>>(
        p, stages);
    check(cudaGetLastError(), "dual_vjp_kernel");
    add_shared();
  }
}

template <class T>
void run_dual_vjp(on where, dual_vjp_problem<vjp_stored<T>>& p, dual_vjp_copies<T> const& copies,
                  dual_vjp_memory const& m, float* workspace, head_gradients const& heads) {
  using stored = vjp_stored<T>;
  p.steps = workspace + m.steps;
  p.entering = workspace + m.entering, p.arriving = workspace + m.arriving;
  p.decay = workspace + m.decay, p.arriving_decay = workspace + m.arriving_decay;
  p.states_of_chunks = workspace + m.states;
  p.step_sums = workspace + m.step_sums, p.shared = workspace + m.shared;
  p.sums = workspace + m.sums, p.folded = workspace + m.folded;
  p.wants_D = heads.D.data_handle() != nullptr;
  p.wants_factor = heads.scaling.step.data_handle() != nullptr;

  run_copy(where, copies.x, workspace, p.x);
  run_copy(where, copies.gate, workspace, p.gate);
  run_copy(where, copies.y_cotangent, workspace, p.y_cotangent);
  run_copy(where, copies.B, workspace, p.B);
  run_copy(where, copies.C, workspace, p.C);
  tensor_view<stored const, 4, memory::device> step_size{};
  run_copy(where, copies.step_size, workspace, step_size);
  if (copies.step_size.needed) p.step_size = step_size.select(3, 0);

  dim3 const steps(vjp_blocks(p.chunks, 1), vjp_blocks(p.heads, vjp_step_tile::heads),
                   static_cast<unsigned>(p.batch));
  launch_early(where, dual_vjp_steps_kernel<stored>, steps, vjp_step_tile::threads, 0,
               "dual_vjp_steps_kernel", p);
  if constexpr (std::is_same_v<stored, bfloat16>) {
    vjp_tile_states<stored>(p.states) == 128 ? launch_dual_vjp<stored, 128>(where, p)
                                             : launch_dual_vjp<stored, 64>(where, p);
  } else {
    launch_dual_vjp<stored, 64>(where, p);
  }
  launch_early(where, dual_vjp_pull_back_steps_kernel<stored>, steps, vjp_step_tile::threads, 0,
               "dual_vjp_pull_back_steps_kernel", p);
  dim3 const folds(vjp_blocks(p.sum_columns(), 128), static_cast<unsigned>(p.folds));
  launch_early(where, dual_vjp_fold_sums_kernel<stored>, folds, 128, 0, "dual_vjp_fold_sums_kernel",
               p);
  dim3 const additions(vjp_blocks(p.heads * p.head_dim, 256), head_adder<stored>::kinds);
  launch_early(where, dual_vjp_add_heads_kernel<stored>, additions, 256, 0,
               "dual_vjp_add_heads_kernel", p, heads);
}

}  // namespace ssm::gpu::detail
