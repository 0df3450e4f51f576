// SPDX-License-Identifier: Apache-2.0
// conv1d_problem.cuh: the causal convolution and its gradient as their kernels see them.
#pragma once

#include "ssm/detail/causal_conv1d_inputs.hpp"
#include "ssm/detail/device_math.cuh"
#include "ssm/detail/element.cuh"

namespace ssm::gpu::detail {

inline constexpr int conv1d_threads = 128;

/// How blocks share out lines of places. A block has `lanes`, a power of two, neighbouring places
/// of each of 128 / lanes lines.
struct conv1d_grid {
  int log_lanes = 0;
  unsigned blocks_of_line = 0, lines = 0, blocks = 0;

  __device__ unsigned lanes() const { return 1u << log_lanes; }
  __device__ unsigned lane() const { return threadIdx.x & (lanes() - 1); }
  __device__ index_t place() const {
    return index_t{blockIdx.x % blocks_of_line} * lanes() + lane();
  }
  __device__ unsigned line() const {
    return blockIdx.x / blocks_of_line * (conv1d_threads >> log_lanes) + (threadIdx.x >> log_lanes);
  }
};

/// All that the kernels of causal_conv1d need to know. In columns a line is a piece of time, which
/// has places of neighbouring channels; in rows a line is a channel, and its places are packets of
/// eight steps.
template <class T>
struct conv1d_problem {
  causal_conv1d_inputs<T, memory::device> in;
  state_view<T const, memory::device> initial;
  state_view<T, memory::device> carry;
  sequence_view<T, memory::device> y;
  conv1d_grid grid;
  index_t piece = 0;    // of a thread: steps of columns, packets of rows
  unsigned pieces = 0;  // of columns, in a batch entry

  __device__ index_t length() const { return in.x.extent(1); }
  __device__ int width() const { return static_cast<int>(in.weight.extent(1)); }
  __device__ bool is_packed() const { return in.sequence.data_handle() != nullptr; }
  __device__ bool starts_sequence(index_t b, index_t t) const {
    return t > 0 && in.sequence(b, t) != in.sequence(b, t - 1);
  }
  /// The input of time s as the step at time t sees it.
  __device__ float input(index_t b, index_t t, index_t s, index_t c) const {
    return ssm::detail::input_at<T>(in, initial, b, t, s, c);
  }
  __device__ float bias(index_t c) const {
    return in.bias.data_handle() == nullptr ? 0.0f : in.bias(c);
  }
  /// The weight of the input so many steps back.
  __device__ float weight(index_t c, int lag) const { return in.weight(c, width() - 1 - lag); }
};

/// The parameters of `Count` neighbouring channels, the oldest tap first. Taps beyond the width are
/// not there.
template <int Taps, int Count>
struct conv1d_parameters {
  float weight[Taps][Count], bias[Count];
  int width;

  template <class T>
  __device__ conv1d_parameters(conv1d_problem<T> const& p, index_t c) : width{p.width()} {
#pragma unroll
    for (int i = 0; i < Count; ++i) {
      bias[i] = p.bias(c + i);
#pragma unroll
      for (int k = 0; k < Taps; ++k) {
        int const lag = Taps - 1 - k;
        weight[k][i] = lag < width ? p.weight(c + i, lag) : 0.0f;
      }
    }
  }
  /// Whether there is such a tap: what is before it may be a NaN, which even 0 would let pass.
  __device__ bool has(int k) const {
    return Taps - 1 - k < width;
  }
};

/// The carry after the last step of `Count` channels; loaded before the one before the first step
/// is overwritten.
template <class T, int Taps, int Count>
struct conv1d_next_carry {
  float value[Count][Taps];  // the newest first

  __device__ void load(conv1d_problem<T> const& p, index_t b, index_t c) {
#pragma unroll
    for (int i = 0; i < Count; ++i)
#pragma unroll
      for (int lag = 0; lag < Taps - 1; ++lag) {
        if (lag + 1 < p.width()) {
          value[i][lag] = p.input(b, p.length() - 1, p.length() - 1 - lag, c + i);
        }
      }
  }
  __device__ void store(conv1d_problem<T> const& p, index_t b, index_t c) const {
#pragma unroll
    for (int i = 0; i < Count; ++i)
#pragma unroll
      for (int lag = 0; lag < Taps - 1; ++lag) {
        if (lag + 1 < p.width())
          p.carry(b, c + i, p.width() - 2 - lag) = to_stored<T>(value[i][lag]);
      }
  }
};

}  // namespace ssm::gpu::detail
