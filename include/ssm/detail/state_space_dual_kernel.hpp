// SPDX-License-Identifier: Apache-2.0
// state_space_dual_kernel.hpp: Mamba-2's operator as products of small matrices, chunk by chunk.
#pragma once

#include <algorithm>

#include "ssm/detail/state_space_dual_chunk.hpp"

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

  ssd_rows(state_space_dual_inputs<T> const& in, ssd_tile const& at, tensor_view<T, 4> const& to,
           state_space_dual_saved<T> const& saved)
      : count{at.count},
        x{in.x, at.b, at.head, at.first},
        B{in.B, at.b, at.head / extents_of(in).heads_per_group(), 0},
        C{in.C, at.b, at.head / extents_of(in).heads_per_group(), 0},
        gate{in.gate, at.b, at.head, at.first},
        y{to, at.b, at.head, at.first},
        ungated{saved.ungated, at.b, at.head, at.first} {}

  /// What a step that is soon to come reads and writes, except B and C.
  [[gnu::always_inline]] void prefetch(index_t t) const {
    x.prefetch(t, count);
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

/// Exchange rows and columns: to the right of the diagonal of blocks of Width and below it, then in
/// smaller ones.
template <int Width, class A, int Lanes>
[[gnu::always_inline]] inline void transpose(pack<A, Lanes> (&rows)[Lanes]) {
  unrolled<Lanes / 2>([&](auto k) __attribute__((always_inline)) {
    constexpr int i = decltype(k)::value / Width * 2 * Width + decltype(k)::value % Width;
    [&]<int... j>(std::integer_sequence<int, j...>) __attribute__((always_inline)) {
      auto const above = rows[i], below = rows[i + Width];
      rows[i] = shuffled<(j & Width ? Lanes + j - Width : j)...>(above, below);
      rows[i + Width] = shuffled<(j & Width ? Lanes + j : j + Width)...>(above, below);
    }
    (std::make_integer_sequence<int, Lanes>{});
  });
  if constexpr (Width > 1) transpose<Width / 2>(rows);
}

/// to[j·to_row + i·to_step] = from[i·from_row + j·from_step] for i < rows, j < columns.
template <int Lanes, class A>
[[gnu::always_inline]] inline void transpose_matrix(index_t rows, index_t columns, A const* from,
                                                    index_t from_row, index_t from_step, A* to,
                                                    index_t to_row, index_t to_step) {
  bool const whole = from_step == 1 && to_step == 1 && rows % Lanes == 0 && columns % Lanes == 0;
  if (!whole) {
    for (index_t i = 0; i < rows; ++i)
      for (index_t j = 0; j < columns; ++j)
        to[j * to_row + i * to_step] = from[i * from_row + j * from_step];
    return;
  }
  for (index_t i = 0; i < rows; i += Lanes) {
    for (index_t j = 0; j < columns; j += Lanes) {
      pack<A, Lanes> block[Lanes];
      unrolled<Lanes>([&](auto k) __attribute__((always_inline)) {
        block[decltype(k)::value] =
            pack<A, Lanes>::load(from + (i + decltype(k)::value) * from_row + j);
      });
      transpose<Lanes / 2>(block);
      unrolled<Lanes>([&](auto k) __attribute__((always_inline)) {
        block[decltype(k)::value].store(to + (j + decltype(k)::value) * to_row + i);
      });
    }
  }
}

/// The states of a head between a view's (channel, state) and rows of all channels for each state.
template <int Lanes, class A>
[[gnu::always_inline]] inline void load_states(tensor_view<A, 4> const& from, ssd_tile const& at,
                                               index_t states, index_t tile, A* to) {
  transpose_matrix<Lanes, A>(at.count, states, &from(at.b, at.head, at.first, 0), from.stride(2),
                             from.stride(3), to, tile, 1);
}

template <int Lanes, class A>
[[gnu::always_inline]] inline void store_states(A const* from, index_t tile, ssd_tile const& at,
                                                index_t states, tensor_view<A, 4> const& to) {
  transpose_matrix<Lanes, A>(states, at.count, from, tile, 1, &to(at.b, at.head, at.first, 0),
                             to.stride(2), to.stride(3));
}

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

  /// The steps [t, end) of a tile, in parts where its states could overflow.
  [[gnu::always_inline]] void run_chunk(ssd_tile const& at, index_t t, index_t end) const {
    A* const state = state_of(at);
    index_t const tile = round_up(at.count, Lanes);
    if (starts_sequence(in.sequence, at.b, t)) std::fill_n(state, state_size(at), A(0));
    if (saved.states.data_handle() != nullptr && t % state_space_dual_block == 0) {
      store_states<Lanes, A>(state, tile, at, in.B.extent(3),
                             saved.states.select(1, t / state_space_dual_block));
    }
    A const rate = scaled_eigenvalue(in, at.head) * number_format<A>::log2_e;
    ssd_rows<T> const rows(in, at, y, saved);
    if (in.D.data_handle() != nullptr)
      gather<Lanes>(&in.D(at.head, at.first), in.D.stride(1), at.count, tile, +w.D);
    for (index_t begin = t; begin < end;) {
      index_t const padded = round_up(end - begin, std::max(Lanes, product_rows));
      fill_steps<Lanes>(in, at.b, at.head, begin, end - begin, padded, rate, +w.step, +w.log_decay);
      index_t const count = steps_without_overflow<A>(w.log_decay, end - begin);
      fill_decays<Lanes, A>(w.log_decay, count, padded, w.mixing, w.entered);
      run_steps(rows, state, tile, begin, count, padded, begin - t);
      begin += count;
    }
  }

  /// The steps [t, t + count), which are `offset` after the first of the chunk.
  [[gnu::always_inline]] void run_steps(ssd_rows<T> const& rows, A* state, index_t tile, index_t t,
                                        index_t count, index_t padded, index_t offset) const {
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
                              part);
    }
    add_lower_triangle<Lanes, A>(count, tile, w.mixing, padded, w.x, w.entered,
                                 in.D.data_handle() == nullptr ? nullptr : +w.D, w.y);
    for (index_t i = 0; i < count; ++i)
      rows.template write<Lanes>(t + i, tile, w.y + i * tile, w.row);
  }
};

}  // namespace ssm::detail
