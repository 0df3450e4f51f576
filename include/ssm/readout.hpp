// SPDX-License-Identifier: Apache-2.0
// readout.hpp: what becomes of the states of each step, and the gradient that arrives there.
#pragma once

#include <concepts>

#include "ssm/detail/sum_into.hpp"
#include "ssm/execution.hpp"
#include "ssm/scalar.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm {

/// A consumer of states:  auto collect = r.at(b, t, c);  collect(n, h) for n = 0, 1, ...;
/// collect.finish().  Different (b, c), and different stretches of t, may be visited at the same
/// time, so a readout writes to places of its own for each (b, t, c).
/// require_shape_for() throws shape_error where its views do not fit the recurrence.
template <class R, class T>
concept readout = std::copy_constructible<R> &&
    requires(R const& r, index_t i, index_t batch, index_t length, index_t channels, index_t states,
             T const h) {
  r.require_shape_for(batch, length, channels, states);
  r.at(i, i, i)(i, h);
  r.at(i, i, i).finish();
};

/// The gradient of a readout: at(b, t, c)(n, h) is the cotangent that arrives at the state h, and
/// pull_back adds the gradient of the readout's own parameters, given the states after each step.
template <class R, class T>
concept readout_vjp = std::copy_constructible<R> &&
    requires(R const& r, index_t i, index_t batch, index_t length, index_t channels, index_t states,
             T const h, trajectory_view<T const> after) {
  r.require_shape_for(batch, length, channels, states);
  { r.at(i, i, i)(i, h) } -> std::same_as<T>;
  r.pull_back(1, time_window{}, after);
};

/// Nothing is wanted but the final carry.
struct discard {
  void require_shape_for(index_t, index_t, index_t, index_t) const {}

  struct collector {
    template <scalar T>
    SSM_HD constexpr void operator()(index_t, T const&) const {}
    SSM_HD constexpr void finish() const {}
  };
  SSM_HD constexpr collector at(index_t, index_t, index_t) const { return {}; }
};

/// No cotangent arrives but at the final carry.
template <scalar T>
struct discard_vjp {
  void require_shape_for(index_t, index_t, index_t, index_t) const {}

  struct source {
    SSM_HD constexpr T operator()(index_t, T const&) const { return T(0); }
  };
  SSM_HD constexpr source at(index_t, index_t, index_t) const { return {}; }
  void pull_back(int, time_window const&, trajectory_view<T const>) const {}
};

/// Every state of every step.
/// Shapes    states (batch, time, channel, state).
template <scalar T, memory Where = memory::host>
struct store_states {
  trajectory_view<T, Where> states;

  void require_shape_for(index_t batch, index_t length, index_t channels, index_t count) const {
    require_shape(states, {batch, length, channels, count}, "store_states: states",
                  "batch, time, channel, state");
  }

  struct collector {
    trajectory_view<T, Where> const& states;
    index_t b, t, c;
    SSM_HD constexpr void operator()(index_t n, T const& h) const { states(b, t, c, n) = h; }
    SSM_HD constexpr void finish() const {}
  };
  SSM_HD constexpr collector at(index_t b, index_t t, index_t c) const { return {states, b, t, c}; }
};

/// Gradient of store_states, given the cotangent of every state.
template <scalar T>
struct store_states_vjp {
  trajectory_view<T const> cotangent;

  void require_shape_for(index_t batch, index_t length, index_t channels, index_t count) const {
    require_shape(cotangent, {batch, length, channels, count}, "store_states_vjp: cotangent",
                  "batch, time, channel, state");
  }

  struct source {
    trajectory_view<T const> const& cotangent;
    index_t b, t, c;
    constexpr T operator()(index_t n, T const&) const { return cotangent(b, t, c, n); }
  };
  constexpr source at(index_t b, index_t t, index_t c) const { return {cotangent, b, t, c}; }
  void pull_back(int, time_window const&, trajectory_view<T const>) const {}
};

/// y_t = Re Σ_n C_tn h_tn.
/// Shapes    C (batch, time, channel, state), usually broadcast; y (batch, time, channel).
template <scalar T, memory Where = memory::host>
struct contract {
  trajectory_view<T const, Where> C;
  sequence_view<real_t<T>, Where> y;

  void require_shape_for(index_t batch, index_t length, index_t channels, index_t states) const {
    require_shape(C, {batch, length, channels, states}, "contract: C",
                  "batch, time, channel, state");
    require_shape(y, {batch, length, channels}, "contract: y", "batch, time, channel");
  }

  struct collector {
    contract const& self;
    index_t b, t, c;
    real_t<T> sum{0};
    SSM_HD constexpr void operator()(index_t n, T const& h) {
      sum += real_part(T(self.C(b, t, c, n) * h));
    }
    SSM_HD constexpr void finish() const { self.y(b, t, c) = sum; }
  };
  SSM_HD constexpr collector at(index_t b, index_t t, index_t c) const { return {*this, b, t, c}; }
};

/// Gradient of contract: from the cotangent of y to the states, and to C (empty: not wanted).
template <scalar T>
struct contract_vjp {
  trajectory_view<T const> C;
  sequence_view<real_t<T> const> y_cotangent;
  trajectory_view<T> C_gradient{};

  void require_shape_for(index_t batch, index_t length, index_t channels, index_t states) const {
    require_shape(C, {batch, length, channels, states}, "contract_vjp: C",
                  "batch, time, channel, state");
    require_shape(y_cotangent, {batch, length, channels}, "contract_vjp: y_cotangent",
                  "batch, time, channel");
    detail::require_gradient_shape(C_gradient, C.extents(), "contract_vjp: C_gradient",
                                   "batch, time, channel, state");
  }

  struct source {
    contract_vjp const& self;
    index_t b, t, c;
    constexpr T operator()(index_t n, T const&) const {
      return conjugate(self.C(b, t, c, n)) * self.y_cotangent(b, t, c);
    }
  };
  constexpr source at(index_t b, index_t t, index_t c) const { return {*this, b, t, c}; }

  void pull_back(int threads, time_window const& window, trajectory_view<T const> after) const {
    detail::sum_into(threads, window, C_gradient, [&](index_t b, index_t i, index_t c, index_t n) {
      return conjugate(after(b, i, c, n)) * y_cotangent(b, window(i), c);
    });
  }
};

/// The energy Σ_n |h_tn|², which the theory of state norms is about.
/// Shapes    energy (batch, time, channel).
template <scalar T, memory Where = memory::host>
struct squared_norm {
  sequence_view<real_t<T>, Where> energy;

  void require_shape_for(index_t batch, index_t length, index_t channels, index_t) const {
    require_shape(energy, {batch, length, channels}, "squared_norm: energy",
                  "batch, time, channel");
  }

  struct collector {
    squared_norm const& self;
    index_t b, t, c;
    real_t<T> sum{0};
    SSM_HD constexpr void operator()(index_t, T const& h) { sum += squared_magnitude(h); }
    SSM_HD constexpr void finish() const { self.energy(b, t, c) = sum; }
  };
  SSM_HD constexpr collector at(index_t b, index_t t, index_t c) const { return {*this, b, t, c}; }
};

/// Gradient of squared_norm, given the cotangent of the energy.
template <scalar T>
struct squared_norm_vjp {
  sequence_view<real_t<T> const> cotangent;

  void require_shape_for(index_t batch, index_t length, index_t channels, index_t) const {
    require_shape(cotangent, {batch, length, channels}, "squared_norm_vjp: cotangent",
                  "batch, time, channel");
  }

  struct source {
    squared_norm_vjp const& self;
    index_t b, t, c;
    constexpr T operator()(index_t, T const& h) const {
      return h * (real_t<T>(2) * self.cotangent(b, t, c));
    }
  };
  constexpr source at(index_t b, index_t t, index_t c) const { return {*this, b, t, c}; }
  void pull_back(int, time_window const&, trajectory_view<T const>) const {}
};

}  // namespace ssm
