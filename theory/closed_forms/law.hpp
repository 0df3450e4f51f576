// SPDX-License-Identifier: Apache-2.0
// law.hpp: what a law of decays is, and the mean gains that follow from any of them.
#pragma once

#include <boost/math/quadrature/gauss_kronrod.hpp>
#include <concepts>
#include <limits>

#include "ssm/error.hpp"
#include "ssm/numerics.hpp"
#include "ssm/spectrum.hpp"

namespace ssm::theory {

/// Add ∫ f from low to high to sum, by 61-point Gauss-Kronrod panels that are halved until their
/// two rules agree to eps^(2/3), where the Kronrod rule, of twice the order, is exact to rounding.
/// The lower half goes first, so that what is negligible beside it costs nothing. `panels` is how
/// many more may be used: an f that is rounding noise never agrees.
template <class T, class F>
void add_integral(F const& f, T const& low, T const& high, int& panels, T& sum) {
  T const eps = std::numeric_limits<T>::epsilon();
  T const half_width = (high - low) / T(2);
  T error(0);  // of the integral over (-1, 1)
  T const value =
      boost::math::quadrature::gauss_kronrod<T, 61>::integrate(f, low, high, 0, T(0), &error);
  error *= half_width;
  T const tolerance = ssm::exp(T(ssm::log(eps) * T(2) / T(3)));
  if (--panels < 0 || error <= tolerance * ssm::abs(value) || error <= eps * ssm::abs(sum)) {
    sum += value;
    return;
  }
  add_integral(f, low, T(low + half_width), panels, sum);
  add_integral(f, T(low + half_width), high, panels, sum);
}

/// ∫ f from low to high.
template <class T, class F>
T integral(F const& f, T const& low, T const& high) {
  T sum(0);
  int panels = 1000;
  add_integral(f, low, high, panels, sum);
  return sum;
}

template <class T>
T power(T const& x, int n) {
  T product(1);
  for (int i = 0; i < n; ++i) product *= x;
  return product;
}

/// E f(u) for u uniform in (0, 1), f smooth but for a layer at 0: u = v^8 widens one of 1e-12 to
/// 1/32, and no layer wider than 1e-28 falls between the points.
template <class T, class F>
T uniform_mean(F const& f) {
  return integral(
      [&](T const& v) {
        T const v7 = power(v, 7);
        return T(T(8) * v7 * f(T(v7 * v)));
      },
      T(0), T(1));
}

/// log(1 + x)/x, the form that survives x → 0; 1 at 0.
template <class T>
T log1p_over_x(T const& x) {
  return x == T(0) ? T(1) : T(ssm::log1p(x) / x);
}

/// E(Σ_{k<t} y^k)² = Σ_s (t - |s - (t - 1)|) E y^s: all terms positive.
template <class T, class Moment>
T square_of_geometric_sum(index_t steps, Moment const& moment) {
  T sum(0);
  for (index_t s = 0; s < 2 * steps - 1; ++s) {
    index_t const pairs = s < steps ? s + 1 : 2 * steps - 1 - s;
    sum += T(pairs) * moment(T(s));
  }
  return sum;
}

/// The law of one decay λ = |λ| in a spectrum of independent ones.
///   mean(f)             E f(λ), f taking a pole
///   sample(u)           the decay exceeded with probability u: a sample for u uniform in (0, 1).
///                       Small u are the slow modes, so their gaps keep their digits
///   tail_index()        1/(1 - λ) has the moments of order below it: infinite for λ <= b < 1
///   gain_moment(n)      E (1 - λ²)^-n, for n below the tail index
template <class Law>
concept spectral_law = real_scalar<typename Law::real> &&
    requires(Law const& law, typename Law::real const& u,
             typename Law::real (*f)(pole<typename Law::real> const&)) {
  { law.mean(f) } -> std::same_as<typename Law::real>;
  { law.sample(u) } -> std::same_as<pole<typename Law::real>>;
  { law.tail_index() } -> std::same_as<typename Law::real>;
  { law.gain_moment(1) } -> std::same_as<typename Law::real>;
};

/// A law of real decays also has moment(k) = E λ^k, for real k >= 0.
template <class Law>
concept real_spectral_law = spectral_law<Law> &&
    requires(Law const& law, typename Law::real const& k) {
  { law.moment(k) } -> std::same_as<typename Law::real>;
};

template <spectral_law Law>
using real_of = typename Law::real;

/// Throw unless 1/(1 - λ) has a moment of this order.
template <spectral_law Law>
void require_tail(Law const& law, int order, char const* what) {
  require<domain_error>(law.tail_index() > real_of<Law>(order), what, ": the tail index is ",
                        law.tail_index(), ", expected more than ", order,
                        ": decays so near 1 make the mean infinite");
}

/// The gain of one decay: stationary, or `steps` steps after a zero state.
template <real_scalar T>
T gain(pole<T> const& p) {
  return stationary_gain(p);
}
template <real_scalar T>
T gain(pole<T> const& p, index_t steps) {
  return state_gain(p, T(steps));
}

/// E (1 - λ²)^-n, the nth moment of the stationary gain: M1, M2 and M3 for n = 1, 2, 3.
/// Throws    domain_error where it is infinite.
template <spectral_law Law>
real_of<Law> gain_moment(Law const& law, int n) {
  require_tail(law, n, "gain_moment");
  return law.gain_moment(n);
}

/// The same after `steps` steps from a zero state, E g_t^n with g_t = (1 - λ^2t)/(1 - λ²).
template <spectral_law Law>
real_of<Law> gain_moment(Law const& law, int n, index_t steps) {
  using T = real_of<Law>;
  return law.mean([&](pole<T> const& p) { return power(gain(p, steps), n); });
}

/// M1 = E 1/(1 - λ²): energy of the stationary state per unit of input energy W, for white
/// zero-mean input.
/// Source    arXiv:2509.19633, Theorem B.1.
template <spectral_law Law>
real_of<Law> mean_stationary_gain(Law const& law) {
  return gain_moment(law, 1);
}

/// S_t = E g_t: the same after `steps` steps from a zero state.
template <spectral_law Law>
real_of<Law> mean_state_gain(Law const& law, index_t steps) {
  return gain_moment(law, 1, steps);
}

/// R_t = M1 - S_t = E λ^2t/(1 - λ²), what is still missing, without the cancellation.
template <spectral_law Law>
real_of<Law> remaining_gain(Law const& law, index_t steps) {
  using T = real_of<Law>;
  require_tail(law, 1, "remaining_gain");
  if constexpr (requires { law.remaining_gain(T(steps)); }) {
    return law.remaining_gain(T(steps));
  } else {
    return law.mean([&](pole<T> const& p) {
      if (steps == 0) return stationary_gain(p);
      return p.value == T(0) ? T(0)
                             : T(ssm::exp(T(T(2 * steps) * log_decay(p))) * stationary_gain(p));
    });
  }
}

/// S_longer/S_shorter: between 1 and longer/shorter, since S is concave.
template <spectral_law Law>
real_of<Law> energy_growth(Law const& law, index_t shorter, index_t longer) {
  require<domain_error>(0 < shorter && shorter <= longer, "energy_growth: from ", shorter, " to ",
                        longer, " steps, expected 0 < shorter <= longer");
  return mean_state_gain(law, longer) / mean_state_gain(law, shorter);
}

/// 1 - λλ' of two decays.
template <class T>
T one_minus_product(pole<T> const& p, pole<T> const& q) {
  return p.gap + p.value * q.gap;
}

/// M11 = E (1 - λλ')^-2 of two independent decays: two states that share their input correlate.
template <real_spectral_law Law>
real_of<Law> square_cross_gain(Law const& law) {
  using T = real_of<Law>;
  require_tail(law, 1, "square_cross_gain");
  if constexpr (requires { law.square_cross_gain(); }) {
    return law.square_cross_gain();
  } else {
    return law.mean([&](pole<T> const& p) {
      return law.mean([&](pole<T> const& q) { return T(1) / power(one_minus_product(p, q), 2); });
    });
  }
}

/// The same after `steps` steps, E ((1 - (λλ')^t)/(1 - λλ'))² = Σ_s (t - |s - (t-1)|) (E λ^s)².
template <real_spectral_law Law>
real_of<Law> square_cross_gain(Law const& law, index_t steps) {
  using T = real_of<Law>;
  return square_of_geometric_sum<T>(steps, [&](T const& s) { return power(law.moment(s), 2); });
}

/// Σ_{k<t} λ^k = (1 - λ^t)/(1 - λ): the state that the constant input 1 leaves after `steps` steps.
template <class T>
T geometric_sum(pole<T> const& p, index_t steps) {
  if (p.gap == T(0) || steps == 0) return T(steps);
  if (p.value == T(0)) return T(1);
  return T(-ssm::expm1(T(T(steps) * log_decay(p)))) / p.gap;
}

/// E (1 - λ)^-2: energy of the stationary state under the constant input 1. An input of mean μ and
/// covariance I leaves E‖h_t‖² = d σ² (m S_t + ‖μ‖² C_t), C_t = constant_gain(law, t): for λ
/// uniform up to b the mean adds 1/(1 - b), the rest only log(1/(1 - b)).
template <spectral_law Law>
real_of<Law> constant_gain(Law const& law) {
  using T = real_of<Law>;
  require_tail(law, 2, "constant_gain");
  if constexpr (requires { law.constant_gain(); }) {
    return law.constant_gain();
  } else {
    return law.mean([](pole<T> const& p) { return T(T(1) / (p.gap * p.gap)); });
  }
}

/// The same after `steps` steps, C_t = E ((1 - λ^t)/(1 - λ))².
template <spectral_law Law>
real_of<Law> constant_gain(Law const& law, index_t steps) {
  using T = real_of<Law>;
  return law.mean([&](pole<T> const& p) { return power(geometric_sum(p, steps), 2); });
}

}  // namespace ssm::theory
