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
/// whose moments need fewer products for numbers of 16 bits.
template <class T>
inline constexpr index_t long_segment = sizeof(T) == 2 ? 8192 : 3072;

/// Whether packets of eight elements along the dense axis of an array begin at multiples of 16
/// bytes.
template <class T>
bool has_packets(selective_array<T> const& array, bool along_time) {
  if (array.data == nullptr) return true;
  auto const whole = [](index_t stride) { return stride % packet_elements == 0; };
  return reinterpret_cast<std::uintptr_t>(array.data) % 16 == 0 && whole(array.batch) &&
         (along_time ? array.time == 1 && whole(array.channel)
                     : array.channel == 1 && whole(array.time));
}

template <class T>
bool has_quads(selective_projection<T> const& of, bool along_time) {
  auto const whole = [](index_t stride) { return stride % 4 == 0; };
  return whole(of.batch) && whole(of.group) && (along_time ? of.time : of.state) == 1 &&
         whole(along_time ? of.state : of.time) &&
         reinterpret_cast<std::uintptr_t>(of.data) % (4 * sizeof(T)) == 0;
}

/// Which kernel has a model's states, and how many channels a block of it has.
struct selective_shape {
  int states, lanes;
  bool is_uncut = false;  // in time
  int relay_groups = 0;   // of a block of relay_kernel, if that has the problem

  int channels() const { return 2 * 128 / lanes; }
  index_t blocks(bool packed) const {
    if (!packed) return selective_blocks<8, 2, false>;
    return lanes * states <= 16 ? selective_blocks<8, 2, true>
           : lanes <= 8         ? selective_blocks<8, 8, true>
                                : selective_blocks<8, 32, true>;
  }
};

template <class T>
using selective_kernel = void (*)(selective_problem<T>);

/// As many segments as make one wave of blocks, `slots` at a time.
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

/// `wanted`: segments, or 0.
template <class T>
selective_shape shape_for(selective_problem<T> const& p, index_t wanted) {
  if (p.states <= 8) return {4, 2};
  if (p.states <= 16) {
    selective_shape const usual{8, 2}, half{4, 4, true};
    if (!p.packed || wanted != 0 || is_few_steps(p)) return usual;
    if (int const groups = relay_groups(p); groups > 0) return {8, 2, true, groups};
    // In blocks of half as many channels many rows need not be cut, so that no first pass is
    // needed; but where segments are long it is short.
    index_t const slots = multiprocessors() * usual.blocks(true);
    index_t const blocks = blocks_of_channels(p, half.channels());
    index_t const cut = segments_for(blocks_of_channels(p, usual.channels()), p.length, slots);
    bool const fits = 16 * blocks >= 7 * slots && blocks <= slots;
    bool const is_short = p.length < cut * long_segment<T>;
    return cut > 1 && fits && is_short ? half : usual;
  }
  int lanes = 4;
  while (8 * lanes < p.states) lanes *= 2;
  return {8, lanes};
}

template <class T, int States, int Lanes, bool Packed>
void launch_selective(on where, selective_problem<T> const& p, unsigned blocks) {
  constexpr int shared = sizeof(typename selective_tile<T, States, Lanes>::shared);
  auto* const kernel = selective_scan_kernel<T, States, Lanes, Packed>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
        "cudaFuncSetAttribute");
  kernel<<<dim3(blocks, static_cast<unsigned>(p.segments)), 128, shared, where.stream>>>(p);
  check(cudaGetLastError(), "selective_scan_kernel");
}

template <class T, int States, int Lanes>
void launch_selective(on where, selective_problem<T> const& p, unsigned blocks) {
  return p.packed ? launch_selective<T, States, Lanes, true>(where, p, blocks)
                  : launch_selective<T, States, Lanes, false>(where, p, blocks);
}

template <class T>
void launch_selective(on where, selective_problem<T> const& p, selective_shape shape,
                      unsigned blocks) {
  if (shape.states == 4 && shape.lanes == 4) {
    return launch_selective<T, 4, 4, true>(where, p, blocks);
  }
  if (shape.states == 4) return launch_selective<T, 4, 2>(where, p, blocks);
  switch (shape.lanes) {
    case 2:
      return launch_selective<T, 8, 2>(where, p, blocks);
    case 4:
      return launch_selective<T, 8, 4>(where, p, blocks);
    case 8:
      return launch_selective<T, 8, 8>(where, p, blocks);
    case 16:
      return launch_selective<T, 8, 16>(where, p, blocks);
    default:
      return launch_selective<T, 8, 32>(where, p, blocks);
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
    p.segments = segments_for(blocks, p.length, multiprocessors() * shape.blocks(p.packed));
  }
  p.segment_length = round_up((p.length + p.segments - 1) / p.segments, ssm::selective_scan_block);
  p.segments = (p.length + p.segment_length - 1) / p.segment_length;
  return p.segments == 1 ? 0 : 2 * p.batch * p.segments * p.states * p.channels;
}

template <class T>
void run_selective(on where, selective_problem<T>& p, selective_shape shape, float* workspace) {
  if (is_few_steps(p)) return launch_steps(where, p);
  if (shape.relay_groups > 0) return launch_relay(where, p, shape.relay_groups);
  auto const blocks_of = [&](index_t channels, index_t parts) {
    index_t const blocks = blocks_of_channels(p, channels) * parts;
    require<shape_error>(blocks < std::numeric_limits<std::int32_t>::max(),
                         "selective_scan: ", blocks,
                         " blocks of channels, expected less than 2^31");
    return static_cast<unsigned>(blocks);
  };
  if (p.segments > 1) {
    p.entering = workspace;
    p.decay = workspace + p.batch * p.segments * p.states * p.channels;
    bool const is_long = p.segment_length >= long_segment<T>;
    auto* const entering = p.packed ? entering_kernel<T, true> : entering_kernel<T, false>;
    auto* const moments = p.packed ? moments_kernel<T, true> : moments_kernel<T, false>;
    auto* const kernel = is_long ? entering : moments;
    static_assert(entering_tile::states == moments_tile::states &&
                  entering_tile::threads == moments_tile::threads);
    index_t const channels = is_long ? entering_tile::channels : moments_tile::channels;
    index_t const parts = (p.states + entering_tile::states - 1) / entering_tile::states;
    dim3 const grid(blocks_of(channels, parts), static_cast<unsigned>(p.segments - 1));
    kernel<<<grid, entering_tile::threads, 0, where.stream>>>(p);
    check(cudaGetLastError(), "entering_kernel");
    index_t const states = p.batch * p.states * p.channels;
    fold_kernel<<<static_cast<unsigned>((states + 127) / 128), 128, 0, where.stream>>>(p);
    check(cudaGetLastError(), "fold_kernel");
  }
  launch_selective(where, p, shape, blocks_of(shape.channels(), 1));
}

}  // namespace ssm::gpu::detail
