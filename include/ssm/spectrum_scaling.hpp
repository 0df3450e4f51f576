// SPDX-License-Identifier: Apache-2.0
// spectrum_scaling.hpp: factors that act on a spectrum, as a value that every path honours.
#pragma once

#include "ssm/config.hpp"
#include "ssm/detail/sum_into.hpp"
#include "ssm/error.hpp"
#include "ssm/numerics.hpp"
#include "ssm/scalar.hpp"
#include "ssm/tensor.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm {

/// A' = linear · sign(A) |A|^power and Δ' = step · Δ, where Δ is what leaves softplus and limits.
/// Stride 0 sets the granularity: one number for a layer, one for each head, channel or state.
/// An empty view is a factor of 1. From a zero state, Δ scaled by s gives s times the states that
/// A scaled by s gives, for every input. The numbers of all layers: scaling_factors.
/// Shapes    linear, power (channel, state), or (head, 1) for a scalar-identity recurrence;
///           step (channel) or (head).
/// Special   power of an eigenvalue 0 is 0 (1 for power 0), with no gradient.
/// Source    arXiv:2509.19633, section 4.2 (linear) and its public code (power); MambaExtend
/// (step).
template <real_scalar T, memory Where = memory::host>
struct spectrum_scaling {
  tensor_view<T const, 2, Where> linear{};
  tensor_view<T const, 2, Where> power{};
  tensor_view<T const, 1, Where> step{};

  struct gradient {
    tensor_view<T, 2, Where> linear{};
    tensor_view<T, 2, Where> power{};
    tensor_view<T, 1, Where> step{};
  };

  SSM_HD bool scales_eigenvalues() const {
    return linear.data_handle() != nullptr || power.data_handle() != nullptr;
  }
  SSM_HD T linear_factor(index_t c, index_t n) const {
    return linear.data_handle() == nullptr ? T(1) : linear(c, n);
  }
  SSM_HD T power_factor(index_t c, index_t n) const {
    return power.data_handle() == nullptr ? T(1) : power(c, n);
  }
  SSM_HD T step_factor(index_t c) const { return step.data_handle() == nullptr ? T(1) : step(c); }

  /// A' of eigenvalue (c, n), which is A.
  SSM_HD T eigenvalue(index_t c, index_t n, T const& A) const {
    T scaled = A;
    if (power.data_handle() != nullptr) {
      T const size = raised(abs(A), power(c, n));
      scaled = A < T(0) ? T(-size) : size;
    }
    return linear.data_handle() == nullptr ? scaled : T(linear(c, n) * scaled);
  }

  SSM_HD static T raised(T const& magnitude, T const& exponent) {
    if (magnitude == T(0)) return exponent == T(0) ? T(1) : T(0);
    return exponent == T(1) ? magnitude : ssm::exp(T(exponent * ssm::log(magnitude)));
  }

  /// Add to the gradients what `adjoint`, the gradient of A'(c, n), gives them; returns that of A.
  SSM_HD T pull_back(index_t c, index_t n, T const& A, T const& adjoint, gradient const& to) const {
    T const exponent = power_factor(c, n), factor = linear_factor(c, n);
    T const magnitude = abs(A);
    T const size = power.data_handle() == nullptr ? magnitude : raised(magnitude, exponent);
    T const sign = A < T(0) ? T(-1) : T(1);
    if (to.linear.data_handle() != nullptr) to.linear(c, n) += adjoint * sign * size;
    if (magnitude == T(0)) return power.data_handle() == nullptr ? T(adjoint * factor) : T(0);
    if (to.power.data_handle() != nullptr) {
      to.power(c, n) += adjoint * factor * sign * size * ssm::log(magnitude);
    }
    return power.data_handle() == nullptr ? T(adjoint * factor)
                                          : T(adjoint * factor * exponent * size / magnitude);
  }
};

/// The eigenvalues that a scaling makes of `eigenvalue`, for callers that step one token at a time
/// and would rather scale once.
/// Shapes    eigenvalue, result (channel, state).
template <real_scalar T>
tensor<T, 2> scaled_eigenvalues(tensor_view<T const, 2> eigenvalue,
                                spectrum_scaling<T> const& scaling) {
  tensor<T, 2> result(eigenvalue.extents());
  for (index_t c = 0; c < eigenvalue.extent(0); ++c) {
    for (index_t n = 0; n < eigenvalue.extent(1); ++n) {
      result(c, n) = scaling.eigenvalue(c, n, eigenvalue(c, n));
    }
  }
  return result;
}

/// Throw shape_error unless every factor of a scaling is empty or has the shape of the spectrum.
template <real_scalar T, memory Where>
void require_scaling(spectrum_scaling<T, Where> const& scaling, index_t channels, index_t states) {
  detail::require_gradient_shape(scaling.linear, {channels, states}, "spectrum_scaling: linear",
                                 "channel, state");
  detail::require_gradient_shape(scaling.power, {channels, states}, "spectrum_scaling: power",
                                 "channel, state");
  detail::require_gradient_shape(scaling.step, {channels}, "spectrum_scaling: step", "channel");
}

}  // namespace ssm
