// SPDX-License-Identifier: Apache-2.0
// device_program.cuh: options, turns of rows with copies, and exit status of a benchmark on a GPU.
//   --report FOLDER   write JSON, a Markdown table and a picture there
//   --only REGEX      rows whose names have a match
// A program may have more options, each with a value.
#pragma once

#include <exception>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ssm/error.hpp"
#include "support/device_report.cuh"

namespace ssm::bench {

/// A call that is ready to be timed, and what its check came to.
struct prepared_call {
  std::function<void(gpu::on)> run;
  double relative_l2 = 0;
  double of_allowed = 0;  ///< above `most` or NaN: wrong, not timed
  bool is_graph = true;
  std::string note = "";
  double most = 1;
};

/// A call that takes turns with the rows of a group and has the rate of a limit of theirs.
struct yardstick {
  std::function<void(gpu::on)> run;
  double amount = 0;  ///< bytes read and written, or work
  work_kind kind = {};
};

class device_program {
 public:
  /// Throws    std::runtime_error for options that cannot be used.
  device_program(int count, char** arguments, std::set<std::string> const& more_options = {})
      : all_{this_device(std::filesystem::path(arguments[0]).filename().string(), SSM_BENCH_FLAGS,
                         SSM_BENCH_COMMIT)} {
    for (int i = 1; i < count; ++i) {
      std::string const word = arguments[i];
      require<std::runtime_error>(
          word == "--report" || word == "--only" || more_options.contains(word), word,
          ": is not an option");
      require<std::runtime_error>(i + 1 < count, word, ": needs a value");
      options_[word] = arguments[++i];
    }
    report_ = option("--report");
    chosen_ = std::regex(option("--only"));
    if (!report_.empty()) {
      std::filesystem::create_directories(report_);
      text::require_writable(std::filesystem::path(report_) / (all_.from.program + ".json"));
    }
    std::cout << all_.from.program << ": " << all_.from.device << "; " << all_.from.compiler
              << "; commit " << all_.from.commit << "\n\n";
  }

  /// The value of an option, or nothing.
  std::string option(std::string const& name) const {
    auto const found = options_.find(name);
    return found == options_.end() ? "" : found->second;
  }

  device_measurements const& all() const { return all_; }

  /// A row of the next group. make() is called if it is wanted; where it throws, the row fails.
  void add(device_row what, std::function<prepared_call()> make) {
    if (std::regex_search(what.name(), chosen_)) group_.emplace_back(std::move(what), make);
  }

  /// Check the rows of the group, time those that are right, in turns with the yardsticks, print
  /// them. All groups have the same kind of work, and all or none `copy_of`: a copy of so many
  /// bytes, for each row of its own.
  void run_group(gpu::stream const& stream, yardstick const& copy, yardstick const& work = {},
                 std::function<yardstick(double)> const& copy_of = {}) {
    if (group_.empty()) return;
    all_.work = work.kind;
    all_.has_own_copies = copy_of != nullptr;
    if (all_.results.empty()) {
      std::cout << device_console_line(device_table_head(all_));
    }
    std::vector<device_result> found;
    for (auto& [what, make] : std::exchange(group_, {})) {
      device_result& r = found.emplace_back(device_result{what});
      try {
        prepared_call const ready = make();
        r.call = {ready.run, ready.is_graph};
        r.relative_l2 = ready.relative_l2;
        r.of_allowed = ready.of_allowed;
        r.note = ready.note;
        if (!(r.of_allowed <= ready.most)) {
          r.failure = "wrong by " + text::significant(r.of_allowed, 3) +
                      " times what is allowed, relative L2 " + text::significant(r.relative_l2, 2);
        }
      } catch (std::exception const& error) {
        r.failure = error.what();
      }
    }
    timed_call copies{copy.run, false}, computations{work.run, false};
    std::vector<timed_call*> turns = {&copies};
    if (all_.has_work()) turns.push_back(&computations);
    std::map<double, std::pair<double, timed_call>> own_copies;  // of so many bytes
    if (copy_of) {
      for (device_result const& r : found) {
        if (!r.failure.empty() || own_copies.contains(r.what.all_bytes())) continue;
        yardstick const own = copy_of(r.what.all_bytes());
        auto& [amount, call] = own_copies[r.what.all_bytes()];
        amount = own.amount, call = {own.run, false};
        turns.push_back(&call);
      }
    }
    std::size_t const yardsticks = turns.size();
    for (device_result& r : found) {
      if (r.failure.empty()) turns.push_back(&r.call);
    }
    try {
      if (turns.size() > yardsticks) measure(stream, turns);
    } catch (std::exception const& error) {
      for (device_result& r : found) {
        if (r.failure.empty()) r.failure = error.what();
      }
    }
    for (device_result& r : found) {
      r.call.run = {};  // and what it holds
      r.copied = copy.amount / copies.median();
      r.computed = work.amount / computations.median();
      if (auto const own = own_copies.find(r.what.all_bytes()); own != own_copies.end()) {
        r.copied_own = own->second.first / own->second.second.median();
      }
      is_right_ = is_right_ && r.failure.empty();
      std::cout << device_console_line(device_table_line(r, all_)) << std::flush;
      all_.results.push_back(std::move(r));
    }
  }

  /// The exit status: 0 where there were rows and all of them were right.
  int finish(std::string const& picture) const {
    require<std::runtime_error>(!all_.results.empty(), "no row has such a name");
    if (!report_.empty()) {
      write_report(all_, picture, report_);
      std::cout << "Report: " << report_ << '/' << all_.from.program << ".md\n";
    }
    return is_right_ ? 0 : 1;
  }

 private:
  device_measurements all_;
  std::map<std::string, std::string> options_;
  std::string report_;
  std::regex chosen_;
  std::vector<std::pair<device_row, std::function<prepared_call()>>> group_;
  bool is_right_ = true;
};

/// The main function of a program: run(program&, stream) adds its groups and returns the picture of
/// its report.
template <class Run>
int run_device_program(int count, char** arguments, std::set<std::string> const& more_options,
                       Run const& run) {
  try {
    device_program program(count, arguments, more_options);
    gpu::stream const stream;
    std::string const picture = run(program, stream);
    return program.finish(picture);
  } catch (std::exception const& error) {
    std::cerr << arguments[0] << ": " << error.what() << '\n';
    return 2;
  }
}

}  // namespace ssm::bench
