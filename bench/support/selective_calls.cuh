// SPDX-License-Identifier: Apache-2.0
// selective_calls.cuh: calls of Mamba's operator on a GPU by others, that can be checked and timed.
#pragma once

#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "support/selective_check.cuh"
#include "support/selective_peer.hpp"
#include "support/selective_thrust.cuh"

namespace ssm::bench {

/// Gradients, written by all rows of a group, whatever the layout of their inputs. G is how those
/// that are not sums over time are stored.
template <class G>
class selective_gradient_arrays {
 public:
  selective_gradient_arrays(gpu::on stream, selective_shape const& s)
      : x(stream, {s.batch, s.length, s.channels}),
        step_size(stream, {s.batch, s.length, s.channels}),
        gate(stream, {s.batch, s.length, s.channels}),
        B(stream, {s.batch, s.length, s.states}),
        C(stream, {s.batch, s.length, s.states}),
        eigenvalue(stream, {s.channels, s.states}),
        D(stream, {s.channels}),
        step_bias(stream, {s.channels}) {}

  found_gradients<G> found(innermost layout, innermost of_B_and_C) {
    return {x.view(layout),         step_size.view(layout),
            gate.view(layout),      B.view(of_B_and_C),
            C.view(of_B_and_C),     eigenvalue.view().data_handle(),
            D.view().data_handle(), step_bias.view().data_handle()};
  }
  void fill_bytes(gpu::on where, int byte) {
    for (auto* each : {&x, &step_size, &gate, &B, &C}) each->fill_bytes(where, byte);
    detail::fill_bytes(where, eigenvalue.view(), byte);
    detail::fill_bytes(where, D.view(), byte);
    detail::fill_bytes(where, step_bias.view(), byte);
  }

  device_sequence_tensor<G> x, step_size, gate, B, C;
  gpu::tensor<float, 2> eigenvalue;
  gpu::tensor<float, 1> D, step_bias;
};

/// What the rows of a group share, made when first asked for.
template <class T>
class selective_arrays {
 public:
  selective_arrays(gpu::stream const& stream, selective_shape const& s, memory_kind const& kind)
      : stream_{stream}, shape_{s}, kind_{kind} {}

  gpu::stream const& stream() const { return stream_; }
  selective_shape const& shape() const { return shape_; }
  selective_inputs<T>& inputs(innermost layout) {
    if (!parameters_) {
      parameters_ = std::make_shared<selective_parameters const>(stream_, shape_, kind_);
    }
    auto& own = layout == innermost::time ? along_time_ : along_channels_;
    return made(own, shape_, layout, parameters_);
  }
  device_sequence_tensor<T>& y() {
    return made(y_, index_array<3>{shape_.batch, shape_.length, shape_.channels});
  }
  template <class G>
  selective_gradient_arrays<G>& gradients() {
    return made(std::get<std::unique_ptr<selective_gradient_arrays<G>>>(gradients_), shape_);
  }

 private:
  template <class A, class... Arguments>
  A& made(std::unique_ptr<A>& own, Arguments const&... arguments) {
    if (!own) own = std::make_unique<A>(stream_, arguments...);
    return *own;
  }

  gpu::stream const& stream_;
  selective_shape shape_;
  memory_kind kind_;
  std::shared_ptr<selective_parameters const> parameters_;
  std::unique_ptr<selective_inputs<T>> along_time_, along_channels_;
  std::unique_ptr<device_sequence_tensor<T>> y_;
  std::tuple<std::unique_ptr<selective_gradient_arrays<float>>,
             std::unique_ptr<selective_gradient_arrays<bfloat16>>>
      gradients_;
};

/// A peer's calls; all arrays have time innermost.
template <class T>
class peer_calls {
 public:
  peer_calls(selective_peer const& peer, std::shared_ptr<selective_arrays<T>> arrays)
      : peer_{peer},
        arrays_{std::move(arrays)},
        call_{call(arrays_->shape(), arrays_->inputs(innermost::time))},
        memory_(arrays_->stream(), {peer.memory(call_)}) {
    call_.y = arrays_->y().data();
    call_.memory = memory_.view().data_handle();
  }

  void forward(gpu::on where) { peer_.forward(call_, where.stream); }
  void both(gpu::on where) {
    peer_.forward(call_, where.stream);
    peer_.gradient(call_, where.stream);
  }
  std::vector<finding> check_forward() {
    auto& y = arrays_->y();
    y.fill_bytes(arrays_->stream(), 0xff);
    forward(arrays_->stream());
    return bench::check_forward<T>(arrays_->stream(), inputs().all(), y.view(innermost::time), {});
  }
  std::vector<finding> check_both() {
    auto& to = arrays_->template gradients<T>();
    give(to);
    to.fill_bytes(arrays_->stream(), 0xff);
    both(arrays_->stream());
    return check_gradients(arrays_->stream(), inputs().all(), inputs().y_cotangent(),
                           to.found(innermost::time, innermost::time));
  }

 private:
  selective_inputs<T>& inputs() { return arrays_->inputs(innermost::time); }

  static ssm_peer_call call(selective_shape const& s, selective_inputs<T>& inputs) {
    auto const in = inputs.all_along_time();
    ssm_peer_call call{};
    call.batch = s.batch, call.channels = s.channels, call.length = s.length;
    call.states = s.states, call.scalar_bytes = sizeof(T);
    call.x = in.x.data_handle(), call.step_size = in.step_size.data_handle();
    call.gate = in.gate.data_handle(), call.B = in.B.data_handle(), call.C = in.C.data_handle();
    call.eigenvalue = in.eigenvalue.data_handle(), call.D = in.D.data_handle();
    call.step_bias = in.step_bias.data_handle();
    call.y_cotangent = inputs.y_cotangent().data_handle();
    return call;
  }
  void give(selective_gradient_arrays<T>& to) {
    call_.x_gradient = to.x.data(), call_.step_size_gradient = to.step_size.data();
    call_.gate_gradient = to.gate.data();
    call_.B_gradient = to.B.data(), call_.C_gradient = to.C.data();
    call_.eigenvalue_gradient = to.eigenvalue.view().data_handle();
    call_.D_gradient = to.D.view().data_handle();
    call_.step_bias_gradient = to.step_bias.view().data_handle();
  }

  selective_peer const& peer_;
  std::shared_ptr<selective_arrays<T>> arrays_;
  ssm_peer_call call_;
  gpu::tensor<std::byte, 1> memory_;
};

/// Calls on whole arrays, with Thrust.
template <class T>
class thrust_calls {
 public:
  explicit thrust_calls(std::shared_ptr<selective_arrays<T>> arrays)
      : arrays_{std::move(arrays)}, memory_(arrays_->stream(), arrays_->shape()) {}

  void forward(gpu::on where) {
    memory_.forward<T>(where, arrays_->inputs(innermost::time).all_along_time(), y());
  }
  std::vector<finding> check_forward() {
    arrays_->y().fill_bytes(arrays_->stream(), 0xff);
    forward(arrays_->stream());
    return bench::check_forward<T>(arrays_->stream(), arrays_->inputs(innermost::time).all(), y(),
                                   {});
  }

 private:
  sequence_view<T, memory::device> y() { return arrays_->y().view(innermost::time); }

  std::shared_ptr<selective_arrays<T>> arrays_;
  selective_thrust_memory memory_;
};

}  // namespace ssm::bench
