// SPDX-License-Identifier: Apache-2.0
// summary.hpp: what a run of verify amounts to, before anything is printed or written.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "claim.hpp"
#include "experiments.hpp"
#include "speed.hpp"

namespace ssm::theory {

struct verification {
  std::uint64_t seed = 1;
  std::vector<result> results{};
  double seconds = 0;
  bool is_stopped = false;
  speed simulated{};

  bool all_as_recorded() const {
    return !is_stopped && std::all_of(results.begin(), results.end(),
                                      [](result const& r) { return r.as_recorded(); });
  }

  /// Tests of values that are true, each with the type I error level_of_exact.
  index_t tests_of_exact() const {
    index_t count = 0;
    for (result const& r : results)
      count += std::count_if(r.findings.begin(), r.findings.end(),
                             [](finding const& f) { return f.standard_error > 0; });
    return count;
  }

  /// The probability that one of them or more rejects by chance is at most this.
  double family_error() const {
    return std::min(1.0, static_cast<double>(tests_of_exact()) * level_of_exact);
  }
};

/// Its seed, how long it took, and what it simulated where.
inline std::string run_text(verification const& v) {
  std::string const simulated = speed_text(v.simulated);
  return "Seed " + std::to_string(v.seed) + ", " + report::duration(v.seconds) + "." +
         (simulated.empty() ? "" : " " + simulated);
}

/// Largest |z| of the Monte Carlo means of a claim against the exact form.
inline std::optional<double> largest_z_of_exact(result const& r) {
  std::optional<double> largest;
  for (finding const& f : r.findings) {
    if (!(f.standard_error > 0)) continue;
    if (!largest || std::abs(f.z_exact) > std::abs(*largest)) largest = f.z_exact;
  }
  return largest;
}

/// Smallest |z| of its decisive Monte Carlo means against what they must reject.
inline std::optional<double> smallest_z_of_alternative(result const& r) {
  std::optional<double> smallest;
  for (finding const& f : r.findings) {
    if (!(f.standard_error > 0) || !f.decisive) continue;
    if (!smallest || std::abs(f.z_alternative) < std::abs(*smallest)) smallest = f.z_alternative;
  }
  return smallest;
}

/// "reject", "keep", or "no power" where the test cannot tell.
inline char const* outcome(finding const& f) {
  if (!f.accepted) return "CONTRA";
  if (!f.decisive) return "no power";
  return f.rejected ? "rejected" : "KEPT";
}

/// What the paper prints, or a wrong value that a true claim must reject.
inline char const* name_of_alternative(finding const& f) {
  return f.alternative_is_printed ? "printed" : "5 % off";
}

}  // namespace ssm::theory
