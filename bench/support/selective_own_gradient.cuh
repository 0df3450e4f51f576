// SPDX-License-Identifier: Apache-2.0
// selective_own_gradient.cuh: our calls of the gradient of Mamba's operator on a GPU, likewise.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "ssm/selective_scan_vjp.cuh"
#include "support/selective_calls.cuh"

namespace ssm::bench {

/// Forward from a zero state with checkpoints, and the gradient from there.
template <class T>
class own_gradient_calls {
 public:
  own_gradient_calls(std::shared_ptr<selective_arrays<T>> arrays, innermost layout)
      : arrays_{std::move(arrays)},
        layout_{layout},
        zero_(stream(), of_states()),
        carry_(stream(), of_states()),
        cotangent_(stream(), of_states()),
        checkpoints_(stream(), of_blocks()),
        memory_(stream(), {needed()}) {
    detail::fill_bytes(stream(), zero_.view(), 0);
  }

  void both(gpu::on where) {
    detail::fill_bytes(where, carry_.view(), 0);
    gpu::selective_scan(where, in(), carry_.view(), y(), memory_.view(), checkpoints_.view());
    gradient(where);
  }
  /// From checkpoints that are there.
  void gradient(gpu::on where) {
    detail::fill_bytes(where, cotangent_.view(), 0);
    gpu::selective_scan_vjp(where, in(), std::as_const(zero_).view(),
                            arrays_->inputs(layout_).y_cotangent(), cotangent_.view(), to(),
                            memory_.view(), std::as_const(checkpoints_).view(), {},
                            gpu::accumulate::no);
  }
  std::vector<finding> check_both() {
    gradients().fill_bytes(stream(), 0xff);
    detail::fill_bytes(stream(), memory_.view(), 0xff);
    detail::fill_bytes(stream(), checkpoints_.view(), 0xff);
    both(stream());
    return check_gradients(stream(), in(), arrays_->inputs(layout_).y_cotangent(),
                           gradients().found(layout_, innermost::channels));
  }

 private:
  gpu::stream const& stream() const { return arrays_->stream(); }
  selective_scan_inputs<T, memory::device> in() { return arrays_->inputs(layout_).all(); }
  sequence_view<T, memory::device> y() { return arrays_->y().view(layout_); }
  selective_gradient_arrays<float>& gradients() { return arrays_->template gradients<float>(); }
  selective_scan_gradients<T, memory::device> to() {
    auto& all = gradients();
    return {.x = all.x.view(layout_),
            .step_size = all.step_size.view(layout_),
            .eigenvalue = all.eigenvalue.view(),
            .B = all.B.grouped(innermost::channels),
            .C = all.C.grouped(innermost::channels),
            .D = all.D.view(),
            .gate = all.gate.view(layout_),
            .step_bias = all.step_bias.view()};
  }
  index_array<3> of_states() const {
    selective_shape const& s = arrays_->shape();
    return {s.batch, s.channels, s.states};
  }
  index_array<4> of_blocks() const {
    selective_shape const& s = arrays_->shape();
    index_t const block = gpu::selective_scan_checkpoint_steps;
    return {s.batch, (s.length + block - 1) / block, s.states, s.channels};
  }
  index_t needed() {
    std::size_t const forward = gpu::selective_scan_workspace(in(), carry_.view(), y());
    std::size_t const back = gpu::selective_scan_vjp_workspace(
        in(), std::as_const(zero_).view(), arrays_->inputs(layout_).y_cotangent(),
        cotangent_.view(), to(), std::as_const(checkpoints_).view());
    return static_cast<index_t>(std::max(forward, back));
  }

  std::shared_ptr<selective_arrays<T>> arrays_;
  innermost layout_;
  gpu::tensor<float, 3> zero_, carry_, cotangent_;
  gpu::tensor<float, 4> checkpoints_;
  gpu::tensor<std::byte, 1> memory_;
};

}  // namespace ssm::bench
