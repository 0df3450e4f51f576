// SPDX-License-Identifier: Apache-2.0
// selective_launch.cuh: how Mamba's operator is cut into segments and blocks, and its launches.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "ssm/detail/device.cuh"
#include "ssm/detail/selective_entering.cuh"
#include "ssm/detail/selective_fold.cuh"
#include "ssm/detail/selective_moments.cuh"
#include "ssm/detail/selective_porters.cuh"
#include "ssm/detail/selective_relay_launch.cuh"
#include "ssm/detail/selective_scan_inputs.hpp"
#include "ssm/detail/selective_scan_kernel.cuh"
#include "ssm/detail/selective_step_kernel.cuh"
#include "ssm/execution.cuh"
#include "ssm/recurrence.hpp"

namespace ssm::gpu::detail {

/// Steps are cut into segments of at least this many: each costs two more passes over its states.
inline constexpr index_t least_segment = 64;

/// In segments of this many steps most states have decayed before a first pass is through, if they
/// decay at all, so that one that leaves each by itself is faster than one that has all or none,
/// unless its moments need as few products as for numbers of 16 bits.
template <class T>
inline constexpr index_t long_segment = sizeof(T) == 2 ? std::numeric_limits<index_t>::max() : 3072;

/// Which kernel has a model's states, and how many channels a squad or a block of it has.
struct selective_shape {
  int states, lanes;
  bool is_uncut = false;     // in time
  bool has_porters = false;  // beside a squad, which is then a block
  int relay_groups = 0;      // of a block of relay_kernel, if that has the problem

  int channels() const { return 2 * 128 / lanes; }
  index_t squads() const {
    return lanes * states <= 16 ? selective_squads<8, 2>
           : lanes <= 8         ? selective_squads<8, 8>
                                : selective_squads<8, 32>;
  }
};

/// As many segments as make one wave of blocks of channels, `slots` at a time.
inline index_t segments_for(index_t blocks, index_t length, index_t slots) {
  index_t const fitting = std::max<index_t>(slots / blocks, 1);
  return std::clamp<index_t>(length / least_segment, 1, std::min<index_t>(fitting, 65535));
}

inline index_t round_up(index_t value, index_t unit) {
  return (value + unit - 1) / unit * unit;
}

/// Whether a call is a few steps, for which nothing is cut.
template <class T>
bool is_few_steps(selective_problem<T> const& p) {
  return p.length <= few_steps && p.checkpoints.data_handle() == nullptr;
}

/// Many rows need not be cut, so that no first pass is needed: in blocks of half as many channels
/// if that makes at most two or three for a multiprocessor. Two squads that step leave room for
/// porters. Otherwise `usual`.
template <class T>
selective_shape shape_of_rows(selective_problem<T> const& p, selective_shape usual) {
  selective_shape const half{4, 4, true};
  index_t const processors = multiprocessors();
  index_t const halves = blocks_of_channels(p, half.channels());
  index_t const wholes = blocks_of_channels(p, usual.channels());
  if (10 * halves <= 14 * processors) return usual;
  if (halves <= 2 * processors) return {4, 4, true, true};
  if (halves <= 3 * processors) return half;
  return wholes <= 2 * processors ? selective_shape{8, 2, true, true} : usual;
}

/// `wanted`: segments, or 0.
template <class T>
selective_shape shape_for(selective_problem<T> const& p, index_t wanted) {
  if (p.states <= 8) return {4, 2};
  if (p.states <= 16) {
    selective_shape const usual{8, 2};
    if (wanted != 0 || is_few_steps(p)) return usual;
    int const groups = relay_groups(p);
    return groups > 0 ? selective_shape{8, 2, true, false, groups} : shape_of_rows(p, usual);
  }
  int lanes = 4;
  while (8 * lanes < p.states) lanes *= 2;
  return {8, lanes};
}

/// How many blocks of so many channels there are in all, in `parts` segments or parts of states.
template <class T>
int squads_of(selective_problem<T> const& p, index_t channels, index_t parts) {
  index_t const squads = blocks_of_channels(p, channels) * parts;
  require<shape_error>(squads < std::numeric_limits<std::int32_t>::max(),
                       "selective_scan: ", squads, " blocks of channels, expected less than 2^31");
  return static_cast<int>(squads);
}

/// How many of so many squads are one block, at most `most`: together they fill the device. But two
/// that begin together stay together, and want the same unit at a time: these are blocks.
inline int squads_in_block(index_t squads, int most, int shared) {
  index_t const of_processor = (squads - 1) / multiprocessors() + 1;
  if (of_processor <= 2) return 1;
  int in_block = static_cast<int>(std::min<index_t>(of_processor, most));
  while (in_block > 1 && !has_shared_memory(in_block * shared)) --in_block;
  return in_block;
}

template <class T>
void launch_moments(on where, selective_problem<T> const& p, int squads) {
  int const shared =
      p.packed ? sizeof(moments_tile::shared<T, true>) : sizeof(moments_tile::shared<T, false>);
  auto* const kernel = p.packed ? moments_kernel<T, true> : moments_kernel<T, false>;
  int in_block = squads_in_block(squads * (p.segments - 1), moments_tile::squads, shared);
  if (squads % in_block != 0) in_block = 1;  // none is idle
  check(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, in_block * shared),
      "cudaFuncSetAttribute");
  dim3 const grid(static_cast<unsigned>(squads / in_block), static_cast<unsigned>(p.segments - 1));
  dim3 const block(moments_tile::threads, static_cast<unsigned>(in_block));
  kernel<<<grid, block, in_block * shared, where.stream>>>(p);
  check(cudaGetLastError(), "moments_kernel");
}

/// What enters segments, as far as it comes from the one before.
template <class T>
void launch_first_pass(on where, selective_problem<T> const& p) {
  static_assert(entering_tile::states == moments_tile::states);
  index_t const parts = (p.states + entering_tile::states - 1) / entering_tile::states;
  if (p.segment_length < long_segment<T>) {
    return launch_moments(where, p, squads_of(p, moments_tile::channels, parts));
  }
  auto* const kernel = p.packed ? entering_kernel<T, true> : entering_kernel<T, false>;
  dim3 const grid(static_cast<unsigned>(squads_of(p, entering_tile::channels, parts)),
                  static_cast<unsigned>(p.segments - 1));
  kernel<<<grid, entering_tile::threads, 0, where.stream>>>(p);
  check(cudaGetLastError(), "entering_kernel");
}

template <class T, int States, int Lanes, bool Packed>
void launch_selective(on where, selective_problem<T> const& p, int squads) {
  constexpr int most = selective_squads<States, Lanes>;
  constexpr int shared = sizeof(typename selective_tile<T, States, Lanes, Packed>::shared);
  auto* const kernel = p.along_time ? selective_scan_kernel<T, States, Lanes, Packed, true>
                                    : selective_scan_kernel<T, States, Lanes, Packed, false>;
  int const in_block = squads_in_block(squads, most, shared);
  check(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, in_block * shared),
      "cudaFuncSetAttribute");
  auto const blocks = static_cast<unsigned>((squads + in_block - 1) / in_block);
  kernel<<<blocks, dim3(128, static_cast<unsigned>(in_block)), in_block * shared, where.stream>>>(
      p, squads);
  check(cudaGetLastError(), "selective_scan_kernel");
}

template <class T, int States, int Lanes, bool Packed>
void launch_with_porters(on where, selective_problem<T> const& p, int squads) {
  constexpr int shared = sizeof(typename selective_tile<T, States, Lanes, Packed, 2>::shared);
  auto* const kernel = p.along_time ? selective_porters_kernel<T, States, Lanes, Packed, true>
                                    : selective_porters_kernel<T, States, Lanes, Packed, false>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
        "cudaFuncSetAttribute");
  kernel<<<static_cast<unsigned>(squads), dim3(128, 2), shared, where.stream>>>(p);
  check(cudaGetLastError(), "selective_porters_kernel");
}
template <class T, int States, int Lanes>
void launch_with_porters(on where, selective_problem<T> const& p, int squads) {
  return p.packed ? launch_with_porters<T, States, Lanes, true>(where, p, squads)
                  : launch_with_porters<T, States, Lanes, false>(where, p, squads);
}

template <class T, int States, int Lanes>
void launch_selective(on where, selective_problem<T> const& p, int squads) {
  return p.packed ? launch_selective<T, States, Lanes, true>(where, p, squads)
                  : launch_selective<T, States, Lanes, false>(where, p, squads);
}

template <class T>
void launch_selective(on where, selective_problem<T> const& p, selective_shape shape, int squads) {
  if (shape.has_porters) {
    return shape.states == 4 ? launch_with_porters<T, 4, 4>(where, p, squads)
                             : launch_with_porters<T, 8, 2>(where, p, squads);
  }
  if (shape.states == 4 && shape.lanes == 4) return launch_selective<T, 4, 4>(where, p, squads);
  if (shape.states == 4) return launch_selective<T, 4, 2>(where, p, squads);
  switch (shape.lanes) {
    case 2:
      return launch_selective<T, 8, 2>(where, p, squads);
    case 4:
      return launch_selective<T, 8, 4>(where, p, squads);
    case 8:
      return launch_selective<T, 8, 8>(where, p, squads);
    case 16:
      return launch_selective<T, 8, 16>(where, p, squads);
    default:
      return launch_selective<T, 8, 32>(where, p, squads);
  }
}

template <class T>
void launch_steps(on where, selective_problem<T> const& p) {
  constexpr index_t most = 65535;
  index_t const groups = p.channels / p.group_channels;
  require<shape_error>(groups <= most, "selective_scan: B has ", groups,
                       " groups, expected at most 65535");
  int const lane_bits = step_lane_bits(p.states);
  constexpr index_t far = std::numeric_limits<std::int32_t>::max();
  auto const is_near = [&](auto const& of) {
    return std::abs(of.time) * p.length + std::abs(of.channel) * p.channels < far;
  };
  auto const is_dense = [&](auto const& of) {
    return has_quads(of, false) &&
           std::abs(of.time) * p.length + std::abs(of.group) * groups + p.states < far;
  };
  bool const dense = has_dense_states(p.carry) && has_dense_states(p.eigenvalue) &&
                     has_near_elements(p.carry) && has_near_elements(p.eigenvalue, 0) &&
                     has_near_elements(p.D, 0) && has_near_elements(p.step_bias, 0) &&
                     has_near_elements(p.sequence) && is_dense(p.B) && is_dense(p.C) &&
                     is_near(p.x) && is_near(p.step_size) && is_near(p.gate) && is_near(p.y);
  index_t const at_once = step_rows * (32 >> lane_bits);
  index_t const warps = (p.group_channels + at_once - 1) / at_once;
  index_t const least = (p.batch + most - 1) / most;
  index_t const passes = std::max(step_passes(warps * groups * p.batch, p.batch), least);
  index_t const in_block = std::min<index_t>(warps, step_threads / 32);
  index_t const blocks = (warps + in_block - 1) / in_block;
  require<shape_error>(blocks < std::numeric_limits<std::int32_t>::max(),
                       "selective_scan: ", blocks, " blocks of channels, expected less than 2^31");
  require<shape_error>(std::max(p.batch, p.channels) < far, "selective_scan: x has ", p.batch,
                       " rows of ", p.channels, " channels, expected less than 2^31 of each");
  dim3 const grid(static_cast<unsigned>(blocks), static_cast<unsigned>(groups),
                  static_cast<unsigned>((p.batch + passes - 1) / passes));
  auto const launch = [&](auto* kernel, auto const& call) {
    kernel<<<grid, static_cast<unsigned>(32 * in_block), 0, where.stream>>>(
        call, lane_bits, static_cast<int>(passes));
    check(cudaGetLastError(), "selective_step_kernel");
  };
  if (!dense) {
    return launch(selective_step_kernel<T, 2, false>, selective_step_call<T, index_t>(p));
  }
  launch(p.states > 128 ? selective_step_kernel<T, 2, true> : selective_step_kernel<T, 1, true>,
         selective_step_call<T, int>(p));
}

/// Cut time into segments; the floats of workspace that they need.
template <class T>
index_t plan_segments(selective_problem<T>& p, selective_shape shape, index_t wanted) {
  if (is_few_steps(p) || shape.relay_groups > 0) {
    p.segments = 1, p.segment_length = p.length;
    return 0;
  }
  index_t const blocks = blocks_of_channels(p, shape.channels());
  p.segments = shape.is_uncut ? 1 : wanted;
  if (p.segments == 0) {
    p.segments = segments_for(blocks, p.length, multiprocessors() * shape.squads());
  }
  p.segment_length = round_up((p.length + p.segments - 1) / p.segments, ssm::selective_scan_block);
  p.segments = (p.length + p.segment_length - 1) / p.segment_length;
  return p.segments == 1 ? 0 : 2 * p.batch * p.segments * p.states * p.channels;
}

template <class T>
void run_selective(on where, selective_problem<T>& p, selective_shape shape, float* workspace) {
  if (is_few_steps(p)) return launch_steps(where, p);
  if (shape.relay_groups > 0) return launch_relay(where, p, shape.relay_groups);
  int const squads = squads_of(p, shape.channels(), p.segments);
  if (p.segments > 1) {
    p.entering = workspace;
    p.decay = workspace + p.batch * p.segments * p.states * p.channels;
    launch_first_pass(where, p);
    index_t const states = p.batch * p.states * p.channels;
    fold_kernel<<<static_cast<unsigned>((states + 127) / 128), 128, 0, where.stream>>>(p);
    check(cudaGetLastError(), "fold_kernel");
  }
  launch_selective(where, p, shape, squads);
}

}  // namespace ssm::gpu::detail
