// SPDX-License-Identifier: Apache-2.0
// state_space_dual_kernel.hpp: Mamba-2's operator as products of small matrices, chunk by chunk.
#pragma once

#include <algorithm>

#include "ssm/detail/state_space_dual_layout.hpp"

namespace ssm::detail {

template <class T>
inline constexpr bool has_fast_ssd = std::is_same_v<T, float> || std::is_same_v<T, double> ||
                                     std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>;

/// What a thread works on while it runs a tile: under 64 KB for 128 states of 64 channels.
template <class A, int Lanes>
struct ssd_buffers {
  index_t chunk, states, tile;  // padded to whole packs and whole blocks of registers
  aligned_buffer<A> state, shared, x, leaving, y, products, mixing, step, log_decay, entered, D,
      row;

  ssd_buffers(index_t longest, ssd_extents const& e, index_t tile_width)
      : chunk{round_up(longest, std::max(Lanes, product_rows))},
        states{round_up(e.states, std::max(Lanes, product_rows))},
        tile{tile_width},
        state{round_up(e.states, product_rows) * tile},
        shared{2 * chunk * states},
        x{chunk * tile},
        leaving{chunk * tile},
        y{chunk * tile},
        products{chunk * chunk + chunk},
        mixing{chunk * chunk},
        step{chunk},
        log_decay{chunk},
        entered{chunk},
        D{tile},
        row{tile} {}

  // Blocks of registers may begin at any row of C, and then read a few rows beyond.
  A* C() { return shared; }
  A* B() { return C() + chunk * states; }
};

/// What a tile reads and writes, row by row.
template <class T>
struct ssd_rows {
  using A = accumulator_t<T>;

  index_t count;
  row_series<T const> x, B, C, gate;
  row_series<T> y;
  row_series<A> ungated;
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
        past_caches{is_large && std::is_same_v<A, T> && y.has_whole_lines(count) &&
                    ungated.has_whole_lines(count)} {}

  /// What a step that is soon to come reads and writes, except B and C.
  [[gnu::always_inline]] void prefetch(index_t t) const {
    x.prefetch(t, count);
    gate.prefetch(t, count);
    if (past_caches) return;
    y.prefetch(t, count);
    ungated.prefetch(t, count);
  }

  /// y·silu(gate) from a row of sums before the gate, which are lost.
  template <int Lanes>
  [[gnu::always_inline]] void write(index_t t, index_t padded, A* sums, A* space) const {
    if (ungated.first != nullptr) put<Lanes>(sums, ungated, t);
    if (y.first == nullptr) return;
    if (gate.first != nullptr) {
      gather<Lanes>(gate.at(t), gate.step, count, padded, space);
      for (index_t p = 0; p < padded; p += Lanes) {
        pack<A, Lanes>(pack<A, Lanes>::load(sums + p) * silu(pack<A, Lanes>::load(space + p)))
            .store(sums + p);
      }
    }
    put<Lanes>(sums, y, t);
  }

 private:
  template <int Lanes, class S>
  [[gnu::always_inline]] void put(A const* from, row_series<S> const& to, index_t t) const {
    if constexpr (std::is_same_v<A, S>) {
      if (past_caches) {
        for (index_t p = 0; p < count; p += Lanes)
          store_past_caches(pack<A, Lanes>::load(from + p), to.at(t) + p);
        return;
      }
    }
    scatter<Lanes>(from, count, to.at(t), to.step);
  }
};

/// Tiles of one group that go through time side by side, so that B, C and their products are
/// prepared once for all of them. Within a chunk of steps, with S_i = log2 of the decays up to
/// step i,
///   y_i = 2^S_i C_i·h + Σ_{j <= i} 2^(S_i - S_j) Δ_j (C_i·B_j) x_j + D x_i,
///   h ← 2^S_last h + Σ_j 2^(S_last - S_j) Δ_j B_j x_j.
template <int Lanes, class T>
struct ssd_bundle {
  using A = accumulator_t<T>;
  using vector = pack<A, Lanes>;

  state_space_dual_inputs<T> const& in;
  ssd_bundles const& bundles;
  ssd_buffers<A, Lanes>& w;
  tensor_view<A, 4> const& carry;
  tensor_view<T, 4> const& y;
  state_space_dual_saved<T> const& saved;
  index_t longest;  // of chunks
  bool is_large;    // what is written: larger than caches
  index_t bundle;

  [[gnu::always_inline]] void run() const {
    ssd_tile const first = bundles.tiles(bundles.first_tile(bundle));
    index_t const length = in.x.extent(1);
    for_each_tile([&](ssd_tile const& at) __attribute__((always_inline)) { begin_tile(at); });
    for (index_t t = 0; t < length;) {
      index_t const end = end_of_chunk(in, first.b, t, longest);
      load_shared(first, t, end);
      for_each_tile([&](ssd_tile const& at)
                        __attribute__((always_inline)) { run_chunk(at, t, end); });
      t = end;
    }
    for_each_tile([&](ssd_tile const& at) __attribute__((always_inline)) { end_tile(at); });
    if (is_large) finish_stores();
  }

  template <class Body>
  [[gnu::always_inline]] void for_each_tile(Body const& body) const {
    for (index_t i = bundles.first_tile(bundle); i < bundles.first_tile(bundle + 1); ++i)
      body(bundles.tiles(i));
  }

  /// Rows of all channels of a tile for each state.
  [[gnu::always_inline]] A* state_of(ssd_tile const& at) const {
    return bundles.in_place ? &carry(at.b, at.head, at.first, 0) : +w.state;
  }
  [[gnu::always_inline]] index_t state_size(ssd_tile const& at) const {
    return round_up(in.B.extent(3), product_rows) * round_up(at.count, Lanes);
  }

  [[gnu::always_inline]] void begin_tile(ssd_tile const& at) const {
    std::fill_n(+w.state, state_size(at), A(0));
    load_states<Lanes, A>(carry, at, in.B.extent(3), round_up(at.count, Lanes), w.state);
    if (bundles.in_place) std::copy_n(+w.state, state_size(at), state_of(at));
  }
  [[gnu::always_inline]] void end_tile(ssd_tile const& at) const {
    if (bundles.in_place) std::copy_n(state_of(at), state_size(at), +w.state);
    store_states<Lanes, A>(w.state, round_up(at.count, Lanes), at, in.B.extent(3), carry);
  }

  /// B and C of the steps of a chunk, C_i·B_j, and the rows that the next chunk begins with.
  [[gnu::always_inline]] void load_shared(ssd_tile const& at, index_t t, index_t end) const {
    ssd_rows<T> const rows(in, at, y, saved);
    index_t const count = end - t, steps = round_up(count, product_rows), states = w.states;
    for (index_t i = 0; i < count; ++i) {
      gather<Lanes>(rows.B.at(t + i), rows.B.step, in.B.extent(3), states, w.B() + i * states);
      gather<Lanes>(rows.C.at(t + i), rows.C.step, in.B.extent(3), states, w.C() + i * states);
    }
    std::fill_n(w.B() + count * states, (steps - count) * states, A(0));
    std::fill_n(w.C() + count * states, (steps - count) * states, A(0));
    multiply_rows<Lanes, A>(steps, states, w.C(), w.B(), w.products, w.chunk);
    for (index_t i = end; i < std::min(end + count, in.x.extent(1)); ++i) {
      rows.B.prefetch(i, in.B.extent(3));
      rows.C.prefetch(i, in.B.extent(3));
    }
  }

  /// Whether the states before step t are to be saved.
  [[gnu::always_inline]] bool begins_block(index_t t) const {
    return saved.states.data_handle() != nullptr && t % state_space_dual_block == 0;
  }
  /// Whether they are saved as they lie here, while they are computed.
  [[gnu::always_inline]] bool saves_rows(ssd_tile const& at) const {
    row_series<A> rows;
    rows.first = saved_states(at, 0);
    rows.time_step = saved.states.stride(4);
    rows.step = saved.states.stride(3);
    return is_large && rows.time_step == at.count && rows.has_whole_lines(at.count) &&
           in.B.extent(3) % product_rows == 0;
  }
  [[gnu::always_inline]] A* saved_states(ssd_tile const& at, index_t t) const {
    return &saved.states(at.b, t / state_space_dual_block, at.head, at.first, 0);
  }

  /// The steps [t, end) of a tile, in parts where its states could overflow.
  [[gnu::always_inline]] void run_chunk(ssd_tile const& at, index_t t, index_t end) const {
    A* const state = state_of(at);
    index_t const tile = round_up(at.count, Lanes);
    bool const starts = starts_sequence(in.sequence, at.b, t);
    if (starts) std::fill_n(state, state_size(at), A(0));
    if (begins_block(t) && (t == 0 || starts || !saves_rows(at))) {
      store_states<Lanes, A>(state, tile, at, in.B.extent(3),
                             saved.states.select(1, t / state_space_dual_block));
    }
    A const rate = scaled_eigenvalue(in, at.head) * number_format<A>::log2_e;
    ssd_rows<T> const rows(in, at, y, saved, is_large);
    if (in.D.data_handle() != nullptr)
      gather<Lanes>(&in.D(at.head, at.first), in.D.stride(1), at.count, tile, +w.D);
    for (index_t begin = t; begin < end;) {
      index_t const padded = round_up(end - begin, std::max(Lanes, product_rows));
      fill_steps<Lanes>(in, at.b, at.head, begin, end - begin, padded, rate, +w.step, +w.log_decay);
      index_t const count = steps_without_overflow<A>(w.log_decay, end - begin);
      fill_decays<Lanes, A>(w.log_decay, count, padded, w.mixing, w.entered);
      bool const saves = begin + count == end && end < in.x.extent(1) && begins_block(end);
      run_steps(rows, state, tile, begin, count, padded, begin - t,
                saves && saves_rows(at) ? saved_states(at, end) : nullptr);
      begin += count;
    }
  }

  /// The steps [t, t + count), which are `offset` after the first of the chunk. `copy` is left as
  /// the states after them, unless it is null.
  [[gnu::always_inline]] void run_steps(ssd_rows<T> const& rows, A* state, index_t tile, index_t t,
                                        index_t count, index_t padded, index_t offset,
                                        A* copy) const {
    index_t const steps = round_up(count, product_rows), states = w.states;
    for (index_t i = 0; i < count; ++i) {
      gather<Lanes>(rows.x.at(t + i), rows.x.step, rows.count, tile, w.x + i * tile);
      A const weight = w.mixing[(count - 1) * padded + i] * w.step[i];
      for (index_t p = 0; p < tile; p += Lanes)
        vector(vector::load(w.x + i * tile + p) * weight).store(w.leaving + i * tile + p);
    }
    std::fill_n(w.x + count * tile, (steps - count) * tile, A(0));
    for (index_t i = 0; i < count; ++i) {
      A const* const products = w.products + (offset + i) * w.chunk + offset;
      for (index_t j = 0; j < padded; j += Lanes) {
        A* const mixing = w.mixing + i * padded + j;
        vector(vector::load(products + j) * (vector::load(mixing) * vector::load(w.step + j)))
            .store(mixing);
      }
    }

    // A few states at a time, so that they pass through the first cache once.
    constexpr index_t cached_states = 32;
    index_t const state_rows = round_up(in.B.extent(3), product_rows), length = in.x.extent(1);
    A const *const B = w.B() + offset * states, *const C = w.C() + offset * states;
    A const decay = w.entered[count - 1];
    index_t next = t + count;
    std::fill_n(+w.y, steps * tile, A(0));
    for (index_t n = 0; n < state_rows; n += cached_states) {
      index_t const here = std::min(cached_states, state_rows - n);
      A* const part = state + n * tile;
      index_t const next_end = std::min(length, t + count + count * (n + here) / state_rows);
      for (; next < next_end; ++next) rows.prefetch(next);
      add_to_matrix<Lanes, A>(steps, tile, here, {C + n, states, 1}, part, tile, w.y);
      update_matrix<Lanes, A>(here, tile, count, {B + n, 1, states}, w.leaving, tile, decay, part,
                              part, copy == nullptr ? nullptr : copy + n * tile);
    }
    add_lower_triangle<Lanes, A>(count, tile, w.mixing, padded, w.x, w.entered,
                                 in.D.data_handle() == nullptr ? nullptr : +w.D, w.y);
    for (index_t i = 0; i < count; ++i)
      rows.template write<Lanes>(t + i, tile, w.y + i * tile, w.row);
  }
};

}  // namespace ssm::detail
