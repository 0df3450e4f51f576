// SPDX-License-Identifier: Apache-2.0
// rows.hpp: one row of a benchmark: what it runs, how it is checked, and what was measured.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ssm/config.hpp"
#include "support/floors.hpp"
#include "support/heap.hpp"

namespace ssm::bench {

struct problem_size {
  index_t batch = 1;
  index_t length = 1;
  index_t channels = 1;
  index_t states = 1;

  double steps() const { return double(batch) * double(length) * double(channels); }
};

/// What a row is called and what it is compared with.
struct row {
  std::string operation;  ///< "selective_scan"
  std::string policy;     ///< "parallel:1", or the name of a baseline
  std::string scalar;     ///< of storage: "f32"
  problem_size size = {};
  resources with = {};
  work needed = {};              ///< for its floor
  std::string relative_to = "";  ///< operation/policy of the row whose time is the unit

  std::string name() const {
    auto const& s = size;
    return operation + "/" + policy + "/" + scalar + "/" + std::to_string(s.batch) + "x" +
           std::to_string(s.length) + "x" + std::to_string(s.channels) + "x" +
           std::to_string(s.states);
  }
  double floor_ns() const { return 1e9 * floor_of(needed, rates_of(with)); }
};

/// What a row runs. Where `run` computes something, `error` says how wrong it is, as a multiple of
/// what is allowed.
struct task {
  std::function<void()> run;
  std::function<double()> error = {};
  std::int64_t held = 0;  ///< bytes of working memory that it was given
};

/// One repetition of a row.
struct repetition {
  /// For one token of one channel: real time, or on one thread processor time, which is the same
  /// where the thread is left alone.
  double ns;
  double cpus;  ///< that the program had; fewer than threads where others had them
};

/// A row and what came of it.
struct result {
  row what;
  std::vector<repetition> runs = {};  ///< the quickest first
  std::int64_t heap = 0;              ///< bytes of working memory that a call has at most
  double error = 0;                   ///< as a multiple of what is allowed
  std::string failure = "";

  /// The least counts, as in the rates of the floor: what else the machine does can only add to it.
  double least() const { return runs.empty() ? 0 : runs.front().ns; }
  double median() const { return runs.empty() ? 0 : runs[runs.size() / 2].ns; }
  double bytes_per_second() const { return 1e9 * what.needed.bytes / least(); }
  double times_floor() const { return least() / what.floor_ns(); }
};

/// Made when first asked for and shared by its copies: the inputs of rows that may not be wanted.
template <class T>
class lazy {
 public:
  explicit lazy(std::function<T()> make) : state_{std::make_shared<state>(std::move(make))} {}

  T& operator*() const {
    if (!state_->value) state_->value = std::make_unique<T>(state_->make());
    return *state_->value;
  }
  T* operator->() const { return &**this; }

 private:
  struct state {
    explicit state(std::function<T()> m) : make(std::move(m)) {}
    std::function<T()> make;
    std::unique_ptr<T> value;
  };
  std::shared_ptr<state> state_;
};

/// Rows that run in random order, repetition by repetition, so that what else happens on the
/// machine meets all of them alike.
class group {
 public:
  /// make() returns the task when the row is first run: rows that are not wanted cost nothing.
  void add(row what, std::function<task()> make) {
    auto const& entry =
        entries_.emplace_back(std::make_unique<entry_t>(result{std::move(what)}, std::move(make)));
    benchmark::RegisterBenchmark(entry->found.what.name().c_str(),
                                 [e = entry.get()](benchmark::State& state) { measure(state, *e); })
        ->Unit(benchmark::kNanosecond)
        ->MeasureProcessCPUTime()
        ->UseRealTime();
  }

  /// The row of what bounds the others: as many multiply-adds as they need at least, in registers.
  void add_floor(row what) {
    resources const with = what.with;
    what.policy = "floor:" + std::to_string(with.threads);
    double const each = what.size.steps() / with.threads, count = what.needed.multiply_adds * each,
                 powers = what.needed.exponentials * each;
    add(what, [=] {
      return task{[=] {
        on_threads(with.threads, [=](int) {
          auto const run = [=]<class T>(T) {
            multiply_add_loop<T>(with.instructions, count);
            exponential_loop<T>(with.instructions, powers);
          };
          with.scalar_bytes == 8 ? run(double()) : run(float());
        });
      }};
    });
  }

  /// The result of the row with this name, to be filled in; nullptr: there is none.
  result* find(std::string const& name) const {
    auto const at = std::find_if(entries_.begin(), entries_.end(),
                                 [&](auto const& e) { return e->found.what.name() == name; });
    return at == entries_.end() ? nullptr : &(*at)->found;
  }

  /// Those of the rows that were run, in the order in which they were added.
  std::vector<result> results() const {
    std::vector<result> all;
    for (auto const& e : entries_) {
      if (e->is_made) all.push_back(e->found);
    }
    return all;
  }

 private:
  struct entry_t {
    entry_t(result r, std::function<task()> m) : found(std::move(r)), make(std::move(m)) {}
    result found;
    std::function<task()> make;
    task made = {};
    bool is_made = false;
  };

  /// The first call makes the task and checks it: what is wrong or throws is not timed.
  static void prepare(entry_t& e) {
    e.is_made = true;
    try {
      measure_rates(e.found.what.with);
      e.made = e.make();
      e.found.heap = e.made.held + peak_heap(e.made.run);
      if (e.made.error) e.found.error = e.made.error();
      if (!(e.found.error <= 1)) {
        e.found.failure = "wrong by " + std::to_string(e.found.error) + " times what is allowed";
      }
    } catch (std::exception const& error) {
      e.found.failure = error.what();
    }
  }

  static void measure(benchmark::State& state, entry_t& e) {
    if (!e.is_made) prepare(e);
    if (!e.found.failure.empty()) return state.SkipWithError(e.found.failure.c_str());
    for (auto _ : state) {
      e.made.run();
      benchmark::ClobberMemory();
    }
    row const& r = e.found.what;
    double const steps = r.size.steps() * static_cast<double>(state.iterations());
    auto const time_by = [](double amount) {
      using counter = benchmark::Counter;
      return counter(amount, static_cast<counter::Flags>(counter::kIsRate | counter::kInvert));
    };
    state.counters["ns_per_token_channel"] = time_by(1e-9 * steps);
    state.counters["times_floor"] = time_by(1e-9 * steps * r.floor_ns());
    state.SetBytesProcessed(static_cast<std::int64_t>(steps * r.needed.bytes));
  }

  std::vector<std::unique_ptr<entry_t>> entries_;
};

}  // namespace ssm::bench
