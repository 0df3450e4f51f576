// SPDX-License-Identifier: Apache-2.0
// state_space_dual_step.hpp: Mamba-2's operator for a few steps, the states where they lie.
#pragma once

#include <algorithm>

#include "ssm/detail/instruction_set.hpp"
#include "ssm/detail/parallel_for.hpp"
#include "ssm/detail/state_space_dual_kernel.hpp"

namespace ssm::detail {

/// Calls shorter than this go step by step: to bring the states into the layout that products need
/// and back would take longer.
inline constexpr index_t shortest_ssd_products = 8;

/// h ← decay h + (Δ x_p) B, and y_p = C·h before its lanes are added up, for `Rows` channels, the
/// states of each in a row.
template <int Rows, int Lanes, class A>
[[gnu::always_inline]] inline void step_rows(A decay, A const* input, A const* B, A const* C,
                                             index_t states, A* h, index_t row_step,
                                             pack<A, Lanes>* sum) {
  unrolled<Rows>([&](auto r) __attribute__((always_inline)) { sum[decltype(r)::value] = A(0); });
  for (index_t n = 0; n < states; n += Lanes) {
    auto const drive = pack<A, Lanes>::load(B + n), readout = pack<A, Lanes>::load(C + n);
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
      constexpr int row = decltype(r)::value;
      A* const at = h + row * row_step + n;
      pack<A, Lanes> state = pack<A, Lanes>::load(at) * decay;
      state = multiply_add(drive, input[row], state);
      state.store(at);
      sum[row] = multiply_add(readout, state, sum[row]);
    });
  }
}

/// What a thread needs to go step by step, in one piece of memory.
template <class A, int Lanes>
struct ssd_step_buffers {
  index_t states, channels;  // padded
  aligned_buffer<A> space;
  A *B, *C, *step, *decay, *input, *y, *row, *state;  // a head in each lane of step, decay

  explicit ssd_step_buffers(ssd_extents const& e, bool copies)
      : states{round_up(e.states, Lanes)},
        channels{round_up(e.head_dim, std::max(Lanes, product_rows))},
        space{2 * states + 2 * shortest_ssd_products * Lanes + 3 * channels +
              (copies ? e.head_dim * states : 0)},
        B{space},
        C{B + states},
        step{C + states},
        decay{step + shortest_ssd_products * Lanes},
        input{decay + shortest_ssd_products * Lanes},
        y{input + channels},
        row{y + channels},
        state{row + channels} {}
};

/// Whether the states of a carry can be worked on where they lie.
template <int Lanes, class A>
bool has_whole_packs(tensor_view<A, 4> const& carry) {
  return carry.stride(3) == 1 && carry.extent(3) % Lanes == 0;
}

/// Δ' and the decays of all steps of `count` heads.
template <int Lanes, class T>
[[gnu::always_inline]] inline void fill_steps_of_heads(
    state_space_dual_inputs<T> const& in, index_t b, index_t first, index_t count,
    ssd_step_buffers<accumulator_t<T>, Lanes>& w) {
  using vector = pack<accumulator_t<T>, Lanes>;
  vector rate(accumulator_t<T>(0)), factor(accumulator_t<T>(0)), biased(accumulator_t<T>(0));
  for (int k = 0; k < count; ++k) {
    rate.v[k] = scaled_eigenvalue(in, first + k) * number_format<accumulator_t<T>>::log2_e;
    factor.v[k] = in.scaling.step_factor(first + k);
  }
  for (index_t t = 0; t < in.x.extent(1); ++t) {
    for (int k = 0; k < count; ++k) biased.v[k] = biased_step(in, b, t, first + k);
    vector const step = by_rule(in.step_rule, biased) * factor;
    step.store(w.step + t * Lanes);
    exp2(vector(step * rate)).store(w.decay + t * Lanes);
  }
}

/// All of time for one head, the one in `lane` of w.step.
template <int Lanes, class T>
[[gnu::always_inline]] inline void run_steps(state_space_dual_inputs<T> const& in, index_t b,
                                             index_t head, index_t lane,
                                             ssd_step_buffers<accumulator_t<T>, Lanes>& w,
                                             tensor_view<accumulator_t<T>, 4> const& carry,
                                             tensor_view<T, 4> const& y,
                                             state_space_dual_saved<T> const& saved) {
  using A = accumulator_t<T>;
  auto const e = extents_of(in);
  ssd_rows<T> const rows(in, ssd_tile{b, head, 0, e.head_dim}, y, saved);
  bool const in_place = has_whole_packs<Lanes>(carry);
  A* const state = in_place ? &carry(b, head, 0, 0) : w.state;
  index_t const row_step = in_place ? carry.stride(2) : w.states;
  if (!in_place) {
    for (index_t p = 0; p < e.head_dim; ++p)
      gather<Lanes>(&carry(b, head, p, 0), carry.stride(3), e.states, w.states,
                    state + p * row_step);
  }
  // A row where it lies, or in whole packs.
  auto const row_at = [&](row_series<T const> const& from, index_t t, A* to)
                          __attribute__((always_inline))
                              ->A const* {
    if constexpr (std::is_same_v<T, A>) {
      if (from.step == 1 && e.states == w.states) return from.at(t);
    }
    gather<Lanes>(from.at(t), from.step, e.states, w.states, to);
    return to;
  };

  for (index_t t = 0; t < e.length; ++t) {
    if (starts_sequence(in.sequence, b, t)) {
      for (index_t p = 0; p < e.head_dim; ++p) std::fill_n(state + p * row_step, w.states, A(0));
    }
    if (t == 0 && saved.states.data_handle() != nullptr) {
      for (index_t p = 0; p < e.head_dim; ++p)
        for (index_t n = 0; n < e.states; ++n)
          saved.states(b, 0, head, p, n) = state[p * row_step + n];
    }
    A const *const B = row_at(rows.B, t, w.B), *const C = row_at(rows.C, t, w.C);
    gather<Lanes>(rows.x.at(t), rows.x.step, e.head_dim, w.channels, w.row);
    A const step = w.step[t * Lanes + lane], decay = w.decay[t * Lanes + lane];
    for (index_t p = 0; p < w.channels; p += Lanes)
      pack<A, Lanes>(pack<A, Lanes>::load(w.row + p) * step).store(w.input + p);
    auto const step_some = [&](auto count, index_t p, pack<A, Lanes>* sums)
        __attribute__((always_inline)) {
      step_rows<decltype(count)::value, Lanes, A>(decay, w.input + p, B, C, w.states,
                                                  state + p * row_step, row_step, sums);
    };
    index_t p = 0;
    for (; p + Lanes <= e.head_dim; p += Lanes) {
      constexpr int together = std::min(Lanes, product_rows);
      pack<A, Lanes> sums[Lanes];
      unrolled<Lanes / together>([&](auto i) __attribute__((always_inline)) {
        constexpr int first = decltype(i)::value * together;
        step_some(std::integral_constant<int, together>{}, p + first, sums + first);
      });
      sums_of_lanes<A, Lanes>([&](auto i) __attribute__((always_inline)) {
        return sums[decltype(i)::value];
      }).store(w.y + p);
    }
    for (; p < e.head_dim; ++p) {
      pack<A, Lanes> sums;
      step_some(std::integral_constant<int, 1>{}, p, &sums);
      w.y[p] = sum_of_lanes(sums);
    }
    if (in.D.data_handle() != nullptr) {
      A const* const D = &in.D(head, 0);
      for (index_t i = 0; i < e.head_dim; ++i) w.y[i] += D[i * in.D.stride(1)] * w.row[i];
    }
    rows.template write<Lanes>(t, w.channels, A(1), w.y, w.row);
  }
  if (in_place) return;
  for (index_t p = 0; p < e.head_dim; ++p)
    for (index_t n = 0; n < e.states; ++n) carry(b, head, p, n) = state[p * row_step + n];
}

/// Below this many products a call is not worth a second thread.
inline constexpr index_t least_threaded_work = index_t{1} << 16;

inline int worthwhile_threads(int wanted, ssd_extents const& e) {
  return e.work() < least_threaded_work ? 1 : wanted;
}

inline index_t ssd_chunk_length(index_t wanted, ssd_extents const& e) {
  index_t const chunk = wanted == 0 ? longest_ssd_chunk : std::min(wanted, longest_ssd_chunk);
  return std::min(chunk, std::max<index_t>(1, e.length));
}

template <class T>
void state_space_dual_fast(parallel policy, state_space_dual_inputs<T> const& in,
                           tensor_view<accumulator_t<T>, 4> const& carry,
                           tensor_view<T, 4> const& y, state_space_dual_saved<T> const& saved) {
  using A = accumulator_t<T>;
  auto const e = extents_of(in);
  if (e.length == 0) return;
  int const threads = worthwhile_threads(policy.threads, e);
  if (e.length < shortest_ssd_products) {
    return parallel_for(threads, e.batch * e.heads, [&](index_t begin, index_t end) {
      dispatch(
          policy.instructions, [&](auto width) __attribute__((always_inline)) {
            constexpr int lanes = decltype(width)::template lanes<A>;
            ssd_step_buffers<A, lanes> buffers(e, !has_whole_packs<lanes>(carry));
            for (index_t i = begin; i < end;) {
              index_t const b = i / e.heads, first = i % e.heads;
              index_t const count = std::min<index_t>({lanes, end - i, e.heads - first});
              fill_steps_of_heads<lanes>(in, b, first, count, buffers);
              for (index_t k = 0; k < count; ++k)
                run_steps<lanes>(in, b, first + k, k, buffers, carry, y, saved);
              i += count;
            }
          });
    });
  }
  ssd_bundles const bundles(e, carry, threads == 0 ? processors() : threads);
  index_t const chunk = ssd_chunk_length(policy.chunk, e);
  constexpr index_t cached = index_t{1} << 23;  // bytes of y that later work may find in a cache
  bool const is_large = e.batch * e.length * e.heads * e.head_dim * index_t{sizeof(T)} > cached;
  parallel_for(threads, bundles.count, [&](index_t begin, index_t end) {
    dispatch(
        policy.instructions, [&](auto width) __attribute__((always_inline)) {
          constexpr int lanes = decltype(width)::template lanes<A>;
          ssd_buffers<A, lanes> buffers(chunk, bundles);
          for (index_t i = begin; i < end; ++i) {
            ssd_bundle<lanes, T>{in, bundles, buffers, carry, y, saved, chunk, is_large, i}.run();
          }
        });
  });
}

}  // namespace ssm::detail
