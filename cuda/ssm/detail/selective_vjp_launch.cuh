// SPDX-License-Identifier: Apache-2.0
// selective_vjp_launch.cuh: the kernels of the gradient of Mamba's operator, one after another.
#pragma once

#include <algorithm>
#include <limits>

#include "ssm/detail/device.cuh"
#include "ssm/detail/early_launch.cuh"
#include "ssm/detail/selective_launch.cuh"
#include "ssm/detail/selective_vjp_arriving.cuh"
#include "ssm/detail/selective_vjp_fold.cuh"
#include "ssm/detail/selective_vjp_kernel.cuh"
#include "ssm/detail/selective_vjp_sums.cuh"

namespace ssm::gpu::detail {

/// The floats of workspace that the kernels share, and where each part begins.
struct vjp_memory {
  index_t block_states, arriving, decay, sums, shared, end;
};

template <class T>
index_t blocks_of_group(selective_problem<T> const& p, index_t channels) {
  return (p.group_channels + channels - 1) / channels;
}

inline index_t checkpoints_of(index_t length) {
  return (length + selective_scan_checkpoint_steps - 1) / selective_scan_checkpoint_steps;
}

/// Time is cut into segments of at least and at most this many steps.
inline constexpr index_t least_vjp_segment = 64;
inline constexpr index_t most_vjp_segment = index_t{1} << 30;

/// The segments for which waves of `slots` blocks take least time: a wave takes as long as its
/// steps and what a segment costs beside them.
inline index_t vjp_segments_for(index_t blocks, index_t length, index_t slots) {
  index_t best = 1, least = std::numeric_limits<index_t>::max();
  for (index_t waves = 1; waves <= 4; ++waves) {
    index_t const most = std::clamp<index_t>(length / least_vjp_segment, 1, 65535);
    index_t const segments = std::clamp<index_t>(waves * slots / blocks, 1, most);
    index_t const steps = (length + segments - 1) / segments + least_vjp_segment;
    index_t const time = (segments * blocks + slots - 1) / slots * steps;
    if (time < least) least = time, best = segments;
  }
  return best;
}

/// Whether a first pass goes by moments: not where it is too short for them to begin, nor where it
/// leaves states by themselves.
template <class T>
bool has_moments(index_t segment_length) {
  return segment_length >= 128 && segment_length < long_segment<T>;
}

/// The walks of each segment for which the first pass has one wave of blocks; one without
/// moments.
template <class T>
index_t walks_for(index_t blocks, index_t segment_length) {
  if (!has_moments<T>(segment_length)) return 1;
  index_t const slots = 4 * multiprocessors();
  index_t walks = 1;
  while (2 * walks * blocks <= slots && segment_length % (2 * walks * moments_tile::steps) == 0 &&
         segment_length / (2 * walks) >= least_vjp_segment) {
    walks *= 2;
  }
  return walks;
}

/// Cut time into segments and share out the workspace.
template <class T>
vjp_memory plan_vjp(selective_vjp_problem<T>& p, index_t wanted, bool has_checkpoints,
                    bool wants_shared) {
  index_t const channel_blocks =
      p.batch * (p.channels / p.group_channels) * blocks_of_group(p, selective_vjp_tile::channels);
  if (wanted == 0) wanted = vjp_segments_for(channel_blocks, p.length, 2 * multiprocessors());
  wanted = std::max(wanted, p.length / most_vjp_segment + 1);
  p.segment_length = round_up((p.length + wanted - 1) / wanted, selective_scan_block);
  p.segments = (p.length + p.segment_length - 1) / p.segment_length;
  index_t const blocks = checkpoints_of(p.length);
  index_t const lanes = p.batch * p.states * p.channels;
  p.walks = p.segments > 1 ? walks_for<T>(channel_blocks * (p.segments - 1), p.segment_length) : 1;
  p.walk_length = p.segment_length / p.walks;
  index_t const states = p.segments > 1 ? p.segments * p.walks * lanes : 0;
  vjp_memory m{};
  index_t next = 0;
  auto const take = [&](index_t floats) {
    index_t const first = next;
    next += round_up(floats, 4);
    return first;
  };
  m.block_states = take(has_checkpoints ? 0 : blocks * lanes);
  m.arriving = take(states);
  m.decay = take(states);
  m.sums = take(p.batch * p.segments * (p.states + channel_sums) * p.channels);
  m.shared = take(wants_shared ? channel_blocks * p.length * 2 * selective_vjp_tile::states : 0);
  m.end = next;
  return m;
}

/// A grid of one thread for each of so many things.
inline unsigned blocks_for(index_t threads, char const* name) {
  index_t const blocks = (threads + 127) / 128;
  require<shape_error>(blocks < std::numeric_limits<std::int32_t>::max(), name, ": ", blocks,
                       " blocks, expected less than 2^31");
  return static_cast<unsigned>(blocks);
}

/// The pass of 16 states that p says. Right after fold_back_kernel it begins early.
template <class T>
void launch_vjp(on where, selective_vjp_problem<T> const& p, bool leaves_checkpoints,
                bool after_fold) {
  constexpr int of_packed = sizeof(selective_vjp_tile::shared<T, true>),
                loose = sizeof(selective_vjp_tile::shared<T, false>);
  static_assert(loose <= 99 * 1024, "what a block of sm_86, 89 and 120 may have");
  int const shared = p.packed ? of_packed : loose;
  auto* const kernel = !p.packed      ? selective_vjp_kernel<T, packing::none>
                       : p.along_time ? selective_vjp_kernel<T, packing::of_steps>
                                      : selective_vjp_kernel<T, packing::of_channels>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
        "cudaFuncSetAttribute");
  index_t const blocks =
      p.batch * (p.channels / p.group_channels) * blocks_of_group(p, selective_vjp_tile::channels);
  dim3 const grid(blocks_for(blocks * 128, "selective_scan_vjp"),
                  static_cast<unsigned>(p.segments));
  if (after_fold) {
    launch_early(where, kernel, grid, selective_vjp_tile::threads, shared, "selective_vjp_kernel",
                 p, leaves_checkpoints);
  } else {
    kernel<<<grid, selective_vjp_tile::threads, shared, where.stream>>>(p, leaves_checkpoints);
    check(cudaGetLastError(), "selective_vjp_kernel");
  }
}

/// Of a tile's channels and states a block, for so many parts of time.
template <class Tile, class Problem>
void launch_pass(on where, Problem const& p, index_t count, int shared, void (*packed)(Problem),
                 void (*unpacked)(Problem), char const* name) {
  index_t const parts = (p.states + Tile::states - 1) / Tile::states;
  index_t const blocks =
      p.batch * (p.channels / p.group_channels) * blocks_of_group(p, Tile::channels) * parts;
  auto* const kernel = p.packed ? packed : unpacked;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared), name);
  kernel<<<dim3(blocks_for(blocks * 128, name), static_cast<unsigned>(count)), Tile::threads,
           shared, where.stream>>>(p);
  check(cudaGetLastError(), name);
}

/// What enters each segment, or what arrives there.
template <class T>
void launch_entering(on where, selective_problem<T> const& p) {
  index_t const count = p.segments - 1;
  if (has_moments<T>(p.segment_length)) {
    int const shared =
        p.packed ? sizeof(moments_tile::shared<T, true>) : sizeof(moments_tile::shared<T, false>);
    launch_pass<moments_tile>(where, p, count, shared, moments_kernel<T, true>,
                              moments_kernel<T, false>, "moments_kernel");
  } else {
    launch_pass<entering_tile>(where, p, count, 0, entering_kernel<T, true>,
                               entering_kernel<T, false>, "entering_kernel");
  }
}
template <class T>
void launch_arriving(on where, selective_vjp_problem<T> const& p) {
  index_t const count = (p.segments - 1) * p.walks;
  if (has_moments<T>(p.segment_length)) {
    int const shared =
        p.packed ? sizeof(moments_tile::gated<T, true>) : sizeof(moments_tile::gated<T, false>);
    launch_pass<moments_tile>(where, p, count, shared, arriving_moments_kernel<T, true>,
                              arriving_moments_kernel<T, false>, "arriving_moments_kernel");
  } else {
    auto const launch = [&](auto* packed, auto* unpacked) {
      launch_pass<arriving_tile>(where, p, count, 0, packed, unpacked, "arriving_kernel");
    };
    if (p.segment_length < 128) {
      launch(arriving_kernel<T, true, false>, arriving_kernel<T, false, false>);
    } else {
      launch(arriving_kernel<T, true, true>, arriving_kernel<T, false, true>);
    }
  }
}

/// Whether the checkpoints of four channels lie at multiples of 16 bytes.
template <class T>
bool are_states_packed(selective_vjp_problem<T> const& p) {
  auto const& states = p.block_states;
  return states.stride(3) == 1 && p.group_channels % 4 == 0 &&
         (states.stride(0) | states.stride(1) | states.stride(2)) % 4 == 0 &&
         std::abs(states.stride(2)) < index_t{1} << 28 &&
         reinterpret_cast<std::uintptr_t>(states.data_handle()) % 16 == 0;
}

template <class T>
void run_vjp(on where, selective_vjp_problem<T>& p, vjp_memory const& m, float* workspace,
             trajectory_view<float const, memory::device> checkpoints,
             trajectory_view<float, memory::device> to_B,
             trajectory_view<float, memory::device> to_C, channel_gradients const& channels) {
  index_t const rows = p.batch * (p.channels / p.group_channels);
  require<shape_error>(rows <= 65535, "selective_scan_vjp: ", rows,
                       " groups of all rows, expected at most 65535");
  p.entering = p.arriving = workspace + m.arriving;
  p.decay = workspace + m.decay;
  p.sums = workspace + m.sums;
  p.shared = m.end > m.shared ? workspace + m.shared : nullptr;
  index_t const lanes = p.batch * p.states * p.channels;
  auto const each_pass = [&](auto const& launch) {
    for (p.first_state = 0; p.first_state < p.states; p.first_state += selective_vjp_tile::states) {
      launch();
    }
  };
  if (checkpoints.data_handle() == nullptr) {
    index_t const blocks = checkpoints_of(p.length);
    p.checkpoints = {workspace + m.block_states, {p.batch, blocks, p.states, p.channels}};
    checkpoints = p.checkpoints;
    if (p.segments > 1) {
      launch_entering<T>(where, p);
      fold_kernel<T><<<blocks_for(lanes, "fold_kernel"), 128, 0, where.stream>>>(p);
      check(cudaGetLastError(), "fold_kernel");
    }
    each_pass([&] { launch_vjp(where, p, true, false); });
  }
  p.block_states = checkpoints;
  p.states_packed = are_states_packed(p);
  if (p.segments > 1) {
    launch_arriving(where, p);
    launch_early(where, fold_back_kernel<T>, blocks_for(lanes, "fold_back_kernel"), 128, 0,
                 "fold_back_kernel", p);
  }
  constexpr int kinds = channel_adder<T>::kinds;
  index_t const channel_blocks = blocks_for(p.states * p.channels, "selective_vjp_add_kernel");
  index_t const shared_blocks =
      p.shared == nullptr
          ? 0
          : blocks_for(p.length * 2 * selective_vjp_tile::states, "selective_vjp_add_kernel");
  shared_gradients<T> const shared{to_B, to_C, blocks_of_group(p, selective_vjp_tile::channels)};
  each_pass([&] {
    launch_vjp(where, p, false, p.segments > 1 && p.first_state == 0);
    bool const is_last = p.first_state + selective_vjp_tile::states >= p.states;
    index_t const blocks =
        shared_blocks + (is_last ? (kinds * channel_blocks + rows - 1) / rows : 0);
    if (blocks == 0) return;
    launch_early(where, selective_vjp_add_kernel<T>,
                 dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(rows)), 128, 0,
                 "selective_vjp_add_kernel", p, shared, channels, shared_blocks, channel_blocks);
  });
}

}  // namespace ssm::gpu::detail
