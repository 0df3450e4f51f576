// SPDX-License-Identifier: Apache-2.0
// s4d_convolution.hpp: an S4D model by its convolution kernel, states before and after included.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "ssm/fft_convolution.hpp"
#include "ssm/s4d_kernel.hpp"

namespace ssm {

/// What s4d_scan computes, by convolution: y = K * x by Fourier transforms, the response
/// scale·Re Σ_n C_n decay_n^(t+1) h_n of an initial state that is not 0, and D x. Where `carry` is
/// given it is the state before the first step on entry and after the last one on exit, so that
/// s4d_scan or a next call goes on from there; empty, the initial state is 0 and the final one is
/// not wanted.
/// Shapes    x, y (batch, time, channel), and y may be x; carry (batch, channel, state) or empty.
/// Accuracy  of y: that of fft_convolution and s4d_kernel, (18 + states)·eps·Σ|terms| for the
///           response and a rounding for each of the three parts; of the final state:
///           (24 + S/16 + length/S)·eps·Σ|terms|, S as in detail::decay_powers, and what the gain
///           is off by (s4d_kernel).
/// Cost      for each channel s4d_kernel and one transform of K, for each batch two transforms and,
///           with a carry, two multiplications and additions for each (state, step) of the final
///           state and as many for the response (one if real). Memory for each thread about 10
///           numbers a step.
/// Throws    shape_error before anything is written.
/// Repeats   bit for bit for any number of threads; channels are shared out among them.
/// Gradient  fft_convolution_vjp to x and K, then s4d_kernel_vjp; with states, s4d_scan_vjp.
template <execution_policy Policy, class Rule, scalar T>
void s4d_convolution(Policy policy, s4d<Rule, T> const& system,
                     sequence_view<std::type_identity_t<real_t<T>> const> x,
                     sequence_view<std::type_identity_t<real_t<T>>> y,
                     state_view<std::type_identity_t<T>> carry = {}) {
  using real = real_t<T>;
  bool const with_carry = carry.data_handle() != nullptr;
  index_t const batch = x.extent(0), length = x.extent(1);
  index_t const channels = system.channels(), states = system.states();
  if (!with_carry) carry = {nullptr, {batch, channels, states}};
  detail::require_s4d_shapes<Rule, T>(system, x, y, "s4d_convolution: y", carry,
                                      "s4d_convolution: carry");
  detail::require_writable(y, "s4d_convolution: y");
  if (with_carry) detail::require_writable(carry, "s4d_convolution: carry");

  struct workspace {
    detail::fft_convolver<real> convolve;
    std::vector<real> input, output;
    std::vector<T> weight, moment;
  };
  auto const make = [&] {
    index_t const block = detail::fft_block(0, length, length);
    std::vector<real> const row(static_cast<std::size_t>(length));
    return workspace{{block, length, length}, row, row, std::vector<T>(), std::vector<T>()};
  };
  int const threads = detail::plan(policy, channels, length).threads;
  detail::for_each_channel(threads, channels, make, [&](workspace& w, index_t c) {
    auto const powers = detail::powers_of_channel(system, c, length);
    detail::kernel_of_channel(system, powers, c, w.output);
    w.convolve.set_kernel(w.output.data());
    for (index_t b = 0; b < batch; ++b) {
      for (index_t t = 0; t < length; ++t) w.input[static_cast<std::size_t>(t)] = x(b, t, c);
      w.convolve(w.input.data(), w.output.data());
      if (with_carry) {
        w.weight.clear();
        for (index_t n = 0; n < states; ++n)
          w.weight.push_back(system.C(c, n) * system.scale() * powers(n, 1) * carry(b, c, n));
        powers.add_sums(w.weight, length, w.output.data());
      }
      for (index_t t = 0; t < length; ++t) {
        auto const i = static_cast<std::size_t>(t);
        y(b, t, c) = system.D.data_handle() == nullptr ? w.output[i]
                                                       : w.output[i] + system.D(c) * w.input[i];
      }
      if (!with_carry) continue;
      std::reverse(w.input.begin(), w.input.end());  // step t is length-1-t steps ago
      powers.moments(w.input.data(), length, w.moment);
      for (index_t n = 0; n < states; ++n) {
        T const from_inputs =
            detail::input_weight(system, c, n) * w.moment[static_cast<std::size_t>(n)];
        carry(b, c, n) = powers(n, length) * carry(b, c, n) + from_inputs;
      }
    }
  });
}

}  // namespace ssm
