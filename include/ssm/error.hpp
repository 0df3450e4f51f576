// SPDX-License-Identifier: Apache-2.0
// error.hpp: the exceptions the library throws, and require(), the only place that formats them.
#pragma once

#include <limits>
#include <sstream>
#include <stdexcept>

namespace ssm {

/// Views that disagree, or settings that cannot work. Thrown before any output is written.
struct shape_error : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

/// A number outside the domain of a formula: a decay >= 1 where stationarity is asked for, a
/// negative step size, a probability outside (0, 1).
struct domain_error : std::domain_error {
  using std::domain_error::domain_error;
};

/// A model or tensor file that is missing, malformed or not what was expected.
struct checkpoint_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Throw Error with the parts streamed one after another unless `holds`.
/// The message names the argument, what was found and what was expected, numbers with all their
/// digits (1 + 1e-9 is not "1, expected at most 1"):
///   require<shape_error>(n == 4, "scan: carry has ", n, " states, expected ", 4);
template <class Error, class... Parts>
void require(bool holds, Parts const&... parts) {
  if (holds) return;
  std::ostringstream message;
  message.precision(std::numeric_limits<double>::max_digits10);
  (message << ... << parts);
  throw Error(message.str());
}

}  // namespace ssm
