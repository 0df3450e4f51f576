// SPDX-License-Identifier: Apache-2.0
// dual_calls.cuh: calls of Mamba-2's operator on a GPU, ours and a peer's, that can be checked and
// timed.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "ssm/state_space_dual.cuh"
#include "support/dual_peer.hpp"
#include "support/dual_reference.cuh"

namespace ssm::bench {

/// Run over time from zeros, or one step from what is there, and compare.
template <class T, class Calls>
std::vector<finding> check_calls(dual_arrays<T>& arrays, Calls& calls, bool is_step, double unit) {
  gpu::stream const& stream = arrays.stream();
  dual_shape const& s = arrays.shape();
  gpu::tensor<float, 4> initial(stream, is_step ? s.carry() : index_array<4>{});
  if (is_step) {
    sequence_view<float, memory::device> const numbers{arrays.carry().view().data_handle(),
                                                       {s.batch, s.channels(), s.states}};
    detail::normal_kernel<float>
        <<<4096, 256, 0, stream.get()>>>(random_stream{2026, 9}, 1, numbers, innermost::channels);
    gpu::check(cudaMemcpyAsync(initial.view().data_handle(), numbers.data_handle(),
                               sizeof(float) * static_cast<std::size_t>(numbers.size()),
                               cudaMemcpyDeviceToDevice, stream.get()),
               "cudaMemcpyAsync");
  } else {
    detail::fill_bytes(stream, arrays.carry().view(), 0xff);
  }
  detail::fill_bytes(stream, arrays.y().view(), 0xff);
  is_step ? calls.step(stream) : calls.forward(stream);
  return check_dual<T>(stream, arrays.inputs().all(), std::as_const(initial).view(),
                       std::as_const(arrays.y()).view(), std::as_const(arrays.carry()).view(),
                       unit);
}

/// Ours.
template <class T>
class own_dual_calls {
 public:
  explicit own_dual_calls(std::shared_ptr<dual_arrays<T>> arrays, bool exact = true)
      : arrays_{std::move(arrays)},
        plan_{.exact = exact},
        memory_(arrays_->stream(), {static_cast<index_t>(gpu::state_space_dual_workspace(
                                       in(), carry(), y(), {}, plan_))}) {}

  void forward(gpu::on where) {
    detail::fill_bytes(where, carry(), 0);
    step(where);
  }
  /// On from the state of the call before.
  void step(gpu::on where) {
    gpu::state_space_dual(where, in(), carry(), y(), memory_.view(), {}, plan_);
  }
  std::vector<finding> check(bool is_step, double unit) {
    detail::fill_bytes(arrays_->stream(), memory_.view(), 0xff);
    return check_calls(*arrays_, *this, is_step, unit);
  }
  /// The part of all steps that is visited twice: first to find the states that segments enter
  /// with.
  double first_pass() {
    auto visited = detail::zeros<unsigned long long>(arrays_->stream(), 1);
    plan_.visited = visited.view().data_handle();
    forward(arrays_->stream());
    plan_.visited = nullptr;
    tensor<unsigned long long, 1> host({1});
    gpu::copy_to_host(arrays_->stream(), std::as_const(visited).view(), host.view());
    arrays_->stream().wait();
    return static_cast<double>(host(0)) / static_cast<double>(in().step_size.size());
  }

 private:
  state_space_dual_inputs<T, memory::device> in() { return arrays_->inputs().all(); }
  tensor_view<T, 4, memory::device> y() { return arrays_->y().view(); }
  tensor_view<float, 4, memory::device> carry() { return arrays_->carry().view(); }

  std::shared_ptr<dual_arrays<T>> arrays_;
  gpu::state_space_dual_plan plan_;
  gpu::tensor<std::byte, 1> memory_;
};

/// A peer's.
template <class T>
class peer_dual_calls {
 public:
  peer_dual_calls(dual_peer const& peer, std::shared_ptr<dual_arrays<T>> arrays)
      : peer_{peer},
        arrays_{std::move(arrays)},
        call_{call(*arrays_)},
        memory_(arrays_->stream(), {peer.memory(call_)}) {
    call_.memory = memory_.view().data_handle();
  }

  void forward(gpu::on where) { peer_.forward(call_, where.stream); }
  void step(gpu::on where) { peer_.step(call_, where.stream); }
  std::vector<finding> check(bool is_step, double unit) {
    return check_calls(*arrays_, *this, is_step, unit);
  }

  /// Without gradients, and without memory.
  static ssm_dual_peer_call call(dual_arrays<T>& arrays) {
    dual_shape const& s = arrays.shape();
    auto const in = arrays.inputs().all();
    ssm_dual_peer_call call{};
    call.batch = s.batch, call.length = s.length, call.heads = s.heads, call.groups = 1;
    call.head_dim = s.head_dim, call.states = s.states, call.scalar_bytes = sizeof(T);
    call.x = in.x.data_handle(), call.step_size = in.step_size.data_handle();
    call.B = in.B.data_handle(), call.C = in.C.data_handle();
    call.eigenvalue = in.eigenvalue.data_handle(), call.D = in.D.data_handle();
    call.step_bias = in.step_bias.data_handle();
    call.y = arrays.y().view().data_handle(), call.carry = arrays.carry().view().data_handle();
    return call;
  }

 private:
  dual_peer const& peer_;
  std::shared_ptr<dual_arrays<T>> arrays_;
  ssm_dual_peer_call call_;
  gpu::tensor<std::byte, 1> memory_;
};

}  // namespace ssm::bench
