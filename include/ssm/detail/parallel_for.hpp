// SPDX-License-Identifier: Apache-2.0
// parallel_for.hpp: independent work, shared out to threads. (std::execution::par is silently
// serial with libstdc++ where TBB is not installed.)
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "ssm/config.hpp"
#include "ssm/detail/workers.hpp"

namespace ssm::detail {

/// A part of the work: whoever takes from it takes half of what is left, so that few ranges suffice
/// and the last are short.
struct alignas(64) share_of_work {  // a cache line of its own
  std::atomic<index_t> begin;
  index_t end;

  /// The next range; an empty one if there is none.
  std::pair<index_t, index_t> take() {
    index_t first = begin.load(std::memory_order_relaxed);
    index_t last = first;
    do {
      if (first >= end) return {end, end};
      last = first + (end - first + 1) / 2;
    } while (!begin.compare_exchange_weak(first, last, std::memory_order_relaxed));
    return {first, last};
  }
};

/// Call work(next) on up to `threads` threads (0: one for each processor), the calling one among
/// them, where next() gives one more range [begin, end) to do, an empty one at the end: disjoint
/// ranges that cover [0, count). Each thread has a share of its own, the same from call to call so
/// that it finds it in its cache, and then takes from the others': what is done to a range must not
/// care which thread it is on. The first exception stops the rest and is thrown again here. A call
/// from within `work` stays on its thread.
///
/// The other threads outlive the call. For 50 µs each stays awake, so that a loop that follows
/// begins at once; then it sleeps, and a call takes some microseconds more to wake it, or does
/// without where the work is done before.
template <class Work>
void share_out(int threads, index_t count, Work const& work) {
  if (count <= 0) return;
  if (threads == 0) threads = processors();
  auto const workers = static_cast<int>(std::min<index_t>(threads, count));
  if (workers == 1 || is_at_work) {
    index_t begin = 0;
    return work([&] { return std::pair{std::exchange(begin, count), count}; });
  }

  std::array<share_of_work, 4> few;  // to ask for memory takes as long as to begin
  std::vector<share_of_work> many(workers <= std::ssize(few) ? 0
                                                             : static_cast<std::size_t>(workers));
  share_of_work* const shares = many.empty() ? few.data() : many.data();
  for (int i = 0; i < workers; ++i) {
    shares[i].begin.store(count * i / workers, std::memory_order_relaxed);
    shares[i].end = count * (i + 1) / workers;
  }
  std::exception_ptr failure;
  std::mutex failure_mutex;
  workforce::current().share(workers - 1, [&](int who) noexcept {
    int from = 0;
    auto const next = [&] {
      for (;; ++from) {
        auto const range = shares[(who + from) % workers].take();
        if (range.first < range.second || from + 1 == workers) return range;
      }
    };
    try {
      work(next);
    } catch (...) {
      for (int i = 0; i < workers; ++i) shares[i].begin = shares[i].end;
      std::lock_guard const lock{failure_mutex};
      if (!failure) failure = std::current_exception();
    }
  });
  if (failure) std::rethrow_exception(failure);
}

/// Call run(begin, end) over the ranges that share_out gives.
template <class Run>
void parallel_for(int threads, index_t count, Run const& run) {
  share_out(threads, count, [&](auto const& next) {
    for (auto range = next(); range.first < range.second; range = next()) {
      run(range.first, range.second);
    }
  });
}

/// What the ranges that a thread runs need, made for the first of them and kept for later loops.
template <class Object>
class one_for_each_thread {
 public:
  template <class... Arguments>
  Object& own(Arguments const&... arguments) {
    auto& mine = place();
    if (!mine) mine = std::make_unique<Object>(arguments...);
    return *mine;
  }

 private:
  std::unique_ptr<Object>& place() {
    std::lock_guard const lock{mutex_};
    return objects_[std::this_thread::get_id()];
  }

  std::mutex mutex_;
  std::map<std::thread::id, std::unique_ptr<Object>> objects_;
};

}  // namespace ssm::detail
