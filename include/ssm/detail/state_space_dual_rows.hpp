// SPDX-License-Identifier: Apache-2.0
// state_space_dual_rows.hpp: what a head reads and writes, row by row of time.
#pragma once

#include <cstdint>
#include <type_traits>

#include "ssm/detail/simd_math.hpp"
#include "ssm/detail/state_space_dual_chunk.hpp"

namespace ssm::detail {

/// The rows of a (batch, time, head or group, element) view for one head, by time: to find a row is
/// then one multiplication.
template <class S>
struct row_series {
  S* first = nullptr;
  index_t time_step = 0, step = 0;

  row_series() = default;
  row_series(tensor_view<S, 4> const& view, index_t b, index_t head, index_t element) {
    if (view.data_handle() == nullptr) return;
    first = &view(b, 0, head, element);
    time_step = view.stride(1);
    step = view.stride(3);
  }

  S* at(index_t t) const { return first + t * time_step; }
  bool is_dense() const { return first == nullptr || step == 1; }

  /// Bring a row to the second cache before it is wanted, or to the first (Near). (g++ takes a
  /// function that does no more than this for one without effect and drops its calls, unless they
  /// are inlined first.)
  template <bool Near = false>
  [[gnu::always_inline]] void prefetch(index_t t, index_t count) const {
    if (first == nullptr || step != 1) return;
    auto const* const row = reinterpret_cast<char const*>(at(t));
    constexpr index_t line = 64, size = sizeof(S);
    for (index_t byte = 0; byte < count * size; byte += line)
      __builtin_prefetch(row + byte, std::is_const_v<S> || Near ? 0 : 1, Near ? 3 : 2);
  }

  /// Whether rows of `count` are whole cache lines, if there are any.
  bool has_whole_lines(index_t count) const {
    if (first == nullptr) return true;
    constexpr index_t line = 64, size = sizeof(S);
    return step == 1 && count * size % line == 0 && time_step * size % line == 0 &&
           reinterpret_cast<std::uintptr_t>(first) % line == 0;
  }
};

/// The cache lines of several rows of a step, then those of the next step, to be brought to the
/// second cache one at a time: a processor waits for few at once, and what it computes with waits
/// behind them.
class ssd_lines_due {
 public:
  /// Rows of `count` numbers from step t on, a head's at most.
  template <class S>
  [[gnu::always_inline]] void add(row_series<S> const& of, index_t t, index_t count) {
    if (of.first == nullptr || of.step != 1) return;
    auto const* const row = reinterpret_cast<char const*>(of.at(t));
    constexpr index_t line = 64, size = sizeof(S);
    for (index_t byte = 0; byte < count * size && lines_ < most; byte += line) {
      next_[lines_] = row + byte;
      step_[lines_++] = of.time_step * size;
    }
  }
  index_t in_a_step() const { return lines_; }

  [[gnu::always_inline]] void fetch() {
    __builtin_prefetch(next_[line_], 0, 2);
    next_[line_] += step_[line_];
    if (++line_ == lines_) line_ = 0;
  }

 private:
  static constexpr index_t most = 48;  // six rows of 64 numbers of 8 bytes
  char const* next_[most];
  index_t step_[most];
  index_t lines_ = 0, line_ = 0;
};

/// The numbers of a strided row as a contiguous one, with zeros up to `padded`.
template <int Lanes, class A, class Storage>
[[gnu::always_inline]] inline void gather(Storage const* from, index_t stride, index_t count,
                                          index_t padded, A* to) {
  index_t i = 0;
  if (stride == 1) {
    for (; i + Lanes <= count; i += Lanes) load_as<A, Lanes>(from + i).store(to + i);
  }
  for (; i < count; ++i) to[i] = static_cast<A>(from[i * stride]);
  for (; i < padded; ++i) to[i] = A(0);
}

/// A contiguous row into a strided one.
template <int Lanes, class A, class Storage>
[[gnu::always_inline]] inline void scatter(A const* from, index_t count, Storage* to,
                                           index_t stride) {
  index_t i = 0;
  if (stride == 1) {
    for (; i + Lanes <= count; i += Lanes) store_as(pack<A, Lanes>::load(from + i), to + i);
  }
  for (; i < count; ++i) to[i * stride] = static_cast<Storage>(from[i]);
}

/// What a tile reads and writes, row by row.
template <class T>
struct ssd_rows {
  using A = accumulator_t<T>;

  index_t count;
  row_series<T const> x, B, C, gate;
  row_series<T> y;
  row_series<A> ungated;
  bool is_dense;     // rows of the gate and of what is written are numbers side by side
  bool past_caches;  // for what is written, where rows are whole lines

  ssd_rows(state_space_dual_inputs<T> const& in, ssd_tile const& at, tensor_view<T, 4> const& to,
           state_space_dual_saved<T> const& saved, bool is_large = false)
      : count{at.count},
        x{in.x, at.b, at.head, at.first},
        B{in.B, at.b, at.head / extents_of(in).heads_per_group(), 0},
        C{in.C, at.b, at.head / extents_of(in).heads_per_group(), 0},
        gate{in.gate, at.b, at.head, at.first},
        y{to, at.b, at.head, at.first},
        ungated{saved.ungated, at.b, at.head, at.first},
        is_dense{gate.is_dense() && y.is_dense() && ungated.is_dense()},
        past_caches{is_dense && is_large && std::is_same_v<A, T> && y.has_whole_lines(count) &&
                    ungated.has_whole_lines(count)} {}

  /// What the steps from t on read and write, except B and C.
  [[gnu::always_inline]] ssd_lines_due due(index_t t) const {
    ssd_lines_due lines;
    lines.add(x, t, count);
    lines.add(gate, t, count);
    if (past_caches) return lines;
    lines.add(y, t, count);
    lines.add(ungated, t, count);
    return lines;
  }

  /// y·silu(gate) from a row of sums before the gate, to be multiplied by `scale`; they are lost.
  template <int Lanes>
  [[gnu::always_inline]] void write(index_t t, index_t padded, A scale, A* sums, A* space) const {
    using vector = pack<A, Lanes>;
    if (is_dense && count == padded) {
      for (index_t p = 0; p < count; p += Lanes) {
        vector sum = vector::load(sums + p) * scale;
        if (ungated.first != nullptr) put(sum, ungated.at(t) + p);
        if (y.first == nullptr) continue;
        if (gate.first != nullptr) sum = sum * silu(load_as<A, Lanes>(gate.at(t) + p));
        put(sum, y.at(t) + p);
      }
      return;
    }
    for (index_t p = 0; p < padded; p += Lanes)
      vector(vector::load(sums + p) * scale).store(sums + p);
    if (ungated.first != nullptr) scatter<Lanes>(sums, count, ungated.at(t), ungated.step);
    if (y.first == nullptr) return;
    if (gate.first != nullptr) {
      gather<Lanes>(gate.at(t), gate.step, count, padded, space);
      for (index_t p = 0; p < padded; p += Lanes)
        vector(vector::load(sums + p) * silu(vector::load(space + p))).store(sums + p);
    }
    scatter<Lanes>(sums, count, y.at(t), y.step);
  }

 private:
  template <class S, int Lanes>
  [[gnu::always_inline]] void put(pack<A, Lanes> const& from, S* to) const {
    if constexpr (std::is_same_v<A, S>) {
      if (past_caches) return store_past_caches(from, to);
    }
    store_as(from, to);
  }
};

}  // namespace ssm::detail
