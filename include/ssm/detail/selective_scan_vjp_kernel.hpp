// SPDX-License-Identifier: Apache-2.0
// selective_scan_vjp_kernel.hpp: the gradient of Mamba's operator on packs of channels.
#pragma once

#include <algorithm>
#include <type_traits>

#include "ssm/detail/selective_scan_kernel.hpp"

namespace ssm::detail {

/// Gradients with an element of their own for each element of their input; empty: not wanted.
template <class real>
struct sequence_gradients {
  sequence_view<real> x{}, step_size{}, gate{};
};

/// Sums over the channels of one block, (step, state) each, states padded as the workspace's.
template <class real>
struct shared_gradients {
  tensor_view<real, 2> B, C;
};

template <class T, int Lanes>
struct selective_scan_vjp_kernel {
  using forward = selective_scan_kernel<T, Lanes>;
  using real = typename forward::real;
  using pack_t = typename forward::pack_t;
  using rows = typename forward::rows;
  static constexpr int few = 4;
  static constexpr index_t tile = forward::tile;

  forward const& k;
  selective_scan_vjp_workspace<real>& g;
  sequence_view<T const> y_cotangent;
  sequence_gradients<real> const& to;

  static selective_scan_vjp_workspace<real> workspace(index_t row, index_t states) {
    return {tile, row, states, few * Lanes};
  }
  bool has_gate() const { return k.in.gate.data_handle() != nullptr; }

  template <class Storage>
  [[gnu::always_inline]] pack_t load(sequence_view<Storage> const& view, index_t t,
                                     index_t v) const {
    return load_row<real, Lanes>(&view(k.block.b, t, k.block.first + v * Lanes), view.stride(2),
                                 k.left(v));
  }
  [[gnu::always_inline]] void add(sequence_view<real> const& view, index_t t, index_t v,
                                  pack_t const& term) const {
    if (view.data_handle() == nullptr) return;
    real* const row = &view(k.block.b, t, k.block.first + v * Lanes);
    auto const sum = load_row<real, Lanes>(row, view.stride(2), k.left(v)) + term;
    store_row(sum, row, view.stride(2), k.left(v));
  }
  [[gnu::always_inline]] static void accumulate(real* sum, pack_t const& term) {
    (pack_t::load(sum) + term).store(sum);
  }

  /// The cotangents of Σ C h + D x of steps [first, last), past the gate.
  [[gnu::always_inline]] void receive(index_t first, index_t last) const {
    for (index_t v = 0; v < k.packs(); ++v)
      for (index_t t = first; t < last; ++t) {
        index_t const at = k.at(t - first, v);
        pack_t arriving = load(y_cotangent, t, v);
        if (has_gate()) {
          pack_t const z = load(k.in.gate, t, v), s = detail::sigmoid(z);
          pack_t const silu_slope = s * multiply_add(z, pack_t(real(1)) - s, real(1));
          (arriving * silu_slope).store(g.to_gate + at);
          arriving *= z * s;
        }
        arriving.store(g.arriving + at);
        pack_t(real(0)).store(g.to_step + at);
        pack_t(real(0)).store(g.to_input + at);
      }
  }

  using upcoming = typename forward::upcoming;

  /// Rows that the block before this one will need, in the order in which differentiate() gets to
  /// them: two for each few states.
  [[gnu::always_inline]] upcoming expected(index_t number, index_t first, index_t v) const {
    index_t const b = k.block.b, c = k.block.first + v * Lanes, t = first - tile;
    if (t < 0) return {};
    switch (number) {
      case 0:
        return {k.in.x, b, t, c};
      case 1:
        return {k.in.step_size, b, t, c};
      case 2:
        return {y_cotangent, b, t, c};
      case 3:
        return {k.in.gate, b, t, c};
      case 4:
        return {to.x, b, first, c};
      case 5:
        return {to.step_size, b, first, c};
      case 6:
        return {to.gate, b, first, c};
      default:
        return {};
    }
  }

  /// First: of the block's packs, whose sums over channels begin here.
  ///
  /// The states of `few` states of a pack and their decays, step by step from `h`; what the
  /// gradient of a gate needs, Σ C h; and dC_t = dy_t h_t.
  template <bool InRange, bool First>
  [[gnu::always_inline]] void repeat(index_t count, index_t v, index_t n, rows const& B,
                                     rows const& C, real const* eigenvalue, upcoming next) const {
    pack_t h[few], A[few];
    unrolled<few>([&](auto i) __attribute__((always_inline)) {
      h[i] = pack_t::load(g.h + i * Lanes);
      A[i] = pack_t::load(eigenvalue + i * Lanes);
    });
    for (index_t t = 0; t < count; ++t) {
      index_t const at = k.at(t, v);
      __builtin_prefetch(next.row);
      next.row += next.bytes;
      pack_t const rate = pack_t::load(k.w.rate + at), input = pack_t::load(k.w.input + at),
                   dy = pack_t::load(g.arriving + at);
      real const *B_row = B.first + t * B.stride + n, *C_row = C.first + t * C.stride + n;
      pack_t sum = pack_t::load(k.w.sum + at);
      unrolled<few>([&](auto i) __attribute__((always_inline)) {
        pack_t const z = rate * A[i];
        pack_t const decay = InRange ? exp2_in_range(z) : detail::exp2(z);
        pack_t drive = input * B_row[i];
        keep(drive);
        h[i] = multiply_add(decay, h[i], drive);
        if (!InRange && n + i >= k.in.eigenvalue.extent(1)) h[i] = pack_t(real(0));  // not ∞·0
        sum = multiply_add(h[i], C_row[i], sum);
        decay.store(g.decay + (t * few + i) * Lanes);
        h[i].store(g.h + ((t + 1) * few + i) * Lanes);
        real* const to_C = g.to_C + (t * few + i) * Lanes;
        (First ? dy * h[i] : multiply_add(dy, h[i], pack_t::load(to_C))).store(to_C);
      });
      sum.store(k.w.sum + at);
    }
  }

  /// The same steps backward: with g_t what arrives at h_t,
  ///   g_t = C_t dy_t + decay_{t+1} g_{t+1};   dB_t = g_t (Δ x)_t,
  ///   d(Δ x)_t = B_t g_t, dz_t = g_t decay_t h_{t-1} for z = Δ A.
  template <bool First>
  [[gnu::always_inline]] void reverse(index_t count, index_t v, index_t n, rows const& B,
                                      rows const& C, real const* eigenvalue, upcoming next) const {
    index_t const own = (v * k.w.states + n) * Lanes;
    pack_t later[few], to_A[few], A[few];
    unrolled<few>([&](auto i) __attribute__((always_inline)) {
      later[i] = pack_t::load(g.cotangent + own + i * Lanes);
      to_A[i] = pack_t::load(g.to_eigenvalue + own + i * Lanes);
      A[i] = pack_t::load(eigenvalue + i * Lanes);
    });
    for (index_t t = count - 1; t >= 0; --t) {
      index_t const at = k.at(t, v);
      __builtin_prefetch(next.row, 1);
      next.row += next.bytes;
      pack_t const dy = pack_t::load(g.arriving + at), input = pack_t::load(k.w.input + at),
                   rate = pack_t::load(k.w.rate + at);
      pack_t to_input = pack_t::load(g.to_input + at), to_step = pack_t::load(g.to_step + at);
      real const *B_row = B.first + t * B.stride + n, *C_row = C.first + t * C.stride + n;
      unrolled<few>([&](auto i) __attribute__((always_inline)) {
        index_t const here = (t * few + i) * Lanes;
        pack_t const arriving = multiply_add(dy, C_row[i], later[i]);
        real* const to_B = g.to_B + here;
        (First ? arriving * input : multiply_add(arriving, input, pack_t::load(to_B))).store(to_B);
        to_input = multiply_add(arriving, B_row[i], to_input);
        later[i] = arriving * pack_t::load(g.decay + here);
        pack_t const to_z = later[i] * pack_t::load(g.h + here);
        to_step = multiply_add(to_z, A[i], to_step);
        to_A[i] = multiply_add(to_z, rate, to_A[i]);
      });
      to_input.store(g.to_input + at);
      to_step.store(g.to_step + at);
    }
    unrolled<few>([&](auto i) __attribute__((always_inline)) {
      later[i].store(g.cotangent + own + i * Lanes);
      to_A[i].store(g.to_eigenvalue + own + i * Lanes);
    });
  }

  /// Steps [first, first + count) of one sequence, whose states begin with those of the forward
  /// workspace. `shared` has a row for each step.
  template <bool InRange>
  [[gnu::always_inline]] void differentiate(index_t first, index_t count, rows const& B,
                                            rows const& C,
                                            shared_gradients<real> const& shared) const {
    for (index_t n = 0; n < k.w.states; n += few) {
      auto const run = [&]<bool First>(std::bool_constant<First>, index_t v)
          __attribute__((always_inline)) {
        index_t const own = (v * k.w.states + n) * Lanes, number = n / few * 2;
        std::copy_n(k.w.h + own, few * Lanes, g.h);
        repeat<InRange, First>(count, v, n, B, C, k.w.eigenvalue + own, expected(number, first, v));
        reverse<First>(count, v, n, B, C, k.w.eigenvalue + own, expected(number + 1, first, v));
      };
      run(std::true_type{}, 0);
      for (index_t v = 1; v < k.packs(); ++v) run(std::false_type{}, v);
      for (index_t t = 0; t < count; ++t) {
        real *B_row = &shared.B(t, n), *C_row = &shared.C(t, n);
        unrolled<few>([&](auto i) __attribute__((always_inline)) {
          B_row[i] = sum_of_lanes(pack_t::load(g.to_B + (t * few + i) * Lanes));
          C_row[i] = sum_of_lanes(pack_t::load(g.to_C + (t * few + i) * Lanes));
        });
      }
    }
  }

  /// From what arrived at Δ and Δ x to the inputs of steps [first, last).
  [[gnu::always_inline]] void deliver(index_t first, index_t last) const {
    for (index_t v = 0; v < k.packs(); ++v) {
      index_t const offset = v * Lanes;
      pack_t const D = pack_t::load(k.w.D + offset), factor = pack_t::load(k.w.factor + offset);
      pack_t to_bias(real(0)), to_D(real(0)), to_factor(real(0));
      for (index_t t = first; t < last; ++t) {
        index_t const at = k.at(t - first, v);
        pack_t const x = load(k.in.x, t, v), step = pack_t::load(g.step + at);
        pack_t const dy = pack_t::load(g.arriving + at), to_input = pack_t::load(g.to_input + at);
        pack_t const to_step = multiply_add(to_input, x, pack_t::load(g.to_step + at));
        pack_t const to_biased = to_step * factor * pack_t::load(g.slope + at);
        add(to.x, t, v, multiply_add(D, dy, to_input * (step * factor)));
        add(to.step_size, t, v, to_biased);
        add(to.gate, t, v, pack_t::load(g.to_gate + at) * pack_t::load(k.w.sum + at));
        to_bias += to_biased;
        to_factor = multiply_add(to_step, step, to_factor);
        to_D = multiply_add(dy, x, to_D);
      }
      accumulate(g.to_bias + offset, to_bias);
      accumulate(g.to_D + offset, to_D);
      accumulate(g.to_factor + offset, to_factor);
    }
  }

  /// Steps [begin, end) backward, block by block, each from its checkpoint. Begins at a block.
  [[gnu::always_inline]] void run(index_t begin, index_t end,
                                  trajectory_view<real const> checkpoints,
                                  shared_gradients<real> const& shared) const {
    auto const sequence = k.in.sequence;
    for (index_t block = (end - 1) / tile; block * tile >= begin; --block) {
      index_t last = std::min(end, (block + 1) * tile);
      while (last > block * tile) {
        index_t first = last - 1;  // of the last sequence in what is left of the block
        while (first > block * tile && !starts_sequence(sequence, k.block.b, first)) --first;
        if (first == block * tile) {
          load_checkpoint(checkpoints, block);
        } else {
          std::fill_n(k.w.h, k.packs() * k.w.states * Lanes, real(0));
        }
        auto const B = k.shared_rows(k.in.B, first, last, k.w.B),
                   C = k.shared_rows(k.in.C, first, last, k.w.C);
        pack_range const all{0, k.packs()};
        bool const in_range = k.prepare(first, last, all);
        receive(first, last);
        shared_gradients<real> const part{shared.B.slice(0, first - begin, last - first),
                                          shared.C.slice(0, first - begin, last - first)};
        if (in_range) {
          differentiate<true>(first, last - first, B, C, part);
        } else {
          differentiate<false>(first, last - first, B, C, part);
        }
        deliver(first, last);
        if (starts_sequence(sequence, k.block.b, first)) {
          std::fill_n(g.cotangent, k.packs() * k.w.states * Lanes, real(0));
        }
        last = first;
      }
    }
  }

  [[gnu::always_inline]] void load_checkpoint(trajectory_view<real const> checkpoints,
                                              index_t block) const {
    for (index_t n = 0; n < k.in.eigenvalue.extent(1); ++n)
      for (index_t v = 0; v < k.packs(); ++v) {
        real const* const row = &checkpoints(k.block.b, block, n, k.block.first + v * Lanes);
        if (block > 0) __builtin_prefetch(row - checkpoints.stride(1));
        load_row<real, Lanes>(row, checkpoints.stride(3), k.left(v))
            .store(k.w.h + (v * k.w.states + n) * Lanes);
      }
  }
};

}  // namespace ssm::detail
