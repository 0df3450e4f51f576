// SPDX-License-Identifier: Apache-2.0
// text.hpp: numbers and laws as the settings of experiments write them.
#pragma once

#include <string>

#include "closed_forms.hpp"
#include "report/text.hpp"

namespace ssm::theory {

/// Six significant digits and no more than needed: 0.9, 1e-6.
inline std::string short_text(double value) {
  return report::significant(value, 6);
}

/// "0.9"; near 1 "1-1e-6".
inline std::string short_text(pole<double> const& p) {
  return p.gap > 0 && p.gap < 1e-4 ? "1-" + short_text(p.gap) : short_text(p.value);
}

inline std::string short_text(uniform_law<double> const& law) {
  return "U[" + short_text(law.low) + ", " + short_text(law.high) + "]";
}

}  // namespace ssm::theory
