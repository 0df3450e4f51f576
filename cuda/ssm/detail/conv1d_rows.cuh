// SPDX-License-Identifier: Apache-2.0
// conv1d_rows.cuh: the causal convolution where neighbouring threads have neighbouring steps.
#pragma once

#include <cstdint>

#include "ssm/detail/conv1d_elements.cuh"
#include "ssm/detail/conv1d_problem.cuh"

namespace ssm::gpu::detail {

/// Steps of a packet.
inline constexpr int conv1d_log_packet = 3, conv1d_packet = 1 << conv1d_log_packet;

/// Where a thread of rows works: packets of one channel, as many apart as a block has lanes. They
/// begin at multiples of 16 bytes of x, wherever its row does: the first of them at step -phase.
/// Those from `inside` to before `outside` have all their steps, and `After` behind them.
template <class T, int After>
struct conv1d_row {
  index_t b, c, first, apart;  // the first step of the first packet; steps from each to the next
  int packets, inside, outside;
  unsigned tile;  // of the row
  bool is_first;  // whether the thread begins the row

  __device__ explicit conv1d_row(conv1d_problem<T> const& p) {
    unsigned const line = p.grid.line();
    auto const channels = static_cast<unsigned>(p.in.x.extent(2));
    bool const is_there = line < p.grid.lines;
    b = is_there ? line / channels : 0, c = is_there ? line % channels : 0;
    auto const address = reinterpret_cast<std::uintptr_t>(&p.in.x(b, 0, c));
    auto const phase = static_cast<index_t>(address % 16 / sizeof(T));
    tile = blockIdx.x % p.grid.blocks_of_line;
    int const log_apart = p.grid.log_lanes + conv1d_log_packet;
    apart = index_t{1} << log_apart;
    index_t const packet = index_t{tile} * p.piece * p.grid.lanes() + p.grid.lane();
    first = packet * conv1d_packet - phase;
    is_first = is_there && packet == 0;
    // Packets whose first step is less than `end`.
    auto const before = [&](index_t end) {
      index_t const count = end <= first ? 0 : ((end - first - 1) >> log_apart) + 1;
      return static_cast<int>(count < p.piece ? count : p.piece);
    };
    packets = is_there ? before(p.length()) : 0;
    inside = before(0);
    outside = before(p.length() - conv1d_packet - After + 1);
  }
  __device__ bool is_inside(int packet) const { return packet >= inside && packet < outside; }
};

/// The inputs of a packet, `Before` that are before it and `After` that follow it.
template <class T, int Before, int After>
struct conv1d_packet_inputs {
  static constexpr int count = Before + conv1d_packet + After;
  float value[count];

  /// The input of step i of the packet.
  __device__ float operator[](int i) const { return value[Before + i]; }

  /// The same for a packet that begins so early in its row that not all were there to ask for.
  __device__ conv1d_packet_inputs with_beginning(conv1d_problem<T> const& p, index_t b, index_t c,
                                                 T const* x, index_t first) const {
    conv1d_packet_inputs in = *this;
    int const kept = p.initial.data_handle() == nullptr ? 0 : p.width() - 1;
#pragma unroll
    for (int i = 0; i < Before; ++i) {
      int const back = Before - i, place = kept + static_cast<int>(first) - back;
      in.value[i] = back <= first ? to_number(x[-back])
                    : place >= 0  ? to_number(p.initial(b, c, place))
                                  : 0.0f;
    }
    return in;
  }
};

/// Those of a packet that is inside its row, asked for before they are needed; see with_beginning.
template <class T, int Before, int After>
class conv1d_packet_ahead {
 public:
  __device__ void ask(conv1d_problem<T> const& p, index_t b, T const* x, index_t first) {
    if (first >= Before) before_.load(x - Before);
    own_.load(x);
    if constexpr (After > 0) after_.load(x + conv1d_packet);
    if (!p.is_packed()) return;
    first_sequence_ = p.in.sequence(b, first >= Before ? first - Before : 0);
    last_sequence_ = p.in.sequence(b, first + conv1d_packet + After - 1);
  }
  __device__ bool is_one_sequence(conv1d_problem<T> const& p) const {
    return !p.is_packed() || first_sequence_ == last_sequence_;
  }
  __device__ conv1d_packet_inputs<T, Before, After> take() const {
    conv1d_packet_inputs<T, Before, After> in;
    take(before_, in.value);
    take(own_, in.value + Before);
    if constexpr (After > 0) take(after_, in.value + Before + conv1d_packet);
    return in;
  }

 private:
  template <int Count>
  __device__ static void take(stored_elements<T, Count> const& from, float* to) {
    float part[Count];
    from.numbers(part);
#pragma unroll
    for (int i = 0; i < Count; ++i) to[i] = part[i];
  }

  stored_elements<T, Before> before_;
  stored_elements<T, conv1d_packet> own_;
  stored_elements<T, After == 0 ? 1 : After> after_;
  std::int32_t first_sequence_, last_sequence_;
};

/// Those of a packet at the ends of a row or of sequences: what is before a row is in the initial
/// carry, what is behind it zero.
template <class T, int Before, int After>
class conv1d_packet_edge : public conv1d_packet_inputs<T, Before, After> {
 public:
  using conv1d_packet_inputs<T, Before, After>::count;

  __device__ conv1d_packet_edge(conv1d_problem<T> const& p, index_t b, index_t c, T const* x,
                                index_t first) {
    index_t const left = p.length() - (first - Before);
    begin_ = first < Before ? static_cast<int>(Before - first) : 0;
    end_ = left < count ? static_cast<int>(left) : count;
    int const kept = p.width() - 1;
    bool const has_initial = begin_ > 0 && p.initial.data_handle() != nullptr;
#pragma unroll
    for (int i = 0; i < count; ++i) {
      float& value = this->value[i];
      value = i >= begin_ && i < end_ ? to_number(x[i - Before]) : 0.0f;
      int const place = kept + i - begin_;
      if (has_initial && i < begin_ && place >= 0) value = to_number(p.initial(b, c, place));
      int const step = i < begin_ ? begin_ : i < end_ ? i : end_ - 1;
      sequence_[i] = p.is_packed() ? p.in.sequence(b, first - Before + step) : 0;
    }
  }
  __device__ bool is_step(int i) const {
    return Before + i >= begin_ && Before + i < end_;
  }
  /// Whether step `of` sees the input of step i.
  __device__ bool is_seen(int i, int of) const {
    return sequence_[Before + i] == sequence_[Before + of];
  }

 private:
  std::int32_t sequence_[count];
  int begin_, end_;  // those of the row
};

template <int Taps, int Steps, class Inputs>
__device__ void conv1d_sums(conv1d_parameters<Taps, 1> const& with, Inputs const& in,
                            float (&sum)[Steps]) {
#pragma unroll
  for (float& each : sum) each = with.bias[0];
#pragma unroll
  for (int k = 0; k < Taps; ++k) {
    if (!with.has(k)) continue;
#pragma unroll
    for (int i = 0; i < Steps; ++i) {
      int const from = i - (Taps - 1 - k);
      float input = in[from];
      if constexpr (requires { in.is_seen(from, i); }) {
        if (!in.is_seen(from, i)) input = 0.0f;
      }
      sum[i] = fmaf(with.weight[k][0], input, sum[i]);
    }
  }
}

/// A thread has packets of one channel whose time is dense. The thread of a row's first packet has
/// its carry.
template <class T, int Taps>
__global__ void __launch_bounds__(conv1d_threads)
    conv1d_rows_kernel(__grid_constant__ conv1d_problem<T> const p) {
  constexpr int before = Taps - 1 < 4 ? 4 : 8;
  conv1d_row<T, 0> const at(p);
  conv1d_parameters<Taps, 1> const with(p, at.c);
  conv1d_next_carry<T, Taps, 1> next;
  bool const has_carry = at.is_first && p.carry.data_handle() != nullptr;
  if (has_carry) next.load(p, at.b, at.c);
  T const* x = &p.in.x(at.b, 0, at.c) + at.first;
  T* y = &p.y(at.b, 0, at.c) + at.first;
  index_t first = at.first;
  bool const is_silu = p.in.activation == activation::silu;
  auto const activate = [&](float(&sum)[conv1d_packet]) {
    if (!is_silu) return;
#pragma unroll
    for (float& each : sum) each *= sigmoid(each);
  };
  conv1d_packet_ahead<T, before, 0> ahead;
  if (at.is_inside(0)) ahead.ask(p, at.b, x, first);
  for (int packet = 0; packet < at.packets; ++packet) {
    bool const is_middle = at.is_inside(packet) && ahead.is_one_sequence(p);
    auto const in = ahead.take();
    if (at.is_inside(packet + 1)) ahead.ask(p, at.b, x + at.apart, first + at.apart);
    float sum[conv1d_packet];
    auto const finish = [&](auto const& inputs) {
      conv1d_sums(with, inputs, sum);
      activate(sum);
      store_elements<conv1d_packet>(y, sum);
    };
    if (is_middle && first >= before) {
      finish(in);
    } else if (is_middle) {
      finish(in.with_beginning(p, at.b, at.c, x, first));
    } else {
      conv1d_packet_edge<T, before, 0> const edge(p, at.b, at.c, x, first);
      conv1d_sums(with, edge, sum);
      activate(sum);
#pragma unroll
      for (int i = 0; i < conv1d_packet; ++i) {
        if (edge.is_step(i)) y[i] = to_stored<T>(sum[i]);
      }
    }
    x += at.apart, y += at.apart, first += at.apart;
  }
  // The initial carry is seen by the first two packets of a row, which neighbouring lanes have.
  __syncwarp();
  if (has_carry) next.store(p, at.b, at.c);
}

}  // namespace ssm::gpu::detail
