// SPDX-License-Identifier: Apache-2.0
// selective_peer.hpp: another library's selective scan, in a shared object that the benchmark loads
// (--peer FILE), so that the two take turns in one process on the same inputs.
#pragma once

#include <dlfcn.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "ssm/error.hpp"

extern "C" {

/// A call of the peer, with softplus and without an initial state. All arrays are on the device and
/// contiguous, the last axis fastest. Elements of `void` are float, or bfloat16 where scalar_bytes
/// is 2.
struct ssm_peer_call {
  std::int64_t batch, channels, length, states;
  std::int64_t scalar_bytes;

  void const *x, *step_size, *gate;         ///< (batch, channel, time)
  void const *B, *C;                        ///< (batch, state, time), of all channels
  float const *eigenvalue, *D, *step_bias;  ///< (channel, state), (channel), (channel)
  void* y;                                  ///< (batch, channel, time), is written

  void const* y_cotangent;  ///< as y; each gradient is written as its input
  void *x_gradient, *step_size_gradient, *gate_gradient, *B_gradient, *C_gradient;
  float *eigenvalue_gradient, *D_gradient, *step_bias_gradient;

  void* memory;  ///< as much as the peer asks for; the gradient finds there what forward left
};
}

namespace ssm::bench {

/// What such a file defines, as extern "C"; a stream is a cudaStream_t:
///   char const* ssm_peer_name();
///   std::int64_t ssm_peer_memory(ssm_peer_call const*);                   bytes
///   char const* ssm_peer_forward(ssm_peer_call const*, void* stream);     null, or what is wrong
///   char const* ssm_peer_gradient(ssm_peer_call const*, void* stream);    after the same forward
class selective_peer {
 public:
  /// Throws    std::runtime_error for a file that does not define them.
  explicit selective_peer(std::string const& file) : file_{dlopen(file.c_str(), RTLD_NOW)} {
    require<std::runtime_error>(file_ != nullptr, "--peer: ", file_ == nullptr ? dlerror() : "");
    name_ = find<char const*()>("ssm_peer_name")();
    memory_ = find<std::int64_t(ssm_peer_call const*)>("ssm_peer_memory");
    forward_ = find<run>("ssm_peer_forward");
    gradient_ = find<run>("ssm_peer_gradient");
  }

  std::string const& name() const { return name_; }
  std::int64_t memory(ssm_peer_call const& call) const { return memory_(&call); }
  void forward(ssm_peer_call const& call, void* stream) const { check(forward_(&call, stream)); }
  void gradient(ssm_peer_call const& call, void* stream) const { check(gradient_(&call, stream)); }

 private:
  using run = char const*(ssm_peer_call const*, void*);

  template <class Function>
  Function* find(char const* name) {
    auto* const found = reinterpret_cast<Function*>(dlsym(file_, name));
    require<std::runtime_error>(found != nullptr, "--peer: the file has no ", name);
    return found;
  }
  void check(char const* wrong) const {
    require<std::runtime_error>(wrong == nullptr, name_, ": ", wrong == nullptr ? "" : wrong);
  }

  void* file_;  // stays loaded until the program ends
  std::string name_;
  std::int64_t (*memory_)(ssm_peer_call const*) = nullptr;
  run *forward_ = nullptr, *gradient_ = nullptr;
};

}  // namespace ssm::bench
