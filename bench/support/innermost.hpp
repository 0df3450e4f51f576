// SPDX-License-Identifier: Apache-2.0
// innermost.hpp: which axis of (batch, time, channel) is contiguous.
#pragma once

namespace ssm::bench {

enum class innermost { time, channels };

inline char const* name_of(innermost layout) {
  return layout == innermost::time ? "time" : "channels";
}

}  // namespace ssm::bench
