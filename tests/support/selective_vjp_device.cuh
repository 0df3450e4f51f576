// SPDX-License-Identifier: Apache-2.0
// selective_vjp_device.cuh: the gradients of a random selective_scan on the device.
#pragma once

#include "compiled/selective_scan.cuh"
#include "support/selective_scan_device.cuh"
#include "support/selective_scan_gradients.hpp"

namespace ssm::test {

template <class T, int Rank>
tensor<T, Rank> on_host(gpu::tensor<T, Rank> const& from) {
  tensor<T, Rank> result(from.view().extents());
  gpu::copy_to_host({}, from.view(), result.view());
  gpu::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  return result;
}

/// A problem and its cotangents on the device, and a gradient of each input, zeros at first.
template <class T>
struct device_gradients {
  device_problem<T> problem;
  device_sequence<T> y_cotangent;
  gpu::tensor<float, 3> initial;
  device_sequence<float> x, step_size, gate;
  gpu::tensor<float, 4> B, C;
  gpu::tensor<float, 2> eigenvalue, linear, power;
  gpu::tensor<float, 1> D, step_bias, step;

  device_gradients(selective_problem<T> const& p, device_layout how)
      : device_gradients(p, how, selective_gradient<float>(p)) {}

  selective_scan_gradients<T, memory::device> gradients() {
    return {.x = x.view(),
            .step_size = step_size.view(),
            .eigenvalue = eigenvalue.view(),
            .B = B.view(),
            .C = C.view(),
            .D = D.view(),
            .gate = gate.view(),
            .step_bias = step_bias.view(),
            .scaling = {.linear = linear.view(), .power = power.view(), .step = step.view()}};
  }

  /// Add the gradients to what is there, from the checkpoints of a forward run or from none.
  template <bool has_forward>
  void add(gpu::selective_scan_plan const& plan = {}) {
    run<has_forward>(plan, gpu::accumulate::yes);
  }
  template <bool has_forward>
  void run(gpu::selective_scan_plan const& plan, gpu::accumulate how) {
    auto const& p = problem.p;
    auto const in = problem.inputs();
    auto const start = on_device(p.initial);
    auto carry_cotangent = on_device(p.final_cotangent);
    index_t const steps = gpu::selective_scan_checkpoint_steps;
    index_t const blocks = (p.shape.length + steps - 1) / steps;
    tensor<float, 4> const unwritten({p.shape.batch, blocks, p.shape.states, p.shape.channels},
                                     not_a_number<float>());
    auto states = on_device(unwritten);
    if constexpr (has_forward) {
      auto carry = on_device(p.initial);
      device_sequence<T> y(tensor<T, 3>(p.x.extents()), problem.layout.axis, 0, 0);
      auto const bytes = gpu::selective_scan_workspace(in, carry.view(), y.view(), plan);
      auto memory = poisoned_bytes(bytes);
      gpu::selective_scan({}, in, carry.view(), y.view(), memory.view(), states.view(), plan);
    }
    trajectory_view<float const, memory::device> checkpoints{};
    if (has_forward) checkpoints = states.view();
    auto const bytes =
        gpu::selective_scan_vjp_workspace(in, start.view(), y_cotangent.view(),
                                          carry_cotangent.view(), gradients(), checkpoints, plan);
    auto memory = poisoned_bytes(bytes);
    gpu::selective_scan_vjp({}, in, start.view(), y_cotangent.view(), carry_cotangent.view(),
                            gradients(), memory.view(), checkpoints, plan, how);
    gpu::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    initial = std::move(carry_cotangent);
  }

  selective_gradient<float> download() {
    selective_gradient<float> result(problem.p);
    result.x = x.download(), result.step_size = step_size.download();
    result.gate = gate.download(), result.initial = on_host(initial);
    result.B = on_host(B), result.C = on_host(C);
    result.eigenvalue = on_host(eigenvalue), result.linear = on_host(linear);
    result.power = on_host(power), result.D = on_host(D);
    result.step_bias = on_host(step_bias), result.step = on_host(step);
    return result;
  }

 private:
  device_gradients(selective_problem<T> const& p, device_layout how,
                   selective_gradient<float> const& zeros)
      : problem(p, how),
        y_cotangent(p.y_cotangent, how.axis, how.padding, how.offset),
        initial(on_device(p.final_cotangent)),
        x(zeros.x, how.axis, how.padding, how.offset),
        step_size(zeros.x, how.axis, how.padding, how.offset),
        gate(zeros.x, how.axis, how.padding, how.offset),
        B(on_device(zeros.B)),
        C(on_device(zeros.C)),
        eigenvalue(on_device(zeros.eigenvalue)),
        linear(on_device(zeros.linear)),
        power(on_device(zeros.power)),
        D(on_device(zeros.D)),
        step_bias(on_device(zeros.step_bias)),
        step(on_device(zeros.step)) {}

  static gpu::tensor<std::byte, 1> poisoned_bytes(std::size_t bytes) {
    return on_device(tensor<std::byte, 1>({static_cast<index_t>(bytes)}, std::byte{0xff}));
  }
};

}  // namespace ssm::test
