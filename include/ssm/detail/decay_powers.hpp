// SPDX-License-Identifier: Apache-2.0
// decay_powers.hpp: decay^l of every state of a channel with all digits, and sums over l and n.
#pragma once

#include <algorithm>
#include <complex>
#include <type_traits>
#include <vector>

#include "ssm/detail/double_word.hpp"
#include "ssm/discretize.hpp"
#include "ssm/numerics.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm::detail {

/// Rules with decay(z) = e^z, whose powers are e^(lz). A rule that is not listed here must be made
/// of + - * / to have its powers taken.
template <class Rule>
inline constexpr bool has_exponential_decay =
    std::is_same_v<Rule, zero_order_hold> || std::is_same_v<Rule, mamba_hold>;

/// decay(Δλ_n)^l for 0 <= l <= length, as fine(l mod S)·coarse(l div S) with a block S near the
/// square root of the length: each factor is rounded from twice the digits, so no error grows with
/// l before twice the digits are used up.
/// Accuracy  relative to |decay^l|, in eps, complex (real in brackets), while l·|z| < 1/eps and
///           l < 1/(70 eps): 14 (6). Derivation: a factor e^w, w = l·z as hi + lo, is
///           e^hi·e^lo, 2.5 + 2.5 + 1.12 (1 + 1 + 0.5) and what w has lost, 2.5·|w|·eps < 0.4;
///           a rational factor is off by 0.5 + 17.5·l·eps < 0.8; two factors and their product.
///           Where |decay^l| < min/eps, with min the smallest normal number, the error is below
///           min instead.
/// Special   a decay larger than 1 may overflow to NaN where it would to infinity.
template <class Rule, scalar T>
class decay_powers {
 public:
  using real = real_t<T>;

  decay_powers(Rule const& rule, real const& step_size, tensor_view<T const, 1> eigenvalue,
               index_t length)
      : states_{eigenvalue.extent(0)}, block_{block_of(length)}, blocks_{length / block_ + 1} {
    fine_.resize(static_cast<std::size_t>(states_ * parts * block_));
    coarse_.resize(static_cast<std::size_t>(states_ * blocks_));
    for (index_t n = 0; n < states_; ++n) {
      wide_real const step(step_size);
      wide z;
      if constexpr (complex_scalar<T>) {
        z = wide(step * wide_real(eigenvalue(n).real()), step * wide_real(eigenvalue(n).imag()));
      } else {
        z = step * wide_real(eigenvalue(n));
      }
      if constexpr (has_exponential_decay<Rule>) {
        for (index_t j = 0; j < block_; ++j) set_fine(n, j, exp_of_multiple(j, z));
        for (index_t k = 0; k < blocks_; ++k) coarse(n, k) = exp_of_multiple(k * block_, z);
      } else {
        wide const decay = rule.decay(z);
        wide power(1), power_of_block(1);
        for (index_t j = 0; j < block_; ++j, power = power * decay) set_fine(n, j, rounded(power));
        for (index_t k = 0; k < blocks_; ++k, power_of_block = power_of_block * power)
          coarse(n, k) = rounded(power_of_block);
      }
    }
  }

  /// decay_n^l.
  T operator()(index_t n, index_t l) const {
    real const* const row = fine(n) + l % block_;
    return coarse(n, l / block_) * make(row[0], row[(parts - 1) * block_]);
  }

  /// out_l += Re Σ_n weight_n decay_n^l for l < count: a sum of exponentials.
  /// Accuracy  (17 + states)·eps·Σ_n|terms|.
  void add_sums(std::vector<T> const& weight, index_t count, real* out) const {
    for (index_t k = 0; k * block_ < count; ++k) {
      index_t const width = std::min(block_, count - k * block_);
      real* const to = out + k * block_;
      for (index_t n = 0; n < states_; ++n) {
        T const w = weight[static_cast<std::size_t>(n)] * coarse(n, k);
        if (w == T(0)) continue;  // long gone
        real const* const row = fine(n);
        if constexpr (complex_scalar<T>) {
          real const* const imaginary = row + block_;
          real const x = w.real(), y = w.imag();
          for (index_t j = 0; j < width; ++j) to[j] += x * row[j] - y * imaginary[j];
        } else {
          for (index_t j = 0; j < width; ++j) to[j] += w * row[j];
        }
      }
    }
  }

  /// out_n = Σ_l g_l decay_n^l over l < count, the transpose of add_sums.
  /// Accuracy  (20 + S/16 + count/S)·eps·Σ_l|terms| with the block S.
  void moments(real const* g, index_t count, std::vector<T>& out) const {
    out.assign(static_cast<std::size_t>(states_), T(0));
    for (index_t k = 0; k * block_ < count; ++k) {
      index_t const width = std::min(block_, count - k * block_);
      real const* const from = g + k * block_;
      for (index_t n = 0; n < states_; ++n) {
        real const re = dot(from, fine(n), width);
        real const im = complex_scalar<T> ? dot(from, fine(n) + (parts - 1) * block_, width) : re;
        out[static_cast<std::size_t>(n)] += coarse(n, k) * make(re, im);
      }
    }
  }

  /// S for powers up to `length`: the power of two at its square root or above, in [16, 256].
  static index_t block_of(index_t length) {
    index_t block = 16;
    while (block < 256 && block * block < length) block *= 2;
    return block;
  }

 private:
  using wide_real = typename twice_of<real>::type;
  using wide = std::conditional_t<complex_scalar<T>, std::complex<wide_real>, wide_real>;
  static constexpr index_t parts = complex_scalar<T> ? 2 : 1;

  static T make(real const& re, [[maybe_unused]] real const& im) {
    if constexpr (complex_scalar<T>) {
      return T(re, im);
    } else {
      return re;
    }
  }
  static T rounded(wide const& w) {
    if constexpr (complex_scalar<T>) {
      return T(twice_of<real>::rounded(w.real()), twice_of<real>::rounded(w.imag()));
    } else {
      return twice_of<real>::rounded(w);
    }
  }
  static T rest(wide const& w) {
    if constexpr (complex_scalar<T>) {
      return T(twice_of<real>::rest(w.real()), twice_of<real>::rest(w.imag()));
    } else {
      return twice_of<real>::rest(w);
    }
  }
  /// e^(lz), z having twice the digits: what is left of lz when it is rounded would be lost.
  static T exp_of_multiple(index_t l, wide const& z) {
    wide const w = z * twice_of<real>::from(l);
    return ssm::exp(rounded(w)) * ssm::exp(rest(w));
  }

  /// Eight sums side by side, which a compiler may hold in one register.
  static real dot(real const* a, real const* b, index_t count) {
    constexpr index_t lanes = 8;
    real sum[lanes] = {};
    index_t i = 0;
    for (; i + lanes <= count; i += lanes)
      for (index_t lane = 0; lane < lanes; ++lane) sum[lane] += a[i + lane] * b[i + lane];
    for (index_t lane = 0; i < count; ++i, ++lane) sum[lane] += a[i] * b[i];
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
  }

  real const* fine(index_t n) const { return fine_.data() + n * parts * block_; }
  T const& coarse(index_t n, index_t k) const {
    return coarse_[static_cast<std::size_t>(k * states_ + n)];
  }
  T& coarse(index_t n, index_t k) { return coarse_[static_cast<std::size_t>(k * states_ + n)]; }
  void set_fine(index_t n, index_t j, T const& power) {
    real* const row = fine_.data() + n * parts * block_ + j;
    row[0] = real_part(power);
    if constexpr (complex_scalar<T>) row[block_] = power.imag();
  }

  index_t states_, block_, blocks_;
  std::vector<real> fine_;  // (state, part, j): real parts of a block, then imaginary ones
  std::vector<T> coarse_;   // (k, state)
};

}  // namespace ssm::detail
