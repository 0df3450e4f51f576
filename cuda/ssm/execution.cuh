// SPDX-License-Identifier: Apache-2.0
// execution.cuh: work on a GPU as a policy, and every CUDA call checked.
#pragma once

#include <cuda_runtime_api.h>

#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace ssm::gpu {

/// A CUDA call that failed. The message has the error's name and text, the call and where it
/// stands.
struct error : std::runtime_error {
  error(cudaError_t status, std::string const& message)
      : std::runtime_error(message), code{status} {}
  cudaError_t code;
};

/// Throw error unless the call succeeded: check(cudaMalloc(&p, n), "cudaMalloc"). The thread's
/// last error is cleared, so that a failure is reported once.
inline void check(cudaError_t status, char const* call, char const* file = __builtin_FILE(),
                  int line = __builtin_LINE()) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();
  std::ostringstream message;
  message << call << ": " << cudaGetErrorName(status) << " (" << cudaGetErrorString(status)
          << ") at " << file << ':' << line;
  throw error(status, message.str());
}

/// The policy that runs on the GPU: kernels and copies go to `stream`, and the call returns
/// before they are done.
struct on {
  cudaStream_t stream = nullptr;
};

/// A stream that is destroyed with its owner.
class stream {
 public:
  stream() {
    check(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking), "cudaStreamCreate");
  }
  ~stream() {
    if (handle_ != nullptr) (void)cudaStreamDestroy(handle_);
  }
  stream(stream&& other) noexcept : handle_{std::exchange(other.handle_, nullptr)} {}
  stream& operator=(stream&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }

  operator on() const { return {handle_}; }
  cudaStream_t get() const { return handle_; }
  void wait() const { check(cudaStreamSynchronize(handle_), "cudaStreamSynchronize"); }

 private:
  cudaStream_t handle_ = nullptr;
};

/// A point in the work of a stream, for the host or another stream to wait for, with its time.
/// Destroyed with its owner.
class event {
 public:
  event() { check(cudaEventCreate(&handle_), "cudaEventCreate"); }
  ~event() {
    if (handle_ != nullptr) (void)cudaEventDestroy(handle_);
  }
  event(event&& other) noexcept : handle_{std::exchange(other.handle_, nullptr)} {}
  event& operator=(event&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }

  /// Behind all that the stream has been given so far.
  void record(on where) { check(cudaEventRecord(handle_, where.stream), "cudaEventRecord"); }
  void wait() const { check(cudaEventSynchronize(handle_), "cudaEventSynchronize"); }
  /// What the stream is given from now on waits for the event.
  void hold(on where) const {
    check(cudaStreamWaitEvent(where.stream, handle_, 0), "cudaStreamWaitEvent");
  }
  friend double seconds_between(event const& first, event const& last) {
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, first.handle_, last.handle_), "cudaEventElapsedTime");
    return 1e-3 * static_cast<double>(milliseconds);
  }

 private:
  cudaEvent_t handle_ = nullptr;
};

}  // namespace ssm::gpu
