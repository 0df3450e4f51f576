// SPDX-License-Identifier: Apache-2.0
// selective_scan_step.hpp: a few steps of Mamba's operator on packs of states, where they lie.
#pragma once

#include <algorithm>

#include "ssm/detail/selective_scan_kernel.hpp"

namespace ssm::detail {

/// A call of fewer steps than this updates states in place: to turn whole blocks of channels around
/// would cost more than the steps themselves.
inline constexpr index_t selective_scan_short_call = 8;

/// The operator on one block of channels for a short call. What is done to each number is what
/// selective_scan_kernel does; only the order of Σ_n differs.
template <class T, int Lanes>
struct selective_scan_step {
  using kernel = selective_scan_kernel<T, Lanes>;
  using real = typename kernel::real;
  using pack_t = typename kernel::pack_t;
  /// Channels whose chains of operations go side by side.
  static constexpr int channels_at_once = has_exp2_table<real, Lanes> ? 4 : 2;

  kernel const& k;
  state_view<real> carry;  ///< its state axis has stride 1, as has that of the eigenvalues

  /// The eigenvalues of the block's first channel, and how far it is to those of the next: where
  /// they are, or scaled in the workspace.
  [[gnu::always_inline]] real const* eigenvalues() const {
    return k.in.scaling.scales_eigenvalues() ? k.w.eigenvalue : &k.in.eigenvalue(k.block.first, 0);
  }
  [[gnu::always_inline]] index_t eigenvalue_stride() const {
    return k.in.scaling.scales_eigenvalues() ? k.w.states : k.in.eigenvalue.stride(0);
  }

  void load_eigenvalues() const {
    if (!k.in.scaling.scales_eigenvalues()) return;
    for (index_t i = 0; i < k.block.count; ++i)
      for (index_t n = 0; n < k.in.eigenvalue.extent(1); ++n) {
        index_t const c = k.block.first + i;
        k.w.eigenvalue[i * k.w.states + n] = k.in.scaling.eigenvalue(c, n, k.in.eigenvalue(c, n));
      }
  }

  /// A pack of states from `from` on. Whole: states are a multiple of them.
  template <bool Whole>
  [[gnu::always_inline]] static pack_t load(real const* from, index_t left) {
    return Whole ? pack_t::load(from) : load_row<real, Lanes>(from, 1, left);
  }

  [[gnu::always_inline]] static void clear_lanes(pack_t& x, index_t from) {
    for (index_t i = from; i < Lanes; ++i) x.v[i] = real(0);
  }

  /// Whether exp2_in_range takes every exponent of one step.
  template <bool Whole>
  [[gnu::always_inline]] bool in_range() const {
    index_t const states = k.in.eigenvalue.extent(1), stride = eigenvalue_stride();
    real const* A = eigenvalues();
    largest_magnitude<real, Lanes> largest;
    for (index_t i = 0; i < k.block.count; ++i, A += stride) {
      for (index_t n = 0; n < states; n += Lanes) {
        largest.include(load<Whole>(A + n, states - n) * k.w.rate[i]);
      }
    }
    return all_at_most(largest.value(), number_format<real>::safe_exponent);
  }

  template <bool Whole, bool InRange>
  [[gnu::always_inline]] void advance(index_t v, real const* B, real const* C) const {
    index_t const states = k.in.eigenvalue.extent(1), stride = eigenvalue_stride(),
                  state_stride = carry.stride(1), count = std::min<index_t>(k.left(v), Lanes);
    real const* A = eigenvalues() + v * Lanes * stride;
    real* state = &carry(k.block.b, k.block.first + v * Lanes, 0);
    real const *rate = k.w.rate + v * Lanes, *input = k.w.input + v * Lanes;
    pack_t sums[Lanes];
    for (index_t i = count; i < Lanes; ++i) sums[i] = pack_t(real(0));
    auto const update = [&](auto channels, index_t i) __attribute__((always_inline)) {
      pack_t sum[channels];
      unrolled<channels>([&](auto j) __attribute__((always_inline)) { sum[j] = pack_t::zeros(); });
      for (index_t n = 0; n < states; n += Lanes) {
        index_t const left = states - n;
        pack_t B_n = load<Whole>(B + n, left), C_n = load<Whole>(C + n, left), decay[channels];
        keep(B_n);  // or g++ puts what is the same in all lanes into registers, at a cost
        keep(C_n);
        unrolled<channels>([&](auto j) __attribute__((always_inline)) {
          decay[j] = load<Whole>(A + (i + j) * stride + n, left);
          keep(decay[j]);
        });
        exp2_of_product<InRange && !has_exp2_table<real, Lanes>>(
            decay, [&](auto j) __attribute__((always_inline)) { return rate[i + j]; });
        unrolled<channels>([&](auto j) __attribute__((always_inline)) {
          real* const h_at = state + (i + j) * state_stride + n;
          pack_t drive = B_n * input[i + j];
          keep(drive);
          pack_t h = multiply_add(decay[j], load<Whole>(h_at, left), drive);
          if (!InRange) clear_lanes(h, left);  // ∞·0 = NaN in the padding
          store_row(h, h_at, 1, Whole ? index_t{Lanes} : left);
          sum[j] = multiply_add(h, C_n, sum[j]);
        });
      }
      unrolled<channels>([&](auto j) __attribute__((always_inline)) { sums[i + j] = sum[j]; });
    };
    index_t const together = count / channels_at_once * channels_at_once;
    for (index_t i = 0; i < together; i += channels_at_once) {
      update(std::integral_constant<int, channels_at_once>{}, i);
    }
    for (index_t i = together; i < count; ++i) update(std::integral_constant<int, 1>{}, i);
    pack_t const added = sums_of_lanes<real, Lanes>([&](auto i) __attribute__((always_inline)) {
      return sums[decltype(i)::value];
    });
    real* const to = k.w.sum + v * Lanes;
    (pack_t::load(to) + added).store(to);
  }

  template <bool Whole>
  [[gnu::always_inline]] void step(index_t t, real const* B, real const* C) const {
    if (k.prepare(t, t + 1, {0, k.packs()}) && (has_exp2_table<real, Lanes> || in_range<Whole>())) {
      for (index_t v = 0; v < k.packs(); ++v) advance<Whole, true>(v, B, C);
    } else {
      for (index_t v = 0; v < k.packs(); ++v) advance<Whole, false>(v, B, C);
    }
  }

  [[gnu::always_inline]] void run(index_t length, sequence_view<T> y) const {
    load_eigenvalues();
    for (index_t t = 0; t < length; ++t) {
      if (starts_sequence(k.in.sequence, k.block.b, t)) {
        for (index_t i = 0; i < k.block.count; ++i) {
          std::fill_n(&carry(k.block.b, k.block.first + i, 0), carry.extent(2), real(0));
        }
      }
      auto const B = rows_of_group(k.in.B, k.block, t, t + 1, k.w.states, k.w.B),
                 C = rows_of_group(k.in.C, k.block, t, t + 1, k.w.states, k.w.C);
      if (k.in.eigenvalue.extent(1) % Lanes == 0) {
        step<true>(t, B.first, C.first);
      } else {
        step<false>(t, B.first, C.first);
      }
      k.finish(t, t + 1, {0, k.packs()}, y);
    }
  }
};

}  // namespace ssm::detail
