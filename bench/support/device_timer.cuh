// SPDX-License-Identifier: Apache-2.0
// device_timer.cuh: calls on a GPU, timed in turns by events. Google Benchmark would run all the
// repetitions of a call before those of the next; the clock of a GPU changes meanwhile.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <vector>

#include "ssm/execution.cuh"
#include "ssm/graph.cuh"

namespace ssm::bench {

/// A call that is timed, and how long it took, the quickest first.
struct timed_call {
  std::function<void(gpu::on)> run;
  bool is_graph = true;  ///< recorded and replayed; false: each call is launched by itself
  std::vector<double> seconds = {};

  /// The sample that a fraction `part` of all are quicker than.
  double quantile(double part) const {
    if (seconds.empty()) return std::nan("");
    return seconds[static_cast<std::size_t>(
        std::lround(part * static_cast<double>(seconds.size() - 1)))];
  }
  double median() const { return quantile(0.5); }
};

struct timing_plan {
  int warm_up = 2;         ///< rounds that do not count
  int rounds = 21;         ///< samples of each call,
  int rounds_if_slow = 3;  ///< or of one that takes longer than
  double slow = 0.05;      ///< seconds
  double shortest = 1e-3;  ///< seconds of a sample: so many calls, one after the other,
  double most_calls = 64;  ///< but no more than these
};

/// Time all calls, which take turns in an order that rotates. A round is enqueued as a whole, so
/// that the device does not wait for the host between a first event and its call.
inline void measure(gpu::stream const& stream, std::vector<timed_call*> const& all,
                    timing_plan const& plan = {}) {
  struct sampler {
    timed_call* call;
    std::function<void()> sample = {};
    int calls = 1, rounds = 0;
    gpu::event first{}, last{};
    bool is_recorded = false;
  };
  std::vector<sampler> samplers;
  for (timed_call* const call : all) {
    sampler& s = samplers.emplace_back(sampler{call});
    call->run(stream);
    s.first.record(stream);
    call->run(stream);
    s.last.record(stream);
    stream.wait();
    double const about = seconds_between(s.first, s.last);
    s.calls = static_cast<int>(std::clamp(std::ceil(plan.shortest / about), 1., plan.most_calls));
    s.rounds = about > plan.slow ? plan.rounds_if_slow : plan.rounds;
    auto const enqueue = [&stream, call, calls = s.calls] {
      for (int i = 0; i < calls; ++i) call->run(stream);
    };
    s.sample = enqueue;
    if (call->is_graph) {
      auto const recorded = std::make_shared<gpu::graph>(stream, enqueue);
      s.sample = [&stream, recorded] { recorded->launch(stream); };
    }
  }
  for (int round = -plan.warm_up; round < plan.rounds; ++round) {
    for (std::size_t i = 0; i < samplers.size(); ++i) {
      auto const turn = static_cast<std::size_t>(round + plan.warm_up) + i;
      sampler& s = samplers[turn % samplers.size()];
      s.is_recorded = round < s.rounds && (round >= 0 || s.rounds == plan.rounds);
      if (!s.is_recorded) continue;
      s.first.record(stream);
      s.sample();
      s.last.record(stream);
    }
    stream.wait();
    for (sampler& s : samplers) {
      if (!s.is_recorded || round < 0) continue;
      s.call->seconds.push_back(seconds_between(s.first, s.last) / s.calls);
    }
  }
  for (timed_call* const call : all) std::sort(call->seconds.begin(), call->seconds.end());
}

}  // namespace ssm::bench
