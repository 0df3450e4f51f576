// SPDX-License-Identifier: Apache-2.0
// selective_relay_launch.cuh: which problems the relay has, and its launch.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ssm/detail/device.cuh"
#include "ssm/detail/selective_relay.cuh"
#include "ssm/execution.cuh"

namespace ssm::gpu::detail {

/// How many blocks of `channels` channels a problem's channels are.
template <class T>
index_t blocks_of_channels(selective_problem<T> const& p, index_t channels) {
  return p.batch * (p.channels / p.group_channels) * ((p.group_channels + channels - 1) / channels);
}

/// In longer sequences segments of time that run side by side are faster; the sooner, the fewer
/// channels a block has.
inline index_t most_relay_steps(int groups) {
  return groups == 1 ? 4096 : 8192;
}

/// Whether porters can reach sequences and projections: quads of channels and pieces of 16 bytes of
/// states, or rows along time that begin anywhere.
template <class T>
bool is_relayed(selective_problem<T> const& p) {
  auto const has_rows = [](auto const&... arrays) {
    return ((arrays.data == nullptr || arrays.time == 1) && ...);
  };
  auto const has_quads_of_channels = [](auto const&... arrays) {
    return (has_packets(arrays, false) && ...);
  };
  auto const has_pieces = [](selective_projection<T> const& of) {
    auto const whole = [](index_t stride) { return stride % packet_elements == 0; };
    return of.state == 1 && whole(of.batch) && whole(of.time) && whole(of.group) &&
           reinterpret_cast<std::uintptr_t>(of.data) % 16 == 0;
  };
  bool const has_sequences = p.along_time ? has_rows(p.x, p.step_size, p.gate, p.y)
                                          : has_quads_of_channels(p.x, p.step_size, p.gate, p.y) &&
                                                p.group_channels % packet_elements == 0;
  return has_sequences &&
         (p.projections_along_time ? has_rows(p.B, p.C) : has_pieces(p.B) && has_pieces(p.C));
}

/// Groups of four channels that a block has, so that there is one block for each multiprocessor; 0
/// where relay_kernel is not for a problem.
template <class T>
int relay_groups(selective_problem<T> const& p) {
  if (p.states != relay_tile::states || !is_relayed(p)) return 0;
  int const most = multiprocessors();
  for (int groups = 1; groups <= relay_tile::most_groups; ++groups) {
    if (blocks_of_channels(p, groups * relay_tile::group_channels) <= most) {
      constexpr int memory = sizeof(relay_tile::shared<T>);
      bool const is_for_it = p.length <= most_relay_steps(groups) &&
                             is_compiled_for_hopper(relay_kernel<T, false, false>) &&
                             has_shared_memory(memory);
      return is_for_it ? groups : 0;
    }
  }
  return 0;
}

template <class T>
void launch_relay(on where, selective_problem<T> const& p, int groups) {
  constexpr int memory = sizeof(relay_tile::shared<T>);
  auto* const kernel = p.along_time ? p.projections_along_time ? relay_kernel<T, true, true>
                                                               : relay_kernel<T, true, false>
                       : p.projections_along_time ? relay_kernel<T, false, true>
                                                  : relay_kernel<T, false, false>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, memory),
        "cudaFuncSetAttribute");
  index_t const blocks = blocks_of_channels(p, groups * relay_tile::group_channels);
  int const threads =
      groups * (relay_tile::workers + relay_tile::porters) + relay_tile::other_porters;
  kernel<<<static_cast<unsigned>(blocks), threads, memory, where.stream>>>(p);
  check(cudaGetLastError(), "relay_kernel");
}

}  // namespace ssm::gpu::detail
