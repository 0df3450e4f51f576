// SPDX-License-Identifier: Apache-2.0
// verify: the claims of "Mamba Modulation" (arXiv:2509.19633), each by closed form and by Monte
// Carlo of the recurrence itself.
//
//   verify --claim theorem-4.2 --report out
#include <unistd.h>  // isatty

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "claims/all.hpp"
#include "progress_line.hpp"
#include "report/files.hpp"
#include "run_claim.hpp"
#include "verify/console.hpp"
#include "verify/options.hpp"
#include "verify/page.hpp"
#include "verify/records.hpp"

namespace {

using namespace ssm;
using namespace ssm::theory;

std::atomic<bool> interrupted{false};

void interrupt(int) {
  interrupted = true;
}

struct output {
  std::filesystem::path json, csv, page;
};

/// The files that were asked for. Made and checked before the run.
std::vector<output> outputs_of(verify_options const& o) {
  std::vector<output> outputs{{o.json, o.csv, {}}};
  if (!o.report.empty()) {
    std::filesystem::path const folder = o.report;
    std::filesystem::create_directories(folder);
    outputs.push_back({folder / "verify.json", folder / "verify.csv", folder / "verify.html"});
  }
  for (auto const& [json, csv, page] : outputs) {
    for (auto const& path : {json, csv, page}) {
      if (!path.empty()) report::require_writable(path);
    }
  }
  return outputs;
}

void write(std::vector<output> const& outputs, verification const& v) {
  for (auto const& [json, csv, page] : outputs) {
    if (!json.empty()) report::write_file(json, json_of(v).dump(2) + "\n");
    if (!csv.empty()) report::write_file(csv, csv_of(v));
    if (!page.empty()) report::write_file(page, page_of(v));
  }
}

int verify(verify_options const& o) {
  auto claims = chosen(all_claims(), o.claims);
  if (o.is_list) {
    for (claim const& c : claims) std::cout << cell(c.id, -16) << "  " << c.statement << '\n';
    return 0;
  }
  auto const outputs = outputs_of(o);
  paint const in{::isatty(STDOUT_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr};

  run_control run;
  run.seed = o.seed;
  run.threads = o.threads;
  run.samples = o.samples;
  run.interrupted = &interrupted;
  std::signal(SIGINT, interrupt);
  std::signal(SIGTERM, interrupt);
  auto const start = run_control::clock::now();
  if (o.time_limit > 0) {
    std::chrono::duration<double> const limit(std::min(o.time_limit, 1e9));
    run.deadline = start + std::chrono::duration_cast<run_control::clock::duration>(limit);
  }
  double work = 0;
  for (claim const& c : claims) {
    for (experiment const& e : c.experiments) work += e.cost;
  }
  progress_line const line(work, true);
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
  v.seconds = std::chrono::duration<double>(run_control::clock::now() - start).count();
  print_summary(std::cout, v, in);
  write(outputs, v);
  if (!o.report.empty() && !o.is_quiet)
    std::cout << "Report: " << outputs.back().page.string() << '\n';
  return v.is_stopped ? 130 : v.all_as_recorded() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return verify(read_options(argc, argv));
  } catch (CLI::Success const&) {
    return 0;
  } catch (std::exception const& error) {
    std::cerr << "verify: " << error.what() << '\n';
    return 2;
  }
}
