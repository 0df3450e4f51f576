// SPDX-License-Identifier: Apache-2.0
// statistics.hpp: two-sided tests of a mean with known variance: critical value, power, samples.
#pragma once

#include <boost/math/distributions/normal.hpp>
#include <cmath>
#include <limits>

#include "ssm/config.hpp"
#include "ssm/error.hpp"

namespace ssm::theory {

/// |z| above this rejects at the level: 1.96 for 0.05.
inline double two_sided_critical(double level) {
  require<domain_error>(level > 0 && level < 1, "two_sided_critical: level is ", level,
                        ", expected one in (0, 1)");
  return quantile(complement(boost::math::normal{}, level / 2));
}

/// Probability of rejecting a mean that is off by `difference`.
inline double power_of_test(double difference, double standard_error, double level) {
  boost::math::normal const standard;
  double const shift = std::abs(difference) / standard_error;
  if (!std::isfinite(shift)) return difference == 0 ? level : 1;
  double const critical = two_sided_critical(level);
  return cdf(standard, shift - critical) + cdf(standard, -shift - critical);
}

/// Smallest number of samples of the given variance with which a mean off by `difference` is
/// rejected with at least that power. Uses the known variance: with the sample's own, a heavy
/// tail makes the test reject the truth.
inline index_t samples_for_power(double variance, double difference, double level, double power) {
  require<domain_error>(variance >= 0, "samples_for_power: variance is ", variance,
                        ", expected 0 or more");
  require<domain_error>(power > 0 && power < 1, "samples_for_power: power is ", power,
                        ", expected one in (0, 1)");
  double const reach = two_sided_critical(level) + quantile(boost::math::normal{}, power);
  double const samples = std::ceil(variance * (reach / difference) * (reach / difference));
  require<domain_error>(samples < 1e15, "samples_for_power: ", samples,
                        " samples would be needed, expected fewer than 1e15");
  return samples < 1 ? 1 : static_cast<index_t>(samples);
}

}  // namespace ssm::theory
