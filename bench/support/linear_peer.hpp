// SPDX-License-Identifier: Apache-2.0
// linear_peer.hpp: another library's raw scan h_t = a_t h_{t-1} + b_t.
#pragma once

#include <cstdint>
#include <string>

#include "support/peer_library.hpp"

extern "C" {

/// A call of the peer. All arrays are on the device, (row, time), contiguous, time fastest.
/// Elements are float, or bfloat16 where scalar_bytes is 2.
struct ssm_linear_peer_call {
  std::int64_t rows, length, scalar_bytes;

  void const *decay, *drive;
  void* states;  ///< are written

  void const* cotangent;                  ///< of the states
  void *decay_gradient, *drive_gradient;  ///< are written
};
}

namespace ssm::bench {

/// What such a file defines, as extern "C"; a stream is a cudaStream_t:
///   char const* ssm_linear_peer_name();
///   char const* ssm_linear_peer_unable(ssm_linear_peer_call const*);    null, or why it cannot
///   char const* ssm_linear_peer_forward(ssm_linear_peer_call const*, void* stream);   likewise
///   char const* ssm_linear_peer_gradient(ssm_linear_peer_call const*, void* stream);  of states
class linear_peer {
 public:
  /// Throws    std::runtime_error for a file that does not define them.
  explicit linear_peer(std::string const& file) : library_(file, "ssm_linear_peer") {}

  std::string const& name() const { return library_.name(); }
  bool is_able(ssm_linear_peer_call const& call) const { return unable_(&call) == nullptr; }
  void forward(ssm_linear_peer_call const& call, void* stream) const {
    library_.check(forward_(&call, stream));
  }
  void gradient(ssm_linear_peer_call const& call, void* stream) const {
    library_.check(gradient_(&call, stream));
  }

 private:
  using run = char const*(ssm_linear_peer_call const*, void*);

  peer_library library_;
  char const* (*unable_)(ssm_linear_peer_call const*) =
      library_.find<char const*(ssm_linear_peer_call const*)>("unable");
  run* forward_ = library_.find<run>("forward");
  run* gradient_ = library_.find<run>("gradient");
};

}  // namespace ssm::bench
