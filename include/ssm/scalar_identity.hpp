// SPDX-License-Identifier: Apache-2.0
// scalar_identity.hpp: the recurrence of Mamba-2, one decay for all of a head, and its gradient.
#pragma once

#include "ssm/discretize.hpp"
#include "ssm/recurrence.hpp"

namespace ssm {

/// A scalar times the identity for each head: with z = Δ_th λ_h for the head h of channel c,
///   h_t = decay(z) h_{t-1} + Δ gain(z) B_t x_t.       Mamba-2 is scalar_identity<mamba_hold, T>.
/// Channels are heads · head_dim, a head's channels side by side; heads share B in groups.
/// Shapes    step_size (batch, time, head); eigenvalue (head); B (batch, time, group, state);
///           x (batch, time, channel).
/// Special   step size 0 holds the state; a negative one runs the system backward (no error).
/// Throws    shape_error from shape() where the views disagree, channels are not a multiple of
///           the heads, or heads not one of the groups.
/// Source    Dao & Gu 2024, arXiv:2405.21060, section 2.
template <class Rule, scalar T, memory Where = memory::host>
struct scalar_identity {
  using value_type = T;
  using real = real_t<T>;

  Rule rule{};
  sequence_view<real const, Where> step_size;
  tensor_view<T const, 1, Where> eigenvalue;
  trajectory_view<T const, Where> B;
  sequence_view<real const, Where> x;

  struct gradient {
    sequence_view<real> step_size{};
    tensor_view<T, 1> eigenvalue{};
    trajectory_view<T> B{};
    sequence_view<real> x{};
  };

  struct step {
    scalar_identity const& self;
    index_t b, t, group;
    T decay;
    T scaled_input;  // Δ gain(z) x

    SSM_HD constexpr affine_map<T> operator()(index_t n) const {
      return {decay, scaled_input * self.B(b, t, group, n)};
    }
  };

  SSM_HD constexpr step at(index_t b, index_t t, index_t c) const {
    index_t const head = c / head_dim();
    auto const unit = discretize(rule, step_size(b, t, head), eigenvalue(head), T(1), x(b, t, c));
    return {*this, b, t, head / heads_per_group(), unit.decay, unit.drive};
  }

  SSM_HD constexpr index_t head_dim() const { return x.extent(2) / eigenvalue.extent(0); }
  SSM_HD constexpr index_t heads_per_group() const { return eigenvalue.extent(0) / B.extent(2); }

  scan_shape shape() const {
    scan_shape const s{x.extent(0), x.extent(1), x.extent(2), B.extent(3)};
    index_t const heads = eigenvalue.extent(0), groups = B.extent(2);
    require_shape(step_size, {s.batch, s.length, heads}, "scalar_identity: step_size",
                  "batch, time, head");
    require_shape(B, {s.batch, s.length, groups, s.states}, "scalar_identity: B",
                  "batch, time, group, state");
    require<shape_error>(heads > 0 && s.channels % heads == 0, "scalar_identity: x has ",
                         s.channels, " channels, expected a multiple of the ", heads,
                         " heads of eigenvalue");
    require<shape_error>(groups > 0 && heads % groups == 0, "scalar_identity: eigenvalue has ",
                         heads, " heads, expected a multiple of the ", groups, " groups of B");
    return s;
  }

  void pull_back(int threads, time_window const& window, trajectory_view<T const> adjoint,
                 trajectory_view<T const> before, gradient const& to) const {
    detail::require_gradient_shape(to.step_size, step_size.extents(),
                                   "scalar_identity: gradient.step_size", "batch, time, head");
    detail::require_gradient_shape(to.eigenvalue, eigenvalue.extents(),
                                   "scalar_identity: gradient.eigenvalue", "head");
    detail::require_gradient_shape(to.B, B.extents(), "scalar_identity: gradient.B",
                                   "batch, time, group, state");
    detail::require_gradient_shape(to.x, x.extents(), "scalar_identity: gradient.x",
                                   "batch, time, channel");

    index_t const batch = x.extent(0), length = x.extent(1), states = B.extent(3);
    auto const part = [&](index_t b, index_t i, index_t c, index_t n) {
      index_t const t = window(i), head = c / head_dim();
      return discretize_vjp(rule, step_size(b, t, head), eigenvalue(head),
                            B(b, t, head / heads_per_group(), n), x(b, t, c), before(b, i, c, n),
                            adjoint(b, i, c, n));
    };
    // Σ over `span` channels from `first` and over the states [from, to).
    auto const sum = [&](auto member, index_t b, index_t i, index_t first, index_t span,
                         index_t from, index_t end) {
      auto total = step_gradient<T>{}.*member;
      for (index_t c = first; c < first + span; ++c)
        for (index_t n = from; n < end; ++n) total += part(b, i, c, n).*member;
      return total;
    };
    auto const over_head = [&](auto member) {
      return [&, member](index_t b, index_t i, index_t head, index_t) {
        return sum(member, b, i, head * head_dim(), head_dim(), 0, states);
      };
    };
    using gradients = step_gradient<T>;
    detail::sum_into(threads, window, to.step_size.broadcast(3, 1),
                     over_head(&gradients::step_size));
    detail::sum_into(threads, window,
                     to.eigenvalue.broadcast(1, 1).broadcast(0, length).broadcast(0, batch),
                     over_head(&gradients::eigenvalue));
    detail::sum_into(threads, window, to.B, [&](index_t b, index_t i, index_t group, index_t n) {
      index_t const span = heads_per_group() * head_dim();
      return sum(&gradients::B, b, i, group * span, span, n, n + 1);
    });
    detail::sum_into(threads, window, to.x.broadcast(3, 1),
                     [&](index_t b, index_t i, index_t c, index_t) {
                       return sum(&gradients::x, b, i, c, 1, 0, states);
                     });
  }
};

}  // namespace ssm
