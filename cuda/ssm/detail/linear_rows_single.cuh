// SPDX-License-Identifier: Apache-2.0
// linear_rows_single.cuh: tiles of which each has steps of one row alone, wherever it begins.
#pragma once

#include "ssm/detail/linear_rows.cuh"

namespace ssm::gpu::detail {

/// Tiles of walks of one row. Slots that are no steps become identities, so that the ends of a row
/// run as its middle does: code for them alone waited for instructions (9001 rows of 5003 elements
/// of bfloat16: 20 % of the copy rate, now 75). What enters the row is the state that enters its
/// first tile.
template <class T, class Step, int Workers, int Chunks, bool Reversed>
struct single_row_tiles : rows_tiles<T, Step, Workers, Chunks, rows_layout::flat, Reversed> {
  using base = rows_tiles<T, Step, Workers, Chunks, rows_layout::flat, Reversed>;
  using number = typename base::number;
  using maps = typename base::maps;
  using base::in_order, base::side_by_side, base::lane, base::p, base::stages, base::warp;
  static constexpr int V = base::V, J = base::J, slots = base::slots, steps = base::steps;
  static constexpr int neighbor = Step::reads_neighbor ? Step::inputs - 1 : -1;
  static constexpr bool carries_initial = true;
  using view = rows_view<T, Step, slots, Reversed, false>;

  __device__ number initial(rows_tile const& tile) const {
    return p.initial == nullptr ? number(0) : p.initial[tile.lowest_row * p.initial_pitch];
  }

  __device__ void request(rows_tile const& tile, int stage) const {
    if (!tile.is_none()) {
      view const v{p, tile};
#pragma unroll
      for (int j = 0; j < J; ++j) {
        int const slot = side_by_side(j);
        if (slot + V <= tile.begin || slot >= tile.end) continue;
#pragma unroll
        for (int k = 0; k < Step::inputs; ++k) {
          index_t const from = v.flat_element(slot, p.in_pitch[k]);
          T* const to = at(stage, slot) + k * slots;
          // What lies between rows may be read.
          if (from >= 0 && from + V <= p.in_span[k]) {
            request_bytes<16>(to, p.in[k] + from);
          } else {
#pragma unroll 1
            for (int i = 0; i < V; ++i) {
              if (v.is_step(slot + in_memory(i))) to[i] = p.in[k][from + i];
            }
          }
        }
      }
    }
    end_of_requests();
  }

  __device__ void fold(rows_tile const& tile, int stage, maps& result) const {
    __syncwarp();  // what its lanes have requested is there for all of them
    affine_map<number> map{};
    if (!has_steps(tile)) {
      if (lane == 31) stages[stage].of_warp[warp] = {map, false};
      return;
    }
    if (tile.begin > 0 || tile.end < slots) {
      for (int j = 0; j < J; ++j) mend(tile, stage, in_order(j));
    }
#pragma unroll
    for (int j = 0; j < J; ++j) {
      packet<T, V> in[2];  // maps do not depend on a neighbor
#pragma unroll
      for (int k = 0; k < 2; ++k) in[k] = load(stage, in_order(j), k);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        number value[Step::inputs] = {in[0][i], in[1][i]};
        map = i + j == 0 ? Step::map(value) : then{}(map, Step::map(value));
      }
    }
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      auto const earlier = from_lane(map, lane - d);
      if (lane >= d) map = then{}(earlier, map);
    }
    result.upto = map;
    if constexpr (neighbor >= 0) {
      int const next = in_order(J - 1) + V, end = last_step(tile) + 1;
      if (lane == 31 && next > tile.begin && next < end) {
        index_t const element = view{p, tile}.flat_element(next, p.in_pitch[neighbor]);
        result.after_warp = p.in[neighbor][element + (Reversed ? V - 1 : 0)];
      }
    }
    if (lane == 31) stages[stage].of_warp[warp] = {map, false};
  }

  /// From the state that enters the warp.
  __device__ void run(rows_tile const& tile, int stage, number entering, maps const& folded) const {
    if (!has_steps(tile)) return;
    packet<T, V> in[J][Step::inputs];
#pragma unroll
    for (int j = 0; j < J; ++j) {
#pragma unroll
      for (int k = 0; k < Step::inputs; ++k) in[j][k] = load(stage, in_order(j), k);
    }
    constexpr int final_input = Step::inputs - 1;
    number after{}, edge{};
    int const last = last_step(tile);
    bool const has_last = in_order(0) <= last && last < in_order(0) + steps;
    if constexpr (neighbor >= 0) {
      after = from_lane(in[0][final_input][0], lane + 1);
      if (lane == 31) after = to_number(folded.after_warp);
      if (has_last && p.edge != nullptr) edge = p.edge[tile.lowest_row * p.edge_pitch];
    }
    auto const earlier = from_lane(folded.upto, lane - 1);
    number carry = lane > 0 ? earlier(entering) : entering;
#pragma unroll
    for (int j = 0; j < J; ++j) {
      number const next = j + 1 < J ? in[j + 1 < J ? j + 1 : 0][final_input][0] : after;
      packet<T, V> out[Step::outputs];
      int const of_last = last - in_order(j);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        number value[Step::inputs], result[Step::outputs];
#pragma unroll
        for (int k = 0; k < Step::inputs; ++k) {
          value[k] = k != neighbor ? in[j][k][i]
                     : i + 1 < V   ? in[j][k][i + 1 < V ? i + 1 : 0]
                                   : next;
          if (k == neighbor && i == of_last) value[k] = edge;
        }
        Step::run(value, carry, result);
#pragma unroll
        for (int k = 0; k < Step::outputs; ++k) out[k].set(i, result[k]);
      }
#pragma unroll
      for (int k = 0; k < Step::outputs; ++k) {
        (Reversed ? out[k].reversed() : out[k]).store_shared(at(stage, in_order(j)) + k * slots);
      }
    }
    if (has_last && p.final != nullptr) p.final[tile.lowest_row * p.final_pitch] = carry;
    __syncwarp();
    view const v{p, tile};
#pragma unroll
    for (int j = 0; j < J; ++j) {
      int const slot = side_by_side(j);
#pragma unroll
      for (int k = 0; k < Step::outputs; ++k) {
        T const* const from = at(stage, slot) + k * slots;
        T* const to = p.out[k] + v.flat_element(slot, p.out_pitch[k]);
        if (v.is_whole(slot)) {
          packet<T, V>::load_shared(from).store(to);
        } else if (slot + V > tile.begin && slot < tile.end) {
#pragma unroll
          for (int i = 0; i < V; ++i) {
            if (v.is_step(slot + in_memory(i))) to[i] = from[i];
          }
        }
      }
    }
  }

 private:
  __device__ bool has_steps(rows_tile const& tile) const {  ///< this warp
    return warp * 32 * steps < tile.end;
  }
  /// The place in a packet of what lies i elements from its lowest, and the other way round.
  __device__ static int in_memory(int i) {
    return Reversed ? V - 1 - i : i;
  }
  __device__ T* at(int stage, int slot) const {
    return stages[stage].in[0] + base::place(slot);
  }
  __device__ packet<T, V> load(int stage, int slot, int k) const {
    auto const values = packet<T, V>::load_shared(at(stage, slot) + k * slots);
    return Reversed ? values.reversed() : values;
  }
  /// The slot of the row's last step; far if that is not in this tile.
  __device__ static int last_step(rows_tile const& tile) {
    return tile.ends_walk ? tile.end - 1 : rows_tile::far;
  }

  /// Make slots that are no steps identities.
  __device__ void mend(rows_tile const& tile, int stage, int slot) const {
    if (slot >= tile.begin && slot + V <= tile.end) return;
    T* const own = at(stage, slot);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      int const of = slot + in_memory(i);
      if (of >= tile.begin && of < tile.end) continue;
      own[i] = to_stored<T>(number(1)), own[i + slots] = to_stored<T>(number(0));
    }
  }
};

}  // namespace ssm::gpu::detail
