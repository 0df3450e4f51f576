// SPDX-License-Identifier: Apache-2.0
// selective_scan_reference.hpp: Mamba's operator composed from the generic scan: its slow twin.
#pragma once

#include <algorithm>

#include "ssm/detail/selective_scan_inputs.hpp"
#include "ssm/diagonal.hpp"
#include "ssm/readout.hpp"
#include "ssm/scan.hpp"
#include "ssm/tensor.hpp"

namespace ssm::detail {

/// The inputs in the type that is computed with, Δ and A as the recurrence takes them.
template <class T>
struct selective_scan_terms {
  using real = accumulator_t<T>;

  selective_scan_inputs<T> const& in;
  scan_shape shape;
  tensor<real, 3> x, step_size;
  tensor<real, 2> eigenvalue;
  tensor<real, 4> B, C;

  explicit selective_scan_terms(selective_scan_inputs<T> const& inputs)
      : in{inputs},
        shape{checked_shape(inputs)},
        x(in.x.extents()),
        step_size(in.x.extents()),
        eigenvalue(scaled_eigenvalues(in.eigenvalue, in.scaling)),
        B(in.B.extents()),
        C(in.C.extents()) {
    for (index_t b = 0; b < shape.batch; ++b)
      for (index_t t = 0; t < shape.length; ++t) {
        for (index_t c = 0; c < shape.channels; ++c) {
          x(b, t, c) = static_cast<real>(in.x(b, t, c));
          step_size(b, t, c) = in.scaling.step_factor(c) * in.step_rule(biased_step(b, t, c));
        }
        for (index_t g = 0; g < in.B.extent(2); ++g)
          for (index_t n = 0; n < shape.states; ++n) {
            B(b, t, g, n) = static_cast<real>(in.B(b, t, g, n));
            C(b, t, g, n) = static_cast<real>(in.C(b, t, g, n));
          }
      }
  }

  real biased_step(index_t b, index_t t, index_t c) const {
    real const raw = static_cast<real>(in.step_size(b, t, c));
    return in.step_bias.data_handle() == nullptr ? raw : raw + in.step_bias(c);
  }
  real skip(index_t c) const { return in.D.data_handle() == nullptr ? real(0) : in.D(c); }
  real skipped(index_t b, index_t t, index_t c) const {
    return in.D.data_handle() == nullptr ? real(0) : in.D(c) * x(b, t, c);
  }
  bool has_gate() const { return in.gate.data_handle() != nullptr; }

  /// Call run(b, first, count, g, first channel, channels) for every stretch of one sequence in
  /// every row and group, in the order of time.
  template <class Run>
  void for_each_stretch(Run const& run) const {
    index_t const groups = B.extent(2), channels = shape.channels / groups;
    for (index_t b = 0; b < shape.batch; ++b)
      for (index_t t = 0; t < shape.length;) {
        index_t const end = end_of_sequence(in.sequence, b, t, shape.length);
        for (index_t g = 0; g < groups; ++g) run(b, t, end - t, g, g * channels, channels);
        t = end;
      }
  }

  template <class View>
  static View part(View const& view, index_t b, index_t first, index_t count, index_t channel,
                   index_t channels) {
    return view.slice(0, b, 1).slice(1, first, count).slice(2, channel, channels);
  }

  diagonal<mamba_hold, real> recurrence(index_t b, index_t first, index_t count, index_t g,
                                        index_t channel, index_t channels) const {
    return {.step_size = part(step_size.view(), b, first, count, channel, channels),
            .eigenvalue = eigenvalue.view().slice(0, channel, channels),
            .B = of_group(B.view(), b, first, count, g, channels),
            .x = part(x.view(), b, first, count, channel, channels)};
  }

  /// What all channels of a group share, as a view with a channel axis.
  template <class U>
  static trajectory_view<U> of_group(trajectory_view<U> const& view, index_t b, index_t first,
                                     index_t count, index_t g, index_t channels) {
    return view.slice(0, b, 1).slice(1, first, count).select(2, g).broadcast(2, channels);
  }
};

/// Σ_n C_n h_n for all of time. `carry` goes from the initial to the final state.
template <execution_policy Policy, class T>
tensor<accumulator_t<T>, 3> contracted_states(Policy policy, selective_scan_terms<T> const& terms,
                                              state_view<accumulator_t<T>> carry,
                                              trajectory_view<accumulator_t<T>> checkpoints) {
  using real = accumulator_t<T>;
  tensor<real, 3> y(terms.x.extents());
  terms.for_each_stretch(
      [&](index_t b, index_t first, index_t count, index_t g, index_t channel, index_t channels) {
        auto const state = carry.slice(0, b, 1).slice(1, channel, channels);
        if (first > 0) {  // another sequence was here before
          for (index_t c = 0; c < channels; ++c)
            for (index_t n = 0; n < state.extent(2); ++n) state(0, c, n) = real(0);
        }
        // With checkpoints, block by block: a scan leaves nothing but its last states.
        for (index_t t = first, last = first + count; t < first + count; t = last) {
          last = first + count;
          if (checkpoints.data_handle() != nullptr) {
            last = std::min(last, (t / selective_scan_block + 1) * selective_scan_block);
            for (index_t c = 0; c < channels && t % selective_scan_block == 0; ++c)
              for (index_t n = 0; n < state.extent(2); ++n) {
                checkpoints(b, t / selective_scan_block, n, channel + c) = state(0, c, n);
              }
          }
          contract<real> const readout{terms.of_group(terms.C.view(), b, t, last - t, g, channels),
                                       terms.part(y.view(), b, t, last - t, channel, channels)};
          scan(policy, terms.recurrence(b, t, last - t, g, channel, channels), readout, state);
        }
      });
  return y;
}

template <execution_policy Policy, class T>
void reference_selective_scan(Policy policy, selective_scan_inputs<T> const& in,
                              state_view<accumulator_t<T>> carry, sequence_view<T> y,
                              trajectory_view<accumulator_t<T>> checkpoints) {
  using real = accumulator_t<T>;
  selective_scan_terms<T> const terms(in);
  auto const sums = contracted_states(policy, terms, carry, checkpoints);
  for (index_t b = 0; b < y.extent(0); ++b)
    for (index_t t = 0; t < y.extent(1); ++t)
      for (index_t c = 0; c < y.extent(2); ++c) {
        real result = sums(b, t, c) + terms.skipped(b, t, c);
        if (terms.has_gate()) result = result * ssm::silu(static_cast<real>(in.gate(b, t, c)));
        y(b, t, c) = static_cast<T>(result);
      }
}

template <execution_policy Policy, class T>
void reference_selective_scan_vjp(Policy policy, selective_scan_inputs<T> const& in,
                                  state_view<accumulator_t<T> const> initial,
                                  sequence_view<T const> y_cotangent,
                                  state_view<accumulator_t<T>> carry_cotangent,
                                  selective_scan_gradients<T> const& to) {
  using real = accumulator_t<T>;
  selective_scan_terms<T> const terms(in);
  scan_shape const s = terms.shape;

  // Past the gate and D: the cotangent of Σ_n C_n h_n.
  tensor<real, 3> arriving(in.x.extents()), x_gradient(in.x.extents());
  tensor<real, 3> carry(initial.extents());
  for (index_t b = 0; b < s.batch; ++b)
    for (index_t c = 0; c < s.channels; ++c)
      for (index_t n = 0; n < s.states; ++n) carry(b, c, n) = initial(b, c, n);
  auto const sums = contracted_states(policy, terms, carry.view(), {});
  for (index_t b = 0; b < s.batch; ++b)
    for (index_t t = 0; t < s.length; ++t)
      for (index_t c = 0; c < s.channels; ++c) {
        real const cotangent = static_cast<real>(y_cotangent(b, t, c));
        arriving(b, t, c) = cotangent;
        if (terms.has_gate()) {
          real const z = static_cast<real>(in.gate(b, t, c));
          real const ungated = sums(b, t, c) + terms.skipped(b, t, c);
          arriving(b, t, c) = cotangent * ssm::silu(z);
          if (to.gate.data_handle() != nullptr) {
            to.gate(b, t, c) += cotangent * ungated * ssm::silu_slope(z);
          }
        }
        x_gradient(b, t, c) = terms.skip(c) * arriving(b, t, c);
        if (to.D.data_handle() != nullptr) to.D(c) += arriving(b, t, c) * terms.x(b, t, c);
      }

  // Each stretch by itself: the first one has the initial state, the last one the final state.
  tensor<real, 3> step_gradient(in.x.extents()), initial_gradient(initial.extents());
  tensor<real, 2> eigenvalue_gradient(in.eigenvalue.extents());
  terms.for_each_stretch([&](index_t b, index_t first, index_t count, index_t g, index_t channel,
                             index_t channels) {
    tensor<real, 3> entering({1, channels, s.states}), leaving({1, channels, s.states});
    for (index_t c = 0; c < channels; ++c)
      for (index_t n = 0; n < s.states; ++n) {
        if (first == 0) entering(0, c, n) = initial(b, channel + c, n);
        if (first + count == s.length) leaving(0, c, n) = carry_cotangent(b, channel + c, n);
      }
    auto const group = [&](auto const& view) {
      return view.data_handle() == nullptr ? trajectory_view<real>{}
                                           : terms.of_group(view, b, first, count, g, channels);
    };
    auto const of_stretch = [&](auto const& view) {
      return terms.part(view, b, first, count, channel, channels);
    };
    scan_vjp(policy, terms.recurrence(b, first, count, g, channel, channels),
             contract_vjp<real>{.C = terms.of_group(terms.C.view(), b, first, count, g, channels),
                                .y_cotangent = of_stretch(arriving.const_view()),
                                .C_gradient = group(to.C)},
             entering.const_view(), leaving,
             {.step_size = of_stretch(step_gradient.view()),
              .eigenvalue = eigenvalue_gradient.view().slice(0, channel, channels),
              .B = group(to.B),
              .x = of_stretch(x_gradient.view())});
    if (first > 0) return;
    for (index_t c = 0; c < channels; ++c)
      for (index_t n = 0; n < s.states; ++n) {
        initial_gradient(b, channel + c, n) = leaving(0, c, n);
      }
  });

  for (index_t b = 0; b < s.batch && s.length > 0; ++b)
    for (index_t c = 0; c < s.channels; ++c)
      for (index_t n = 0; n < s.states; ++n) carry_cotangent(b, c, n) = initial_gradient(b, c, n);
  for (index_t b = 0; b < s.batch; ++b)
    for (index_t t = 0; t < s.length; ++t)
      for (index_t c = 0; c < s.channels; ++c) {
        real const biased = terms.biased_step(b, t, c), gradient = step_gradient(b, t, c);
        real const to_raw = gradient * in.scaling.step_factor(c) * in.step_rule.slope(biased);
        if (to.x.data_handle() != nullptr) to.x(b, t, c) += x_gradient(b, t, c);
        if (to.step_size.data_handle() != nullptr) to.step_size(b, t, c) += to_raw;
        if (to.step_bias.data_handle() != nullptr) to.step_bias(c) += to_raw;
        if (to.scaling.step.data_handle() != nullptr) {
          to.scaling.step(c) += gradient * in.step_rule(biased);
        }
      }
  for (index_t c = 0; c < s.channels; ++c)
    for (index_t n = 0; n < s.states; ++n) {
      real const to_A =
          in.scaling.pull_back(c, n, in.eigenvalue(c, n), eigenvalue_gradient(c, n), to.scaling);
      if (to.eigenvalue.data_handle() != nullptr) to.eigenvalue(c, n) += to_A;
    }
}

}  // namespace ssm::detail
