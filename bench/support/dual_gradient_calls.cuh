// SPDX-License-Identifier: Apache-2.0
// dual_gradient_calls.cuh: calls of Mamba-2's operator on a GPU and of its gradient, ours and a
// peer's, that can be checked and timed.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "ssm/state_space_dual_vjp.cuh"
#include "support/dual_calls.cuh"
#include "support/dual_gradient_check.cuh"

namespace ssm::bench {

/// G is how those are stored that are not sums over time.
template <class G>
class dual_gradient_arrays {
 public:
  dual_gradient_arrays(gpu::on stream, dual_shape const& s)
      : x(stream, s.sequences()),
        step_size(stream, {s.batch, s.length, s.heads}),
        B(stream, s.projections()),
        C(stream, s.projections()),
        eigenvalue(stream, {s.heads}),
        D(stream, {s.heads}),
        step_bias(stream, {s.heads}) {}

  found_dual_gradients<G> found() {
    auto const at = [](auto& tensor) { return tensor.view().data_handle(); };
    return {at(x), at(step_size), at(B), at(C), at(eigenvalue), at(D), at(step_bias)};
  }
  void fill_bytes(gpu::on where, int byte) {
    auto const fill = [&](auto&... each) { (detail::fill_bytes(where, each.view(), byte), ...); };
    fill(x, step_size, B, C, eigenvalue, D, step_bias);
  }

  gpu::tensor<G, 4> x;
  gpu::tensor<G, 3> step_size;
  gpu::tensor<G, 4> B, C;
  gpu::tensor<float, 1> eigenvalue, D, step_bias;
};

/// Forward from a zero state, and the gradient.
template <class T>
class own_dual_gradient_calls {
 public:
  explicit own_dual_gradient_calls(std::shared_ptr<dual_arrays<T>> arrays)
      : arrays_{std::move(arrays)},
        gradients_(stream(), arrays_->shape()),
        zero_(stream(), arrays_->shape().carry()),
        cotangent_(stream(), arrays_->shape().carry()),
        memory_(stream(), {needed()}) {
    detail::fill_bytes(stream(), zero_.view(), 0);
  }

  void both(gpu::on where) {
    detail::fill_bytes(where, carry(), 0);
    gpu::state_space_dual(where, in(), carry(), y(), memory_.view());
    detail::fill_bytes(where, cotangent_.view(), 0);
    gpu::state_space_dual_vjp(where, in(), std::as_const(zero_).view(), arriving(),
                              cotangent_.view(), to(), memory_.view(), {}, {}, gpu::accumulate::no);
  }
  std::vector<finding> check(double unit) {
    detail::fill_bytes(stream(), memory_.view(), 0xff);
    gradients_.fill_bytes(stream(), 0xff);
    both(stream());
    return check_dual_gradients(stream(), in(), arriving(), gradients_.found(), unit);
  }

 private:
  gpu::stream const& stream() const { return arrays_->stream(); }
  state_space_dual_inputs<T, memory::device> in() { return arrays_->inputs().all(); }
  tensor_view<T, 4, memory::device> y() { return arrays_->y().view(); }
  tensor_view<float, 4, memory::device> carry() { return arrays_->carry().view(); }
  tensor_view<T const, 4, memory::device> arriving() { return arrays_->inputs().y_cotangent(); }
  state_space_dual_gradients<T, memory::device> to() {
    auto& all = gradients_;
    dual_shape const& s = arrays_->shape();
    return {.x = all.x.view(),
            .step_size = all.step_size.view(),
            .eigenvalue = all.eigenvalue.view(),
            .B = all.B.view(),
            .C = all.C.view(),
            .D = {all.D.view().data_handle(), {s.heads, s.head_dim}, {1, 0}},
            .step_bias = all.step_bias.view()};
  }
  index_t needed() {
    std::size_t const forward = gpu::state_space_dual_workspace(in(), carry(), y());
    std::size_t const back = gpu::state_space_dual_vjp_workspace(
        in(), std::as_const(zero_).view(), arriving(), cotangent_.view(), to());
    return static_cast<index_t>(std::max(forward, back));
  }

  std::shared_ptr<dual_arrays<T>> arrays_;
  dual_gradient_arrays<float> gradients_;
  gpu::tensor<float, 4> zero_, cotangent_;
  gpu::tensor<std::byte, 1> memory_;
};

/// A peer's, likewise.
template <class T>
class peer_dual_gradient_calls {
 public:
  peer_dual_gradient_calls(dual_peer const& peer, std::shared_ptr<dual_arrays<T>> arrays)
      : peer_{peer},
        arrays_{std::move(arrays)},
        gradients_(arrays_->stream(), arrays_->shape()),
        call_{call()},
        memory_(arrays_->stream(), {peer.memory(call_)}) {
    call_.memory = memory_.view().data_handle();
  }

  void both(gpu::on where) {
    peer_.forward(call_, where.stream);
    peer_.gradient(call_, where.stream);
  }
  std::vector<finding> check(double unit) {
    gradients_.fill_bytes(arrays_->stream(), 0xff);
    both(arrays_->stream());
    return check_dual_gradients(arrays_->stream(), arrays_->inputs().all(),
                                arrays_->inputs().y_cotangent(), gradients_.found(), unit);
  }

 private:
  ssm_dual_peer_call call() {
    ssm_dual_peer_call call = peer_dual_calls<T>::call(*arrays_);
    auto const at = [](auto& tensor) { return tensor.view().data_handle(); };
    auto& to = gradients_;
    call.y_cotangent = arrays_->inputs().y_cotangent().data_handle();
    call.x_gradient = at(to.x), call.step_size_gradient = at(to.step_size);
    call.B_gradient = at(to.B), call.C_gradient = at(to.C), call.D_gradient = at(to.D);
    call.eigenvalue_gradient = at(to.eigenvalue), call.step_bias_gradient = at(to.step_bias);
    return call;
  }

  dual_peer const& peer_;
  std::shared_ptr<dual_arrays<T>> arrays_;
  dual_gradient_arrays<T> gradients_;
  ssm_dual_peer_call call_;
  gpu::tensor<std::byte, 1> memory_;
};

}  // namespace ssm::bench
