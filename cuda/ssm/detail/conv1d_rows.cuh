// SPDX-License-Identifier: Apache-2.0
// conv1d_rows.cuh: the causal convolution where neighbouring threads have neighbouring steps.
#pragma once

#include <cstdint>

#include "ssm/detail/conv1d_elements.cuh"
#include "ssm/detail/conv1d_problem.cuh"

namespace ssm::gpu::detail {

/// Steps of a packet.
inline constexpr int conv1d_packet = 8;

/// Where a thread of rows works: packets of one channel, as many apart as a block has lanes. They
/// begin at multiples of 16 bytes of x, wherever its row does: the first of them at step -phase.
template <class T>
struct conv1d_row {
  index_t b, c, first, apart;  // the first step of the first packet; steps from each to the next
  unsigned tile;               // of the row
  bool is_there, is_first;     // whether there is a row, and whether the thread begins it

  __device__ explicit conv1d_row(conv1d_problem<T> const& p) {
    unsigned const line = p.grid.line();
    auto const channels = static_cast<unsigned>(p.in.x.extent(2));
    is_there = line < p.grid.lines;
    b = is_there ? line / channels : 0, c = is_there ? line % channels : 0;
    auto const address = reinterpret_cast<std::uintptr_t>(&p.in.x(b, 0, c));
    auto const phase = static_cast<index_t>(address % 16 / sizeof(T));
    tile = blockIdx.x % p.grid.blocks_of_line;
    apart = index_t{conv1d_packet} << p.grid.log_lanes;
    index_t const packet = index_t{tile} * p.piece * p.grid.lanes() + p.grid.lane();
    first = packet * conv1d_packet - phase;
    is_first = is_there && packet == 0;
  }
};

/// The inputs of a packet, `Before` that are before it and `After` that follow. Beside the ends of
/// a row they are those of the initial carry, and zeros.
template <class T, int Before, int After>
class conv1d_packet_inputs {
 public:
  static constexpr int count = Before + conv1d_packet + After;

  /// Ask for the inputs of the packet at step `first`, if they are all there.
  __device__ void ask(conv1d_problem<T> const& p, T const* x, index_t first) {
    index_t const begin = first - Before, left = p.length() - begin;
    first_ = begin < 0 ? static_cast<int>(-begin) : 0;
    last_ = left < count ? static_cast<int>(left) : count;
    if (!is_inside()) return;
    before_.load(x + begin);
    own_.load(x + first);
    if constexpr (After > 0) after_.load(x + first + conv1d_packet);
  }
  /// Those that were asked for, or those that are there.
  __device__ void receive(conv1d_problem<T> const& p, conv1d_row<T> const& at, T const* x,
                          index_t first) {
    T const* const from = x + (first - Before);
    if (is_inside()) {
      take(before_, 0);
      take(own_, Before);
      if constexpr (After > 0) take(after_, Before + conv1d_packet);
    } else {
      int const kept = p.width() - 1;
      bool const has_initial = first_ > 0 && p.initial.data_handle() != nullptr;
#pragma unroll
      for (int i = 0; i < count; ++i) {
        value_[i] = i >= first_ && i < last_ ? to_number(from[i]) : 0.0f;
        int const place = kept + i - first_;
        if (has_initial && i < first_ && place >= 0) {
          value_[i] = to_number(p.initial(at.b, at.c, place));
        }
      }
    }
    is_cut_ = false;
    if (!p.is_packed()) return;
    auto const sequence_of = [&](int i) {
      int const step = i < first_ ? first_ : i < last_ ? i : last_ - 1;
      return p.in.sequence(at.b, first - Before + step);
    };
    is_cut_ = sequence_of(0) != sequence_of(count - 1);
    if (!is_cut_) return;
#pragma unroll
    for (int i = 0; i < count; ++i) sequence_[i] = sequence_of(i);
  }

  /// Of the packet; all inputs are steps of the row; they are of several sequences.
  __device__ bool is_step(int i) const {
    return Before + i >= first_ && Before + i < last_;
  }
  __device__ bool is_inside() const {
    return first_ == 0 && last_ == count;
  }
  __device__ bool is_cut() const {
    return is_cut_;
  }
  /// Whether step `of` of the packet sees the input of step i of it, where they are cut.
  __device__ bool is_seen(int i, int of) const {
    return sequence_[Before + i] == sequence_[Before + of];
  }
  /// That input, as the step sees it.
  template <bool IsCut>
  __device__ float seen(int i, int of) const {
    return !IsCut || is_seen(i, of) ? value_[Before + i] : 0.0f;
  }
  template <bool IsCut, int Taps, int Steps>
  __device__ void sums(conv1d_parameters<Taps, 1> const& with, float (&sum)[Steps]) const {
#pragma unroll
    for (float& each : sum) each = with.bias[0];
#pragma unroll
    for (int k = 0; k < Taps; ++k) {
      if (!with.has(k)) continue;
#pragma unroll
      for (int i = 0; i < Steps; ++i) {
        sum[i] = fmaf(with.weight[k][0], seen<IsCut>(i - (Taps - 1 - k), i), sum[i]);
      }
    }
  }

 private:
  template <int Count>
  __device__ void take(stored_elements<T, Count> const& from, int first) {
    float part[Count];
    from.numbers(part);
#pragma unroll
    for (int i = 0; i < Count; ++i) value_[first + i] = part[i];
  }

  stored_elements<T, Before> before_;
  stored_elements<T, conv1d_packet> own_;
  stored_elements<T, After == 0 ? 1 : After> after_;
  float value_[count];
  std::int32_t sequence_[count];
  int first_, last_;  // steps of the row are from the first and before the last
  bool is_cut_;
};

/// A thread has packets of one channel whose time is dense. The thread of a row's first packet has
/// its carry.
template <class T, int Taps>
__global__ void __launch_bounds__(conv1d_threads)
    conv1d_rows_kernel(__grid_constant__ conv1d_problem<T> const p) {
  conv1d_row<T> const at(p);
  conv1d_parameters<Taps, 1> const with(p, at.c);
  conv1d_next_carry<T, Taps, 1> next;
  bool const has_carry = at.is_first && p.carry.data_handle() != nullptr;
  if (has_carry) next.load(p, at.b, at.c);
  T const* const x = &p.in.x(at.b, 0, at.c);
  T* const y = &p.y(at.b, 0, at.c);
  bool const is_silu = p.in.activation == activation::silu;
  conv1d_packet_inputs<T, Taps - 1 < 4 ? 4 : 8, 0> in;
  index_t first = at.is_there ? at.first : p.length();
  if (first < p.length()) in.ask(p, x, first);
  for (index_t left = p.piece; left > 0 && first < p.length(); --left, first += at.apart) {
    in.receive(p, at, x, first);
    auto const now = in;
    if (left > 1 && first + at.apart < p.length()) in.ask(p, x, first + at.apart);
    float sum[conv1d_packet];
    now.is_cut() ? now.template sums<true>(with, sum) : now.template sums<false>(with, sum);
    if (is_silu) {
#pragma unroll
      for (float& each : sum) each *= sigmoid(each);
    }
    if (now.is_inside()) {
      store_elements<conv1d_packet>(y + first, sum);
    } else {
#pragma unroll
      for (int i = 0; i < conv1d_packet; ++i) {
        if (now.is_step(i)) y[first + i] = to_stored<T>(sum[i]);
      }
    }
  }
  // The initial carry is seen by the first two packets of a row, which neighbouring lanes have.
  __syncwarp();
  if (has_carry) next.store(p, at.b, at.c);
}

}  // namespace ssm::gpu::detail
