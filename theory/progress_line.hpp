// SPDX-License-Identifier: Apache-2.0
// progress_line.hpp: how far a run has come and how long it will take, on a terminal only.
#pragma once

#include <unistd.h>  // isatty

#include <algorithm>
#include <cstdio>
#include <string>

#include "report/text.hpp"
#include "run_control.hpp"

namespace ssm::theory {

/// A line on stderr that is written over and wiped away at the end; nothing where stderr is not a
/// terminal, or where it is not wanted.
class progress_line {
 public:
  progress_line(double all_work, bool is_wanted)
      : all_work_{all_work}, is_shown_{is_wanted && ::isatty(STDERR_FILENO) == 1} {}
  progress_line(progress_line const&) = delete;
  progress_line& operator=(progress_line const&) = delete;
  ~progress_line() { clear(); }

  /// `what` is named on the line; the time left follows from the work done so far.
  void show(double work_done, std::string const& what) const {
    if (!is_shown_ || !(work_done > 0)) return;
    double const share = std::min(1.0, work_done / all_work_);
    std::chrono::duration<double> const passed = run_control::clock::now() - start_;
    std::string const left = report::duration(passed.count() * (1 - share) / share);
    std::fprintf(stderr, "\r\033[K%3.0f %%  %s left  %s", 100 * share, left.c_str(), what.c_str());
    std::fflush(stderr);
  }

  void clear() const {
    if (!is_shown_) return;
    std::fputs("\r\033[K", stderr);
    std::fflush(stderr);
  }

 private:
  double all_work_;
  bool is_shown_;
  run_control::clock::time_point start_ = run_control::clock::now();
};

}  // namespace ssm::theory
