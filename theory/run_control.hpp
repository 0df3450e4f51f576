// SPDX-License-Identifier: Apache-2.0
// run_control.hpp: seed, threads, and when to stop, for everything that runs for a while.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <stdexcept>
#include <string>

#include "ssm/config.hpp"

namespace ssm::theory {

/// Thrown between rounds of work when a run is to end early; what is done so far is kept.
struct stopped : std::runtime_error {
  stopped() : std::runtime_error("stopped") {}
};

class simulator;

/// Shared by the experiments of a run. Work is counted in estimated core-nanoseconds.
class run_control {
 public:
  using clock = std::chrono::steady_clock;

  std::uint64_t seed = 1;
  std::string scope;    ///< names the random streams together with each experiment
  int threads = 0;      ///< 0: one for each processor
  index_t samples = 0;  ///< Monte Carlo replicates of each mean; 0: as many as its power needs
  clock::time_point deadline = clock::time_point::max();
  std::atomic<bool> const* interrupted = nullptr;     ///< set by a signal handler
  std::function<void(double work_done)> on_progress;  ///< called now and then
  simulator* gpu = nullptr;   ///< simulates the systems that it knows; none: threads do
  double states = 0;          ///< simulated so far, one for each step of each
  double states_seconds = 0;  ///< that they took ...
  double law_seconds = 0;     ///< ... and of these, to draw eigenvalues for the GPU

  /// Note that work has been done; throws stopped when the run is to end.
  void advance(double work) {
    done_ += work;
    if (on_progress) on_progress(done_);
    if ((interrupted != nullptr && *interrupted) || clock::now() >= deadline) throw stopped();
  }

  double done() const { return done_; }

  static double seconds_since(clock::time_point start) {
    return std::chrono::duration<double>(clock::now() - start).count();
  }

 private:
  double done_ = 0;
};

}  // namespace ssm::theory
