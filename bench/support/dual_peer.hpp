// SPDX-License-Identifier: Apache-2.0
// dual_peer.hpp: another library's Mamba-2.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "support/peer_library.hpp"

extern "C" {

/// A call of the peer, with softplus. All arrays are on the device and contiguous, the last axis
/// fastest. Elements of `void` are float, or bfloat16 where scalar_bytes is 2.
struct ssm_dual_peer_call {
  std::int64_t batch, length, heads, head_dim, groups, states;
  std::int64_t scalar_bytes;

  void const* x;                            ///< (batch, time, head, head_dim)
  void const* step_size;                    ///< (batch, time, head)
  void const *B, *C;                        ///< (batch, time, group, state)
  float const *eigenvalue, *D, *step_bias;  ///< (head)
  void* y;                                  ///< as x, is written
  float* carry;  ///< (batch, head, head_dim, state); a step goes on from it, a call over time
                 ///< begins with zeros and writes the last state

  void const* y_cotangent;  ///< as y, null where there is to be no gradient; each is written
  void *x_gradient, *step_size_gradient, *B_gradient, *C_gradient;
  float *eigenvalue_gradient, *D_gradient, *step_bias_gradient;

  void* memory;  ///< as much as the peer asks for; the gradient finds there what forward left
};
}

namespace ssm::bench {

/// What such a file defines, as extern "C"; a stream is a cudaStream_t:
///   char const* ssm_dual_peer_name();
///   std::int64_t ssm_dual_peer_memory(ssm_dual_peer_call const*);          bytes, < 0: cannot
///   char const* ssm_dual_peer_forward(ssm_dual_peer_call const*, void*);   null, or what is wrong
///   char const* ssm_dual_peer_gradient(ssm_dual_peer_call const*, void*);  after the same forward
///   char const* ssm_dual_peer_step(ssm_dual_peer_call const*, void*);      length 1
class dual_peer {
 public:
  /// Throws    std::runtime_error for a file that does not define them.
  explicit dual_peer(std::string const& file) : library_(file, "ssm_dual_peer") {}

  std::string const& name() const { return library_.name(); }
  /// Throws    std::runtime_error where the peer cannot run such a call.
  std::int64_t memory(ssm_dual_peer_call const& call) const {
    std::int64_t const bytes = memory_(&call);
    require<std::runtime_error>(bytes >= 0, name(), ": has nothing for this shape");
    return bytes;
  }
  void forward(ssm_dual_peer_call const& call, void* stream) const {
    library_.check(forward_(&call, stream));
  }
  void gradient(ssm_dual_peer_call const& call, void* stream) const {
    library_.check(gradient_(&call, stream));
  }
  void step(ssm_dual_peer_call const& call, void* stream) const {
    library_.check(step_(&call, stream));
  }

 private:
  using run = char const*(ssm_dual_peer_call const*, void*);

  peer_library library_;
  std::int64_t (*memory_)(ssm_dual_peer_call const*) =
      library_.find<std::int64_t(ssm_dual_peer_call const*)>("memory");
  run* forward_ = library_.find<run>("forward");
  run* gradient_ = library_.find<run>("gradient");
  run* step_ = library_.find<run>("step");
};

}  // namespace ssm::bench
