// SPDX-License-Identifier: Apache-2.0
// conv1d_device.cuh: a random causal convolution on the device, in any layout, and its gradient.
#pragma once

#include "ssm/causal_conv1d.cuh"
#include "support/causal_conv1d_problem.hpp"
#include "support/guarded_array.cuh"

namespace ssm::test {

/// The inputs of a problem, y and the carry, which begins as the problem's.
template <class T>
struct device_conv {
  conv_problem<T> const& p;
  guarded<T> x, y, carry;
  guarded<float> weight, bias;
  guarded<std::int32_t> sequence;

  device_conv(gpu::on where, conv_problem<T> const& problem, layout const& how)
      : p{problem},
        x(where, p.shape, how),
        y(where, p.shape, how),
        carry(where, {p.shape[0], p.width - 1, p.shape[2]}, how),
        weight(where, {1, p.width, p.shape[2]}, how),
        bias(where, {1, 1, p.shape[2]}, how),
        sequence(where, {p.shape[0], p.shape[1], 1}, how) {
    x.each([&](auto b, auto t, auto c) { x(b, t, c) = p.x(b, t, c); });
    weight.each([&](auto, auto k, auto c) { weight(0, k, c) = p.weight(c, k); });
    bias.each([&](auto, auto, auto c) { bias(0, 0, c) = p.bias(c); });
    sequence.each([&](auto b, auto t, auto) { sequence(b, t, 0) = p.sequence(b, t); });
    x.send(where), weight.send(where), bias.send(where), sequence.send(where);
    reset(where);
  }

  void reset(gpu::on where) {
    y.poison(), y.send(where);
    carry.each([&](auto b, auto j, auto c) { carry(b, j, c) = p.initial(b, c, j); });
    carry.send(where);
  }

  /// As (batch or none, channel, place) what the array has as (batch or none, place, channel).
  template <class U>
  static state_view<U, memory::device> turned(guarded<U> const& of) {
    auto const view = of.view();
    return {view.data_handle(),
            {view.extent(0), view.extent(2), view.extent(1)},
            {view.stride(0), view.stride(2), view.stride(1)}};
  }
  state_view<T, memory::device> carry_view() const {
    return p.options.carry ? turned(carry) : state_view<T, memory::device>{};
  }
  causal_conv1d_inputs<T, memory::device> inputs() const {
    causal_conv1d_inputs<T, memory::device> in{
        .x = x.view(), .weight = turned(weight).select(0, 0), .activation = p.options.kind};
    if (p.options.bias) in.bias = bias.view().select(0, 0).select(0, 0);
    if (p.options.packed) in.sequence = sequence.view().select(2, 0);
    return in;
  }

  /// What is there; fails where anything beside it was written.
  conv_outcome<T> outcome(gpu::on where) {
    y.fetch(where), carry.fetch(where);
    EXPECT_EQ(y.overwritten() + carry.overwritten(), 0) << p.name();
    conv_outcome<T> result{tensor<T, 3>(p.shape), tensor<T, 3>(p.carry_shape())};
    y.each([&](auto b, auto t, auto c) { result.y(b, t, c) = y(b, t, c); });
    carry.each([&](auto b, auto j, auto c) { result.carry(b, c, j) = carry(b, j, c); });
    return result;
  }
  conv_outcome<T> run(gpu::on where) {
    gpu::causal_conv1d(where, inputs(), carry_view(), y.view());
    return outcome(where);
  }
};

/// The gradients of a problem, which are added to zeros.
template <class T>
struct device_conv_vjp {
  device_conv<T> forward;
  guarded<float> y_cotangent, carry_cotangent, x, weight, bias;

  device_conv_vjp(gpu::on where, conv_problem<T> const& p, layout const& how)
      : forward(where, p, how),
        y_cotangent(where, p.shape, how),
        carry_cotangent(where, {p.shape[0], p.width - 1, p.shape[2]}, how),
        x(where, p.shape, how),
        weight(where, {1, p.width, p.shape[2]}, how),
        bias(where, {1, 1, p.shape[2]}, how) {
    y_cotangent.each(
        [&](auto b, auto t, auto c) { y_cotangent(b, t, c) = p.y_cotangent(b, t, c); });
    y_cotangent.send(where);
    reset(where);
  }

  void reset(gpu::on where) {
    auto& cotangent = carry_cotangent;
    cotangent.each(
        [&](auto b, auto j, auto c) { cotangent(b, j, c) = forward.p.final_cotangent(b, c, j); });
    for (auto* const sum : {&x, &weight, &bias}) {
      sum->each([&](auto b, auto t, auto c) { (*sum)(b, t, c) = 0; });
      sum->send(where);
    }
    cotangent.send(where);
  }

  state_view<float, memory::device> carry_view() const {
    return forward.p.options.carry ? forward.turned(carry_cotangent)
                                   : state_view<float, memory::device>{};
  }
  causal_conv1d_gradients<T, memory::device> gradients() const {
    return {.x = x.view(),
            .weight = forward.turned(weight).select(0, 0),
            .bias = bias.view().select(0, 0).select(0, 0)};
  }
  guarded_workspace poisoned_workspace(gpu::on where) const {
    return {where, gpu::causal_conv1d_vjp_workspace(forward.inputs(), forward.carry_view(),
                                                    y_cotangent.view(), carry_view(), gradients())};
  }
  void add(gpu::on where, gpu::workspace const& memory) const {
    gpu::causal_conv1d_vjp(where, forward.inputs(), forward.carry_view(), y_cotangent.view(),
                           carry_view(), gradients(), memory);
  }
  conv_gradients<float> outcome(gpu::on where) {
    auto const& p = forward.p;
    index_t written = 0;
    for (auto* const array : {&x, &weight, &bias, &carry_cotangent}) {
      array->fetch(where);
      written += array->overwritten();
    }
    EXPECT_EQ(written, 0) << p.name();
    conv_gradients<float> result{tensor<float, 3>(p.shape), tensor<float, 3>(p.carry_shape()),
                                 tensor<float, 2>({p.shape[2], p.width}),
                                 tensor<float, 1>({p.shape[2]})};
    x.each([&](auto b, auto t, auto c) { result.x(b, t, c) = x(b, t, c); });
    carry_cotangent.each(
        [&](auto b, auto j, auto c) { result.initial(b, c, j) = carry_cotangent(b, j, c); });
    weight.each([&](auto, auto k, auto c) { result.weight(c, k) = weight(0, k, c); });
    bias.each([&](auto, auto, auto c) { result.bias(c) = bias(0, 0, c); });
    return result;
  }
  conv_gradients<float> run(gpu::on where) {
    auto own = poisoned_workspace(where);
    add(where, own.view());
    auto const result = outcome(where);
    own.memory.fetch(where);
    EXPECT_EQ(own.memory.overwritten(), 0) << forward.p.name();
    return result;
  }
};

}  // namespace ssm::test
