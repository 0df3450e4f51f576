// SPDX-License-Identifier: Apache-2.0
// spectrum.hpp: eigenvalues, the decays they become, and how long and how large a state gets.
#pragma once

#include <span>
#include <vector>

#include "ssm/config.hpp"
#include "ssm/error.hpp"
#include "ssm/numerics.hpp"
#include "ssm/scalar.hpp"
#include "ssm/tensor.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm {

/// A decay λ in [0, 1] of the discrete recurrence together with 1 - λ, each to full precision.
/// A slow mode cannot be told by λ alone: the double nearest to 1 - 1e-12 is off by 2e-5 of its
/// gap, and every formula below depends on the gap.
template <real_scalar T>
struct pole {
  T value = T(0);  ///< λ
  T gap = T(1);    ///< 1 - λ

  /// From λ. Exact where λ ≥ 1/2 and is what was meant.
  static pole at(T const& value) {
    require<domain_error>(value >= T(0) && value <= T(1), "pole::at: value is ", value,
                          ", expected a decay in [0, 1]");
    return {value, T(1) - value};
  }

  /// From 1 - λ.
  static pole below_one(T const& gap) {
    require<domain_error>(gap >= T(0) && gap <= T(1), "pole::below_one: gap is ", gap,
                          ", expected 1 - decay in [0, 1]");
    return {T(1) - gap, gap};
  }

  /// From -log λ, which is -Δ·Re(eigenvalue): what a step of size Δ does under an exact rule.
  static pole with_rate(T const& rate) {
    require<domain_error>(rate >= T(0), "pole::with_rate: rate is ", rate,
                          ", expected -step_size·eigenvalue >= 0");
    return {ssm::exp(T(-rate)), T(-ssm::expm1(T(-rate)))};
  }

  friend constexpr bool operator==(pole const&, pole const&) = default;
};

/// log λ, at most 0; -infinity for λ = 0.
template <real_scalar T>
T log_decay(pole<T> const& p) {
  return p.value > T(1) / T(2) ? ssm::log1p(T(-p.gap)) : ssm::log(p.value);
}

/// Steps after which a state has fallen to 1/e of itself; infinite for λ = 1.
template <real_scalar T>
T horizon(pole<T> const& p) {
  return T(-1) / log_decay(p);
}

/// 1 - λ².
template <real_scalar T>
T one_minus_square(pole<T> const& p) {
  return p.gap * (T(1) + p.value);
}

/// Energy of a stationary state per unit of input energy, 1/(1 - λ²), for white zero-mean input.
/// Accuracy  3 eps.      Throws  domain_error for λ = 1, which has no stationary state.
template <real_scalar T>
T stationary_gain(pole<T> const& p) {
  require<domain_error>(p.gap > T(0),
                        "stationary_gain: the decay is 1, expected less: no stationary state");
  return T(1) / one_minus_square(p);
}

/// The same `steps` steps after a zero state: g_t = (1 - λ^2t)/(1 - λ²) = Σ_{k<t} λ^2k.
/// Accuracy  6 eps for every λ and t, λ = 1 (the gain is t) included.
template <real_scalar T>
T state_gain(pole<T> const& p, T const& steps) {
  require<domain_error>(steps >= T(0), "state_gain: steps is ", steps, ", expected 0 or more");
  if (p.gap == T(0) || steps == T(0)) return steps;
  if (p.value == T(0)) return T(1);
  return T(-ssm::expm1(T(T(2) * steps * log_decay(p)))) / one_minus_square(p);
}

/// Mean gain of a spectrum, a pole for each state; `steps` after a zero state.
/// Accuracy  a plain sum of positive terms: (count + 6)·eps.
template <real_scalar T>
T mean_state_gain(std::span<pole<T> const> poles, T const& steps) {
  require<domain_error>(!poles.empty(), "mean_state_gain: no poles, expected at least one");
  T sum(0);
  for (auto const& p : poles) sum += state_gain(p, steps);
  return sum / T(static_cast<double>(poles.size()));
}

/// Mean gain of a spectrum in the stationary state.
template <real_scalar T>
T mean_stationary_gain(std::span<pole<T> const> poles) {
  require<domain_error>(!poles.empty(), "mean_stationary_gain: no poles, expected at least one");
  T sum(0);
  for (auto const& p : poles) sum += stationary_gain(p);
  return sum / T(static_cast<double>(poles.size()));
}

/// How much more state energy `longer` steps leave than `shorter` ones: between 1 and
/// longer/shorter for every spectrum and white zero-mean input.
template <real_scalar T>
T energy_growth(std::span<pole<T> const> poles, T const& shorter, T const& longer) {
  require<domain_error>(shorter > T(0) && longer >= shorter, "energy_growth: from ", shorter,
                        " to ", longer, " steps, expected 0 < shorter <= longer");
  return mean_state_gain(poles, longer) / mean_state_gain(poles, shorter);
}

/// Seconds after which a continuous mode has fallen to 1/e of itself: -1/Re λ.
template <scalar T>
real_t<T> time_constant(T const& eigenvalue) {
  return real_t<T>(-1) / real_part(eigenvalue);
}

/// The decays that one step of each channel's size makes of its eigenvalues, exp(Δ_c·λ_cn), as
/// zero_order_hold and mamba_hold do.
/// Shapes    eigenvalue (channel, state); step_size (channel); result channel·states poles.
/// Throws    shape_error; domain_error for an eigenvalue > 0, a step size < 0, or a NaN.
template <real_scalar T>
std::vector<pole<T>> poles_of(tensor_view<T const, 2> eigenvalue,
                              tensor_view<T const, 1> step_size) {
  require_shape(step_size, {eigenvalue.extent(0)}, "poles_of: step_size", "channel");
  std::vector<pole<T>> poles;
  poles.reserve(static_cast<std::size_t>(eigenvalue.size()));
  for (index_t c = 0; c < eigenvalue.extent(0); ++c) {
    require<domain_error>(step_size(c) >= T(0), "poles_of: step_size(", c, ") is ", step_size(c),
                          ", expected 0 or more");
    for (index_t n = 0; n < eigenvalue.extent(1); ++n) {
      require<domain_error>(eigenvalue(c, n) <= T(0), "poles_of: eigenvalue(", c, ", ", n, ") is ",
                            eigenvalue(c, n), ", expected 0 or less");
      poles.push_back(pole<T>::with_rate(T(-step_size(c) * eigenvalue(c, n))));
    }
  }
  return poles;
}

/// The initial spectrum of Mamba-1: λ_n = -(n + 1).
/// Source  S4D-Real, Gu et al. 2022, arXiv:2206.11893.
template <real_scalar T>
T s4d_real(index_t n) {
  return T(-1) - T(static_cast<double>(n));
}

}  // namespace ssm
