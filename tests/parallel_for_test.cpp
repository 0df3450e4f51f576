// SPDX-License-Identifier: Apache-2.0
// parallel_for_test.cpp: all work is done once, by whoever is there, whatever goes wrong.
#include "ssm/detail/parallel_for.hpp"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cfenv>
#include <chrono>
#include <cstdlib>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace {

using namespace std::chrono_literals;
using ssm::index_t;
using ssm::detail::parallel_for;

/// The message of the runtime_error that `call` throws.
template <class Call>
std::string message_of(Call const& call) {
  try {
    call();
  } catch (std::runtime_error const& error) {
    return error.what();
  }
  return "nothing was thrown";
}

/// Each of `threads` threads calls visit(i) once, for an i of its own below `threads`, and none
/// goes on before all have: whether they met within seconds.
template <class Visit>
bool all_meet(int threads, Visit const& visit) {
  std::atomic<int> here{0};
  parallel_for(threads, threads, [&](index_t begin, index_t) {
    visit(begin);
    ++here;
    auto const end = std::chrono::steady_clock::now() + 20s;
    while (here < threads && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  });
  return here == threads;
}

/// Σ i over [0, count)
index_t sum_below(int threads, index_t count) {
  std::atomic<index_t> sum{0};
  parallel_for(threads, count, [&](index_t begin, index_t end) {
    for (; begin < end; ++begin) sum += begin;
  });
  return sum;
}

TEST(ParallelFor, EveryIndexIsVisitedExactlyOnceForAnyThreadsAndCount) {
  for (int const threads : {0, 1, 2, 3, 7, 16}) {
    for (index_t const count : {0, 1, 2, 6, 7, 8, 31, 1000, 10007}) {
      std::vector<std::atomic<int>> visits(static_cast<std::size_t>(count));
      parallel_for(threads, count, [&](index_t begin, index_t end) {
        EXPECT_LT(begin, end);
        for (index_t i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
      });
      for (auto const& visited : visits) {
        ASSERT_EQ(visited, 1) << threads << " threads, count " << count;
      }
    }
  }
}

TEST(ParallelFor, OneThreadIsTheCallingThread) {
  std::thread::id worker;
  parallel_for(1, 10, [&](index_t, index_t) { worker = std::this_thread::get_id(); });
  EXPECT_EQ(worker, std::this_thread::get_id());
}

TEST(ParallelFor, ExceptionOfAnyThreadReachesTheCallerWithItsMessage) {
  for (int const threads : {1, 2, 3, 7}) {
    EXPECT_EQ(message_of([&] {
                parallel_for(threads, 1000, [](index_t begin, index_t end) {
                  if (begin <= 500 && 500 < end) throw std::runtime_error("at 500");
                });
              }),
              "at 500")
        << threads << " threads";
  }
}

TEST(ParallelFor, ExceptionStopsTheWorkThatNoThreadHasBegun) {
  std::atomic<bool> thrown{false};
  std::atomic<int> ranges{0};
  EXPECT_THROW(parallel_for(2, 1000,
                            [&](index_t begin, index_t) {
                              ++ranges;
                              if (begin == 0) {
                                while (ranges < 2) std::this_thread::yield();
                                thrown = true;
                                throw std::runtime_error("first");
                              }
                              while (!thrown) std::this_thread::yield();
                              std::this_thread::sleep_for(50ms);
                            }),
               std::runtime_error);
  EXPECT_LE(ranges, 4) << "of 18 ranges";
}

TEST(ParallelFor, ThreadsAreAsManyAsWantedEvenBeyondTheProcessors) {
  for (int const threads : {2, 3, 9, 2}) {
    std::mutex mutex;
    std::set<std::thread::id> found;
    EXPECT_TRUE(all_meet(threads, [&](index_t) {
      std::lock_guard const lock{mutex};
      found.insert(std::this_thread::get_id());
    }));
    EXPECT_EQ(std::ssize(found), threads);
    EXPECT_TRUE(found.contains(std::this_thread::get_id()));
  }
}

TEST(ParallelFor, ThreadsHaveTheShareOfTheLastCallAwakeOrAsleep) {
  std::array<std::thread::id, 3> found, last;
  for (auto const pause : {0us, 0us, 10us, 100us, 5000us, 0us}) {
    std::this_thread::sleep_for(pause);
    EXPECT_TRUE(all_meet(
        3, [&](index_t i) { found[static_cast<std::size_t>(i)] = std::this_thread::get_id(); }));
    EXPECT_EQ(found[0], std::this_thread::get_id());
    EXPECT_TRUE(last == decltype(last){} || last == found);
    last = found;
  }
}

TEST(ParallelFor, ThreadsThatAreDoneTakeFromTheOthers) {
  std::atomic<index_t> done{0};
  parallel_for(3, 300, [&](index_t begin, index_t end) {
    if (begin == 0) {  // all that this one does
      auto const deadline = std::chrono::steady_clock::now() + 20s;
      while (done < 300 - end && std::chrono::steady_clock::now() < deadline) {
        std::this_thread::yield();
      }
      EXPECT_EQ(done, 300 - end);
    }
    done += end - begin;
  });
}

TEST(ParallelFor, ThreadsKeepAnObjectOfTheirOwnFromLoopToLoop) {
  ssm::detail::one_for_each_thread<int> objects;
  std::mutex mutex;
  std::map<std::thread::id, int*> found;
  for (int loop = 0; loop < 10; ++loop) {
    EXPECT_TRUE(all_meet(3, [&](index_t) {
      int& mine = objects.own(7);
      std::lock_guard const lock{mutex};
      EXPECT_EQ(found.emplace(std::this_thread::get_id(), &mine).first->second, &mine);
      EXPECT_EQ(mine, 7);
    }));
  }
  std::set<int*> distinct;
  for (auto const& [thread, object] : found) distinct.insert(object);
  EXPECT_GE(found.size(), 3u);
  EXPECT_EQ(distinct.size(), found.size());
}

TEST(ParallelFor, ThreadsTakeNoCallFromWithin) {
  std::atomic<int> ranges{0};
  EXPECT_TRUE(all_meet(3, [&](index_t) {
    auto const self = std::this_thread::get_id();
    parallel_for(4, 100, [&](index_t begin, index_t end) {
      EXPECT_EQ(std::this_thread::get_id(), self);
      EXPECT_EQ(begin, 0);
      EXPECT_EQ(end, 100);
      ++ranges;
    });
  }));
  EXPECT_EQ(ranges, 3);
  EXPECT_TRUE(all_meet(2, [](index_t) {})) << "after it";
}

TEST(ParallelFor, ThreadsWorkForSeveralCallersAtOnce) {
  std::array<std::atomic<index_t>, 4> done{};
  {
    std::vector<std::jthread> callers;
    for (std::size_t caller = 0; caller < done.size(); ++caller) {
      callers.emplace_back([&, caller] {
        for (int i = 0; i < 300; ++i) {
          auto const count = static_cast<index_t>(1 + i % 70);
          done[caller] += sum_below(1 + i % 4, count) == count * (count - 1) / 2;
          if (i % 10 == 0)
            done[caller] += message_of([] {
                              parallel_for(3, 9, [](index_t, index_t) {
                                throw std::runtime_error("as planned");
                              });
                            }) == "as planned";
        }
      });
    }
  }
  for (auto const& calls : done) EXPECT_EQ(calls, 330);
}

TEST(ParallelFor, ThreadsThatThrewWorkOn) {
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(
        message_of([] { all_meet(3, [](index_t) { throw std::runtime_error("each of them"); }); }),
        "each of them");
  }
  EXPECT_TRUE(all_meet(3, [](index_t) {}));
}

TEST(ParallelFor, ThreadsRoundAsTheirCallerDoes) {
  for (int const mode : {FE_UPWARD, FE_TOWARDZERO, FE_TONEAREST}) {
    ASSERT_EQ(std::fesetround(mode), 0);
    EXPECT_TRUE(all_meet(3, [&](index_t) { EXPECT_EQ(std::fegetround(), mode); }));
  }
}

#if defined(__unix__) || defined(__APPLE__)
TEST(ParallelFor, WorksInTheChildOfAForkWhichThenEnds) {
  ASSERT_TRUE(all_meet(3, [](index_t) {}));  // workers that the child will not have
  pid_t const child = fork();
  if (child == 0) {
    alarm(60);
    std::exit(all_meet(3, [](index_t) {}) && sum_below(3, 1000) == 499500 ? 42 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 42);
  EXPECT_TRUE(all_meet(3, [](index_t) {}));
}
#endif

/// Made before the workers, so it is destroyed when they are gone.
struct late_caller {
  ~late_caller() {
    auto const self = std::this_thread::get_id();
    parallel_for(3, 10, [&](index_t, index_t) {
      if (std::this_thread::get_id() != self) std::abort();
      std::this_thread::sleep_for(1ms);
    });
    if (sum_below(3, 1000) != 499500) std::abort();
  }
} const late;
[[maybe_unused]] bool const workers_are_there = all_meet(3, [](index_t) {});

}  // namespace
