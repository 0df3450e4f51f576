// SPDX-License-Identifier: Apache-2.0
// scan.cuh: the scan on a GPU, with the recurrence and readout objects of the CPU.
#pragma once

#include <limits>

#include "ssm/execution.cuh"
#include "ssm/scan.hpp"

namespace ssm::gpu {
namespace detail {

/// Threads of a block of lane_scan_kernel.
inline constexpr int lane_threads = 128;

/// One thread for each lane (batch, channel), which runs its steps one after another: the loop of
/// the sequential policy, and the reference that faster kernels are tested against.
template <class Recurrence, class Readout>
__global__ void __launch_bounds__(lane_threads)
    lane_scan_kernel(Recurrence recurrence, Readout readout, time_window window, index_t states,
                     state_view<typename Recurrence::value_type, memory::device> carry) {
  index_t const lane = static_cast<index_t>(blockIdx.x) * lane_threads + threadIdx.x;
  if (lane < carry.extent(0) * carry.extent(1)) {
    index_t const b = lane / carry.extent(1), c = lane % carry.extent(1);
    ssm::detail::apply_steps(recurrence, readout, window, b, c, states, &carry(b, c, 0));
  }
}

}  // namespace detail

/// The scan of ssm/scan.hpp with the same objects, their views on the device. The order of
/// operations is that of `sequential`; results differ from it only where the compilers contract
/// differently. Returns before the work is done, and allocates nothing.
/// Shapes    carry (batch, channel, state) with state stride 1.
/// Throws    shape_error before any launch; gpu::error where the launch fails.
template <recurrence R, readout<typename R::value_type> Readout>
void scan(on where, R const& recurrence, Readout const& readout,
          state_view<typename R::value_type, memory::device> carry,
          direction order = direction::forward) {
  scan_shape const s = recurrence.shape();
  readout.require_shape_for(s.batch, s.length, s.channels, s.states);
  require_shape(carry, {s.batch, s.channels, s.states}, "scan: carry", "batch, channel, state");
  require<shape_error>(s.states <= 1 || carry.stride(2) == 1, "scan: carry has state stride ",
                       carry.stride(2), ", expected 1");
  index_t const lanes = s.batch * s.channels;
  if (lanes == 0 || s.states == 0) return;
  index_t const blocks = (lanes + detail::lane_threads - 1) / detail::lane_threads;
  require<shape_error>(blocks <= std::numeric_limits<int>::max(), "scan: ", lanes,
                       " lanes, expected at most 2^31 blocks of ", detail::lane_threads);
  detail::
      lane_scan_kernel<<<static_cast<unsigned>(blocks), detail::lane_threads, 0, where.stream>>>(
          recurrence, readout, whole(s.length, order), s.states, carry);
  check(cudaGetLastError(), "lane_scan_kernel");
}

}  // namespace ssm::gpu
