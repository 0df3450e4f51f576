// SPDX-License-Identifier: Apache-2.0
// linear_rows_chunk.cuh: what one thread does with the steps it has of a tile of rows.
#pragma once

#include "ssm/detail/linear_rows_tile.cuh"
#include "ssm/detail/linear_step.cuh"

namespace ssm::gpu::detail {

/// One packet of each input, in shared memory, where the thread that runs its steps has put it.
/// Unless rows are aligned, they are longer than a packet: no two begin in one.
template <class T, class Step, int Slots, rows_layout Layout, bool Reversed, bool Inner>
struct rows_chunk {
  using number = accumulator_t<T>;
  using view = rows_view<T, Step, Slots, Reversed, Inner>;
  static constexpr int V = rows_packet<T>;
  static constexpr int neighbor = Step::reads_neighbor ? Step::inputs - 1 : -1;
  static constexpr bool aligned = Layout == rows_layout::aligned || Layout == rows_layout::engine;
  static constexpr bool flat = Layout != rows_layout::pitched;

  view const& v;
  int slot;  ///< the packet's first
  T* at;     ///< its first element of input 0, the first in memory if flat, else the first to run

  /// The packet's steps are of one row, without its first and last. Where rows are aligned they are
  /// of one row always; they may begin or end with it.
  __device__ bool is_one_piece() const { return aligned ? v.is_whole(slot) : v.is_inside(slot); }
  __device__ bool begins_row() const { return aligned && !Inner && v.pos(slot) == 0; }
  __device__ bool ends_row() const { return aligned && !Inner && v.pos(slot + V) == 0; }

  /// visit(i) for each slot of the packet that is a step.
  template <class Visit>
  __device__ void walk(Visit const& visit) const {
#pragma unroll 1
    for (int i = 0; i < V; ++i) {
      if (v.is_step(slot + i)) visit(i);
    }
  }

  /// Ask for the packet; wait_for_requests() waits for those of this thread.
  __device__ void request() const {
    auto const& p = v.p;
    if constexpr (flat) {
      if (v.is_whole(slot)) {
#pragma unroll
        for (int k = 0; k < Step::inputs; ++k) {
          request_bytes<16>(at + k * view::slots, p.in[k] + v.flat_element(slot, p.in_pitch[k]));
        }
      } else if (!aligned && slot + V > v.t.begin && slot < v.t.end) {
        // At the beginning or the end of a walk. What lies between rows may be read.
        auto const is_step = [&](int i) { return v.is_step(slot + (Reversed ? V - 1 - i : i)); };
        for (int k = 0; k < Step::inputs; ++k) {
          index_t const from = v.flat_element(slot, p.in_pitch[k]);
          if (from >= 0 && from + V <= p.in_span[k]) {
            request_bytes<16>(at + k * view::slots, p.in[k] + from);
          } else {
            bring(k, p.in[k] + from, 1, is_step);
          }
        }
      }
    } else if (v.is_inside(slot)) {
      for (int k = 0; k < Step::inputs; ++k) {
        bring(k, p.in[k] + v.element(slot, p.in_pitch[k]), Reversed ? -1 : 1,
              [](int) { return true; });
      }
    } else {
      walk([&](int i) {
        for (int k = 0; k < Step::inputs; ++k) {
          at[k * view::slots + i] = p.in[k][v.element(slot + i, p.in_pitch[k])];
        }
      });
    }
  }

  /// Those elements of input k that are wanted, all asked for before one is waited for.
  template <class Test>
  __device__ void bring(int k, T const* from, int stride, Test const& is_wanted) const {
    T value[V];
#pragma unroll
    for (int i = 0; i < V; ++i) {
      if (is_wanted(i)) value[i] = from[i * stride];
    }
#pragma unroll
    for (int i = 0; i < V; ++i) {
      if (is_wanted(i)) at[k * view::slots + i] = value[i];
    }
  }

  __device__ packet<T, V> load(int k) const {
    auto const values = packet<T, V>::load_shared(at + k * view::slots);
    return flat && Reversed ? values.reversed() : values;
  }

  __device__ void load_all(packet<T, V> (&in)[Step::inputs]) const {
#pragma unroll
    for (int k = 0; k < Step::inputs; ++k) in[k] = load(k);
  }

  /// What enters the row of a slot.
  __device__ number initial(int of) const {
    auto const& p = v.p;
    return p.initial == nullptr ? number(0) : p.initial[v.memory_row(of) * p.initial_pitch];
  }

  /// All of the packet as one map, from a row's start on if one is in it.
  __device__ affine_map<number> fold() const {
    affine_map<number> map{};
    number value[Step::inputs] = {};
    if (is_one_piece()) {
      packet<T, V> in[2];  // maps do not depend on a neighbor
#pragma unroll
      for (int k = 0; k < 2; ++k) in[k] = load(k);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        for (int k = 0; k < 2; ++k) value[k] = in[k][i];
        map = i == 0 ? Step::map(value) : then{}(map, Step::map(value));
      }
      if (begins_row()) map = {number(0), map(initial(slot))};
    } else if constexpr (!aligned) {
      return fold_with_head();
    }
    return map;
  }

  /// The same where a row may begin in the packet, and not all of its slots may be steps.
  __device__ affine_map<number> fold_with_head() const {
    affine_map<number> map{};
    int const head = v.until_head(slot);
    number const entering = head < V && v.is_step(slot + head) ? initial(slot + head) : number(0);
    packet<T, V> in[2];
#pragma unroll
    for (int k = 0; k < 2; ++k) in[k] = load(k);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      number value[Step::inputs] = {in[0][i], in[1][i]};
      auto const step = Step::map(value);
      auto const with =
          i == head ? affine_map<number>{number(0), step(entering)} : then{}(map, step);
      if (v.is_step(slot + i)) map = with;
    }
    return map;
  }

  __device__ void leave(int of, number const& state) const {
    auto const& p = v.p;
    if (p.final != nullptr) p.final[v.memory_row(of) * p.final_pitch] = state;
  }

  /// What the neighbor of a row's last step is.
  __device__ number edge_of(int last) const {
    auto const& p = v.p;
    return p.edge == nullptr ? number(0) : p.edge[v.memory_row(last) * p.edge_pitch];
  }

  /// What the neighbor of the packet's last step is, as far as the next lane does not have it.
  /// Asked for long before it is needed, and converted only then.
  __device__ T after_warp() const {
    if constexpr (neighbor >= 0) {
      int const last = slot + V - 1;
      bool const is_there = v.is_step(last) && v.until_head(slot + V) > 0;
      if (threadIdx.x % 32 == 31 && is_there) {
        return v.p.in[neighbor][v.element(last, v.p.in_pitch[neighbor]) + (Reversed ? -1 : 1)];
      }
    }
    return T{};
  }

  /// Run the steps from the state that enters the packet, which becomes the one that leaves it.
  /// What they result in takes the place of the inputs. `next`: the neighbor of its last step,
  /// which need not be right where that ends a row.
  __device__ void run(packet<T, V> const (&in)[Step::inputs], number next, number& carry) const {
    number value[Step::inputs], result[Step::outputs];
    if (is_one_piece()) {
      packet<T, V> out[Step::outputs];
      if (begins_row()) carry = initial(slot);
      if constexpr (neighbor >= 0) {
        if (ends_row()) next = edge_of(slot + V - 1);
      }
#pragma unroll
      for (int i = 0; i < V; ++i) {
#pragma unroll
        for (int k = 0; k < Step::inputs; ++k) {
          value[k] = k != neighbor ? in[k][i] : i + 1 < V ? in[k][i + 1] : next;
        }
        Step::run(value, carry, result);
#pragma unroll
        for (int k = 0; k < Step::outputs; ++k) out[k].set(i, result[k]);
      }
#pragma unroll
      for (int k = 0; k < Step::outputs; ++k) {
        (flat && Reversed ? out[k].reversed() : out[k]).store_shared(at + k * view::slots);
      }
      if (ends_row()) leave(slot, carry);
    } else if constexpr (!aligned) {
      run_with_head(in, next, carry);
    }
  }

  __device__ void run_with_head(packet<T, V> const (&in)[Step::inputs], number next,
                                number& carry) const {
    int const head = v.until_head(slot);
    bool const begins = head < V && v.is_step(slot + head);
    bool const ends = head > 0 && head <= V && v.is_step(slot + head - 1);
    number const entering = begins ? initial(slot + head) : number(0);
    number last{}, edge{};
    if constexpr (neighbor >= 0) {
      if (ends) edge = edge_of(slot + head - 1);
    }
    packet<T, V> out[Step::outputs];
#pragma unroll
    for (int i = 0; i < V; ++i) {
      number value[Step::inputs], result[Step::outputs];
      number state = i == head ? entering : carry;
#pragma unroll
      for (int k = 0; k < Step::inputs; ++k) {
        value[k] = k != neighbor   ? in[k][i]
                   : i + 1 == head ? edge
                   : i + 1 < V     ? in[k][i + 1 < V ? i + 1 : 0]
                                   : next;
      }
      Step::run(value, state, result);
#pragma unroll
      for (int k = 0; k < Step::outputs; ++k) out[k].set(i, result[k]);
      if (v.is_step(slot + i)) carry = state;
      if (i + 1 == head) last = state;
    }
#pragma unroll
    for (int k = 0; k < Step::outputs; ++k) {
      (flat && Reversed ? out[k].reversed() : out[k]).store_shared(at + k * view::slots);
    }
    if (ends) leave(slot + head - 1, last);
  }

  /// What run() has left.
  __device__ void store() const {
    auto const& p = v.p;
    if (aligned && !is_one_piece()) return;
#pragma unroll
    for (int k = 0; k < Step::outputs; ++k) {
      T const* const from = at + k * view::slots;
      if constexpr (flat) {
        T* const to = p.out[k] + v.flat_element(slot, p.out_pitch[k]);
        if (v.is_whole(slot)) {
          packet<T, V>::load_shared(from).store(to);
        } else {
#pragma unroll
          for (int i = 0; i < V; ++i) {
            if (v.is_step(slot + (Reversed ? V - 1 - i : i))) to[i] = from[i];
          }
        }
      } else if (v.is_inside(slot)) {
        T* const first = p.out[k] + v.element(slot, p.out_pitch[k]);
#pragma unroll
        for (int i = 0; i < V; ++i) first[Reversed ? -i : i] = from[i];
      } else {
        walk([&](int i) { p.out[k][v.element(slot + i, p.out_pitch[k])] = from[i]; });
      }
    }
  }
};

}  // namespace ssm::gpu::detail
