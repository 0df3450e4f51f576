// SPDX-License-Identifier: Apache-2.0
// verify: the claims of "Mamba Modulation" (arXiv:2509.19633), each by closed form and by Monte
// Carlo of the recurrence itself.
//
//   verify --claim theorem-4.2 --report out
#include <unistd.h>  // isatty

#include <cstdlib>
#include <iostream>
#include <utility>

#include "claims/all.hpp"
#include "program.hpp"
#include "progress_line.hpp"
#include "run_claim.hpp"
#include "verify/console.hpp"
#include "verify/options.hpp"
#include "verify/page.hpp"
#include "verify/records.hpp"

namespace {

using namespace ssm;
using namespace ssm::theory;

int verify(verify_options const& o) {
  auto claims = chosen(all_claims(), o.claims);
  if (o.is_list) {
    for (claim const& c : claims) std::cout << cell(c.id, -16) << "  " << c.statement << '\n';
    return 0;
  }
  auto const gpu = simulator_of(o);
  destinations const to(o, "verify");
  paint const in{::isatty(STDOUT_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr};

  run_control run;
  start(run, o);
  run.gpu = gpu.get();
  auto const started = run_control::clock::now();
  double work = 0;
  for (claim const& c : claims) {
    for (experiment const& e : c.experiments) work += e.cost;
  }
  progress_line const line(work, !o.is_quiet);
  run.on_progress = [&](double done) { line.show(done, run.scope); };

  verification v{.seed = o.seed};
  if (!o.is_quiet) print_legend(std::cout);
  for (claim& c : claims) {
    v.results.push_back(run_claim(std::move(c), run));
    line.clear();
    if (!o.is_quiet) print_claim(std::cout, v.results.back(), in);
    v.is_stopped = !v.results.back().is_complete();
    if (v.is_stopped) break;
  }
  v.seconds = run_control::seconds_since(started);
  v.simulated = speed_of(run);
  print_summary(std::cout, v, in);
  to.write(json_of(v).dump(2) + "\n", csv_of(v), to.has_page() ? page_of(v) : "");
  return v.all_as_recorded() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("verify", [&] { return verify(read_options(argc, argv)); });
}
