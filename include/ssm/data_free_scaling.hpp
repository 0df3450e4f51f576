// SPDX-License-Identifier: Apache-2.0
// data_free_scaling.hpp: scalings that follow from the spectrum of a model alone.
#pragma once

#include <algorithm>
#include <boost/math/tools/toms748_solve.hpp>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "ssm/config.hpp"
#include "ssm/error.hpp"
#include "ssm/numerics.hpp"
#include "ssm/scalar.hpp"
#include "ssm/scaling_factors.hpp"
#include "ssm/spectrum.hpp"
#include "ssm/spectrum_analysis.hpp"
#include "ssm/tensor.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm {

/// The shape of the spectra of all layers, which must agree.
/// Throws    shape_error; domain_error for no layers.
template <real_scalar T>
spectrum_shape shape_of(std::span<spectrum_view<T> const> layers) {
  require<domain_error>(!layers.empty(), "shape_of: no layers, expected at least one");
  auto const expected = layers.front().eigenvalue.extents();
  for (auto const& layer : layers) {
    require_shape(layer.eigenvalue, expected, "shape_of: eigenvalue", "channel, state");
    require_shape(layer.step_size, {expected[0]}, "shape_of: step_size", "channel");
  }
  return {static_cast<index_t>(layers.size()), expected[0], expected[1]};
}

namespace detail {

/// The zero of a function that falls from low on, to 4 eps of it; high is where to look first.
/// Where it has fallen to 0 at low already, by rounding, low.
template <class T, class F>
T zero_of_falling(F const& f, T low, T high) {
  T at_low = f(low), at_high = at_low;
  if (at_low <= T(0)) return low;
  while ((at_high = f(high)) > T(0)) {
    T const next = high + T(2) * (high - low);
    low = std::exchange(high, next);
    at_low = at_high;
  }
  if (at_high == T(0)) return high;
  std::uintmax_t iterations = 200;
  boost::math::tools::eps_tolerance<T> const enough(std::numeric_limits<T>::digits - 2);
  auto const [below, above] =
      boost::math::tools::toms748_solve(f, low, high, at_low, at_high, enough, iterations);
  return (below + above) / T(2);
}

/// Where in a model the spectrum stands whose factor is sought, for messages.
struct spectrum_place {
  index_t layer, channel, state;
};

/// The factor with which a spectrum has after `longer` steps the energy that it has without after
/// `trained`. The energy falls as a linear factor grows, it grows with that of the step, and both
/// bound it: E(1)/s <= E(s) <= E(1) for a linear s >= 1, s² E(1) <= E(s) <= s E(1) for a step
/// s <= 1. With a power it is monotone where all eigenvalues are on one side of -1.
/// Throws    domain_error where there is none.
template <real_scalar T>
T matching_factor(spectrum_view<T> const& part, scaling_kind kind, T const& trained,
                  T const& longer, spectrum_place const& at) {
  auto const demand = [&](bool holds, char const* why) {
    require<domain_error>(holds, "norm_matching: layer ", at.layer, ", channel ", at.channel,
                          ", state ", at.state, " has no ", to_string(kind), " factor for ",
                          trained, " to ", longer, " steps: ", why);
  };
  auto const extents = part.eigenvalue.extents();
  auto const energy = [&](T const& s) {
    spectrum_scaling<T> scaling;
    if (kind.linear) scaling.linear = {&s, extents, {0, 0}};
    if (kind.power) scaling.power = {&s, extents, {0, 0}};
    if (kind.step) scaling.step = {&s, {extents[0]}, {0}};
    return state_energy<T>(scaled_spectrum(part, scaling), longer);
  };
  T const target = state_energy(part, trained), before = energy(T(1));
  T const eps = std::numeric_limits<T>::epsilon();
  if (before <= target * (T(1) + T(16) * eps)) return T(1);  // rounding alone

  T least(0);  // what the fastest decays leave
  bool has_above = false, has_below = false;
  for (index_t c = 0; c < extents[0]; ++c)
    for (index_t n = 0; n < extents[1]; ++n) {
      T const size = -part.eigenvalue(c, n), square = part.step_size(c) * part.step_size(c);
      bool const stays = size == (kind.power ? T(1) : T(0));
      least += stays ? square * state_gain(pole<T>::with_rate(part.step_size(c) * size), longer)
                     : square;
      has_above = has_above || size > T(1);
      has_below = has_below || size < T(1);
    }
  if (kind.step) {
    demand(before <= std::numeric_limits<T>::max(), "an eigenvalue is 0");
    T const ratio = target / before;
    return zero_of_falling([&](T const& s) { return T(target - energy(s)); }, ratio, T(1));
  }
  demand(!kind.power || !(has_above && has_below), "eigenvalues are on both sides of -1");
  T const rounding = eps * T(static_cast<double>(part.eigenvalue.size() + 12));
  demand(least * (T(1) + rounding) < target, "the fastest decays leave as much");
  if (kind.linear) {
    T const ratio = before / target;
    return zero_of_falling([&](T const& s) { return T(energy(s) - target); }, ratio,
                           T(T(2) * ratio));
  }
  T const sign = has_above ? T(1) : T(-1);
  return T(1) +
         sign * zero_of_falling([&](T const& u) { return T(energy(T(1) + sign * u) - target); },
                                T(0), T(1));
}

}  // namespace detail

/// The factors of one kind with which each layer, head, channel or state has, after `longer` steps
/// from a state of zero, the energy that it has without them after `trained` steps, for white
/// inputs; `longer` may be infinite. Linear factors are at least 1 and shorten memory to about that
/// of training; those of the step are at most 1 and lengthen it, as they let less in.
/// Accuracy  energies agree to (count + 14)·eps, so that a factor is off by that over its
///           elasticity (spectrum_analysis), at least by 4 eps.
/// Throws    domain_error, naming layer, channel and state, where no factor exists: none can undo
///           what one step of training did not hold, a linear one does not move an eigenvalue 0,
///           and under a power eigenvalues on both sides of -1 move apart. domain_error for more
///           than one kind, and unless 1 <= trained <= longer; shape_error for layers that differ.
template <real_scalar T>
scaling_factors<T> norm_matching(std::span<spectrum_view<T> const> layers, scaling_kind kind,
                                 granularity each, T const& trained, T const& longer) {
  require<domain_error>(kind.linear + kind.power + kind.step == 1, "norm_matching: kind is ",
                        to_string(kind), ", expected one: more are not determined");
  require<domain_error>(trained >= T(1) && longer >= trained, "norm_matching: from ", trained,
                        " to ", longer, " steps, expected 1 <= trained <= longer");
  spectrum_shape const shape = shape_of(layers);
  scaling_factors<T> result(kind, each, shape);
  bool const is_whole = each == granularity::layer;
  bool const has_states = each == granularity::channel_and_state && !kind.step;
  for (index_t layer = 0; layer < shape.layers; ++layer) {
    auto const& all = layers[static_cast<std::size_t>(layer)];
    auto const to = result.gradient(layer, result.numbers());  // views that can be written
    for (index_t c = 0; c < (is_whole ? 1 : shape.channels); ++c)
      for (index_t n = 0; n < (has_states ? shape.states : 1); ++n) {
        auto part = is_whole ? all : channel_of(all, c);
        if (has_states) part.eigenvalue = {&all.eigenvalue(c, n), {1, 1}};
        T const factor = detail::matching_factor(part, kind, trained, longer, {layer, c, n});
        if (kind.linear) to.linear(c, n) = factor;
        if (kind.power) to.power(c, n) = factor;
        if (kind.step) to.step(c) = factor;
      }
  }
  return result;
}

/// Linear factors, 1 or more for each channel and state, after which no state has a horizon of more
/// than `longest` steps: the slowest decays are clamped, the others left alone.
/// Accuracy  a horizon that is clamped is off by 3 eps.
/// Throws    domain_error unless longest > 0, and for a rate Δ·eigenvalue of 0, which no factor
///           moves; shape_error for layers that differ.
template <real_scalar T>
scaling_factors<T> winsorizing(std::span<spectrum_view<T> const> layers, T const& longest) {
  require<domain_error>(longest > T(0), "winsorizing: the longest horizon is ", longest,
                        " steps, expected more than 0");
  spectrum_shape const shape = shape_of(layers);
  scaling_factors<T> result({.linear = true}, granularity::channel_and_state, shape);
  for (index_t layer = 0; layer < shape.layers; ++layer) {
    auto const& [eigenvalue, step_size] = layers[static_cast<std::size_t>(layer)];
    poles_of(eigenvalue, step_size);  // checks them
    auto const to = result.gradient(layer, result.numbers());
    for (index_t c = 0; c < shape.channels; ++c)
      for (index_t n = 0; n < shape.states; ++n) {
        T const rate = -(step_size(c) * eigenvalue(c, n));
        require<domain_error>(rate > T(0), "winsorizing: layer ", layer, ", channel ", c,
                              ", state ", n, " never decays, expected a rate of more than 0");
        to.linear(c, n) = std::max(T(1), T(T(1) / (rate * longest)));
      }
  }
  result.require_valid();
  return result;
}

}  // namespace ssm
