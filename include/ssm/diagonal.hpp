// SPDX-License-Identifier: Apache-2.0
// diagonal.hpp: the recurrence of a diagonal system, Mamba-1 and S4D, and its gradient.
#pragma once

#include "ssm/discretize.hpp"
#include "ssm/recurrence.hpp"

namespace ssm {

/// A diagonal system under a discretization rule: with z = Δ_tc λ_cn,
///   h_t = decay(z) h_{t-1} + Δ gain(z) B_t x_t.        Mamba-1 is diagonal<mamba_hold, T>.
/// Shapes    step_size, x (batch, time, channel); eigenvalue (channel, state);
///           B (batch, time, channel, state), broadcast over channel in Mamba, over time in S4D.
/// Special   step size 0 holds the state; a negative one runs the system backward (no error).
/// Throws    shape_error from shape() where a view disagrees with x.
/// Source    Gu & Dao 2023, arXiv:2312.00752, eq. 2 and algorithm 2.
template <class Rule, scalar T, memory Where = memory::host>
struct diagonal {
  using value_type = T;
  using real = real_t<T>;

  Rule rule{};
  sequence_view<real const, Where> step_size;
  tensor_view<T const, 2, Where> eigenvalue;
  trajectory_view<T const, Where> B;
  sequence_view<real const, Where> x;

  struct gradient {
    sequence_view<real> step_size{};
    tensor_view<T, 2> eigenvalue{};
    trajectory_view<T> B{};
    sequence_view<real> x{};
  };

  struct step {
    diagonal const& self;
    index_t b, t, c;
    real step_size;
    real x;

    SSM_HD constexpr affine_map<T> operator()(index_t n) const {
      return discretize(self.rule, step_size, self.eigenvalue(c, n), self.B(b, t, c, n), x);
    }
  };

  SSM_HD constexpr step at(index_t b, index_t t, index_t c) const {
    return {*this, b, t, c, step_size(b, t, c), x(b, t, c)};
  }

  scan_shape shape() const {
    scan_shape const s{x.extent(0), x.extent(1), x.extent(2), eigenvalue.extent(1)};
    require_shape(step_size, x.extents(), "diagonal: step_size", "batch, time, channel");
    require_shape(eigenvalue, {s.channels, s.states}, "diagonal: eigenvalue", "channel, state");
    require_shape(B, {s.batch, s.length, s.channels, s.states}, "diagonal: B",
                  "batch, time, channel, state");
    return s;
  }

  void pull_back(int threads, time_window const& window, trajectory_view<T const> adjoint,
                 trajectory_view<T const> before, gradient const& to) const {
    detail::require_gradient_shape(to.step_size, x.extents(), "diagonal: gradient.step_size",
                                   "batch, time, channel");
    detail::require_gradient_shape(to.eigenvalue, eigenvalue.extents(),
                                   "diagonal: gradient.eigenvalue", "channel, state");
    detail::require_gradient_shape(to.B, B.extents(), "diagonal: gradient.B",
                                   "batch, time, channel, state");
    detail::require_gradient_shape(to.x, x.extents(), "diagonal: gradient.x",
                                   "batch, time, channel");

    index_t const batch = x.extent(0), length = x.extent(1), states = eigenvalue.extent(1);
    auto const part = [&](index_t b, index_t i, index_t c, index_t n) {
      index_t const t = window(i);
      return discretize_vjp(rule, step_size(b, t, c), eigenvalue(c, n), B(b, t, c, n), x(b, t, c),
                            before(b, i, c, n), adjoint(b, i, c, n));
    };
    auto const over_states = [&](auto member) {
      return [&part, states, member](index_t b, index_t i, index_t c, index_t) {
        real sum(0);
        for (index_t n = 0; n < states; ++n) sum += part(b, i, c, n).*member;
        return sum;
      };
    };
    auto const each = [&](auto member) {
      return [&part, member](index_t b, index_t i, index_t c, index_t n) {
        return part(b, i, c, n).*member;
      };
    };
    using gradients = step_gradient<T>;
    detail::sum_into(threads, window, to.step_size.broadcast(3, 1),
                     over_states(&gradients::step_size));
    detail::sum_into(threads, window, to.eigenvalue.broadcast(0, length).broadcast(0, batch),
                     each(&gradients::eigenvalue));
    detail::sum_into(threads, window, to.B, each(&gradients::B));
    detail::sum_into(threads, window, to.x.broadcast(3, 1), over_states(&gradients::x));
  }
};

}  // namespace ssm
