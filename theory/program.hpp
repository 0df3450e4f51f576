// SPDX-License-Identifier: Apache-2.0
// program.hpp: what the programs of theory/ have in common: options, signals, files, exit status.
#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "report/files.hpp"
#include "run_control.hpp"
#include "simulator.hpp"
#include "ssm/error.hpp"

namespace ssm::theory {

/// The options that every program has.
struct run_options {
  std::uint64_t seed = 1;
  index_t samples = 0;  ///< 0: as many as the power needs
  int threads = 0;
  std::string device = "cpu";
  double time_limit = 0;  ///< seconds; 0: none
  std::string json, csv, report;
  bool is_quiet = false;
};

/// A number of type T in [low, high]. (CLI11 prints the bounds of its ranges with 300 digits and
/// takes 2^64 for 2^64 - 1.)
template <class T>
CLI::Validator number_in(T low, T high, std::string const& expected) {
  return {[=](std::string const& text) {
            T value{};
            char const* const end = text.data() + text.size();
            auto const read = std::from_chars(text.data(), end, value);
            bool const is_number = read.ec == std::errc{} && read.ptr == end;
            return is_number && low <= value && value <= high
                       ? std::string()
                       : "is \"" + text + "\", expected " + expected;
          },
          ""};
}

inline void add_run_options(CLI::App& app, run_options& o) {
  app.add_option("--seed", o.seed, "Of the random numbers")
      ->check(number_in<std::uint64_t>(0, ~std::uint64_t{0}, "a whole number, 0 to 2^64 - 1"))
      ->capture_default_str();
  app.add_option("--samples", o.samples,
                 "Replicates of each Monte Carlo mean (default: as many as its power needs)")
      ->check(number_in<index_t>(1, 100'000'000, "a whole number, 1 to 10^8"));
  app.add_option("--threads", o.threads, "0: one for each processor")
      ->check(number_in(0, 4096, "a whole number, 0 to 4096"))
      ->capture_default_str();
  app.add_option("--device", o.device, "What simulates the systems: cpu, or gpu (CUDA)")
      ->check(CLI::Validator(
          [](std::string const& text) {
            return text == "cpu" || text == "gpu" ? std::string()
                                                  : "is \"" + text + "\", expected cpu or gpu";
          },
          ""))
      ->capture_default_str();
  app.add_option("--time-limit", o.time_limit, "Seconds after which the run ends with what it has")
      ->check(number_in(1e-9, 1e9, "seconds, more than 0"));
  app.add_option("--json", o.json, "Write all that was found to this file");
  app.add_option("--csv", o.csv, "Write a table of it to this file");
  app.add_option("--report", o.report, "Write a page with pictures, JSON and CSV to this folder");
  app.add_flag("--quiet", o.is_quiet, "Print only what it comes to");
}

/// Throws    CLI::ParseError; CLI::Success after the help has been printed.
inline void parse(CLI::App& app, int count, char const* const* words) {
  try {
    app.parse(count, words);
  } catch (CLI::Success const& wanted) {
    app.exit(wanted);
    throw;
  }
}

namespace detail {

inline std::atomic<bool> is_interrupted{false};

/// The first signal ends the run between two pieces of work, the second the program.
inline void interrupt(int signal) {
  is_interrupted = true;
  std::signal(signal, SIG_DFL);
}

}  // namespace detail

/// The simulator that is asked for; none where threads do it.
/// Throws    std::runtime_error where it cannot be had.
inline std::unique_ptr<simulator> simulator_of(run_options const& o) {
  return o.device == "gpu" ? gpu_simulator() : nullptr;
}

/// From here on the clock of --time-limit runs and signals are heard.
inline void start(run_control& run, run_options const& o) {
  run.seed = o.seed;
  run.threads = o.threads;
  run.samples = o.samples;
  run.interrupted = &detail::is_interrupted;
  std::signal(SIGINT, detail::interrupt);
  std::signal(SIGTERM, detail::interrupt);
  if (o.time_limit > 0) {
    std::chrono::duration<double> const limit(o.time_limit);
    run.deadline =
        run_control::clock::now() + std::chrono::duration_cast<run_control::clock::duration>(limit);
  }
}

/// Where the documents of a run go: --json, --csv, and all three of them in the --report folder.
class destinations {
 public:
  /// Creates the folder of the report, in one that exists.
  /// Throws    std::runtime_error, before a long run, where a file could not be written after it.
  destinations(run_options const& o, std::string const& stem) {
    add(json_, o.json);
    add(csv_, o.csv);
    if (o.report.empty()) return;
    std::filesystem::path const folder = o.report;
    std::error_code failed;
    std::filesystem::create_directory(folder, failed);
    require<std::runtime_error>(!failed, folder.string(), ": cannot be made: ", failed.message());
    add(json_, folder / (stem + ".json"));
    add(csv_, folder / (stem + ".csv"));
    add(page_, folder / "index.html");
  }

  bool has_page() const { return !page_.empty(); }

  void write(std::string const& json, std::string const& csv, std::string const& page) const {
    for (auto const& file : json_) report::write_file(file, json);
    for (auto const& file : csv_) report::write_file(file, csv);
    for (auto const& file : page_) report::write_file(file, page);
    for (auto const& file : page_) std::cout << "Report: " << file.string() << '\n';
  }

 private:
  using file_list = std::vector<std::filesystem::path>;

  void add(file_list& to, std::filesystem::path const& file) {
    if (file.empty()) return;
    report::require_writable(file);
    for (file_list const* taken : {&json_, &csv_}) {
      require<std::runtime_error>(std::find(taken->begin(), taken->end(), file) == taken->end(),
                                  file.string(), ": is named twice, expected different files");
    }
    to.push_back(file);
  }

  file_list json_, csv_, page_;
};

/// Exit status where a signal ended the run.
inline constexpr int interrupted_status = 130;

/// Run a program that returns its exit status; errors become one line and the status 2.
template <class Program>
int run_program(char const* name, Program const& program) {
  try {
    int const status = program();
    return detail::is_interrupted ? interrupted_status : status;
  } catch (CLI::Success const&) {
    return 0;
  } catch (std::exception const& error) {
    std::cerr << name << ": " << error.what() << '\n';
    return 2;
  }
}

}  // namespace ssm::theory
