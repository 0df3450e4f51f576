// SPDX-License-Identifier: Apache-2.0
// state_space_dual_kernel.hpp: Mamba-2's operator, chunk by chunk, its states in registers.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "ssm/detail/state_space_dual_advance.hpp"
#include "ssm/detail/state_space_dual_layout.hpp"

namespace ssm::detail {

template <class T>
inline constexpr bool has_fast_ssd = std::is_same_v<T, float> || std::is_same_v<T, double> ||
                                     std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>;

/// What a thread works on while it runs a tile: under 64 KB for 128 states of 64 channels.
template <class A, int Lanes>
struct ssd_buffers {
  index_t chunk, states, tile;  // padded to whole packs and whole blocks of registers
  aligned_buffer<A> shared, own_state, drive, y, step, log_decay, decay, growth, inverse, D, row;

  ssd_buffers(index_t longest, ssd_bundles const& bundles)
      : chunk{round_up(longest, Lanes)},
        states{round_up(bundles.tiles.extents.states, std::max(Lanes, product_rows))},
        tile{bundles.tiles.tile},
        shared{std::max(2 * chunk, bundles.in_place ? tile : 0) * states},
        own_state{bundles.in_place ? 0 : states * tile},
        drive{chunk * tile},
        y{chunk * tile},
        step{chunk},
        log_decay{chunk},
        decay{chunk},
        growth{chunk},
        inverse{chunk},
        D{tile},
        row{tile} {}

  A* C() { return shared; }
  A* B() { return C() + chunk * states; }
  /// Of the tile, where it does not lie in the carry; else room for it before and after all steps.
  A* state(bool in_place) { return in_place ? shared : own_state; }
};

/// Tiles of one group that go through time side by side, so that B and C are prepared once for all
/// of them. In a chunk of steps g is the state as it would be without the decays since the chunk's
/// first step, R_i their product up to step i:
///   g ← g + Δ_i/R_i B_i x_i,   y_i = R_i C_i·g + D x_i,
/// two multiplications and additions for each state of each step, as in products of matrices, but
/// with nothing between the steps of a chunk. A chunk ends before R is below 2^-largest_ssd_decay
/// or above 2^largest_ssd_growth.
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
    return bundles.in_place ? &carry(at.b, at.head, at.first, 0) : w.state(false);
  }
  [[gnu::always_inline]] index_t state_size(ssd_tile const& at) const {
    return round_up(in.B.extent(3), product_rows) * round_up(at.count, Lanes);
  }

  [[gnu::always_inline]] void begin_tile(ssd_tile const& at) const {
    A* const state = w.state(bundles.in_place);
    std::fill_n(state, state_size(at), A(0));
    load_states<Lanes, A>(carry, at, in.B.extent(3), round_up(at.count, Lanes), state);
    if (bundles.in_place) std::copy_n(state, state_size(at), state_of(at));
  }
  [[gnu::always_inline]] void end_tile(ssd_tile const& at) const {
    A* const state = w.state(bundles.in_place);
    if (bundles.in_place) std::copy_n(state_of(at), state_size(at), state);
    store_states<Lanes, A>(state, round_up(at.count, Lanes), at, in.B.extent(3), carry);
  }

  /// B and C of the steps of a chunk, and the rows that the next chunk begins with.
  [[gnu::always_inline]] void load_shared(ssd_tile const& at, index_t t, index_t end) const {
    ssd_rows<T> const rows(in, at, y, saved);
    index_t const count = end - t, states = w.states;
    for (index_t i = 0; i < count; ++i) {
      gather<Lanes>(rows.B.at(t + i), rows.B.step, in.B.extent(3), states, w.B() + i * states);
      gather<Lanes>(rows.C.at(t + i), rows.C.step, in.C.extent(3), states, w.C() + i * states);
    }
    for (index_t i = end; i < std::min(end + count, in.x.extent(1)); ++i) {
      rows.B.prefetch(i, in.B.extent(3));
      rows.C.prefetch(i, in.C.extent(3));
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

  /// The steps [t, end) of a tile, in parts where they cannot be one chunk.
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
      index_t const padded = round_up(end - begin, Lanes);
      fill_steps<Lanes>(in, at.b, at.head, begin, end - begin, padded, rate, +w.step, +w.log_decay);
      index_t const count = load_drives(rows, tile, begin, fill_growth(end - begin, padded));
      bool const saves = begin + count == end && end < in.x.extent(1) && begins_block(end);
      advance(rows, state, tile, begin, count, begin - t,
              saves && saves_rows(at) ? saved_states(at, end) : nullptr);
      write(rows, tile, begin, count);
      begin += count;
    }
  }

  /// What enters the chunk is multiplied by, in w.decay[0]; in w.growth R and in w.inverse 1/R of
  /// each step. Returns how many of the steps may be one chunk.
  [[gnu::always_inline]] index_t fill_growth(index_t steps, index_t padded) const {
    A sum(0);
    index_t count = 1;
    for (; count < steps; ++count) {
      sum += w.log_decay[count];
      if (!(sum >= -A(largest_ssd_decay) && sum <= A(largest_ssd_growth))) break;  // or is NaN
    }
    for (index_t i = 0; i < padded; i += Lanes)
      exp2(vector::load(w.log_decay + i)).store(w.decay + i);
    A growth(1);
    for (index_t i = 0; i < padded; ++i) {
      if (i > 0 && i < count) growth *= w.decay[i];
      w.growth[i] = growth;
    }
    for (index_t i = 0; i < padded; i += Lanes)
      vector(A(1) / vector::load(w.growth + i)).store(w.inverse + i);
    return count;
  }

  /// Δ/R x of the steps [t, t + count), and D/R x where sums of C·g will be added. Returns how many
  /// of the steps are one chunk: the next begins where these could overflow.
  [[gnu::always_inline]] index_t load_drives(ssd_rows<T> const& rows, index_t tile, index_t t,
                                             index_t count) const {
    bool const has_D = in.D.data_handle() != nullptr,
               is_dense = rows.x.is_dense() && rows.count == tile;
    largest_magnitude<A, Lanes> largest;
    for (index_t i = 0; i < count; ++i) {
      A *const drive = w.drive + i * tile, *const sum = w.y + i * tile;
      A const inverse = w.inverse[i], weight = w.step[i] * inverse;
      T const* const from = rows.x.at(t + i);
      if (!is_dense) gather<Lanes>(from, rows.x.step, rows.count, tile, drive);
      for (index_t p = 0; p < tile; p += Lanes) {
        vector const x = is_dense ? load_as<A, Lanes>(from + p) : vector::load(drive + p),
                     weighted = x * weight,
                     skip = has_D ? vector(x * vector::load(w.D + p) * inverse) : vector(A(0));
        if (i > 0) largest.include(weighted), largest.include(skip);
        weighted.store(drive + p);
        skip.store(sum + p);
      }
    }
    A const safe = std::numeric_limits<A>::max() * A(0x1p-28);
    if (all_at_most(largest.value(), safe)) return count;
    auto const are_safe = [&](A const* row) {
      return std::all_of(row, row + tile, [&](A number) { return std::abs(number) <= safe; });
    };
    index_t few = 1;
    while (few < count && are_safe(w.drive + few * tile) && are_safe(w.y + few * tile)) ++few;
    return few;
  }

  /// The steps [t, t + count), which are `offset` after the first of B and C: the states in blocks
  /// of registers, each over all of them. `copy` is left as the states after them, unless it is
  /// null.
  [[gnu::always_inline]] void advance(ssd_rows<T> const& rows, A* state, index_t tile, index_t t,
                                      index_t count, index_t offset, A* copy) const {
    index_t const length = in.x.extent(1), shared = offset * w.states;
    ssd_lines_due due = rows.due(t + count);
    ssd_steps<A> const steps{.count = count,
                             .update = w.B() + shared,
                             .readout = w.C() + shared,
                             .shared_step = w.states,
                             .drive = w.drive,
                             .sum = w.y,
                             .own_step = tile,
                             .entering = w.decay[0],
                             .leaving = w.growth[count - 1]};
    advance_states<Lanes, A>(steps, state, round_up(in.B.extent(3), product_rows), tile, due,
                             due.in_a_step() * std::min(count, length - t - count), copy);
  }

  [[gnu::always_inline]] void write(ssd_rows<T> const& rows, index_t tile, index_t t,
                                    index_t count) const {
    for (index_t i = 0; i < count; ++i) {
      rows.template write<Lanes>(t + i, tile, w.growth[i], w.y + i * tile, w.row);
    }
  }
};

}  // namespace ssm::detail
