// SPDX-License-Identifier: Apache-2.0
// spectrum: how long the states of a trained model last and how large they get, exactly and by
// simulation of its recurrence.
//
//   spectrum examples/data/byte-mamba-64 --report out
#include <algorithm>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "program.hpp"
#include "progress_line.hpp"
#include "spectrum/console.hpp"
#include "spectrum/options.hpp"
#include "spectrum/page.hpp"
#include "spectrum/records.hpp"
#include "spectrum/run.hpp"
#include "speed.hpp"

namespace {

using namespace ssm;
using namespace ssm::theory;

int spectrum(spectrum_options const& options) {
  std::vector<trained_model> models;
  for (std::string const& path : options.models) models.push_back(load_trained_model(path));

  auto const gpu = simulator_of(options);
  destinations const to(options, "spectrum");

  run_control run;
  start(run, options);
  run.gpu = gpu.get();
  auto planned = plan(std::move(models), options.asked, run);
  double cost = 0;
  for (auto const& model : planned) cost += model.cost();
  progress_line const progress(cost, !options.is_quiet);

  if (!options.is_quiet) print_legend(std::cout, options.asked);
  std::vector<model_result> results;
  bool is_stopped = false;
  for (planned_model& model : planned) {
    run.on_progress = [&](double done) { progress.show(done, model.result.model.name); };
    try {
      if (!is_stopped) simulate(model, run);
    } catch (stopped const&) {
      is_stopped = true;
    }
    progress.clear();
    if (options.is_quiet) {
      std::cout << model.result.model.name << '\n';
      print_paragraph(std::cout, verdict_text(model.result));
    } else {
      print(std::cout, model.result, options.asked);
    }
    results.push_back(std::move(model.result));
  }
  print_paragraph(std::cout, speed_text(speed_of(run)));
  to.write(json_of(results, options.asked).dump(2) + "\n", csv_of(results),
           to.has_page() ? page_of(results, options.asked) : "");
  bool const all_accepted = std::all_of(results.begin(), results.end(),
                                        [](auto const& result) { return result.is_accepted(); });
  return all_accepted ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("spectrum", [&] { return spectrum(read_options(argc, argv)); });
}
