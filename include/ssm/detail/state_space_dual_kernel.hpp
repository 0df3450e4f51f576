// SPDX-License-Identifier: Apache-2.0
// state_space_dual_kernel.hpp: Mamba-2's operator as products of small matrices, chunk by chunk.
#pragma once

#include <algorithm>

#include "ssm/detail/state_space_dual_chunk.hpp"

namespace ssm::detail {

template <class T>
inline constexpr bool has_fast_ssd = std::is_same_v<T, float> || std::is_same_v<T, double> ||
                                     std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>;

/// Channels [first, first + count) of a head of a row.
struct ssd_tile {
  index_t b, head, first, count;
};

/// How the channels of a call are shared out: tiles whose states stay in the cache.
struct ssd_partition {
  ssd_extents extents;
  index_t tile, tiles;

  ssd_partition(ssd_extents const& e, index_t bytes) : extents{e} {
    constexpr index_t cached = 32768, narrowest = 16, widest = 64;  // multiples of all lanes
    index_t const fitting = cached / (bytes * std::max<index_t>(1, e.states));
    index_t const needed = round_up(std::max<index_t>(1, e.head_dim), narrowest);
    tile = std::min(std::clamp(fitting / narrowest * narrowest, narrowest, widest), needed);
    tiles = (e.head_dim + tile - 1) / tile;
  }

  index_t count() const { return extents.batch * extents.heads * tiles; }
  ssd_tile operator()(index_t i) const {
    index_t const first = i % tiles * tile, lane = i / tiles;
    return {lane / extents.heads, lane % extents.heads, first,
            std::min(tile, extents.head_dim - first)};
  }
};

/// One after another: chunks that end at `chunk` steps, at a block's end and where a sequence ends.
template <class T>
index_t end_of_chunk(state_space_dual_inputs<T> const& in, index_t b, index_t t, index_t chunk) {
  index_t const block_end = (t / state_space_dual_block + 1) * state_space_dual_block;
  return end_of_sequence(in.sequence, b, t, std::min({t + chunk, block_end, in.x.extent(1)}));
}

/// What a thread works on while it runs a tile: under 64 KB for 128 states of 64 channels.
template <class A, int Lanes>
struct ssd_buffers {
  index_t chunk, states, tile;  // padded to whole packs and whole blocks of registers
  aligned_buffer<A> state, B, C, x, leaving, y, mixing, between, step, log_decay, entered, D, row;

  ssd_buffers(index_t longest, ssd_extents const& e, index_t tile_width)
      : chunk{round_up(longest, std::max(Lanes, product_rows))},
        states{round_up(e.states, std::max(Lanes, product_rows))},
        tile{tile_width},
        state{round_up(e.states, product_rows) * tile},
        B{chunk * states},
        C{chunk * states},
        x{chunk * tile},
        leaving{chunk * tile},
        y{chunk * tile},
        mixing{chunk * chunk},
        between{chunk * chunk},
        step{chunk},
        log_decay{chunk},
        entered{chunk},
        D{tile},
        row{tile} {}
};

/// What a tile reads and writes, row by row.
template <class T>
struct ssd_rows {
  using A = accumulator_t<T>;

  index_t count;
  row_series<T const> x, B, C, gate;
  row_series<T> y;
  row_series<A> ungated;

  ssd_rows(state_space_dual_inputs<T> const& in, ssd_tile const& at, tensor_view<T, 4> const& to,
           state_space_dual_saved<T> const& saved)
      : count{at.count},
        x{in.x, at.b, at.head, at.first},
        B{in.B, at.b, at.head / extents_of(in).heads_per_group(), 0},
        C{in.C, at.b, at.head / extents_of(in).heads_per_group(), 0},
        gate{in.gate, at.b, at.head, at.first},
        y{to, at.b, at.head, at.first},
        ungated{saved.ungated, at.b, at.head, at.first} {}

  /// What a step that is soon to come reads and writes.
  [[gnu::always_inline]] void prefetch(index_t t, index_t states) const {
    x.prefetch(t, count);
    B.prefetch(t, states);
    C.prefetch(t, states);
    gate.prefetch(t, count);
    y.prefetch(t, count);
    ungated.prefetch(t, count);
  }

  /// y·silu(gate) from a row of sums before the gate, which are lost.
  template <int Lanes>
  [[gnu::always_inline]] void write(index_t t, index_t padded, A* sums, A* space) const {
    if (ungated.first != nullptr) scatter<Lanes>(sums, count, ungated.at(t), ungated.step);
    if (y.first == nullptr) return;
    if (gate.first != nullptr) {
      gather<Lanes>(gate.at(t), gate.step, count, padded, space);
      for (index_t p = 0; p < padded; p += Lanes) {
        pack<A, Lanes>(pack<A, Lanes>::load(sums + p) * silu(pack<A, Lanes>::load(space + p)))
            .store(sums + p);
      }
    }
    scatter<Lanes>(sums, count, y.at(t), y.step);
  }
};

/// The states of a head between a view's (channel, state) and rows of all channels for each state.
template <class A>
void load_states(tensor_view<A, 4> const& from, ssd_tile const& at, index_t states, index_t tile,
                 A* to) {
  index_t const channel_step = from.stride(2), state_step = from.stride(3);
  A const* const first = &from(at.b, at.head, at.first, 0);
  for (index_t p = 0; p < at.count; ++p)
    for (index_t n = 0; n < states; ++n)
      to[n * tile + p] = first[p * channel_step + n * state_step];
}

template <class A>
void store_states(A const* from, index_t tile, ssd_tile const& at, index_t states,
                  tensor_view<A, 4> const& to) {
  index_t const channel_step = to.stride(2), state_step = to.stride(3);
  A* const first = &to(at.b, at.head, at.first, 0);
  for (index_t p = 0; p < at.count; ++p)
    for (index_t n = 0; n < states; ++n)
      first[p * channel_step + n * state_step] = from[n * tile + p];
}

/// All of time for one tile. Within a chunk of steps, with S_i = log2 of the decays up to step i,
///   y_i = 2^S_i C_i·h + Σ_{j <= i} 2^(S_i - S_j) Δ_j (C_i·B_j) x_j + D x_i,
///   h ← 2^S_last h + Σ_j 2^(S_last - S_j) Δ_j B_j x_j.
template <int Lanes, class T>
[[gnu::always_inline]] inline void run_tile(state_space_dual_inputs<T> const& in,
                                            ssd_tile const& at, index_t chunk,
                                            ssd_buffers<accumulator_t<T>, Lanes>& w,
                                            tensor_view<accumulator_t<T>, 4> const& carry,
                                            tensor_view<T, 4> const& y,
                                            state_space_dual_saved<T> const& saved) {
  using A = accumulator_t<T>;
  using vector = pack<A, Lanes>;
  auto const e = extents_of(in);
  ssd_rows<T> const rows(in, at, y, saved);
  index_t const tile = round_up(at.count, Lanes), states = w.states;
  index_t const state_rows = round_up(e.states, product_rows);
  A const rate = scaled_eigenvalue(in, at.head) * number_format<A>::log2_e;
  bool const skips = in.D.data_handle() != nullptr;
  if (skips) gather<Lanes>(&in.D(at.head, at.first), in.D.stride(1), at.count, tile, +w.D);

  std::fill_n(+w.state, state_rows * tile, A(0));
  load_states<A>(carry, at, e.states, tile, w.state);

  for (index_t t = 0; t < e.length;) {
    if (starts_sequence(in.sequence, at.b, t)) std::fill_n(+w.state, state_rows * tile, A(0));
    if (saved.states.data_handle() != nullptr && t % state_space_dual_block == 0) {
      store_states<A>(w.state, tile, at, e.states,
                      saved.states.select(1, t / state_space_dual_block));
    }
    index_t count = end_of_chunk(in, at.b, t, chunk) - t;
    index_t const padded = round_up(count, std::max(Lanes, product_rows));
    fill_steps<Lanes>(in, at.b, at.head, t, count, padded, rate, +w.step, +w.log_decay);
    count = steps_without_overflow<A>(w.log_decay, count);
    index_t const steps = round_up(count, product_rows);
    fill_decays<Lanes, A>(w.log_decay, count, padded, w.between, w.entered);

    for (index_t i = 0; i < count; ++i) {
      gather<Lanes>(rows.B.at(t + i), rows.B.step, e.states, states, w.B + i * states);
      gather<Lanes>(rows.C.at(t + i), rows.C.step, e.states, states, w.C + i * states);
      gather<Lanes>(rows.x.at(t + i), rows.x.step, at.count, tile, w.x + i * tile);
      A const weight = w.between[(count - 1) * padded + i] * w.step[i];
      for (index_t p = 0; p < tile; p += Lanes)
        vector(vector::load(w.x + i * tile + p) * weight).store(w.leaving + i * tile + p);
    }
    std::fill_n(w.B + count * states, (steps - count) * states, A(0));
    std::fill_n(w.C + count * states, (steps - count) * states, A(0));
    std::fill_n(w.x + count * tile, (steps - count) * tile, A(0));
    std::fill_n(+w.y, steps * tile, A(0));

    multiply_rows<Lanes, A>(steps, states, w.C, w.B, w.mixing, padded);
    for (index_t i = 0; i < count; ++i) {
      for (index_t j = 0; j < padded; j += Lanes) {
        vector(vector::load(w.mixing + i * padded + j) *
               (vector::load(w.between + i * padded + j) * vector::load(w.step + j)))
            .store(w.mixing + i * padded + j);
      }
    }

    // A few states at a time, so that they pass through the first cache once.
    constexpr index_t cached_states = 32;
    A const decay = w.entered[count - 1];
    index_t next = t + count;
    for (index_t n = 0; n < state_rows; n += cached_states) {
      index_t const here = std::min(cached_states, state_rows - n);
      A* const state = w.state + n * tile;
      index_t const next_end = std::min(e.length, t + count + count * (n + here) / state_rows);
      for (; next < next_end; ++next) rows.prefetch(next, e.states);
      add_to_matrix<Lanes, A>(steps, tile, here, {w.C + n, states, 1}, state, tile, w.y);
      update_matrix<Lanes, A>(here, tile, count, {w.B + n, 1, states}, w.leaving, tile, decay,
                              state, state);
    }
    add_lower_triangle<Lanes, A>(count, tile, w.mixing, padded, w.x, w.entered,
                                 skips ? +w.D : nullptr, w.y);
    for (index_t i = 0; i < count; ++i) {
      rows.template write<Lanes>(t + i, tile, w.y + i * tile, w.row);
    }
    t += count;
  }
  store_states<A>(w.state, tile, at, e.states, carry);
}

}  // namespace ssm::detail
