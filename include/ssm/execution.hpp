// SPDX-License-Identifier: Apache-2.0
// execution.hpp: who runs a scan, as plain values handed to the call.
#pragma once

#include <concepts>

#include "ssm/config.hpp"
#include "ssm/error.hpp"

namespace ssm {

/// One thread, one step after another: the reference every other policy is tested against.
struct sequential {};

/// One thread, time cut into pieces of `length` steps: each piece is folded to one affine map per
/// state, the maps carry the state across, then every piece is run from its own carry. The same
/// operations in the same order as `parallel` with that chunk, so the two agree bit for bit.
struct chunked {
  index_t length = 256;
};

/// Vector instructions for the operators that use them; each machine has those before its best.
/// Results differ between sets by rounding: wider ones fuse multiplication and addition.
enum class instruction_set { baseline, avx2, avx512, widest };

/// Many threads. Results do not depend on how many: where time is cut follows from the shape and
/// `chunk` alone, and every sum has a fixed order.
struct parallel {
  int threads = 0;    ///< 0: one for each processor
  index_t chunk = 0;  ///< steps in a piece; 0: time is cut only where lanes are too few
  instruction_set instructions = instruction_set::widest;  ///< the machine's best up to this one
};

template <class Policy>
concept execution_policy = std::same_as<Policy, sequential> || std::same_as<Policy, chunked> ||
    std::same_as<Policy, parallel>;

/// The order in which a scan visits time.
enum class direction { forward, backward };

/// A run of `count` steps: local step i happens at time first + stride·i.
struct time_window {
  index_t first = 0;
  index_t count = 0;
  index_t stride = 1;

  SSM_HD constexpr index_t operator()(index_t i) const { return first + stride * i; }
  SSM_HD constexpr time_window part(index_t begin, index_t length) const {
    return {first + stride * begin, length, stride};
  }
};

/// All of `length` steps in the given direction.
constexpr time_window whole(index_t length, direction order) {
  return order == direction::forward ? time_window{0, length, 1}
                                     : time_window{length - 1, length, -1};
}

namespace detail {

/// How a policy cuts a problem of `lanes` independent recurrences of `length` steps.
struct execution_plan {
  int threads;
  index_t chunk;  ///< steps in a piece, at least 1
};

/// Enough pieces to keep this many workers busy are cut when lanes alone are fewer ...
inline constexpr index_t default_pieces = 64;
/// ... but none shorter than this, where folding twice would cost more than it gains.
inline constexpr index_t shortest_default_chunk = 1024;

constexpr execution_plan plan(sequential, index_t /*lanes*/, index_t length) {
  return {1, length < 1 ? 1 : length};
}

inline execution_plan plan(chunked policy, index_t /*lanes*/, index_t /*length*/) {
  require<shape_error>(policy.length >= 1, "chunked: length is ", policy.length,
                       ", expected at least 1");
  return {1, policy.length};
}

inline execution_plan plan(parallel policy, index_t lanes, index_t length) {
  require<shape_error>(policy.threads >= 0, "parallel: threads is ", policy.threads,
                       ", expected 0 (all) or more");
  require<shape_error>(policy.chunk >= 0, "parallel: chunk is ", policy.chunk,
                       ", expected 0 (from the shape) or more");
  if (policy.chunk > 0) return {policy.threads, policy.chunk};
  index_t const pieces = lanes < 1 ? 1 : (default_pieces + lanes - 1) / lanes;
  index_t const chunk = (length + pieces - 1) / pieces;
  return {policy.threads, chunk < shortest_default_chunk ? shortest_default_chunk : chunk};
}

}  // namespace detail
}  // namespace ssm
