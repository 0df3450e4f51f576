// SPDX-License-Identifier: Apache-2.0
// s4d.hpp: diagonal time-invariant models (S4D), their initial spectra, and how they run in time.
#pragma once

#include <complex>
#include <concepts>
#include <numbers>
#include <type_traits>

#include "ssm/affine_map.hpp"
#include "ssm/detail/require_writable.hpp"
#include "ssm/detail/sum_into.hpp"
#include "ssm/diagonal.hpp"
#include "ssm/error.hpp"
#include "ssm/readout.hpp"
#include "ssm/scan.hpp"
#include "ssm/tensor.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm {

/// S4D-Lin: λ_n = -1/2 + iπn, the frequencies of a Fourier series.
/// Source  Gu et al. 2022, arXiv:2206.11893, S4D-Lin; n counts conjugate pairs. (s4d_real is in
///         spectrum.hpp.)
template <std::floating_point R>
std::complex<R> s4d_lin(index_t n) {
  return {R(-0.5), std::numbers::pi_v<R> * static_cast<R>(n)};
}

/// S4D-Inv: λ_n = -1/2 + i (N/π)(N/(2n + 1) - 1), close to the spectrum of HiPPO-LegS.
/// N = `states` counts both of each conjugate pair, and n < N/2.
/// Source  Gu et al. 2022, arXiv:2206.11893, S4D-Inv.
template <std::floating_point R>
std::complex<R> s4d_inv(index_t n, index_t states) {
  R const N = static_cast<R>(states), odd = static_cast<R>(2 * n + 1);
  return {R(-0.5), N * (N - odd) / (odd * std::numbers::pi_v<R>)};
}

/// A model with its own step size for each channel and nothing that changes in time:
///   h_t = decay(Δλ) h_{t-1} + Δ gain(Δλ) B x_t,   y_t = scale·Re Σ_n C_n h_tn + D x_t.
/// With `conjugate_pairs` every state stands for itself and its complex conjugate, and scale is 2;
/// otherwise 1. The same model is a scan (s4d_scan) and a convolution (s4d_kernel.hpp).
/// Shapes    step_size, D (channel), D may be empty; eigenvalue, B, C (channel, state).
/// Throws    shape_error from require_shapes() where a view disagrees with eigenvalue, and for
///           conjugate pairs of real eigenvalues.
/// Source    Gu et al. 2022, arXiv:2206.11893, sections 2 and 3.
template <class Rule, scalar T>
struct s4d {
  using value_type = T;
  using real = real_t<T>;

  Rule rule{};
  tensor_view<real const, 1> step_size;
  tensor_view<T const, 2> eigenvalue;
  tensor_view<T const, 2> B;
  tensor_view<T const, 2> C;
  tensor_view<real const, 1> D{};
  bool conjugate_pairs = false;

  /// A view for each input under its name; stride 0 sums, an empty one is not wanted.
  struct gradient {
    tensor_view<real, 1> step_size{};
    tensor_view<T, 2> eigenvalue{};
    tensor_view<T, 2> B{};
    tensor_view<T, 2> C{};
    tensor_view<real, 1> D{};
  };

  index_t channels() const { return eigenvalue.extent(0); }
  index_t states() const { return eigenvalue.extent(1); }
  real scale() const { return conjugate_pairs ? real(2) : real(1); }

  void require_shapes() const {
    require_shape(step_size, {channels()}, "s4d: step_size", "channel");
    require_shape(B, eigenvalue.extents(), "s4d: B", "channel, state");
    require_shape(C, eigenvalue.extents(), "s4d: C", "channel, state");
    if (D.data_handle() != nullptr) require_shape(D, {channels()}, "s4d: D", "channel");
    require<shape_error>(complex_scalar<T> || !conjugate_pairs,
                         "s4d: conjugate_pairs is set for real eigenvalues, expected complex ones");
  }

  void require_gradient_shapes(gradient const& to) const {
    detail::require_gradient_shape(to.step_size, {channels()}, "s4d: gradient.step_size",
                                   "channel");
    detail::require_gradient_shape(to.eigenvalue, eigenvalue.extents(), "s4d: gradient.eigenvalue",
                                   "channel, state");
    detail::require_gradient_shape(to.B, eigenvalue.extents(), "s4d: gradient.B", "channel, state");
    detail::require_gradient_shape(to.C, eigenvalue.extents(), "s4d: gradient.C", "channel, state");
    detail::require_gradient_shape(to.D, D.extents(), "s4d: gradient.D", "channel");
  }

  /// The same states as a recurrence over x (batch, time, channel): the slow twin of s4d_scan, and
  /// what its gradient goes through.
  diagonal<Rule, T> recurrence(sequence_view<real const> x) const {
    return {.rule = rule,
            .step_size = step_size.broadcast(0, x.extent(1)).broadcast(0, x.extent(0)),
            .eigenvalue = eigenvalue,
            .B = B.broadcast(0, x.extent(1)).broadcast(0, x.extent(0)),
            .x = x};
  }
};

namespace detail {

/// Views that every form of an s4d model is called with.
template <class Rule, scalar T>
void require_s4d_shapes(s4d<Rule, T> const& system, sequence_view<real_t<T> const> x,
                        sequence_view<real_t<T> const> y, char const* y_name,
                        state_view<T const> carry, char const* carry_name) {
  system.require_shapes();
  require_shape(x, {x.extent(0), x.extent(1), system.channels()}, "s4d: x", "batch, time, channel");
  require_shape(y, x.extents(), y_name, "batch, time, channel");
  require_shape(carry, {x.extent(0), system.channels(), system.states()}, carry_name,
                "batch, channel, state");
}

/// f(c, n) for every channel and state of a model.
template <class Rule, scalar T, class F>
tensor<T, 2> for_each_state(s4d<Rule, T> const& system, F const& f) {
  tensor<T, 2> result(system.eigenvalue.extents());
  for (index_t c = 0; c < system.channels(); ++c)
    for (index_t n = 0; n < system.states(); ++n) result(c, n) = f(c, n);
  return result;
}

/// scale·C, exact: what a model's readout contracts with.
template <class Rule, scalar T>
tensor<T, 2> scaled_readout(s4d<Rule, T> const& system) {
  return for_each_state(system,
                        [&](index_t c, index_t n) { return T(system.C(c, n) * system.scale()); });
}

/// The weight of an input in a state, gain(Δλ) B Δ.
template <class Rule, scalar T>
T input_weight(s4d<Rule, T> const& system, index_t c, index_t n) {
  T const z = system.step_size(c) * system.eigenvalue(c, n);
  return system.rule.gain(z) * system.B(c, n) * system.step_size(c);
}

/// h_t = decay h_{t-1} + weight x_t, the steps of s4d::recurrence with all that time does not
/// change taken out of them: no decay(Δλ) for each step.
/// Shapes    decay, weight (channel, state); x (batch, time, channel).
template <scalar T>
struct time_invariant {
  using value_type = T;

  tensor_view<T const, 2> decay;
  tensor_view<T const, 2> weight;
  sequence_view<real_t<T> const> x;

  struct step {
    time_invariant const& self;
    index_t c;
    real_t<T> x;

    constexpr affine_map<T> operator()(index_t n) const {
      return {self.decay(c, n), self.weight(c, n) * x};
    }
  };

  constexpr step at(index_t b, index_t t, index_t c) const { return {*this, c, x(b, t, c)}; }
  scan_shape shape() const { return {x.extent(0), x.extent(1), x.extent(2), decay.extent(1)}; }
};

/// to(t) += D x, the skip of a model that has one.
template <class Real>
void add_skip(int threads, tensor_view<Real const, 1> D, sequence_view<Real const> x,
              sequence_view<Real> to) {
  if (D.data_handle() == nullptr) return;
  sum_into(threads, time_window{0, x.extent(1), 1}, to.broadcast(3, 1),
           [&](index_t b, index_t t, index_t c, index_t) { return D(c) * x(b, t, c); });
}

}  // namespace detail

/// Run a model in time: y from x, and the states before the first step and after the last one.
/// One call over a sequence equals a call for each part of it, down to single steps. (For the
/// response to the future, reverse axis 1 of x and y.)
/// Shapes    x, y (batch, time, channel), y not overlapping x; carry (batch, channel, state).
/// Accuracy  that of scan, and one rounding for the skip.
/// Cost      each decay and gain once in a call, then a multiplication and an addition for each
///           state of each step, and as much to read it out.
/// Throws    shape_error before anything is written.
/// Gradient  s4d_scan_vjp.
template <execution_policy Policy, class Rule, scalar T>
void s4d_scan(Policy policy, s4d<Rule, T> const& system,
              sequence_view<std::type_identity_t<real_t<T>> const> x,
              sequence_view<std::type_identity_t<real_t<T>>> y,
              state_view<std::type_identity_t<T>> carry) {
  detail::require_s4d_shapes<Rule, T>(system, x, y, "s4d_scan: y", carry, "s4d_scan: carry");
  detail::require_writable(y, "s4d_scan: y");
  detail::require_writable(carry, "s4d_scan: carry");
  index_t const batch = x.extent(0), length = x.extent(1);
  tensor<T, 2> const C = detail::scaled_readout(system);
  tensor<T, 2> const decay = detail::for_each_state(system, [&](index_t c, index_t n) {
    return system.rule.decay(T(system.step_size(c) * system.eigenvalue(c, n)));
  });
  tensor<T, 2> const weight = detail::for_each_state(
      system, [&](index_t c, index_t n) { return detail::input_weight(system, c, n); });
  contract<T> const readout{C.view().broadcast(0, length).broadcast(0, batch), y};
  scan(policy, detail::time_invariant<T>{decay, weight, x}, readout, carry);
  int const threads = detail::plan(policy, batch * system.channels(), length).threads;
  detail::add_skip<real_t<T>>(threads, system.D, x, y);
}

/// Gradient of s4d_scan, added to `gradient` and `x_gradient` (empty: not wanted).
/// Shapes    as s4d_scan; initial, carry_cotangent (batch, channel, state): the latter is the
///           cotangent of the final state on entry and the gradient of the initial one on exit.
/// Accuracy, Throws, Repeats  as scan_vjp.
template <execution_policy Policy, class Rule, scalar T>
void s4d_scan_vjp(Policy policy, s4d<Rule, T> const& system,
                  sequence_view<std::type_identity_t<real_t<T>> const> x,
                  sequence_view<std::type_identity_t<real_t<T>> const> y_cotangent,
                  state_view<std::type_identity_t<T> const> initial,
                  state_view<std::type_identity_t<T>> carry_cotangent,
                  typename s4d<Rule, T>::gradient const& gradient,
                  sequence_view<std::type_identity_t<real_t<T>>> x_gradient = {}) {
  using real = real_t<T>;
  detail::require_s4d_shapes<Rule, T>(system, x, y_cotangent, "s4d_scan_vjp: y_cotangent", initial,
                                      "s4d_scan_vjp: initial");
  require_shape(carry_cotangent, initial.extents(), "s4d_scan_vjp: carry_cotangent",
                "batch, channel, state");
  detail::require_writable(carry_cotangent, "s4d_scan_vjp: carry_cotangent");
  system.require_gradient_shapes(gradient);
  detail::require_gradient_shape(x_gradient, x.extents(), "s4d_scan_vjp: x_gradient",
                                 "batch, time, channel");
  index_t const batch = x.extent(0), length = x.extent(1);
  auto const in_time = [&](auto view) { return view.broadcast(0, length).broadcast(0, batch); };
  tensor<T, 2> const C = detail::scaled_readout(system);
  tensor<T, 2> to_C(gradient.C.data_handle() == nullptr ? index_array<2>{} : C.extents());
  contract_vjp<T> const readout{in_time(C.view()), y_cotangent,
                                to_C.size() == 0 ? trajectory_view<T>{} : in_time(to_C.view())};
  scan_vjp(policy, system.recurrence(x), readout, initial, carry_cotangent,
           {in_time(gradient.step_size), gradient.eigenvalue, in_time(gradient.B), x_gradient});

  int const threads = detail::plan(policy, batch * system.channels(), length).threads;
  detail::sum_into(
      threads, time_window{0, 1, 1}, gradient.C.broadcast(0, 1).broadcast(0, 1),
      [&](index_t, index_t, index_t c, index_t n) { return to_C(c, n) * system.scale(); });
  detail::sum_into(
      threads, time_window{0, length, 1}, in_time(gradient.D).broadcast(3, 1),
      [&](index_t b, index_t t, index_t c, index_t) { return y_cotangent(b, t, c) * x(b, t, c); });
  if (x_gradient.data_handle() != nullptr)
    detail::add_skip<real>(threads, system.D, y_cotangent, x_gradient);
}

}  // namespace ssm
