// SPDX-License-Identifier: Apache-2.0
// selective_scan_device.cuh: a random problem of selective_scan on the device, in either layout.
#pragma once

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "compiled/selective_scan.cuh"
#include "support/selective_scan_problem.hpp"

namespace ssm::test {

/// Which axis of the sequences is dense in memory, and how far apart rows are.
enum class dense_axis { channel, time };

/// B or C (batch, time, group, state) with time dense, as (batch, group, state, time) in memory.
template <class T>
tensor<T, 4> time_dense(tensor<T, 4> const& from) {
  index_array<4> const e = from.extents();
  tensor<T, 4> result({e[0], e[2], e[3], e[1]});
  for_each_position(e, [&](auto const& at) {
    auto const [b, t, g, n] = at.value;
    result(b, g, n, t) = from(b, t, g, n);
  });
  return result;
}

template <class T, int Rank>
gpu::tensor<T, Rank> on_device(tensor<T, Rank> const& from) {
  gpu::tensor<T, Rank> result({}, from.extents());
  gpu::copy_to_device({}, from.view(), result.view());
  return result;
}

/// A sequence (batch, time, channel) on the device, its rows `padding` elements apart, from an
/// address that is `offset` elements off a multiple of 16 bytes.
template <class T>
class device_sequence {
 public:
  device_sequence(tensor<T, 3> const& from, dense_axis axis, index_t padding, index_t offset)
      : axis_{axis},
        host_({axis == dense_axis::channel ? from.extent(1) * from.extent(0)
                                           : from.extent(2) * from.extent(0),
               (axis == dense_axis::channel ? from.extent(2) : from.extent(1)) + padding},
              static_cast<T>(std::numeric_limits<float>::quiet_NaN())),
        offset_{offset},
        extents_{from.extents()},
        memory_({}, {host_.size() + offset}) {
    for_each_position(extents_, [&](auto const& at) {
      auto const [b, t, c] = at.value;
      element(host_.data(), b, t, c) = from(b, t, c);
    });
    upload();
  }

  sequence_view<T, memory::device> view() {
    index_t const row = host_.extent(1);
    index_array<3> const strides = axis_ == dense_axis::channel
                                       ? index_array<3>{extents_[1] * row, row, 1}
                                       : index_array<3>{extents_[2] * row, 1, row};
    return {memory_.view().data_handle() + offset_, extents_, strides};
  }

  tensor<T, 3> download() {
    tensor<T, 1> flat({host_.size() + offset_});
    gpu::copy_to_host({}, static_cast<tensor_view<T const, 1, memory::device>>(memory_.view()),
                      flat.view());
    gpu::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    tensor<T, 3> result(extents_);
    for_each_position(extents_, [&](auto const& at) {
      auto const [b, t, c] = at.value;
      result(b, t, c) = element(flat.data() + offset_, b, t, c);
    });
    return result;
  }

 private:
  template <class U>
  U& element(U* data, index_t b, index_t t, index_t c) const {
    index_t const row = host_.extent(1);
    return axis_ == dense_axis::channel ? data[(b * extents_[1] + t) * row + c]
                                        : data[(b * extents_[2] + c) * row + t];
  }
  void upload() {
    if (host_.size() == 0) return;
    gpu::check(
        cudaMemcpy(memory_.view().data_handle() + offset_, host_.data(),
                   sizeof(T) * static_cast<std::size_t>(host_.size()), cudaMemcpyHostToDevice),
        "cudaMemcpy");
  }

  dense_axis axis_;
  tensor<T, 2> host_;
  index_t offset_;
  index_array<3> extents_;
  gpu::tensor<T, 1> memory_;
};

struct device_layout {
  dense_axis axis = dense_axis::channel;
  index_t padding = 0, offset = 0;
};

/// Either axis dense: side by side, element by element, and by packets within a wider tensor.
inline constexpr device_layout layouts[] = {{dense_axis::channel, 0, 0}, {dense_axis::time, 0, 0},
                                            {dense_axis::channel, 3, 1}, {dense_axis::time, 5, 1},
                                            {dense_axis::channel, 8, 0}, {dense_axis::time, 8, 0}};

/// The inputs of a problem in device memory.
template <class T>
struct device_problem {
  using real = accumulator_t<T>;

  selective_problem<T> const& p;
  device_layout layout;
  device_sequence<T> x, step_size, gate;
  gpu::tensor<T, 4> B, C;
  gpu::tensor<real, 2> eigenvalue, linear, power;
  gpu::tensor<real, 1> D, step_bias, step;
  gpu::tensor<std::int32_t, 2> sequence;

  device_problem(selective_problem<T> const& problem, device_layout how)
      : p{problem},
        layout{how},
        x(p.x, how.axis, how.padding, how.offset),
        step_size(p.step_size, how.axis, how.padding, how.offset),
        gate(p.gate, how.axis, how.padding, how.offset),
        B(on_device(how.axis == dense_axis::time ? time_dense(p.B) : p.B)),
        C(on_device(how.axis == dense_axis::time ? time_dense(p.C) : p.C)),
        eigenvalue(on_device(p.eigenvalue)),
        linear(on_device(p.linear)),
        power(on_device(p.power)),
        D(on_device(p.D)),
        step_bias(on_device(p.step_bias)),
        step(on_device(p.step)),
        sequence(on_device(p.sequence)) {}

  template <class View>
  static auto optional(bool exists, View const& view) {
    return exists ? view : View{};
  }

  trajectory_view<T const, memory::device> projection(gpu::tensor<T, 4>& of) const {
    if (layout.axis == dense_axis::channel) return of.view();
    index_array<4> const e = p.B.extents();
    return {of.view().data_handle(), e, {e[2] * e[3] * e[1], 1, e[3] * e[1], e[1]}};
  }

  selective_scan_inputs<T, memory::device> inputs() {
    selective_scan_inputs<T, memory::device> in{};
    auto const& o = p.options;
    in.x = x.view(), in.step_size = step_size.view();
    in.eigenvalue = eigenvalue.view(), in.B = projection(B), in.C = projection(C);
    if (o.D) in.D = D.view();
    if (o.gate) in.gate = gate.view();
    if (o.bias) in.step_bias = step_bias.view();
    in.step_rule.softplus = o.softplus;
    if (o.limits) in.step_rule.limits = p.limits;
    if (o.linear) in.scaling.linear = linear.view();
    if (o.power) in.scaling.power = power.view();
    if (o.step) in.scaling.step = step.view();
    if (o.packed) in.sequence = sequence.view();
    return in;
  }

  selective_outcome<T> run(gpu::selective_scan_plan const& plan = {}) {
    auto const in = inputs();
    device_sequence<T> y(tensor<T, 3>(p.x.extents(), static_cast<T>(not_a_number<real>())),
                         layout.axis, layout.padding, layout.offset);
    auto carry = on_device(p.initial);
    auto const bytes = gpu::selective_scan_workspace(in, carry.view(), y.view(), plan);
    auto memory = on_device(tensor<std::byte, 1>({static_cast<index_t>(bytes)}, std::byte{0xff}));
    gpu::selective_scan({}, in, carry.view(), y.view(), memory.view(), {}, plan);
    selective_outcome<T> result{y.download(), tensor<real, 3>(p.initial.extents())};
    gpu::copy_to_host({}, static_cast<state_view<real const, memory::device>>(carry.view()),
                      result.carry.view());
    gpu::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    return result;
  }
};

}  // namespace ssm::test
