// SPDX-License-Identifier: Apache-2.0
// selective_own_calls.cuh: our calls of Mamba's operator on a GPU, forward, that can be checked and
// timed.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "ssm/selective_scan.cuh"
#include "support/selective_calls.cuh"

namespace ssm::bench {

/// Forward from a zero state.
template <class T>
class own_calls {
 public:
  own_calls(std::shared_ptr<selective_arrays<T>> arrays, innermost layout)
      : arrays_{std::move(arrays)},
        layout_{layout},
        carry_(stream(),
               {arrays_->shape().batch, arrays_->shape().channels, selective_shape::states}),
        memory_(stream(),
                {static_cast<index_t>(gpu::selective_scan_workspace(in(), carry_.view(), y()))}) {}

  void forward(gpu::on where) {
    detail::fill_bytes(where, carry_.view(), 0);
    step(where);
  }
  /// On from the state of the call before.
  void step(gpu::on where) { run(where, {}); }
  std::vector<finding> check_forward() {
    arrays_->y().fill_bytes(stream(), 0xff);
    detail::fill_bytes(stream(), memory_.view(), 0xff);
    forward(stream());
    return bench::check_forward<T>(stream(), in(), y(), std::as_const(carry_).view());
  }
  /// The part of all steps that is visited twice: first to find the states that segments enter
  /// with.
  double first_pass() {
    auto visited = detail::zeros<unsigned long long>(stream(), 1);
    run(stream(), {.visited = visited.view().data_handle()});
    tensor<unsigned long long, 1> host({1});
    gpu::copy_to_host(stream(), std::as_const(visited).view(), host.view());
    stream().wait();
    return static_cast<double>(host(0)) /
           static_cast<double>(in().x.size() * carry_.view().extent(2));
  }

 private:
  gpu::stream const& stream() const { return arrays_->stream(); }
  selective_scan_inputs<T, memory::device> in() { return arrays_->inputs(layout_).all(); }
  sequence_view<T, memory::device> y() { return arrays_->y().view(layout_); }
  void run(gpu::on where, gpu::selective_scan_plan const& plan) {
    gpu::selective_scan(where, in(), carry_.view(), y(), memory_.view(), {}, plan);
  }

  std::shared_ptr<selective_arrays<T>> arrays_;
  innermost layout_;
  gpu::tensor<float, 3> carry_;
  gpu::tensor<std::byte, 1> memory_;
};

}  // namespace ssm::bench
