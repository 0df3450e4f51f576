// SPDX-License-Identifier: Apache-2.0
// state_space_dual_step.hpp: Mamba-2's operator for a few steps, the states where they lie.
#pragma once

#include <algorithm>
#include <thread>

#include "ssm/detail/instruction_set.hpp"
#include "ssm/detail/parallel_for.hpp"
#include "ssm/detail/state_space_dual_kernel.hpp"

namespace ssm::detail {

/// Calls shorter than this go step by step: to bring the states into the layout that products need
/// and back would take longer.
inline constexpr index_t shortest_ssd_products = 8;

/// h ← decay h + (Δ x_p) B and y_p = C·h for `Rows` channels, the states of each in a row.
template <int Rows, int Lanes, class A>
[[gnu::always_inline]] inline void step_rows(A decay, A const* input, A const* B, A const* C,
                                             index_t states, A* h, index_t row_step, A* y) {
  pack<A, Lanes> sum[Rows];
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
  unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
    y[decltype(r)::value] = sum_of_lanes(sum[decltype(r)::value]);
  });
}

/// What a thread needs to go step by step.
template <class A, int Lanes>
struct ssd_step_buffers {
  index_t states, channels;  // padded
  aligned_buffer<A> B, C, step, decay, input, y, row, state;

  explicit ssd_step_buffers(ssd_extents const& e, bool copies)
      : states{round_up(e.states, Lanes)},
        channels{round_up(e.head_dim, std::max(Lanes, product_rows))},
        B{states},
        C{states},
        step{round_up(shortest_ssd_products, Lanes)},
        decay{round_up(shortest_ssd_products, Lanes)},
        input{channels},
        y{channels},
        row{channels},
        state{copies ? e.head_dim * states : 0} {}
};

/// Whether the states of a carry can be worked on where they lie.
template <int Lanes, class A>
bool has_whole_packs(tensor_view<A, 4> const& carry) {
  return carry.stride(3) == 1 && carry.extent(3) % Lanes == 0;
}

/// All of time for one head.
template <int Lanes, class T>
[[gnu::always_inline]] inline void run_steps(state_space_dual_inputs<T> const& in, index_t b,
                                             index_t head,
                                             ssd_step_buffers<accumulator_t<T>, Lanes>& w,
                                             tensor_view<accumulator_t<T>, 4> const& carry,
                                             tensor_view<T, 4> const& y,
                                             state_space_dual_saved<T> const& saved) {
  using A = accumulator_t<T>;
  auto const e = extents_of(in);
  ssd_rows<T> const rows(in, ssd_tile{b, head, 0, e.head_dim}, y, saved);
  index_t const padded = round_up(e.length, Lanes);
  A const rate = scaled_eigenvalue(in, head) * number_format<A>::log2_e;
  bool const in_place = has_whole_packs<Lanes>(carry);
  A* const state = in_place ? &carry(b, head, 0, 0) : +w.state;
  index_t const row_step = in_place ? carry.stride(2) : w.states;
  if (!in_place) {
    for (index_t p = 0; p < e.head_dim; ++p)
      gather<Lanes>(&carry(b, head, p, 0), carry.stride(3), e.states, w.states,
                    state + p * row_step);
  }
  fill_steps<Lanes>(in, b, head, 0, e.length, padded, rate, +w.step, +w.decay);
  for (index_t i = 0; i < padded; i += Lanes)
    exp2(pack<A, Lanes>::load(w.decay + i)).store(w.decay + i);

  for (index_t t = 0; t < e.length; ++t) {
    if (starts_sequence(in.sequence, b, t)) {
      for (index_t p = 0; p < e.head_dim; ++p) std::fill_n(state + p * row_step, w.states, A(0));
    }
    if (t == 0 && saved.states.data_handle() != nullptr) {
      for (index_t p = 0; p < e.head_dim; ++p)
        for (index_t n = 0; n < e.states; ++n)
          saved.states(b, 0, head, p, n) = state[p * row_step + n];
    }
    gather<Lanes>(rows.B.at(t), rows.B.step, e.states, w.states, +w.B);
    gather<Lanes>(rows.C.at(t), rows.C.step, e.states, w.states, +w.C);
    gather<Lanes>(rows.x.at(t), rows.x.step, e.head_dim, w.channels, +w.row);
    A const step = w.step[t];
    for (index_t p = 0; p < w.channels; p += Lanes)
      pack<A, Lanes>(pack<A, Lanes>::load(w.row + p) * step).store(w.input + p);
    index_t p = 0;
    for (; p + product_rows <= e.head_dim; p += product_rows) {
      step_rows<product_rows, Lanes, A>(w.decay[t], w.input + p, w.B, w.C, w.states,
                                        state + p * row_step, row_step, w.y + p);
    }
    for (; p < e.head_dim; ++p) {
      step_rows<1, Lanes, A>(w.decay[t], w.input + p, w.B, w.C, w.states, state + p * row_step,
                             row_step, w.y + p);
    }
    if (in.D.data_handle() != nullptr) {
      A const* const D = &in.D(head, 0);
      for (index_t i = 0; i < e.head_dim; ++i) w.y[i] += D[i * in.D.stride(1)] * w.row[i];
    }
    rows.template write<Lanes>(t, w.channels, w.y, w.row);
  }
  if (in_place) return;
  for (index_t p = 0; p < e.head_dim; ++p)
    for (index_t n = 0; n < e.states; ++n) carry(b, head, p, n) = state[p * row_step + n];
}

/// Below this many products a call is not worth a second thread.
inline constexpr index_t least_threaded_work = index_t{1} << 20;

inline int worthwhile_threads(int wanted, ssd_extents const& e) {
  return e.work() < least_threaded_work ? 1 : wanted;
}

inline index_t ssd_chunk_length(index_t wanted, ssd_extents const& e) {
  index_t const chunk = wanted == 0 ? default_ssd_chunk : std::min(wanted, longest_ssd_chunk);
  return std::min(chunk, std::max<index_t>(1, e.length));
}

/// As parallel_for has it.
inline int threads_of(int wanted) {
  return wanted > 0 ? wanted : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
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
            for (index_t i = begin; i < end; ++i) {
              run_steps<lanes>(in, i / e.heads, i % e.heads, buffers, carry, y, saved);
            }
          });
    });
  }
  ssd_bundles const bundles(ssd_partition(e, sizeof(A)), carry, threads_of(threads));
  index_t const chunk = ssd_chunk_length(policy.chunk, e);
  parallel_for(threads, bundles.count, [&](index_t begin, index_t end) {
    dispatch(
        policy.instructions, [&](auto width) __attribute__((always_inline)) {
          constexpr int lanes = decltype(width)::template lanes<A>;
          ssd_buffers<A, lanes> buffers(chunk, e, bundles.tiles.tile);
          for (index_t i = begin; i < end; ++i) {
            ssd_bundle<lanes, T>{in, bundles, buffers, carry, y, saved, chunk, i}.run();
          }
        });
  });
}

}  // namespace ssm::detail
