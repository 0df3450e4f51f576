// SPDX-License-Identifier: Apache-2.0
// state_space_dual_reference_vjp.hpp: the gradient of Mamba-2's operator by that of the engine.
#pragma once

#include <algorithm>

#include "ssm/detail/state_space_dual_reference.hpp"

namespace ssm::detail {

/// Add what the gradients of all Δ' and A' give to their inputs.
template <class T>
void pull_back_steps(state_space_dual_inputs<T> const& in, tensor<accumulator_t<T>, 3> const& step,
                     tensor<accumulator_t<T>, 1> const& eigenvalue,
                     state_space_dual_gradients<T> const& to) {
  using R = accumulator_t<T>;
  auto const e = extents_of(in);
  for (index_t h = 0; h < e.heads; ++h) {
    R const A = in.scaling.pull_back(h, 0, in.eigenvalue(h), eigenvalue(h), to.scaling);
    if (to.eigenvalue.data_handle() != nullptr) to.eigenvalue(h) += A;
  }
  for (index_t b = 0; b < e.batch; ++b)
    for (index_t t = 0; t < e.length; ++t)
      for (index_t h = 0; h < e.heads; ++h) {
        R const biased = biased_step(in, b, t, h), arriving = step(b, t, h);
        if (to.scaling.step.data_handle() != nullptr) {
          to.scaling.step(h) += arriving * in.step_rule(biased);
        }
        R const raw = arriving * in.scaling.step_factor(h) * in.step_rule.slope(biased);
        if (to.step_size.data_handle() != nullptr) to.step_size(b, t, h) += raw;
        if (to.step_bias.data_handle() != nullptr) to.step_bias(h) += raw;
      }
}

/// The cotangent of y before the gate and D, (batch, time, channel); adds to the gradients of gate
/// and D, and what D gives to x.
template <class T>
tensor<accumulator_t<T>, 3> pull_back_output(state_space_dual_inputs<T> const& in,
                                             tensor<accumulator_t<T>, 3> const& sums,
                                             tensor_view<accumulator_t<T> const, 4> y_cotangent,
                                             state_space_dual_gradients<T> const& to) {
  using R = accumulator_t<T>;
  auto const e = extents_of(in);
  tensor<R, 3> arriving(sums.extents());
  for (index_t b = 0; b < e.batch; ++b)
    for (index_t t = 0; t < e.length; ++t)
      for (index_t h = 0; h < e.heads; ++h)
        for (index_t p = 0; p < e.head_dim; ++p) {
          index_t const c = h * e.head_dim + p;
          R g = y_cotangent(b, t, h, p);
          if (in.gate.data_handle() != nullptr) {
            R const gate = static_cast<R>(in.gate(b, t, h, p));
            if (to.gate.data_handle() != nullptr) {
              to.gate(b, t, h, p) +=
                  g * with_skip(in, sums(b, t, c), b, t, h, p) * ssm::silu_slope(gate);
            }
            g *= ssm::silu(gate);
          }
          if (to.D.data_handle() != nullptr) to.D(h, p) += g * static_cast<R>(in.x(b, t, h, p));
          if (to.x.data_handle() != nullptr && in.D.data_handle() != nullptr) {
            to.x(b, t, h, p) += g * in.D(h, p);
          }
          arriving(b, t, c) = g;
        }
  return arriving;
}

template <execution_policy Policy, class T>
void state_space_dual_vjp_reference(Policy policy, state_space_dual_inputs<T> const& in,
                                    tensor_view<accumulator_t<T> const, 4> initial,
                                    tensor_view<accumulator_t<T> const, 4> y_cotangent,
                                    tensor_view<accumulator_t<T>, 4> carry_cotangent,
                                    state_space_dual_gradients<T> const& to) {
  using R = accumulator_t<T>;
  ssd_recurrence<T> const run(in);
  auto const& e = run.extents;
  index_t const span = e.heads_per_group() * e.head_dim;
  tensor<R, 3> sums(run.x.extents()), to_step(run.step.extents()), to_x(run.x.extents());
  tensor<R, 1> to_eigenvalue(run.eigenvalue.extents());
  tensor<R, 4> to_B(run.B.extents()), to_C(run.C.extents());

  auto const each_sequence = [&](index_t b, auto const& visit) {
    for (index_t t = 0, end; t < e.length; t = end) {
      end = end_of_sequence(in.sequence, b, t, e.length);
      visit(t, end - t, [b, t, count = end - t](auto const& view) {
        return view.slice(0, b, 1).slice(1, t, count);
      });
    }
  };
  index_array<3> const state_shape{1, e.heads * e.head_dim, e.states};
  for (index_t b = 0; b < e.batch; ++b) {
    each_sequence(b, [&](index_t t, index_t count, auto const& part) {
      tensor<R, 3> state = t == 0 ? row_of_carry(initial, b) : tensor<R, 3>(state_shape);
      scan(policy, run.stretch(b, t, count),
           grouped_contract<R>{.C = part(run.C.view()), .y = part(sums.view()), .span = span},
           state.view());
    });
  }
  tensor<R, 3> const arriving = pull_back_output(in, sums, y_cotangent, to);

  for (index_t b = 0; b < e.batch; ++b) {
    tensor<R, 3> const last = row_of_carry<R>(carry_cotangent, b);
    each_sequence(b, [&](index_t t, index_t count, auto const& part) {
      tensor<R, 3> const state = t == 0 ? row_of_carry(initial, b) : tensor<R, 3>(state_shape);
      tensor<R, 3> cotangent = t + count == e.length ? last : tensor<R, 3>(state_shape);
      scan_vjp(policy, run.stretch(b, t, count),
               grouped_contract_vjp<R>{{.C = part(run.C.view()),
                                        .y_cotangent = part(arriving.const_view()),
                                        .C_gradient = part(to_C.view()),
                                        .span = span}},
               state.view(), cotangent.view(),
               {.step_size = part(to_step.view()),
                .eigenvalue = to_eigenvalue.view(),
                .B = part(to_B.view()),
                .x = part(to_x.view())});
      if (t == 0) assign_row(cotangent, carry_cotangent, b);
    });
  }

  pull_back_steps(in, to_step, to_eigenvalue, to);
  time_window const all{0, e.length, 1};
  auto const terms_of = [](tensor<R, 4> const& from) {
    return [&from](index_t b, index_t t, index_t g, index_t n) { return from(b, t, g, n); };
  };
  sum_into(1, all, to.B, terms_of(to_B));
  sum_into(1, all, to.C, terms_of(to_C));
  sum_into(1, all, to.x, [&](index_t b, index_t t, index_t h, index_t p) {
    return to_x(b, t, h * e.head_dim + p);
  });
}

}  // namespace ssm::detail
