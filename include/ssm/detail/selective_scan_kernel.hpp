// SPDX-License-Identifier: Apache-2.0
// selective_scan_kernel.hpp: Mamba's operator on packs of channels, a tile of time at once.
#pragma once

#include <algorithm>
#include <type_traits>

#include "ssm/detail/selective_scan_blocks.hpp"
#include "ssm/detail/selective_scan_inputs.hpp"
#include "ssm/detail/simd.hpp"
#include "ssm/detail/simd_math.hpp"

namespace ssm::detail {

/// The operator on one block of channels with packs of `Lanes` channels.
template <class T, int Lanes>
struct selective_scan_kernel {
  using real = accumulator_t<T>;
  using pack_t = pack<real, Lanes>;
  using workspace = selective_scan_workspace<real>;
  static constexpr int registers = Lanes * sizeof(real) == 64 ? 32 : 16;
  static constexpr int states_at_once = registers == 32 ? 8 : 4;
  static constexpr index_t tile = selective_scan_block;
  static constexpr index_t packs_at_once = registers == 32 ? 1 : 4;

  selective_scan_inputs<T> const& in;
  workspace& w;
  channel_block const block;

  static index_t padded_states(index_t states) {
    return (states + states_at_once - 1) / states_at_once * states_at_once;
  }
  index_t packs() const { return (block.count + Lanes - 1) / Lanes; }
  index_t left(index_t v) const { return block.count - v * Lanes; }
  /// Where the workspace keeps step t of pack v.
  index_t at(index_t t, index_t v) const { return (v % w.packs * w.steps + t) * Lanes; }

  /// What each channel has for all of time.
  [[gnu::always_inline]] void load_channels() const {
    auto const load = [&](tensor_view<real const, 1> const& view, real missing, real* to)
        __attribute__((always_inline)) {
      index_t const stride = view.stride(0);
      real const* const from = view.data_handle() == nullptr ? nullptr : &view(block.first);
      for (index_t v = 0; v < packs(); ++v) {
        auto const row = from == nullptr
                             ? pack_t(real(0)) + missing
                             : load_row<real, Lanes>(from + v * Lanes * stride, stride, left(v));
        row.store(to + v * Lanes);
      }
    };
    load(in.step_bias, real(0), w.bias);
    load(in.D, real(0), w.D);
    load(in.scaling.step, real(1), w.factor);
    std::fill_n(w.largest_eigenvalue, w.row, real(0));
  }

  void load_eigenvalues() const {
    for (index_t k = 0; k < packs() * Lanes; ++k)
      for (index_t n = 0; n < in.eigenvalue.extent(1); ++n) {
        index_t const c = block.first + k;
        bool const exists = k < block.count;
        real const A = exists ? in.scaling.eigenvalue(c, n, in.eigenvalue(c, n)) : real(0);
        real const size = A < real(0) ? -A : A;
        w.eigenvalue[(k / Lanes * w.states + n) * Lanes + k % Lanes] = A;
        real& largest = w.largest_eigenvalue[k];
        if (largest == largest && !(size <= largest)) largest = size;  // NaN comes and stays
      }
  }

  template <class Access>
  void for_each_state(Access const& access) const {
    for (index_t k = 0; k < block.count; ++k)
      for (index_t n = 0; n < in.eigenvalue.extent(1); ++n) {
        access(block.first + k, n, w.h[(k / Lanes * w.states + n) * Lanes + k % Lanes]);
      }
  }

  /// Rows of B or C, one for each step, padded to `states_at_once`.
  struct rows {
    real const* first;
    index_t stride;
  };

  /// Those of steps [first, last) for this block's group: where they are, or copied to `to`.
  [[gnu::always_inline]] rows shared_rows(trajectory_view<T const> const& view, index_t first,
                                          index_t last, real* to) const {
    T const* from = &view(block.b, first, block.group, 0);
    index_t const states = view.extent(3), stride = view.stride(3);
    if constexpr (std::is_same_v<T, real>) {
      if (stride == 1 && states == w.states) return {from, view.stride(1)};
    }
    real* row = to;
    for (index_t t = first; t < last; ++t, from += view.stride(1), row += w.states) {
      for (index_t n = 0; n < states; ++n) row[n] = static_cast<real>(from[n * stride]);
    }
    return {to, w.states};
  }

  /// Δ before its factor; for the gradient it is kept at `place`, with its slope.
  template <bool InRange>
  [[gnu::always_inline]] pack_t step_of(pack_t const& biased, step_size_rule<real> const& rule,
                                        index_t place) const {
    pack_t step = biased;
    pack_t const e = rule.softplus ? exp_of_minus_size<InRange>(biased) : biased;
    if (rule.softplus) step = softplus_given<InRange>(biased, e);
    pack_t const unlimited = step;
    if (rule.limits) {
      step = larger(pack_t(rule.limits->smallest), smaller(pack_t(rule.limits->largest), step));
    }
    if (w.slope != nullptr) {
      pack_t const one(real(1)), zero(real(0));
      pack_t slope = rule.softplus ? sigmoid_given(biased, e) : one;
      if (rule.limits) {
        slope = where_greater(step, unlimited, zero, where_greater(unlimited, step, zero, slope));
      }
      slope.store(w.slope + place);
      step.store(w.step + place);
    }
    return step;
  }

  /// Steps [first, last) of pack v: Δ log2 e, Δ x and D x. InRange: as if softplus_in_range and
  /// exp2_in_range would do for all of them, and Δ x were far from infinite; says whether that is
  /// so.
  template <bool InRange>
  [[gnu::always_inline]] bool prepare(index_t first, index_t last, index_t v) const {
    // Whatever is read again after a store is read from memory again.
    auto const rule = in.step_rule;
    auto const x = in.x, step_size = in.step_size;
    index_t const b = block.b, offset = v * Lanes, c = block.first + offset, count = left(v);
    bool const has_D = in.D.data_handle() != nullptr;
    pack_t const bias = pack_t::load(w.bias + offset), D = pack_t::load(w.D + offset),
                 factor = pack_t::load(w.factor + offset);
    largest_magnitude<real, Lanes> largest_biased, largest_rate, largest_input;
    T const *x_row = &x(b, first, c), *step_row = &step_size(b, first, c);
    real *const rate_to = w.rate + at(0, v), *const input_to = w.input + at(0, v),
                *const sum_to = w.sum + at(0, v);
    for (index_t t = 0; t < last - first; ++t) {
      pack_t const x_t = load_row<real, Lanes>(x_row, x.stride(2), count);
      pack_t const biased = load_row<real, Lanes>(step_row, step_size.stride(2), count) + bias;
      if (InRange && rule.softplus) largest_biased.include(biased);
      pack_t const step = step_of<InRange>(biased, rule, at(t, v)) * factor;
      pack_t const rate = step * number_format<real>::log2_e;
      pack_t const input = step * x_t;
      if (InRange) largest_rate.include(rate), largest_input.include(input);
      rate.store(rate_to + t * Lanes);
      input.store(input_to + t * Lanes);
      (has_D ? D * x_t : pack_t(real(0))).store(sum_to + t * Lanes);
      x_row += x.stride(1), step_row += step_size.stride(1);
    }
    if (!InRange) return false;
    largest_magnitude<real, Lanes> relative;  // to what is allowed: 2^100 of Δ x
    relative.include(largest_biased.value() * (1 / softplus_range<real>));
    relative.include(largest_input.value() * real(0x1p-100));
    relative.include(largest_rate.value() * pack_t::load(w.largest_eigenvalue + offset) *
                     (1 / number_format<real>::safe_exponent));
    return all_at_most(relative.value(), real(1));
  }

  /// The same of several packs, of which all or none are in range.
  [[gnu::always_inline]] bool prepare(index_t first, index_t last, pack_range of) const {
    bool in_range = true;
    for (index_t v = of.first; v < of.last; ++v) in_range &= prepare<true>(first, last, v);
    for (index_t v = of.first; v < of.last && !in_range; ++v) prepare<false>(first, last, v);
    return in_range;
  }

  /// Rows to bring into the cache, a step each; none where the view has no such step.
  struct upcoming {
    char const* row = nullptr;
    index_t bytes = 0;

    upcoming() = default;
    template <class Storage>
    upcoming(sequence_view<Storage> const& view, index_t b, index_t t, index_t c) {
      if (view.data_handle() == nullptr || t >= view.extent(1)) return;
      row = reinterpret_cast<char const*>(&view(b, t, c));
      bytes = view.stride(1) * static_cast<index_t>(sizeof(Storage));
    }
  };

  /// h ← 2^(rate A) h + input B and sum ← sum + C h for steps [first, last), a few states at a
  /// time so that they stay in registers.
  template <bool InRange>
  [[gnu::always_inline]] void advance(index_t first, index_t last, pack_range of, rows const& of_B,
                                      rows const& of_C, sequence_view<T> y) const {
    for (index_t v = of.first; v < of.last; ++v)
      for (index_t n = 0; n < w.states; n += states_at_once) {
        // While this computes, memory brings what comes after these packs, and where its y goes.
        bool const is_next_tile = v + packs_at_once >= packs();
        index_t const next = is_next_tile ? last : first;
        index_t const c = block.first + (v + packs_at_once - (is_next_tile ? packs() : 0)) * Lanes;
        upcoming one =
            n == 0 ? upcoming(in.x, block.b, next, c) : upcoming(in.gate, block.b, next, c);
        upcoming two =
            n == 0 ? upcoming(in.step_size, block.b, next, c) : upcoming(y, block.b, next, c);
        real* const state = w.h + (v * w.states + n) * Lanes;
        real const* const eigenvalue = w.eigenvalue + (v * w.states + n) * Lanes;
        pack_t h[states_at_once], A[states_at_once];
        unrolled<states_at_once>([&](auto i) __attribute__((always_inline)) {
          h[i] = pack_t::load(state + i * Lanes);
          A[i] = pack_t::load(eigenvalue + i * Lanes);
        });
        real const *rate = w.rate + at(0, v), *input = w.input + at(0, v);
        real const *B = of_B.first + n, *C = of_C.first + n;
        real* sum = w.sum + at(0, v);
        for (index_t t = first; t < last; ++t) {
          __builtin_prefetch(one.row);
          __builtin_prefetch(two.row);
          one.row += one.bytes, two.row += two.bytes;
          pack_t const r = pack_t::load(rate), u = pack_t::load(input);
          pack_t y_t = pack_t::load(sum);
          unrolled<states_at_once>([&](auto i) __attribute__((always_inline)) {
            pack_t const z = r * A[i];
            pack_t const decay = InRange ? exp2_in_range(z) : detail::exp2(z);
            // ∞·0 = NaN in the padding would reach y; finite inputs leave zeros there.
            if (!InRange && n + i >= in.eigenvalue.extent(1)) return;
            pack_t drive = u * B[i];
            keep(drive);  // or g++ rounds decay·h, which comes last, and waits for it
            h[i] = multiply_add(decay, h[i], drive);
            y_t = multiply_add(h[i], C[i], y_t);
          });
          y_t.store(sum);
          rate += Lanes, input += Lanes, sum += Lanes, B += of_B.stride, C += of_C.stride;
        }
        unrolled<states_at_once>([&](auto i) __attribute__((always_inline)) {
          h[i].store(state + i * Lanes);
        });
      }
  }

  /// y = sum, gated where there is a gate.
  [[gnu::always_inline]] void finish(index_t first, index_t last, pack_range of,
                                     sequence_view<T> y) const {
    index_t const b = block.b, c = block.first;
    bool const has_gate = in.gate.data_handle() != nullptr;
    for (index_t v = of.first; v < of.last; ++v) {
      index_t const offset = v * Lanes;
      T const* gate_row = has_gate ? &in.gate(b, first, c + offset) : nullptr;
      T* y_row = &y(b, first, c + offset);
      real const* sum_row = w.sum + at(0, v);
      for (index_t t = first; t < last; ++t) {
        pack_t result = pack_t::load(sum_row);
        if (has_gate) {
          result *= detail::silu(load_row<real, Lanes>(gate_row, in.gate.stride(2), left(v)));
          gate_row += in.gate.stride(1);
        }
        store_row(result, y_row, y.stride(2), left(v));
        y_row += y.stride(1), sum_row += Lanes;
      }
    }
  }

  [[gnu::always_inline]] void leave_checkpoint(trajectory_view<real> const& checkpoints,
                                               index_t number) const {
    for (index_t n = 0; n < in.eigenvalue.extent(1); ++n)
      for (index_t v = 0; v < packs(); ++v) {
        real* const row = &checkpoints(block.b, number, n, block.first + v * Lanes);
        if (number + 1 < checkpoints.extent(1)) {
          __builtin_prefetch(row + checkpoints.stride(1), 1);
        }
        store_row(pack_t::load(w.h + (v * w.states + n) * Lanes), row, checkpoints.stride(3),
                  left(v));
      }
  }

  /// Steps [begin, end) from the states in the workspace, which end as the last ones. An empty y is
  /// not wanted.
  [[gnu::always_inline]] void run(index_t begin, index_t end, sequence_view<T> y,
                                  trajectory_view<real> checkpoints) const {
    for (index_t t = begin; t < end;) {
      if (starts_sequence(in.sequence, block.b, t)) {
        std::fill_n(w.h, packs() * w.states * Lanes, real(0));
      }
      if (checkpoints.data_handle() != nullptr && t % selective_scan_block == 0) {
        leave_checkpoint(checkpoints, t / selective_scan_block);
      }
      index_t const limit = std::min(end, (t / tile + 1) * tile);
      index_t const last = end_of_sequence(in.sequence, block.b, t, limit);
      rows const B = shared_rows(in.B, t, last, w.B), C = shared_rows(in.C, t, last, w.C);
      for (index_t v = 0; v < packs(); v += packs_at_once) {
        bool const is_one = packs_at_once == 1;  // then the loops below vanish
        pack_range const some{v, is_one ? v + 1 : std::min(v + packs_at_once, packs())};
        if (prepare(t, last, some)) {
          advance<true>(t, last, some, B, C, y);
        } else {
          advance<false>(t, last, some, B, C, y);
        }
        if (y.data_handle() != nullptr) finish(t, last, some, y);
      }
      t = last;
    }
  }
};

}  // namespace ssm::detail
