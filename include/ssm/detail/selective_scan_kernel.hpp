// SPDX-License-Identifier: Apache-2.0
// selective_scan_kernel.hpp: Mamba's operator on packs of channels, a tile of time at once.
#pragma once

#include <algorithm>
#include <type_traits>

#include "ssm/detail/selective_scan_blocks.hpp"
#include "ssm/detail/selective_scan_inputs.hpp"
#include "ssm/detail/simd.hpp"
#include "ssm/detail/simd_exp2_of_product.hpp"
#include "ssm/detail/simd_math.hpp"

namespace ssm::detail {

/// The operator on one block of channels with packs of `Lanes` channels.
template <class T, int Lanes>
struct selective_scan_kernel {
  using real = accumulator_t<T>;
  using pack_t = pack<real, Lanes>;
  using workspace = selective_scan_workspace<real>;
  using rows = shared_rows<real>;  ///< padded to `states_at_once`
  using magnitude = largest_magnitude<real, Lanes>;
  static constexpr int registers = Lanes * sizeof(real) == 64 ? 32 : 16;
  static constexpr int states_at_once = registers == 32 ? 8 : 4;
  /// Steps of all packs before the next ones: few where packs are wide, as each row of memory
  /// begins a page of its own, and a processor that guesses what comes next follows some 32.
  static constexpr index_t tile = registers == 32 ? 8 : selective_scan_block;
  static constexpr index_t packs_at_once = registers == 32 ? 1 : 4;
  static constexpr int powers_at_once = 2;

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

  template <class Storage>
  [[gnu::always_inline]] channel_rows<real, Lanes, Storage> rows_of(
      sequence_view<Storage> const& view, index_t t, index_t v) const {
    return {view, block, t, v * Lanes};
  }

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

  /// Δ before its factor, e is e^-|biased|; for the gradient it is kept at `place`, with its slope.
  template <bool InRange>
  [[gnu::always_inline]] pack_t step_of(pack_t const& biased, pack_t const& e,
                                        step_size_rule<real> const& rule, index_t place) const {
    pack_t step = biased;
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

  /// What the rule is given at steps [first, last) of pack v, and e^-|it|. InRange: as if it were
  /// in softplus_range; `relative` includes its part of that.
  template <bool InRange>
  [[gnu::always_inline]] void begin_steps(index_t first, index_t last, index_t v,
                                          magnitude& relative) const {
    auto const step_size = rows_of(in.step_size, first, v);
    pack_t const bias = pack_t::load(w.bias + v * Lanes);
    real *const e_to = w.rate + at(0, v), *const biased_to = w.input + at(0, v);
    magnitude largest;
    for (index_t t = 0; t < last - first; ++t) {
      pack_t const biased = step_size.load(t) + bias;
      biased.store(biased_to + t * Lanes);
      if (!in.step_rule.softplus) continue;
      if (InRange) largest.include(biased);
      exp_of_minus_size<InRange>(biased).store(e_to + t * Lanes);
    }
    relative.include(largest.value() * (1 / softplus_range<real>));
  }

  /// Then Δ log2 e, Δ x and D x. InRange: as if softplus_in_range and exp2_in_range would do for
  /// all of them, and Δ x were far from infinite, 2^100.
  template <bool InRange>
  [[gnu::always_inline]] void end_steps(index_t first, index_t last, index_t v,
                                        magnitude& relative) const {
    // Whatever is read again after a store is read from memory again.
    auto const rule = in.step_rule;
    auto const x = rows_of(in.x, first, v);
    index_t const offset = v * Lanes, start = at(0, v);
    bool const has_D = in.D.data_handle() != nullptr;
    pack_t const D = pack_t::load(w.D + offset), factor = pack_t::load(w.factor + offset);
    magnitude largest_rate, largest_input;
    real *const rate_to = w.rate + start, *const input_to = w.input + start,
                *const sum_to = w.sum + start;
    for (index_t t = 0; t < last - first; ++t) {
      pack_t const x_t = x.load(t);
      pack_t const biased = pack_t::load(input_to + t * Lanes),
                   e = pack_t::load(rate_to + t * Lanes);
      pack_t const step = step_of<InRange>(biased, e, rule, start + t * Lanes) * factor;
      pack_t const rate = step * number_format<real>::log2_e, input = step * x_t;
      if (InRange) largest_rate.include(rate), largest_input.include(input);
      rate.store(rate_to + t * Lanes);
      input.store(input_to + t * Lanes);
      (has_D ? D * x_t : pack_t(real(0))).store(sum_to + t * Lanes);
    }
    relative.include(largest_input.value() * real(0x1p-100));
    relative.include(largest_rate.value() * pack_t::load(w.largest_eigenvalue + offset) *
                     (1 / number_format<real>::safe_exponent));
  }

  /// Both, for several packs. (In one loop so many instructions would wait for one long chain that
  /// few steps overlap.) Returns whether all is in range; if not, it is done as if not.
  [[gnu::always_inline]] bool prepare(index_t first, index_t last, pack_range of) const {
    auto const run = [&](auto in_range) __attribute__((always_inline)) {
      magnitude relative;
      for (index_t v = of.first; v < of.last; ++v) begin_steps<in_range>(first, last, v, relative);
      for (index_t v = of.first; v < of.last; ++v) end_steps<in_range>(first, last, v, relative);
      return in_range && all_at_most(relative.value(), real(1));
    };
    return run(std::true_type{}) || run(std::false_type{});
  }

  /// For the loops of advance(): what comes after these packs, and where its y goes.
  [[gnu::always_inline]] rows_due expected(index_t first, index_t last, index_t v, index_t n,
                                           sequence_view<T> y) const {
    constexpr index_t together = rows_due::bytes / sizeof(pack_t);
    index_t const loops = w.states / states_at_once,
                  quarter = 4 * (v % together * loops + n / states_at_once);
    index_t const following = v - v % together + together;
    bool const is_next_tile = following >= packs();
    index_t const t = is_next_tile ? last : first,
                  c = block.first + (is_next_tile ? 0 : following * Lanes);
    if (quarter == 0) return {in.x, block.b, t, c};
    if (quarter == together * loops) return {in.step_size, block.b, t, c};
    if (quarter == 2 * together * loops) return {in.gate, block.b, t, c};
    if (quarter == 3 * together * loops) return {y, block.b, t, c};
    return {};
  }

  /// h ← 2^(rate A) h + input B and sum ← sum + C h for steps [first, last), a few states at a
  /// time so that they stay in registers.
  template <bool InRange>
  [[gnu::always_inline]] void advance(index_t first, index_t last, pack_range of, rows const& of_B,
                                      rows const& of_C, sequence_view<T> y) const {
    for (index_t v = of.first; v < of.last; ++v)
      for (index_t n = 0; n < w.states; n += states_at_once) {
        rows_due next = expected(first, last, v, n, y);
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
          next.fetch_row();
          pack_t const r = pack_t::load(rate), u = pack_t::load(input);
          pack_t y_t = pack_t::load(sum);
          unrolled<states_at_once / powers_at_once>([&](auto k) __attribute__((always_inline)) {
            constexpr int first_state = decltype(k)::value * powers_at_once;
            pack_t decay[powers_at_once];
            unrolled<powers_at_once>([&](auto i) __attribute__((always_inline)) {
              decay[i] = A[first_state + i];
            });
            exp2_of_product<InRange>(
                decay, [&](auto) __attribute__((always_inline)) { return r; });
            unrolled<powers_at_once>([&](auto j) __attribute__((always_inline)) {
              constexpr int i = first_state + decltype(j)::value;
              // ∞·0 = NaN in the padding would reach y; finite inputs leave zeros there.
              if (!InRange && n + i >= in.eigenvalue.extent(1)) return;
              pack_t drive = u * B[i];
              keep(drive);  // or g++ rounds decay·h, which comes last, and waits for it
              h[i] = multiply_add(decay[j], h[i], drive);
              y_t = multiply_add(h[i], C[i], y_t);
            });
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
    for (index_t v = of.first; v < of.last; ++v) {
      auto const gate = rows_of(in.gate, first, v);
      auto const to = rows_of(y, first, v);
      real const* const sum = w.sum + at(0, v);
      for (index_t t = 0; t < last - first; ++t) {
        pack_t result = pack_t::load(sum + t * Lanes);
        if (gate.first != nullptr) result *= detail::silu(gate.load(t));
        to.store(t, result);
      }
    }
  }

  /// The states of some packs, while memory makes room for those of the next.
  [[gnu::always_inline]] void leave_checkpoint(trajectory_view<real> const& checkpoints,
                                               index_t number, pack_range of) const {
    index_t const next = of.last % packs(),
                  next_number = std::min(number + (next == 0), checkpoints.extent(1) - 1);
    for (index_t n = 0; n < in.eigenvalue.extent(1); ++n) {
      __builtin_prefetch(&checkpoints(block.b, next_number, n, block.first + next * Lanes), 1);
      for (index_t v = of.first; v < of.last; ++v) {
        store_row(pack_t::load(w.h + (v * w.states + n) * Lanes),
                  &checkpoints(block.b, number, n, block.first + v * Lanes), checkpoints.stride(3),
                  left(v));
      }
    }
  }

  /// Steps [begin, end) from the states in the workspace, which end as the last; y may be empty.
  [[gnu::always_inline]] void run(index_t begin, index_t end, sequence_view<T> y,
                                  trajectory_view<real> checkpoints) const {
    for (index_t t = begin; t < end;) {
      if (starts_sequence(in.sequence, block.b, t)) {
        std::fill_n(w.h, packs() * w.states * Lanes, real(0));
      }
      bool const leaves = checkpoints.data_handle() != nullptr && t % selective_scan_block == 0;
      index_t const limit = std::min(end, (t / tile + 1) * tile);
      index_t const last = end_of_sequence(in.sequence, block.b, t, limit);
      auto const B = rows_of_group(in.B, block, t, last, w.states, w.B),
                 C = rows_of_group(in.C, block, t, last, w.states, w.C);
      for (index_t v = 0; v < packs(); v += packs_at_once) {
        bool const is_one = packs_at_once == 1;  // then the loops below vanish
        pack_range const some{v, is_one ? v + 1 : std::min(v + packs_at_once, packs())};
        if (leaves) leave_checkpoint(checkpoints, t / selective_scan_block, some);
        prepare(t, last, some) ? advance<true>(t, last, some, B, C, y)
                               : advance<false>(t, last, some, B, C, y);
        if (y.data_handle() != nullptr) finish(t, last, some, y);
      }
      t = last;
    }
  }
};

}  // namespace ssm::detail
