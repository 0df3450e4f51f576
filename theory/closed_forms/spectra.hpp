// SPDX-License-Identifier: Apache-2.0
// spectra.hpp: the laws of decays that models start from.
#pragma once

#include <boost/math/quadrature/tanh_sinh.hpp>
#include <boost/math/special_functions/beta.hpp>
#include <boost/math/special_functions/gamma.hpp>
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
    return integral([&](T const& u) { return f(sample(u)); }, T(0), T(1));
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

  /// E λ^k = (b^(k+1) - a^(k+1))/((k+1)(b-a)) = b^k φ1(-(k+1)w) w/(1 - e^-w), w = log(b/a).
  T moment(T const& k) const {
    if (k == T(0)) return T(1);
    if (high.value == T(0)) return T(0);
    T const top = ssm::exp(T(k * log_decay(high)));
    if (low.value == T(0)) return top / (k + T(1));
    T const part = width() / high.value;  // 1 - e^-w
    if (part == T(0)) return top;
    T const w = -ssm::log1p(T(-part));
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
    return integral([&](T const& u) { return f(sample(u)); }, T(0), T(1));
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
    return integral(
        [&](T const& u) {
          return u * (gain(T(T(2) * slow + d * u)) + gain(T(T(2) * fast - d * u)));
        },
        T(0), T(1));
  }

  /// E λ^k = (b^k - a^k)/(kd).
  T moment(T const& k) const { return ssm::exp(T(-k * slow)) * phi1(T(-k * (fast - slow))); }
};

/// λ a Beta(α, β) variable: the gain is finite only for β > 1, and reached algebraically slowly.
/// Accuracy  gain_moment and remaining_gain to 60 eps for every β > n; mean(f) to 1e-14 for
///           α, β >= 0.1 and bounded f (tanh-sinh quadrature).
template <real_scalar T>
struct beta_law {
  using real = T;
  T alpha, beta;

  static beta_law of(T const& alpha, T const& beta) {
    require<domain_error>(alpha > T(0) && beta > T(0), "beta_law: the parameters are ", alpha,
                          " and ", beta, ", expected both > 0");
    return {alpha, beta};
  }

  template <class F>
  T mean(F const& f) const {
    thread_local boost::math::quadrature::tanh_sinh<T> quadrature;
    // over (-1, 1), where the rule tells the distance to the nearer end without cancellation
    T const sum = quadrature.integrate(
        [&](T const& x, T const& to_end) {
          T const near = ssm::abs(to_end) / T(2);
          pole<T> const p = x < T(0) ? pole<T>{near, T(1) - near} : pole<T>{T(1) - near, near};
          return density(p) * T(f(p));
        },
        T(std::numeric_limits<T>::epsilon() * T(16)));
    return sum / T(2);
  }
  T density(pole<T> const& p) const {
    T const powers = (alpha - T(1)) * log_decay(p) + (beta - T(1)) * ssm::log(p.gap);
    return ssm::exp(powers) / boost::math::beta(alpha, beta);
  }
  pole<T> sample(T const& u) const {
    T gap(0);
    T const value = boost::math::ibetac_inv(alpha, beta, u, &gap);
    return {value, gap};
  }
  T tail_index() const { return beta; }

  /// E (1-λ²)^-n = 2^-n (α+β-n)_n/(β-n)_n 2F1(n, β-n; α+β-n; 1/2): with 1 + λ = 2(1 - (1-λ)/2) the
  /// factor (1-λ)^-n only lowers β by n. All terms are positive.
  T gain_moment(int n) const {
    T const total = alpha + beta - T(n);
    T factor(1);
    for (int i = 0; i < n; ++i) factor *= (total + T(i)) / (T(2) * (beta - T(n) + T(i)));
    T sum(0), term(1);
    for (int k = 0; term > sum * std::numeric_limits<T>::epsilon() / T(4); ++k) {
      sum += term;
      term *= (T(n) + T(k)) * (beta - T(n) + T(k)) / (T(2) * (total + T(k)) * T(k + 1));
    }
    return factor * sum;
  }

  /// λ^2t only raises α by 2t.
  T remaining_gain(T const& steps) const {
    T const k = T(2) * steps;
    return moment(k) * beta_law{T(alpha + k), beta}.gain_moment(1);
  }

  /// E λ^k = B(α + k, β)/B(α, β).
  T moment(T const& k) const {
    if (k == T(0)) return T(1);
    return boost::math::tgamma_delta_ratio(T(alpha + k), beta) /
           boost::math::tgamma_delta_ratio(alpha, beta);
  }
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
    return integral([&](T const& u) { return f(sample(u)); }, T(0), T(1));
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
