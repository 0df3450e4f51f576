// SPDX-License-Identifier: Apache-2.0
// run_claim.hpp: run the experiments of a claim and decide.
#pragma once

#include <utility>

#include "claim.hpp"
#include "run_control.hpp"

namespace ssm::theory {

/// The experiments of a claim one after another. Where the run is stopped the result has what was
/// found until then, and is undecided; the caller sees that from is_complete().
inline result run_claim(claim what, run_control& run) {
  auto const start = run_control::clock::now();
  run.scope = what.id;
  result r{.what = std::move(what)};
  try {
    for (experiment const& e : r.what.experiments) r.findings.push_back(e.run(run));
  } catch (stopped const&) {
  }
  r.reached = decide(r.what, r.findings);
  r.seconds = run_control::seconds_since(start);
  return r;
}

}  // namespace ssm::theory
