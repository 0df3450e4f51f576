// SPDX-License-Identifier: Apache-2.0
// ssd_gradients.hpp: the gradients of Mamba-2's operator, all of them, by name.
#pragma once

#include "support/ssd_problem.hpp"

namespace ssm::test {

/// A tensor for the gradient of each input, zeros at first, by the names of the inputs; `initial`
/// is that of the carry.
template <class R>
struct ssd_gradient {
  tensor<R, 4> x, gate, B, C, initial;
  tensor<R, 3> step_size;
  tensor<R, 2> D, linear, power;
  tensor<R, 1> eigenvalue, step_bias, step;

  explicit ssd_gradient(ssd_sizes const& s)
      : x{s.sequences()},
        gate{s.sequences()},
        B{{s.batch, s.length, s.groups, s.states}},
        C{B.extents()},
        initial{s.carry()},
        step_size{{s.batch, s.length, s.heads}},
        D{{s.heads, s.head_dim}},
        linear{{s.heads, 1}},
        power{{s.heads, 1}},
        eigenvalue{{s.heads}},
        step_bias{{s.heads}},
        step{{s.heads}} {}

  /// Views as a call with `inputs` takes them: none for an input that is not given.
  template <class T>
  state_space_dual_gradients<T> views(state_space_dual_inputs<T> const& inputs) {
    auto const if_given = [](auto const& input, auto& gradient) {
      return input.data_handle() == nullptr ? decltype(gradient.view()){} : gradient.view();
    };
    return {.x = x.view(),
            .step_size = step_size.view(),
            .eigenvalue = eigenvalue.view(),
            .B = B.view(),
            .C = C.view(),
            .D = D.view(),
            .gate = if_given(inputs.gate, gate),
            .step_bias = step_bias.view(),
            .scaling = {.linear = if_given(inputs.scaling.linear, linear),
                        .power = if_given(inputs.scaling.power, power),
                        .step = if_given(inputs.scaling.step, step)}};
  }

  friend bool operator==(ssd_gradient const&, ssd_gradient const&) = default;
};

/// f(name, tensor of each of `all`) for every gradient.
template <class F, class... All>
void for_each_ssd_gradient(F const& f, All&&... all) {
  f("x", all.x...);
  f("gate", all.gate...);
  f("B", all.B...);
  f("C", all.C...);
  f("initial", all.initial...);
  f("step_size", all.step_size...);
  f("D", all.D...);
  f("linear", all.linear...);
  f("power", all.power...);
  f("eigenvalue", all.eigenvalue...);
  f("step_bias", all.step_bias...);
  f("step", all.step...);
}

/// The gradients of a call, for cotangents of y and of the final carry.
template <class Policy, class T>
ssd_gradient<accumulator_t<T>> run_ssd_vjp(Policy policy, state_space_dual_inputs<T> const& inputs,
                                           tensor<accumulator_t<T>, 4> const& initial,
                                           tensor<accumulator_t<T>, 4> const& y_cotangent,
                                           tensor<accumulator_t<T>, 4> const& carry_cotangent,
                                           state_space_dual_saved<T> const& saved = {}) {
  auto const [batch, length, heads, head_dim] = inputs.x.extents().value;
  ssd_gradient<accumulator_t<T>> result(
      {batch, length, heads, head_dim, inputs.B.extent(2), inputs.B.extent(3)});
  result.initial = carry_cotangent;
  state_space_dual_vjp(policy, inputs, initial.view(), y_cotangent.view(), result.initial.view(),
                       result.views(inputs), saved);
  return result;
}

}  // namespace ssm::test
