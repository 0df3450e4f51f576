// SPDX-License-Identifier: Apache-2.0
// step_size.hpp: from what a network's projection gives to the step size of a recurrence.
#pragma once

#include <optional>

#include "ssm/config.hpp"
#include "ssm/error.hpp"
#include "ssm/numerics.hpp"
#include "ssm/scalar.hpp"

namespace ssm {

/// Bounds that a step size is clamped to, both finite.
template <real_scalar T>
struct step_limits {
  T smallest;
  T largest;
};

/// Δ = clamp(softplus(p + bias)) of a projection p. Mamba has the softplus, Mamba-2 also limits;
/// without either Δ is p + bias. A scaling of the step multiplies what leaves here.
/// Source    Gu & Dao 2023, arXiv:2312.00752, section 3.6; Dao & Gu 2024, arXiv:2405.21060.
template <real_scalar T>
struct step_size_rule {
  bool softplus = true;
  std::optional<step_limits<T>> limits{};

  /// Δ from p + bias.
  T operator()(T const& biased) const {
    T const step = softplus ? ssm::softplus(biased) : biased;
    if (!limits) return step;
    return step < limits->smallest ? limits->smallest
                                   : (step > limits->largest ? limits->largest : step);
  }

  /// dΔ/d(p + bias); 0 where a limit cuts, not where it is just reached.
  T slope(T const& biased) const {
    if (limits) {
      T const step = softplus ? ssm::softplus(biased) : biased;
      if (step < limits->smallest || step > limits->largest) return T(0);
    }
    return softplus ? softplus_slope(biased) : T(1);
  }
};

/// Throw shape_error unless the limits are finite and in order.
template <real_scalar T>
void require_step_limits(step_size_rule<T> const& rule, char const* name) {
  if (!rule.limits) return;
  auto const& [smallest, largest] = *rule.limits;
  require<shape_error>(
      smallest - smallest == T(0) && largest - largest == T(0) && smallest <= largest, name,
      " are [", smallest, ", ", largest, "], expected finite numbers, the smaller one first");
}

}  // namespace ssm
