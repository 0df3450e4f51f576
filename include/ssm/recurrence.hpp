// SPDX-License-Identifier: Apache-2.0
// recurrence.hpp: what supplies the affine map of each step; the plainest one, and its gradient.
#pragma once

#include <concepts>

#include "ssm/affine_map.hpp"
#include "ssm/detail/sum_into.hpp"
#include "ssm/execution.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm {

struct scan_shape {
  index_t batch = 0;
  index_t length = 0;
  index_t channels = 0;
  index_t states = 0;

  friend constexpr bool operator==(scan_shape const&, scan_shape const&) = default;
};

/// A supplier of affine maps. Two stages, so that what does not depend on the state is computed
/// once a step:  auto step = r.at(b, t, c);  h[n] = step(n)(h[n]).
/// shape() throws shape_error where the views disagree; at() checks nothing.
/// Objects are passed by value into kernels, so they hold views and numbers only.
template <class R>
concept recurrence = std::copy_constructible<R> && scalar<typename R::value_type> &&
    requires(R const& r, index_t i) {
  { r.shape() } -> std::same_as<scan_shape>;
  { r.at(i, i, i)(i) } -> std::same_as<affine_map<typename R::value_type>>;
};

/// A recurrence that turns the gradient of its maps into the gradient of its parameters.
/// adjoint(b, i, c, n) is the gradient of the drive of local step i, which is at time window(i);
/// adjoint · conjugate(before), with the state before that step, is the gradient of its decay.
/// Gradients are added to what is there. A gradient view has the shape of its input, with stride 0
/// where it is to be summed; an empty one is not wanted. Shapes are checked even where the window
/// is empty, which is how scan_vjp checks them before it starts.
template <class R>
concept differentiable_recurrence = recurrence<R> &&
    requires(R const& r, trajectory_view<typename R::value_type const> values,
             typename R::gradient const& gradient) {
  r.pull_back(1, time_window{}, values, values, gradient);
};

/// h_t = decay_t · h_{t-1} + drive_t with both given. Stride 0 makes a decay constant in time.
/// Shapes    decay, drive (batch, time, channel, state).
template <scalar T, memory Where = memory::host>
struct linear_recurrence {
  using value_type = T;

  trajectory_view<T const, Where> decay;
  trajectory_view<T const, Where> drive;

  struct gradient {
    trajectory_view<T> decay{};
    trajectory_view<T> drive{};
  };

  struct step {
    linear_recurrence const& self;
    index_t b, t, c;

    SSM_HD constexpr affine_map<T> operator()(index_t n) const {
      return {self.decay(b, t, c, n), self.drive(b, t, c, n)};
    }
  };

  SSM_HD constexpr step at(index_t b, index_t t, index_t c) const { return {*this, b, t, c}; }

  scan_shape shape() const {
    require_shape(decay, drive.extents(), "linear_recurrence: decay",
                  "batch, time, channel, state");
    return {drive.extent(0), drive.extent(1), drive.extent(2), drive.extent(3)};
  }

  void pull_back(int threads, time_window const& window, trajectory_view<T const> adjoint,
                 trajectory_view<T const> before, gradient const& to) const {
    detail::require_gradient_shape(to.decay, drive.extents(), "linear_recurrence: gradient.decay",
                                   "batch, time, channel, state");
    detail::require_gradient_shape(to.drive, drive.extents(), "linear_recurrence: gradient.drive",
                                   "batch, time, channel, state");
    detail::sum_into(threads, window, to.decay, [&](index_t b, index_t i, index_t c, index_t n) {
      return adjoint(b, i, c, n) * conjugate(before(b, i, c, n));
    });
    detail::sum_into(threads, window, to.drive, [&](index_t b, index_t i, index_t c, index_t n) {
      return adjoint(b, i, c, n);
    });
  }
};

}  // namespace ssm
