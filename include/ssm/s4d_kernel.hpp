// SPDX-License-Identifier: Apache-2.0
// s4d_kernel.hpp: the convolution kernel of an S4D model, and the gradient that returns through it.
#pragma once

#include <type_traits>
#include <vector>

#include "ssm/detail/decay_powers.hpp"
#include "ssm/detail/parallel_for.hpp"
#include "ssm/execution.hpp"
#include "ssm/s4d.hpp"
#include "ssm/tensor.hpp"

namespace ssm {
namespace detail {

template <class Rule, scalar T>
decay_powers<Rule, T> powers_of_channel(s4d<Rule, T> const& system, index_t c, index_t length) {
  return {system.rule, system.step_size(c), system.eigenvalue.select(0, c), length};
}

/// K_l of channel c for l < length, into contiguous memory.
template <class Rule, scalar T>
void kernel_of_channel(s4d<Rule, T> const& system, decay_powers<Rule, T> const& powers, index_t c,
                       std::vector<real_t<T>>& kernel) {
  std::vector<T> weight;
  for (index_t n = 0; n < system.states(); ++n)
    weight.push_back(system.C(c, n) * input_weight(system, c, n) * system.scale());
  std::fill(kernel.begin(), kernel.end(), real_t<T>(0));
  powers.add_sums(weight, static_cast<index_t>(kernel.size()), kernel.data());
}

}  // namespace detail

/// K_cl = scale·Re Σ_n C_n gain(Δλ_n) Δ B_n decay(Δλ_n)^l: with a zero initial state, y = K * x
/// (causal_convolution.hpp) and D x. D is not part of K.
/// Shapes    kernel (channel, length), any length.
/// Accuracy  (states + 19)·eps·Σ_n|terms| at every l < 1/(70 eps) with l·|Δλ| < 1/eps, and what
///           the gain is off by: 2·|z gain'/gain| + 12 eps, 1/4 of it if real. The error does not
///           grow with l as powers by repeated multiplication do. Where |decay^l| < min/eps, with
///           min the smallest normal number, min·Σ_n|C_n gain Δ B_n| more.
/// Cost      two multiplications and additions for each (channel, state, l), one if real, and a
///           decay for each l/256.
/// Throws    shape_error before anything is written.
/// Repeats   bit for bit for any number of threads.
/// Gradient  s4d_kernel_vjp.     Tested  tests/s4d_kernel_test.cpp, to length 2^20.
template <execution_policy Policy, class Rule, scalar T>
void s4d_kernel(Policy policy, s4d<Rule, T> const& system,
                tensor_view<std::type_identity_t<real_t<T>>, 2> kernel) {
  system.require_shapes();
  require_shape(kernel, {system.channels(), kernel.extent(1)}, "s4d_kernel: kernel",
                "channel, length");
  detail::require_writable(kernel, "s4d_kernel: kernel");
  index_t const length = kernel.extent(1);
  int const threads = detail::plan(policy, system.channels(), length).threads;
  detail::parallel_for(threads, system.channels(), [&](index_t begin, index_t end) {
    std::vector<real_t<T>> row(static_cast<std::size_t>(length));
    for (index_t c = begin; c < end; ++c) {
      detail::kernel_of_channel(system, detail::powers_of_channel(system, c, length), c, row);
      for (index_t l = 0; l < length; ++l) kernel(c, l) = row[static_cast<std::size_t>(l)];
    }
  });
}

/// Gradient of s4d_kernel, added to the views of `gradient` (empty: not wanted; D has none).
/// With M = Σ_l k_l decay^l and M' = Σ_l k_l l decay^(l-1) of the cotangent k, C receives
/// conj(w M), the weight w = gain Δ B receives conj(C M), and the decay conj(C w M').
/// Shapes    kernel_cotangent (channel, length).
/// Accuracy  (40 + S/16 + length/S)·eps·Σ|terms| with the block S of detail::decay_powers, and
///           what gain and slopes are off by.
/// Throws    shape_error before anything is written.
/// Repeats   bit for bit for any number of threads.
template <execution_policy Policy, class Rule, scalar T>
void s4d_kernel_vjp(Policy policy, s4d<Rule, T> const& system,
                    tensor_view<std::type_identity_t<real_t<T>> const, 2> kernel_cotangent,
                    typename s4d<Rule, T>::gradient const& gradient) {
  using real = real_t<T>;
  system.require_shapes();
  system.require_gradient_shapes(gradient);
  index_t const channels = system.channels(), states = system.states();
  index_t const length = kernel_cotangent.extent(1);
  require_shape(kernel_cotangent, {channels, length}, "s4d_kernel_vjp: kernel_cotangent",
                "channel, length");
  int const threads = detail::plan(policy, channels, length).threads;

  struct parts {
    real step_size;
    T eigenvalue, B, C;
  };
  tensor<parts, 2> found({channels, states});
  detail::parallel_for(threads, channels, [&](index_t begin, index_t end) {
    std::vector<real> k(static_cast<std::size_t>(length)), weighted(k);
    std::vector<T> moment, slope;
    for (index_t c = begin; c < end; ++c) {
      auto const powers = detail::powers_of_channel(system, c, length);
      for (index_t l = 0; l < length; ++l) {
        auto const i = static_cast<std::size_t>(l);
        k[i] = kernel_cotangent(c, l) * system.scale();
        if (l > 0) weighted[i - 1] = k[i] * static_cast<real>(l);
      }
      powers.moments(k.data(), length, moment);
      powers.moments(weighted.data(), length - 1, slope);
      for (index_t n = 0; n < states; ++n) {
        auto const i = static_cast<std::size_t>(n);
        real const delta = system.step_size(c);
        T const lambda = system.eigenvalue(c, n), z = lambda * delta;
        T const B = system.B(c, n), C = system.C(c, n);
        T const gain = system.rule.gain(z), w = gain * B * delta;
        T const to_w = conjugate(T(C * moment[i]));
        T const to_z = conjugate(T(C * (w * slope[i] * system.rule.decay_slope(z) +
                                        moment[i] * system.rule.gain_slope(z) * B * delta)));
        found(c, n) = {real_part(T(to_z * conjugate(lambda) + to_w * conjugate(T(gain * B)))),
                       to_z * delta, to_w * conjugate(gain) * delta, conjugate(T(w * moment[i]))};
      }
    }
  });

  auto const add = [&](auto to, auto member) {
    detail::sum_into(threads, time_window{0, 1, 1}, to.broadcast(0, 1).broadcast(0, 1),
                     [&](index_t, index_t, index_t c, index_t n) { return found(c, n).*member; });
  };
  add(gradient.step_size.broadcast(1, states), &parts::step_size);
  add(gradient.eigenvalue, &parts::eigenvalue);
  add(gradient.B, &parts::B);
  add(gradient.C, &parts::C);
}

}  // namespace ssm
