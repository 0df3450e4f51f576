// SPDX-License-Identifier: Apache-2.0
// speed.hpp: where a run simulated its systems, and how many states it got through in a second.
#pragma once

#include <string>

#include "report/text.hpp"
#include "run_control.hpp"
#include "simulator.hpp"
#include "ssm/detail/workers.hpp"

namespace ssm::theory {

struct speed {
  std::string device;  ///< "2 threads", or the name of a GPU
  double states = 0;   ///< updated, one for each step of each
  double seconds = 0;
  double law_seconds = 0;  ///< of these, for eigenvalues that threads drew for a GPU

  double states_per_second() const { return seconds > 0 ? states / seconds : 0; }
};

inline speed speed_of(run_control const& run) {
  int const threads = run.threads > 0 ? run.threads : ssm::detail::processors();
  return {run.gpu != nullptr ? run.gpu->name()
                             : std::to_string(threads) + (threads == 1 ? " thread" : " threads"),
          run.states, run.states_seconds, run.law_seconds};
}

/// Empty where nothing was simulated.
inline std::string speed_text(speed const& s) {
  if (!(s.states > 0)) return "";
  std::string const drawing =
      s.law_seconds > 0 ? "; " + report::duration(s.law_seconds) + " of it drew eigenvalues" : "";
  return report::significant(s.states, 3) + " states simulated on " + s.device + " in " +
         report::duration(s.seconds) + ", " + report::significant(s.states_per_second(), 3) +
         " a second" + drawing + ".";
}

}  // namespace ssm::theory
