// SPDX-License-Identifier: Apache-2.0
// selective_calls.cuh: calls of Mamba's operator on a GPU, by us and by a peer, that can be checked
// and timed.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "ssm/selective_scan.cuh"
#include "support/selective_check.cuh"
#include "support/selective_peer.hpp"
#include "support/selective_thrust.cuh"

namespace ssm::bench {

/// What calls write, whatever the layout of their inputs: all rows of a group write here.
template <class T>
struct selective_outputs {
  selective_outputs(gpu::on stream, selective_shape const& s)
      : where{stream},
        y(stream, {s.batch, s.length, s.channels}),
        x(stream, {s.batch, s.length, s.channels}),
        step_size(stream, {s.batch, s.length, s.channels}),
        gate(stream, {s.batch, s.length, s.channels}),
        B(stream, {s.batch, s.length, s.states}),
        C(stream, {s.batch, s.length, s.states}),
        eigenvalue(stream, {s.channels * s.states}),
        D(stream, {s.channels}),
        step_bias(stream, {s.channels}),
        tokens{s.batch * s.length * s.channels},
        of_groups{s.batch * s.length * s.states} {}

  found_gradients<T, T> gradients(innermost layout) {
    return {x.view(layout),         step_size.view(layout),
            gate.view(layout),      B.view(layout),
            C.view(layout),         eigenvalue.view().data_handle(),
            D.view().data_handle(), step_bias.view().data_handle()};
  }
  /// What is not written is NaN.
  void poison() {
    auto const fill = [&](void* data, index_t bytes) {
      gpu::check(cudaMemsetAsync(data, 0xff, static_cast<std::size_t>(bytes), where.stream),
                 "cudaMemsetAsync");
    };
    auto const size = static_cast<index_t>(sizeof(T));
    for (auto* each : {&y, &x, &step_size, &gate}) fill(each->data(), size * tokens);
    for (auto* each : {&B, &C}) fill(each->data(), size * of_groups);
    for (auto* each : {&eigenvalue, &D, &step_bias})
      fill(each->view().data_handle(), 4 * each->view().size());
  }

  gpu::on where;
  device_sequence_tensor<T> y, x, step_size, gate, B, C;
  gpu::tensor<float, 1> eigenvalue, D, step_bias;
  index_t tokens, of_groups;
};

/// Our calls, forward from a zero state.
template <class T>
class own_calls {
 public:
  own_calls(gpu::stream const& stream, std::shared_ptr<selective_inputs<T>> inputs,
            std::shared_ptr<selective_outputs<T>> outputs)
      : stream_{stream},
        in_{std::move(inputs)},
        out_{std::move(outputs)},
        carry_(stream, {in_->all().x.extent(0), in_->all().x.extent(2), selective_shape::states}),
        memory_(stream, {static_cast<index_t>(
                            gpu::selective_scan_workspace(in_->all(), carry_.view(), y()))}) {}

  void forward(gpu::on where) {
    fill(carry_.view(), 0, where);
    step(where);
  }
  /// On from the state of the call before.
  void step(gpu::on where) { run(where, {}); }
  std::vector<finding> check_forward() {
    out_->poison();
    fill(memory_.view(), 0xff);
    fill(carry_.view(), 0xff);
    forward(stream_);
    return bench::check_forward<T>(stream_, in_->all(), y(), std::as_const(carry_).view());
  }
  /// The part of all steps that is visited twice: first to find the states that segments enter
  /// with.
  double first_pass() {
    auto visited = detail::zeros<unsigned long long>(stream_, 1);
    run(stream_, {.visited = visited.view().data_handle()});
    tensor<unsigned long long, 1> host({1});
    gpu::copy_to_host(stream_, std::as_const(visited).view(), host.view());
    stream_.wait();
    return static_cast<double>(host(0)) /
           static_cast<double>(in_->all().x.size() * selective_shape::states);
  }

 private:
  sequence_view<T, memory::device> y() { return out_->y.view(in_->layout()); }
  void run(gpu::on where, gpu::selective_scan_plan const& plan) {
    gpu::selective_scan(where, in_->all(), carry_.view(), y(), memory_.view(), {}, plan);
  }
  template <class View>
  void fill(View const& view, int byte, gpu::on where) {
    using element = typename View::value_type;
    gpu::check(
        cudaMemsetAsync(view.data_handle(), byte,
                        sizeof(element) * static_cast<std::size_t>(view.size()), where.stream),
        "cudaMemsetAsync");
  }
  template <class View>
  void fill(View const& view, int byte) {
    fill(view, byte, stream_);
  }

  gpu::stream const& stream_;
  std::shared_ptr<selective_inputs<T>> in_;
  std::shared_ptr<selective_outputs<T>> out_;
  gpu::tensor<float, 3> carry_;
  gpu::tensor<std::byte, 1> memory_;
};

/// A peer's calls; inputs have time innermost.
template <class T>
class peer_calls {
 public:
  peer_calls(selective_peer const& peer, gpu::stream const& stream,
             std::shared_ptr<selective_inputs<T>> inputs,
             std::shared_ptr<selective_outputs<T>> outputs)
      : peer_{peer},
        stream_{stream},
        in_{std::move(inputs)},
        out_{std::move(outputs)},
        call_{call(*in_, *out_)},
        memory_(stream, {peer.memory(call_)}) {
    call_.memory = memory_.view().data_handle();
  }

  void forward(gpu::on where) { peer_.forward(call_, where.stream); }
  void both(gpu::on where) {
    peer_.forward(call_, where.stream);
    peer_.gradient(call_, where.stream);
  }
  std::vector<finding> check_forward() {
    out_->poison();
    forward(stream_);
    return bench::check_forward<T>(stream_, in_->all(), out_->y.view(innermost::time), {});
  }
  std::vector<finding> check_both() {
    out_->poison();
    both(stream_);
    return check_gradients(stream_, in_->all(), in_->y_cotangent(),
                           out_->gradients(innermost::time));
  }

 private:
  static ssm_peer_call call(selective_inputs<T>& inputs, selective_outputs<T>& to) {
    auto const in = inputs.all();
    return {.batch = in.x.extent(0),
            .channels = in.x.extent(2),
            .length = in.x.extent(1),
            .states = in.eigenvalue.extent(1),
            .scalar_bytes = sizeof(T),
            .x = in.x.data_handle(),
            .step_size = in.step_size.data_handle(),
            .gate = in.gate.data_handle(),
            .B = in.B.data_handle(),
            .C = in.C.data_handle(),
            .eigenvalue = in.eigenvalue.data_handle(),
            .D = in.D.data_handle(),
            .step_bias = in.step_bias.data_handle(),
            .y = to.y.data(),
            .y_cotangent = inputs.y_cotangent().data_handle(),
            .x_gradient = to.x.data(),
            .step_size_gradient = to.step_size.data(),
            .gate_gradient = to.gate.data(),
            .B_gradient = to.B.data(),
            .C_gradient = to.C.data(),
            .eigenvalue_gradient = to.eigenvalue.view().data_handle(),
            .D_gradient = to.D.view().data_handle(),
            .step_bias_gradient = to.step_bias.view().data_handle(),
            .memory = nullptr};
  }

  selective_peer const& peer_;
  gpu::stream const& stream_;
  std::shared_ptr<selective_inputs<T>> in_;
  std::shared_ptr<selective_outputs<T>> out_;
  ssm_peer_call call_;
  gpu::tensor<std::byte, 1> memory_;
};

/// Calls on whole arrays, with Thrust.
template <class T>
class thrust_calls {
 public:
  thrust_calls(gpu::stream const& stream, selective_shape const& s,
               std::shared_ptr<selective_inputs<T>> inputs,
               std::shared_ptr<selective_outputs<T>> outputs)
      : stream_{stream}, in_{std::move(inputs)}, out_{std::move(outputs)}, memory_(stream, s) {}

  void forward(gpu::on where) {
    memory_.forward<T>(where, in_->all(), out_->y.view(in_->layout()));
  }
  std::vector<finding> check_forward() {
    out_->poison();
    forward(stream_);
    return bench::check_forward<T>(stream_, in_->all(), out_->y.view(in_->layout()), {});
  }

 private:
  gpu::stream const& stream_;
  std::shared_ptr<selective_inputs<T>> in_;
  std::shared_ptr<selective_outputs<T>> out_;
  selective_thrust_memory memory_;
};

}  // namespace ssm::bench
