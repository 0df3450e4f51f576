// SPDX-License-Identifier: Apache-2.0
// graph.cuh: work on a stream, recorded once and launched as a whole.
#pragma once

#include "ssm/execution.cuh"

namespace ssm::gpu {

/// What `enqueue()` gives to a stream, recorded instead of run; destroyed with its owner. All that
/// this library offers on a GPU can be recorded, but for what allocates or waits.
class graph {
 public:
  template <class Enqueue>
  graph(on where, Enqueue const& enqueue) {
    check(cudaStreamBeginCapture(where.stream, cudaStreamCaptureModeThreadLocal),
          "cudaStreamBeginCapture");
    cudaGraph_t recorded = nullptr;
    try {
      enqueue();
    } catch (...) {  // or the stream would go on recording
      if (cudaStreamEndCapture(where.stream, &recorded) == cudaSuccess) {
        (void)cudaGraphDestroy(recorded);
      }
      (void)cudaGetLastError();
      throw;
    }
    check(cudaStreamEndCapture(where.stream, &recorded), "cudaStreamEndCapture");
    cudaError_t const status = cudaGraphInstantiate(&handle_, recorded, 0);
    (void)cudaGraphDestroy(recorded);
    check(status, "cudaGraphInstantiate");
  }
  ~graph() {
    if (handle_ != nullptr) (void)cudaGraphExecDestroy(handle_);
  }
  graph(graph&& other) noexcept : handle_{std::exchange(other.handle_, nullptr)} {}
  graph& operator=(graph&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }

  void launch(on where) const { check(cudaGraphLaunch(handle_, where.stream), "cudaGraphLaunch"); }

 private:
  cudaGraphExec_t handle_ = nullptr;
};

}  // namespace ssm::gpu
