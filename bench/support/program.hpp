// SPDX-License-Identifier: Apache-2.0
// program.hpp: what the programs of bench/ have in common: options, output, exit status.
//   --report FOLDER   write JSON, a Markdown table and pictures there
//   --compare FILE    the JSON of an earlier report: how long each row takes relative to it, in a
//                     column with the name of its folder
//   --full            all sizes, not only those that are quick to run
// All other options are Google Benchmark's; --benchmark_filter=REGEX chooses rows by name.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <exception>
#include <filesystem>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/report.hpp"
#include "support/rows.hpp"

namespace ssm::bench {

/// Collects the repetitions of a group's rows and prints nothing: they end in random order.
class collector : public benchmark::BenchmarkReporter {
 public:
  explicit collector(group const& g) : group_{g} {}

  bool ReportContext(Context const& /*context*/) override { return true; }

  void ReportRuns(std::vector<Run> const& runs) override {
    for (Run const& run : runs) {
      result* const found = group_.find(run.run_name.function_name);
      if (found == nullptr || !found->failure.empty()) continue;
      if (run.run_type != Run::RT_Iteration) continue;
      double const real = run.GetAdjustedRealTime(), processor = run.GetAdjustedCPUTime();
      row const& what = found->what;
      found->runs.push_back({.ns = (what.with.threads == 1 ? processor : real) / what.size.steps(),
                             .cpus = processor / real});
      std::sort(found->runs.begin(), found->runs.end(),
                [](auto const& a, auto const& b) { return a.ns < b.ns; });
    }
  }

 private:
  group const& group_;
};

class program {
 public:
  /// Throws    std::runtime_error for options that cannot be used.
  program(int count, char** arguments) {
    all_.from.program = std::filesystem::path(arguments[0]).filename().string();
    // First, so that what the user says comes later and counts.
    std::vector<std::string> others = {arguments[0], "--benchmark_enable_random_interleaving=true",
                                       "--benchmark_repetitions=5", "--benchmark_min_time=0.1"};
    for (int i = 1; i < count; ++i) {
      std::string const word = arguments[i];
      if (word == "--full") {
        is_full_ = true;
      } else if (auto const folder = value_of("--report", i, count, arguments)) {
        report_ = *folder;
      } else if (auto const file = value_of("--compare", i, count, arguments)) {
        all_.earlier_ns = times_in(*file);
        all_.earlier_name = std::filesystem::absolute(*file).parent_path().filename().string();
      } else {
        // Both would hold the last group alone.
        require<std::runtime_error>(
            !word.starts_with("--benchmark_out") && !word.starts_with("--benchmark_format"), word,
            ": --report FOLDER writes JSON here");
        is_list_ = is_list_ || word.starts_with("--benchmark_list_tests");
        others.push_back(word);
      }
    }
    std::vector<char*> words;
    for (auto& word : others) words.push_back(word.data());
    int left = static_cast<int>(words.size());
    benchmark::Initialize(&left, words.data());
    require<std::runtime_error>(left == 1, words[1], ": is not an option");
    if (report_.empty()) return;
    std::filesystem::create_directories(report_);
    text::require_writable(report_ / (all_.from.program + ".json"));
  }

  bool is_full() const { return is_full_; }
  int threads() const { return all_.from.threads; }

  /// Run the rows that add_rows(group&) adds; their inputs live until all of them are done.
  template <class AddRows>
  void run(AddRows const& add_rows) {
    group rows;
    add_rows(rows);
    collector reporter(rows);
    std::ostream nowhere(nullptr);
    reporter.SetErrorStream(&nowhere);  // where it says of each group that the filter spares it
    benchmark::RunSpecifiedBenchmarks(&reporter);
    benchmark::ClearRegisteredBenchmarks();

    auto const found = rows.results();
    if (found.empty()) return;
    if (all_.results.empty()) print_head();
    all_.results.insert(all_.results.end(), found.begin(), found.end());
    for (result const& r : found) {
      std::cout << console_line(table_line(all_, r), name_width);
      is_right_ = is_right_ && r.failure.empty();
    }
    std::cout << std::endl;
  }

  /// The exit status: 0 where there were rows and all of them were right.
  int finish() const {
    if (is_list_) return 0;
    require<std::runtime_error>(!all_.results.empty(), "no row has such a name");
    if (!report_.empty()) {
      write_report(all_, report_);
      std::cout << "Report: " << (report_ / (all_.from.program + ".md")).string() << '\n';
    }
    return is_right_ ? 0 : 1;
  }

 private:
  static constexpr int name_width = 56;

  static std::optional<std::string> value_of(std::string_view name, int& i, int count,
                                             char** arguments) {
    std::string_view const word = arguments[i];
    if (word == name) {
      require<std::runtime_error>(i + 1 < count, word, ": needs a value");
      return arguments[++i];
    }
    if (!word.starts_with(name) || word.size() <= name.size() || word[name.size()] != '=')
      return {};
    return std::string(word.substr(name.size() + 1));
  }

  void print_head() const {
    auto const& from = all_.from;
    std::cout << from.program << ": " << from.processor << ", " << from.instructions << "; "
              << from.compiler << ", " << from.flags << "; commit " << from.commit << '\n';
    std::cout << rates_lines("  ")
              << "  ns for one token of one channel, the least of the repetitions; processor time "
                 "on 1 thread\n\n"
              << console_line(table_head(all_), name_width);
  }

  measurements all_;
  std::filesystem::path report_;
  bool is_full_ = false;
  bool is_list_ = false;
  bool is_right_ = true;
};

/// The main function of a program: add_groups(program&) runs its groups.
template <class AddGroups>
int run_program(int count, char** arguments, AddGroups const& add_groups) {
  try {
    program all(count, arguments);
    add_groups(all);
    return all.finish();
  } catch (std::exception const& error) {
    std::cerr << std::filesystem::path(arguments[0]).filename().string() << ": " << error.what()
              << '\n';
    return 2;
  }
}

}  // namespace ssm::bench
