// SPDX-License-Identifier: Apache-2.0
// text.hpp: what is streamed, as a string.
#pragma once

#include <sstream>
#include <string>

namespace ssm::test {

std::string text(auto const&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

}  // namespace ssm::test
