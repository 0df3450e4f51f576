// SPDX-License-Identifier: Apache-2.0
// selective_peer.hpp: another library's selective scan.
#pragma once

#include <cstdint>
#include <string>

#include "support/peer_library.hpp"

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
  explicit selective_peer(std::string const& file) : library_(file, "ssm_peer") {}

  std::string const& name() const { return library_.name(); }
  std::int64_t memory(ssm_peer_call const& call) const { return memory_(&call); }
  void forward(ssm_peer_call const& call, void* stream) const {
    library_.check(forward_(&call, stream));
  }
  void gradient(ssm_peer_call const& call, void* stream) const {
    library_.check(gradient_(&call, stream));
  }

 private:
  using run = char const*(ssm_peer_call const*, void*);

  peer_library library_;
  std::int64_t (*memory_)(ssm_peer_call const*) =
      library_.find<std::int64_t(ssm_peer_call const*)>("memory");
  run* forward_ = library_.find<run>("forward");
  run* gradient_ = library_.find<run>("gradient");
};

}  // namespace ssm::bench
