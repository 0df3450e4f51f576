// SPDX-License-Identifier: Apache-2.0
// selective_scan_vjp_kernel.hpp: the gradient of Mamba's operator on packs of channels.
#pragma once

#include <algorithm>
#include <type_traits>

#include "ssm/detail/selective_scan_kernel.hpp"

namespace ssm::detail {

template <class T, int Lanes>
struct selective_scan_vjp_kernel {
  using forward = selective_scan_kernel<T, Lanes>;
  using real = typename forward::real;
  using pack_t = typename forward::pack_t;
  using rows = typename forward::rows;
  static constexpr int few = 4;
  static constexpr index_t tile = selective_scan_block;
  /// Packs whose rows of memory are one cache line.
  static constexpr index_t packs_at_once = sizeof(pack_t) < 64 ? 64 / sizeof(pack_t) : 1;
  /// Lanes in which a sum over channels is kept. With 32 registers they are folded half as far, and
  /// on when all channels are in it: shuffles share a port with multiplications. (No further at all
  /// takes a sixth longer.)
  static constexpr int kept = Lanes < few ? 1 : Lanes / (forward::registers == 32 ? few / 2 : few);

  forward const& k;
  selective_scan_vjp_workspace<real>& g;
  sequence_view<T const> y_cotangent;
  sequence_gradients<real> const& to;

  static selective_scan_vjp_workspace<real> workspace(index_t row, index_t states) {
    return {tile, packs_at_once * Lanes, row, states, few * Lanes, kept};
  }

  [[gnu::always_inline]] static void accumulate(real* sum, pack_t const& term) {
    (pack_t::load(sum) + term).store(sum);
  }

  /// The cotangents of Σ C h + D x of steps [first, last), past the gate.
  [[gnu::always_inline]] void receive(index_t first, index_t last, pack_range of) const {
    for (index_t v = of.first; v < of.last; ++v) {
      auto const y = k.rows_of(y_cotangent, first, v);
      auto const gate = k.rows_of(k.in.gate, first, v);
      index_t at = k.at(0, v);
      for (index_t t = 0; t < last - first; ++t, at += Lanes) {
        pack_t arriving = y.load(t);
        if (gate.first != nullptr) {
          pack_t const lowest(-softplus_range<real>), one(real(1));
          pack_t const z = larger(lowest, gate.load(t));  // as silu
          pack_t const s = sigmoid_given(z, exp_in_range(larger(lowest, minus_size(z))));
          (arriving * (s * multiply_add(z, one - s, real(1)))).store(g.to_gate + at);
          arriving *= z * s;
        }
        arriving.store(g.arriving + at);
        pack_t::zeros().store(g.to_step + at);
        pack_t::zeros().store(g.to_input + at);
      }
    }
  }

  /// For the loops of differentiate(): inputs of the next packs; last, what deliver() adds to. Each
  /// brings half of the rows of one array, a cache line a step: more at once would wait.
  [[gnu::always_inline]] rows_due expected(index_t number, index_t first, index_t v) const {
    constexpr index_t together = rows_due::bytes / sizeof(pack_t);
    index_t const left = k.w.states / few * 2 - number, b = k.block.b, c = k.block.first,
                  following = v - v % together + together, place = v % together;
    bool const is_next_block = following >= k.packs();
    index_t const next = is_next_block ? c : c + following * Lanes;
    if (place == 0 && left <= 6) {
      index_t const t = first + left % 2 * (tile / 2);
      if (left > 4) return {to.step_size, b, t, c + v * Lanes};
      if (left > 2) return {to.x, b, t, c + v * Lanes};
      return {to.gate, b, t, c + v * Lanes};
    }
    index_t const t = (is_next_block ? first - tile : first) + number % 2 * (tile / 2);
    if (t < 0) return {};
    if (place == 0 && number < 2) return {k.in.x, b, t, next};
    if (place != together / 2) return {};
    if (number < 2) return {k.in.step_size, b, t, next};
    if (number < 4) return {y_cotangent, b, t, next};
    if (number < 6) return {k.in.gate, b, t, next};
    return {};
  }

  /// Adds the sums over channels of a few packs, each in `kept` lanes. What is summed lies in the
  /// same 16 bytes, as lanes that cross them share a port with multiplications.
  [[gnu::always_inline]] static void add_sums(pack_t const (&terms)[few], real* to) {
    constexpr int part = std::min(Lanes, few);
    auto const low = fold_lanes<part, part>(terms[0], terms[1]),
               high = fold_lanes<part, part>(terms[2], terms[3]);
    if constexpr (kept == Lanes / few) {
      accumulate(to, fold_lanes<few, few / 2>(low, high));
    } else {
      accumulate(to, low);
      accumulate(to + Lanes, high);
    }
  }
  /// What has been added, for `few` states.
  [[gnu::always_inline]] static pack<real, few> sums_at(real const* from) {
    constexpr int count = std::max(Lanes, few);
    real folded[count];
    if constexpr (kept > Lanes / few && Lanes >= few) {
      fold_lanes<few, few / 2>(pack_t::load(from), pack_t::load(from + Lanes)).store(folded);
      from = folded;
    }
    auto sum = pack<real, few>::load(from);
    for (int i = few; i < count; i += few) sum += pack<real, few>::load(from + i);
    return sum;
  }

  /// The states of `few` states of a pack and their decays, step by step; what the gradient of a
  /// gate needs, Σ C h; and dC_t = dy_t h_t.
  template <bool InRange>
  [[gnu::always_inline]] void repeat(index_t count, index_t v, index_t n, rows const& B,
                                     rows const& C, real const* eigenvalue, rows_due next) const {
    pack_t h[few], A[few];
    unrolled<few>([&](auto i) __attribute__((always_inline)) {
      h[i] = pack_t::load(k.w.h + (v * k.w.states + n + i) * Lanes);
      A[i] = pack_t::load(eigenvalue + i * Lanes);
    });
    // After each store the pointers of a workspace would be loaded again.
    index_t const start = k.at(0, v);
    real const *const rates = k.w.rate + start, *const inputs = k.w.input + start;
    real *const sums = k.w.sum + start, *past = g.past;
    unrolled<few>([&](auto i)
                      __attribute__((always_inline)) { h[i].store(past + (few + i) * Lanes); });
    for (index_t t = 0; t < count; ++t) {
      next.fetch_line();
      pack_t const rate = pack_t::load(rates + t * Lanes), input = pack_t::load(inputs + t * Lanes);
      real const *B_row = B.first + t * B.stride + n, *C_row = C.first + t * C.stride + n;
      pack_t sum = pack_t::load(sums + t * Lanes), decay[few];
      unrolled<few>([&](auto i) __attribute__((always_inline)) { decay[i] = A[i]; });
      exp2_of_product<InRange>(
          decay, [&](auto) __attribute__((always_inline)) { return rate; });
      unrolled<few>([&](auto i) __attribute__((always_inline)) {
        decay[i].store(past + i * Lanes);
        pack_t drive = input * B_row[i];
        keep(drive);
        h[i] = multiply_add(decay[i], h[i], drive);
        if (!InRange && n + i >= k.in.eigenvalue.extent(1)) h[i] = pack_t(real(0));  // not ∞·0
        sum = multiply_add(h[i], C_row[i], sum);
        h[i].store(past + (3 * few + i) * Lanes);
      });
      sum.store(sums + t * Lanes);
      past += 2 * few * Lanes;
    }
  }

  /// The same steps backward: with g_t what arrives at h_t,
  ///   g_t = C_t dy_t + decay_{t+1} g_{t+1};   dB_t = g_t (Δ x)_t,
  ///   d(Δ x)_t = B_t g_t, dz_t = g_t decay_t h_{t-1} for z = Δ A.
  [[gnu::always_inline]] void reverse(index_t count, index_t v, index_t n, rows const& B,
                                      rows const& C, real const* eigenvalue, rows_due next) const {
    index_t const own = (v * k.w.states + n) * Lanes;
    pack_t later[few], to_A[few], A[few];
    unrolled<few>([&](auto i) __attribute__((always_inline)) {
      later[i] = pack_t::load(g.cotangent + own + i * Lanes);
      to_A[i] = pack_t::load(g.to_eigenvalue + own + i * Lanes);
      A[i] = pack_t::load(eigenvalue + i * Lanes);
    });
    index_t const start = k.at(0, v);
    real const *const rates = k.w.rate + start, *const inputs = k.w.input + start,
                      *const arrivals = g.arriving + start,
                      *past = g.past + count * 2 * few * Lanes;
    real *const to_inputs = g.to_input + start, *const to_steps = g.to_step + start,
                *to_B_row = g.to_B + (n * tile + count * few) * kept,
                *to_C_row = g.to_C + (n * tile + count * few) * kept;
    for (index_t t = count - 1; t >= 0; --t) {
      next.fetch_line();
      past -= 2 * few * Lanes, to_B_row -= few * kept, to_C_row -= few * kept;
      real const *B_row = B.first + t * B.stride + n, *C_row = C.first + t * C.stride + n;
      pack_t const dy = pack_t::load(arrivals + t * Lanes),
                   input = pack_t::load(inputs + t * Lanes), rate = pack_t::load(rates + t * Lanes);
      pack_t to_input = pack_t::load(to_inputs + t * Lanes),
             to_step = pack_t::load(to_steps + t * Lanes), to_B[few], to_C[few];
      unrolled<few>([&](auto i) __attribute__((always_inline)) {
        pack_t const arriving = multiply_add(dy, C_row[i], later[i]);
        to_B[i] = arriving * input;
        to_C[i] = dy * pack_t::load(past + (3 * few + i) * Lanes);
        to_input = multiply_add(arriving, B_row[i], to_input);
        later[i] = arriving * pack_t::load(past + i * Lanes);
        pack_t const to_z = later[i] * pack_t::load(past + (few + i) * Lanes);
        to_step = multiply_add(to_z, A[i], to_step);
        to_A[i] = multiply_add(to_z, rate, to_A[i]);
      });
      add_sums(to_B, to_B_row);
      add_sums(to_C, to_C_row);
      to_input.store(to_inputs + t * Lanes);
      to_step.store(to_steps + t * Lanes);
    }
    unrolled<few>([&](auto i) __attribute__((always_inline)) {
      later[i].store(g.cotangent + own + i * Lanes);
      to_A[i].store(g.to_eigenvalue + own + i * Lanes);
    });
  }

  /// Steps [first, first + count) of one sequence, whose states begin with those of the forward
  /// workspace.
  template <bool InRange>
  [[gnu::always_inline]] void differentiate(index_t first, index_t count, pack_range of,
                                            rows const& B, rows const& C) const {
    for (index_t v = of.first; v < of.last; ++v)
      for (index_t n = 0; n < k.w.states; n += few) {
        index_t const own = (v * k.w.states + n) * Lanes, number = n / few * 2;
        repeat<InRange>(count, v, n, B, C, k.w.eigenvalue + own, expected(number, first, v));
        reverse(count, v, n, B, C, k.w.eigenvalue + own, expected(number + 1, first, v));
      }
  }

  /// Sums over all channels of the block, a row for each step, which begin anew.
  [[gnu::always_inline]] void share(index_t count, shared_gradients<real> const& shared) const {
    auto const add_lanes = [&](real * sums, tensor_view<real, 2> const& all)
        __attribute__((always_inline)) {
      for (index_t t = 0; t < count; ++t)
        for (index_t n = 0; n < k.w.states; n += few) {
          sums_at(sums + (n * tile + t * few) * kept).store(&all(t, n));
        }
      std::fill_n(sums, tile * k.w.states * kept, real(0));
    };
    add_lanes(g.to_B, shared.B);
    add_lanes(g.to_C, shared.C);
  }

  /// From what arrived at Δ and Δ x to the inputs of steps [first, last): one gradient after
  /// another, as rows that lie pages apart displace each other in the first cache.
  [[gnu::always_inline]] void deliver(index_t first, index_t last, pack_range of) const {
    index_t const count = last - first;
    for (index_t v = of.first; v < of.last; ++v) {
      auto const x_rows = k.rows_of(k.in.x, first, v);
      auto const to_x = k.rows_of(to.x, first, v), to_step_size = k.rows_of(to.step_size, first, v),
                 to_gate = k.rows_of(to.gate, first, v);
      index_t const offset = v * Lanes, start = k.at(0, v);
      auto const kept_of = [&](real const* all, index_t t) __attribute__((always_inline)) {
        return pack_t::load(all + start + t * Lanes);
      };
      pack_t const D = pack_t::load(k.w.D + offset), factor = pack_t::load(k.w.factor + offset);
      pack_t to_bias(real(0)), to_D(real(0)), to_factor(real(0));
      for (index_t t = 0; t < count; ++t) {
        pack_t const x = x_rows.load(t),
                     to_step = multiply_add(kept_of(g.to_input, t), x, kept_of(g.to_step, t)),
                     to_biased = to_step * factor * kept_of(g.slope, t);
        to_step_size.add(t, to_biased);
        to_bias += to_biased;
        to_factor = multiply_add(to_step, kept_of(g.step, t), to_factor);
        to_D = multiply_add(kept_of(g.arriving, t), x, to_D);
      }
      for (index_t t = 0; t < count; ++t) {
        pack_t const step = kept_of(g.step, t) * factor;
        to_x.add(t, multiply_add(D, kept_of(g.arriving, t), kept_of(g.to_input, t) * step));
      }
      for (index_t t = 0; t < count; ++t) {
        to_gate.add(t, kept_of(g.to_gate, t) * kept_of(k.w.sum, t));
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
        bool const is_anew = first > block * tile;
        if (is_anew) std::fill_n(k.w.h, k.packs() * k.w.states * Lanes, real(0));
        auto const B = rows_of_group(k.in.B, k.block, first, last, k.w.states, k.w.B),
                   C = rows_of_group(k.in.C, k.block, first, last, k.w.states, k.w.C);
        for (index_t v = 0; v < k.packs(); v += packs_at_once) {
          pack_range const some{v, std::min(v + packs_at_once, k.packs())};
          if (!is_anew) load_checkpoint(checkpoints, block, some);
          receive(first, last, some);
          if (k.prepare(first, last, some)) {
            differentiate<true>(first, last - first, some, B, C);
          } else {
            differentiate<false>(first, last - first, some, B, C);
          }
          deliver(first, last, some);
        }
        share(last - first, {shared.B.slice(0, first - begin, last - first),
                             shared.C.slice(0, first - begin, last - first)});
        if (starts_sequence(sequence, k.block.b, first)) {
          std::fill_n(g.cotangent, k.packs() * k.w.states * Lanes, real(0));
        }
        last = first;
      }
    }
  }

  /// The states of some packs, while memory brings those of the next.
  [[gnu::always_inline]] void load_checkpoint(trajectory_view<real const> const& checkpoints,
                                              index_t block, pack_range of) const {
    index_t const b = k.block.b, c = k.block.first, next = of.last % k.packs(),
                  next_block = next == 0 && block > 0 ? block - 1 : block;
    for (index_t n = 0; n < k.in.eigenvalue.extent(1); ++n) {
      __builtin_prefetch(&checkpoints(b, next_block, n, c + next * Lanes));
      for (index_t v = of.first; v < of.last; ++v) {
        load_row<real, Lanes>(&checkpoints(b, block, n, c + v * Lanes), checkpoints.stride(3),
                              k.left(v))
            .store(k.w.h + (v * k.w.states + n) * Lanes);
      }
    }
  }
};

}  // namespace ssm::detail
