// SPDX-License-Identifier: Apache-2.0
// spectrum: how long the states of a trained model last and how large they get, exactly and by
// simulation of its recurrence.
//
//   spectrum examples/data/byte-mamba-64 --report out
#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <exception>
#include <filesystem>
#include <iostream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "progress_line.hpp"
#include "report/files.hpp"
#include "spectrum/console.hpp"
#include "spectrum/options.hpp"
#include "spectrum/page.hpp"
#include "spectrum/records.hpp"
#include "spectrum/run.hpp"

namespace {

using namespace ssm;
using namespace ssm::theory;

std::atomic<bool> interrupted{false};

/// The first signal ends the run between two pieces of work, the second the program.
void interrupt(int signal) {
  interrupted = true;
  std::signal(signal, SIG_DFL);
}

/// From here on the clock of --time-limit runs and signals are heard.
void start(run_control& run, spectrum_options const& options) {
  run.seed = options.seed;
  run.threads = options.threads;
  run.samples = options.samples;
  run.interrupted = &interrupted;
  std::signal(SIGINT, interrupt);
  std::signal(SIGTERM, interrupt);
  if (options.time_limit > 0) {
    std::chrono::duration<double> const limit(std::min(options.time_limit, 1e9));
    run.deadline =
        run_control::clock::now() + std::chrono::duration_cast<run_control::clock::duration>(limit);
  }
}

using file_list = std::vector<std::filesystem::path>;

/// Where each of the documents is to go.
struct destinations {
  file_list json, csv, page;

  /// Creates the folder of the report; throws before a long run where a file could not be written.
  explicit destinations(spectrum_options const& options) {
    if (!options.json.empty()) json.push_back(options.json);
    if (!options.csv.empty()) csv.push_back(options.csv);
    if (!options.report.empty()) {
      std::filesystem::path const folder = options.report;
      std::error_code failed;
      std::filesystem::create_directories(folder, failed);
      require<std::runtime_error>(!failed, folder.string(), ": cannot be made: ", failed.message());
      json.push_back(folder / "spectrum.json");
      csv.push_back(folder / "spectrum.csv");
      page.push_back(folder / "index.html");
    }
    for (file_list const& files : {json, csv, page}) {
      for (auto const& file : files) report::require_writable(file);
    }
  }
};

void write(file_list const& files, std::string const& text) {
  for (auto const& file : files) report::write_file(file, text);
}

int spectrum(spectrum_options const& options) {
  std::vector<trained_model> models;
  for (std::string const& path : options.models) models.push_back(load_trained_model(path));

  destinations const to(options);

  run_control run;
  start(run, options);
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
  write(to.json, json_of(results, options.asked).dump(2) + "\n");
  write(to.csv, csv_of(results));
  write(to.page, page_of(results, options.asked));
  if (!options.is_quiet && !to.page.empty()) {
    std::cout << "Report: " << to.page.front().string() << '\n';
  }
  if (interrupted) return 130;
  bool const all_accepted = std::all_of(results.begin(), results.end(),
                                        [](auto const& result) { return result.is_accepted(); });
  return all_accepted ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return spectrum(read_options(argc, argv));
  } catch (CLI::Success const&) {
    return 0;
  } catch (std::exception const& error) {
    std::cerr << "spectrum: " << error.what() << '\n';
    return 2;
  }
}
