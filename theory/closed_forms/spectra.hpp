// SPDX-License-Identifier: Apache-2.0
// spectra.hpp: laws of decays that models start from.
#pragma once

#include <limits>

#include "closed_forms/law.hpp"

namespace ssm::theory {

/// Every decay the same.
template <real_scalar T>
struct point_law {
  using real = T;
  pole<T> decay;

  template <class F>
  T mean(F const& f) const {
    return f(decay);
  }
  pole<T> sample(T const&) const { return decay; }
  T tail_index() const { return decay.gap > T(0) ? std::numeric_limits<T>::infinity() : T(0); }
  T gain_moment(int n) const { return power(stationary_gain(decay), n); }
  T moment(T const& k) const {
    if (k == T(0)) return T(1);
    return decay.value == T(0) ? T(0) : T(ssm::exp(T(k * log_decay(decay))));
  }
};

/// λ uniform on [low, high]: the assumption of arXiv:2509.19633, Theorem 4.2. Exact in the width
/// and the gaps, so low = high and high → 1 need no care.
/// Accuracy  8 eps of gain_moment and square_cross_gain, given the two poles.
template <real_scalar T>
struct uniform_law {
  using real = T;
  pole<T> low, high;

  static uniform_law between(pole<T> const& low, pole<T> const& high) {
    require<domain_error>(low.value <= high.value && high.gap <= low.gap,
                          "uniform_law: the decays go from ", low.value, " to ", high.value,
                          ", expected low <= high");
    return {low, high};
  }

  /// b - a.
  T width() const { return low.value < T(0.5) ? T(high.value - low.value) : T(low.gap - high.gap); }
  template <class F>
  T mean(F const& f) const {
    return uniform_mean<T>([&](T const& u) { return f(sample(u)); });
  }
  pole<T> sample(T const& u) const {
    return {T(low.value + (T(1) - u) * width()), T(high.gap + u * width())};
  }
  T tail_index() const {
    if (high.gap > T(0)) return std::numeric_limits<T>::infinity();
    return low.gap > T(0) ? T(1) : T(0);
  }

  /// E 1/(1 - λ) = log((1-a)/(1-b))/(b-a).
  T mean_inverse_gap() const { return log1p_over_x(T(width() / high.gap)) / high.gap; }
  /// E 1/(1 + λ) = log((1+b)/(1+a))/(b-a), in [1/2, 1].
  T mean_inverse_sum() const {
    T const sum = T(1) + low.value;
    return log1p_over_x(T(width() / sum)) / sum;
  }

  /// M1 = (artanh b - artanh a)/(b - a), M2 = (1 + ab)/(2AB) + M1/2 and
  /// M3 = (AB + (a+b)²(1-ab))/(4A²B²) + 3 M2/4 with A = 1 - a², B = 1 - b².
  T gain_moment(int n) const {
    if (n == 0) return T(1);
    T const m1 = (mean_inverse_gap() + mean_inverse_sum()) / T(2);
    if (n == 1) return m1;
    T const a = low.value, b = high.value;
    T const AB = one_minus_square(low) * one_minus_square(high);
    T const m2 = ((T(1) + a * b) / AB + m1) / T(2);
    if (n == 2) return m2;
    if (n == 3) {
      T const s = (a + b) * (a + b) * one_minus_product(low, high);
      return ((AB + s) / (AB * AB) + T(3) * m2) / T(4);
    }
    return mean([&](pole<T> const& p) { return power(stationary_gain(p), n); });
  }

  /// M11 = log(1 + x)/(b-a)², x = (b-a)²/((1-a²)(1-b²)).
  T square_cross_gain() const {
    T const AB = one_minus_square(low) * one_minus_square(high);
    return log1p_over_x(T(width() * width() / AB)) / AB;
  }

  /// E (1 - λ)^-2.
  T constant_gain() const { return T(1) / (low.gap * high.gap); }

  /// E λ^k = (b^(k+1) - a^(k+1))/((k+1)(b-a)) = b^k φ1(-(k+1)w) w/(1 - e^-w), w = log(b/a).
  T moment(T const& k) const {
    if (k == T(0)) return T(1);
    if (high.value == T(0)) return T(0);
    T const top = ssm::exp(T(k * log_decay(high)));
    if (low.value == T(0)) return top / (k + T(1));
    T const part = width() / high.value;  // 1 - e^-w
    if (part == T(0)) return top;
    T const w = part < T(0.5) ? T(-ssm::log1p(T(-part))) : T(log_decay(high) - log_decay(low));
    return top * phi1(T(-(k + T(1)) * w)) * (w / part);
  }
};

/// The rate -log λ = αΔ uniform on [slow, fast]: λ log-uniform. Mamba-2 starts each head with α
/// uniform on [1, 16].
template <real_scalar T>
struct log_uniform_law {
  using real = T;
  T slow, fast;

  static log_uniform_law of_rates(T const& slow, T const& fast) {
    require<domain_error>(T(0) <= slow && slow <= fast, "log_uniform_law: the rates go from ", slow,
                          " to ", fast, ", expected 0 <= slow <= fast");
    return {slow, fast};
  }

  template <class F>
  T mean(F const& f) const {
    return uniform_mean<T>([&](T const& u) { return f(sample(u)); });
  }
  pole<T> sample(T const& u) const { return pole<T>::with_rate(T(slow + u * (fast - slow))); }
  T tail_index() const {
    if (slow > T(0)) return std::numeric_limits<T>::infinity();
    return fast > T(0) ? T(1) : T(0);
  }

  /// M1 = 1 + log((1-a²)/(1-b²))/(2d), d = log(b/a): the law whose gain is a logarithm of squares.
  T gain_moment(int n) const {
    if (n != 1) {
      return mean([&](pole<T> const& p) { return power(stationary_gain(p), n); });
    }
    // (1-a²)/(1-b²) = 1 + (1 - e^-2d)/(e^(2 slow) - 1)
    T const d = T(2) * (fast - slow);
    T const grown = ssm::expm1(T(T(2) * slow));
    T const part = phi1(T(-d)) / grown;
    return T(1) + log1p_over_x(T(d * part)) * part;
  }

  /// The sum of two rates has a triangular law: E f = ∫ u (f(2 slow + du) + f(2 fast - du)) du.
  T square_cross_gain() const {
    auto const gain = [](T const& rate) { return T(1) / power(T(-ssm::expm1(T(-rate))), 2); };
    T const d = fast - slow;
    return uniform_mean<T>([&](T const& u) {
      return T(u * (gain(T(T(2) * slow + d * u)) + gain(T(T(2) * fast - d * u))));
    });
  }

  /// E λ^k = (b^k - a^k)/(kd).
  T moment(T const& k) const { return ssm::exp(T(-k * slow)) * phi1(T(-k * (fast - slow))); }
};

/// The rate -log λ = nΔ with n equally likely in {1, ..., count}: Mamba-1 starts from it.
/// Source    S4D-Real, arXiv:2206.11893.
template <real_scalar T>
struct s4d_real_law {
  using real = T;
  index_t count;
  T step_size;

  static s4d_real_law of(index_t count, T const& step_size) {
    require<domain_error>(count > 0 && step_size >= T(0), "s4d_real_law: ", count,
                          " states at step size ", step_size,
                          ", expected at least one and 0 or more");
    return {count, step_size};
  }

  pole<T> decay(index_t n) const { return pole<T>::with_rate(T(T(n) * step_size)); }

  template <class F>
  T mean(F const& f) const {
    T sum(0);
    for (index_t n = 1; n <= count; ++n) sum += f(decay(n));
    return sum / T(count);
  }
  pole<T> sample(T const& u) const {
    index_t n = 1;
    while (n < count && T(n) <= u * T(count)) ++n;
    return decay(n);
  }
  T tail_index() const { return step_size > T(0) ? std::numeric_limits<T>::infinity() : T(0); }
  T gain_moment(int n) const {
    return mean([&](pole<T> const& p) { return power(stationary_gain(p), n); });
  }
  T moment(T const& k) const {
    return mean([&](pole<T> const& p) { return point_law<T>{p}.moment(k); });
  }
};

/// Complex λ uniform on the area of the ring low <= |λ| <= high, as the linear recurrent unit
/// starts (Orvieto et al. 2023, arXiv:2303.06349). Its gain log((1-a²)/(1-b²))/(b²-a²) is where the
/// printed logarithm would be right. A pole holds |λ|, which is all that a gain depends on.
template <real_scalar T>
struct ring_law {
  using real = T;
  pole<T> low, high;

  static ring_law between(pole<T> const& low, pole<T> const& high) {
    auto const [a, b] = uniform_law<T>::between(low, high);
    return {a, b};
  }

  /// b² - a².
  T width() const { return uniform_law<T>{low, high}.width() * (low.value + high.value); }
  template <class F>
  T mean(F const& f) const {
    return uniform_mean<T>([&](T const& u) { return f(sample(u)); });
  }
  pole<T> sample(T const& u) const {
    T const square_gap = one_minus_square(high) + u * width();  // 1 - |λ|²
    T const value = ssm::sqrt(T(low.value * low.value + (T(1) - u) * width()));
    return {value, square_gap / (T(1) + value)};
  }
  T tail_index() const { return uniform_law<T>{low, high}.tail_index(); }

  T gain_moment(int n) const {
    T const A = one_minus_square(low), B = one_minus_square(high);
    if (n == 1) return log1p_over_x(T(width() / B)) / B;
    if (n == 2) return T(1) / (A * B);
    return mean([&](pole<T> const& p) { return power(stationary_gain(p), n); });
  }
};

}  // namespace ssm::theory
