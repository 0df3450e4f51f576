// SPDX-License-Identifier: Apache-2.0
// parallel_for.hpp: independent work on std::jthread. (std::execution::par is silently serial
// with libstdc++ where TBB is not installed.)
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "ssm/config.hpp"

namespace ssm::detail {

/// Call run(begin, end) over disjoint ranges that cover [0, count), on `threads` threads (0: one
/// for each processor), the calling one among them. Ranges go to whoever is free, so `run` must
/// not care which thread it is on. The first exception stops the rest and is thrown again here.
template <class Run>
void parallel_for(int threads, index_t count, Run const& run) {
  if (count <= 0) return;
  if (threads == 0) threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  auto const workers = static_cast<int>(std::min<index_t>(threads, count));
  if (workers == 1) return run(index_t{0}, count);

  constexpr index_t ranges_per_worker = 16;  // evens out ranges of unequal cost
  index_t const range = std::max<index_t>(1, count / (workers * ranges_per_worker));
  std::atomic<index_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  auto const work = [&] {
    try {
      for (index_t begin; (begin = next.fetch_add(range)) < count;) {
        run(begin, std::min(begin + range, count));
      }
    } catch (...) {
      next = count;
      std::lock_guard const lock{failure_mutex};
      if (!failure) failure = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> helpers;
    helpers.reserve(static_cast<std::size_t>(workers - 1));
    for (int i = 1; i < workers; ++i) helpers.emplace_back(work);
    work();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace ssm::detail
