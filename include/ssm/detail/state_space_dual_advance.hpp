// SPDX-License-Identifier: Apache-2.0
// state_space_dual_advance.hpp: states that stay in registers over the steps of a chunk.
#pragma once

#include "ssm/detail/state_space_dual_products.hpp"
#include "ssm/detail/state_space_dual_rows.hpp"

namespace ssm::detail {

/// Steps that states go through with nothing between them, each
///   state ← state + update ⊗ drive,   sum ← sum + readout·state,
/// and what the states are multiplied by before and after all of them. Rows of update and readout
/// begin `shared_step` apart, those of drive and sum `own_step`, both negative to go back in time.
template <class A>
struct ssd_steps {
  index_t count;
  A const *update, *readout;  // a number for each state
  index_t shared_step;
  A const* drive;  // one for each channel
  A* sum;
  index_t own_step;
  A entering, leaving;
};

/// Takes `rows` states of `tile` channels each through the steps, in blocks of registers. `copy` is
/// left as the states after them, unless it is null. Between steps `lines` of those due are
/// fetched.
template <int Lanes, class A>
[[gnu::always_inline]] inline void advance_states(ssd_steps<A> const& steps, A* state, index_t rows,
                                                  index_t tile, ssd_lines_due& due, index_t lines,
                                                  A* copy) {
  using vector = pack<A, Lanes>;
  index_t fetched = 0;
  for_each_block<Lanes, A, tallest_block<A, Lanes>>(
      rows, tile,
      [&](auto height, auto packs, index_t row, index_t column) __attribute__((always_inline)) {
        constexpr int width = decltype(packs)::value, tall = decltype(height)::value;
        index_t const done = column * rows + (row + tall) * width * Lanes,
                      due_here = lines * done / (rows * tile);
        register_block<A, Lanes, tall, width> h;
        index_t const first = row * tile + column;
        h.each([&](auto& state_of, int r, int v) __attribute__((always_inline)) {
          state_of = vector::load(state + first + r * tile + v * Lanes) * steps.entering;
        });
        A const *update = steps.update + row, *readout = steps.readout + row,
                *drive = steps.drive + column;
        A* sum = steps.sum + column;
        for (index_t i = 0; i < steps.count; ++i) {
          if (fetched < due_here) due.fetch(), ++fetched;
          vector strip[width];
          unrolled<width>([&](auto v) __attribute__((always_inline)) {
            strip[v] = vector::load(drive + v * Lanes);
          });
          h.each([&](auto& state_of, int r, int v) __attribute__((always_inline)) {
            state_of = multiply_add(strip[v], update[r], state_of);
          });
          unrolled<width>([&](auto v) __attribute__((always_inline)) {
            strip[v] = vector::load(sum + v * Lanes);
          });
          h.each([&](auto& state_of, int r, int v) __attribute__((always_inline)) {
            strip[v] = multiply_add(state_of, readout[r], strip[v]);
          });
          unrolled<width>([&](auto v)
                              __attribute__((always_inline)) { strip[v].store(sum + v * Lanes); });
          update += steps.shared_step, readout += steps.shared_step;
          drive += steps.own_step, sum += steps.own_step;
        }
        for (; fetched < due_here; ++fetched) due.fetch();
        h.each([&](auto& state_of, int r, int v) __attribute__((always_inline)) {
          index_t const i = first + r * tile + v * Lanes;
          vector const after = state_of * steps.leaving;
          after.store(state + i);
          if (copy != nullptr) store_past_caches(after, copy + i);
        });
      });
}

}  // namespace ssm::detail
