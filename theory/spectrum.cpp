// SPDX-License-Identifier: Apache-2.0
// spectrum: how long the states of a trained model last and how large they get, exactly and by
// simulation of its recurrence; as trained, and under a scaling that is given or that follows from
// the spectrum.
//
//   spectrum examples/data/byte-mamba-64 --report out
//   spectrum examples/data/byte-mamba2-64 --match linear --each head --from 64
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
#include "spectrum/scaling_effect.hpp"
#include "speed.hpp"

namespace {

using namespace ssm;
using namespace ssm::theory;

int run(spectrum_options const& options) {
  std::vector<trained_model> models;
  std::vector<scaling_effect> effects;
  for (std::string const& path : options.models) {
    models.push_back(load_trained_model(path));
    if (!options.scaling) continue;
    effects.push_back(effect_of(models.back(), options.scaling, options.asked));
    models.push_back(effects.back().after);  // simulated too
  }

  auto const gpu = simulator_of(options);
  destinations const to(options, "spectrum");

  run_control control;
  start(control, options);
  control.gpu = gpu.get();
  auto planned = plan(std::move(models), options.asked, control);
  double cost = 0;
  for (auto const& model : planned) cost += model.cost();
  progress_line const progress(cost, !options.is_quiet);

  if (!options.is_quiet) {
    if (!effects.empty()) print_legend(std::cout, effect_columns(options.asked));
    for (scaling_effect const& effect : effects) print(std::cout, effect, options.asked);
    print_legend(std::cout, layer_columns(options.asked));
  }
  std::vector<model_result> results;
  bool is_stopped = false;
  for (planned_model& model : planned) {
    control.on_progress = [&](double done) { progress.show(done, model.result.model.name); };
    try {
      if (!is_stopped) simulate(model, control);
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
  print_paragraph(std::cout, speed_text(speed_of(control)));
  to.write(json_of(results, options.asked, effects).dump(2) + "\n", csv_of(results),
           to.has_page() ? page_of(results, options.asked, effects) : "");
  bool const all_accepted = std::all_of(results.begin(), results.end(),
                                        [](auto const& result) { return result.is_accepted(); });
  return all_accepted ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("spectrum", [&] { return run(read_options(argc, argv)); });
}
