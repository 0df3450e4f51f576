// SPDX-License-Identifier: Apache-2.0
// claim.hpp: what the paper says, the experiments that test it, and how they decide.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "report/picture.hpp"
#include "run_control.hpp"

namespace ssm::theory {

enum class verdict { holds, holds_as_bound, refuted, undecided };

inline char const* to_string(verdict v) {
  switch (v) {
    case verdict::holds:
      return "holds";
    case verdict::holds_as_bound:
      return "holds as a bound";
    case verdict::refuted:
      return "refuted";
    case verdict::undecided:
      break;
  }
  return "undecided";
}

/// The outcome of one experiment: a measured value against what is exact and against an
/// alternative it must be able to tell from it. The alternative is what the paper prints where
/// that is wrong, and the exact value off by 5 % (or a tighter bound) where it is right.
struct finding {
  std::string setting;        ///< the parameters, e.g. "U[0, 0.9], d = 8, m = 16, t = 64"
  std::string method;         ///< how the value was found, e.g. "recurrence", "control variate"
  index_t samples = 0;        ///< Monte Carlo replicates; 0 where nothing is random
  double value = 0;           ///< Monte Carlo mean, computed number, or largest ratio to a bound
  double standard_error = 0;  ///< from the closed-form variance, never from the sample; 0: none
  double exact = 0;           ///< what is true; of a bound, 1
  double alternative = 0;
  bool alternative_is_printed = false;

  double z_exact = 0;            ///< (value - exact) in standard errors, or in tolerances
  double z_alternative = 0;      ///< (value - alternative) likewise
  double level_exact = 0;        ///< type I error of the test of the exact value
  double level_alternative = 0;  ///< type I error of the test of the alternative
  double power = 1;  ///< probability of rejecting the alternative where the exact value is true

  bool accepted = false;  ///< the value agrees with what is exact
  bool rejected = false;  ///< the value tells against the alternative
  bool decisive = true;   ///< the test has the power to tell; others are shown and do not count
};

/// One thing to run; cost in nanoseconds of one core, roughly, is what progress is counted in.
struct experiment {
  std::string setting;
  std::string method;
  double cost = 0;
  std::function<finding(run_control&)> run;
};

/// A statement of the paper (arXiv:2509.19633) and how it is put to the test.
struct claim {
  std::string id;                         ///< what --claim takes, e.g. "theorem-4.2"
  std::string place;                      ///< where it stands in the paper
  std::string statement;                  ///< in words
  std::string printed;                    ///< the formula as printed
  std::string exact;                      ///< the formula that is true
  std::string remark;                     ///< where it goes wrong, or what it needs
  verdict recorded = verdict::undecided;  ///< what this project has found; a run must agree
  std::vector<experiment> experiments;
  /// Pictures of what was found, if numbers alone do not show it.
  std::function<std::vector<picture>(std::vector<finding> const&)> pictures{};
};

/// What the experiments of one claim have shown. Undecided where a value contradicts the exact
/// form, where no test had the power to tell, where one that had did not reject the alternative,
/// or where the run was stopped before all had been done.
inline verdict decide(claim const& c, std::vector<finding> const& findings) {
  if (findings.size() != c.experiments.size()) return verdict::undecided;
  bool printed_rejected = false, any_decisive = false;
  for (finding const& f : findings) {
    if (!f.accepted) return verdict::undecided;
    if (!f.decisive) continue;
    any_decisive = true;
    if (!f.rejected) return verdict::undecided;
    printed_rejected = printed_rejected || f.alternative_is_printed;
  }
  if (!any_decisive) return verdict::undecided;
  if (printed_rejected) return verdict::refuted;
  return c.recorded == verdict::holds_as_bound ? verdict::holds_as_bound : verdict::holds;
}

/// A claim with what became of it.
struct result {
  claim what;
  std::vector<finding> findings{};
  verdict reached = verdict::undecided;
  double seconds = 0;

  bool is_complete() const { return findings.size() == what.experiments.size(); }
  bool as_recorded() const { return reached == what.recorded; }
};

}  // namespace ssm::theory
