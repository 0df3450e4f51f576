// SPDX-License-Identifier: Apache-2.0
// workers.hpp: threads that wait for work, so that a call need not start its own.
#pragma once

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace ssm::detail {

/// Whether this thread is in a parallel loop already: what it calls then runs on it alone.
inline thread_local bool is_at_work = false;

inline int processors() {
  static int const count = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return count;
}

/// Wait without sleep until is_over(), for at most `patience`: whether it came true.
template <class Condition>
bool spin(std::chrono::nanoseconds patience, Condition const& is_over) {
  auto const end = std::chrono::steady_clock::now() + patience;
  do {
    for (int i = 0; i < 16; ++i) {
      if (is_over()) return true;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#elif defined(__aarch64__)
      asm volatile("yield");
#endif
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

/// How a thread rounds and what it traps; <cfenv> takes 0.1 µs to ask and as long to set.
class rounding {
 public:
#if defined(__x86_64__)
  static rounding current() {
    rounding now;
    asm volatile("fnstcw %0" : "=m"(now.x87_));
    asm volatile("stmxcsr %0" : "=m"(now.sse_));
    return now;
  }
  void adopt() const {  // fnclex, or what was found before would trap now
    asm volatile("fnclex\n\tfldcw %0\n\tldmxcsr %1" : : "m"(x87_), "m"(sse_));
  }

 private:
  std::uint16_t x87_ = 0;
  std::uint32_t sse_ = 0;
#else
  static rounding current() {
    rounding now;
    std::fegetenv(&now.all_);
    return now;
  }
  void adopt() const {
    std::fesetenv(&all_);
  }

 private:
  std::fenv_t all_{};
#endif
};

/// What a worker is offered.
struct task {
  void (*run)(void const* with, int who) = nullptr;  ///< no function: the worker's thread ends
  void const* with = nullptr;
  int who = 0;
  rounding callers{};  ///< or results would depend on who computes
};

/// A thread that runs one task at a time. Its state counts its turns: each is open until a task is
/// offered, offered until the worker begins it or the caller takes it back, begun until it is done,
/// which opens the next turn. So whoever waits knows its own task from later ones.
class alignas(64) worker {
 public:
  /// Whoever waits, the worker for a task or a caller for its end, sleeps after `patience`.
  explicit worker(std::chrono::nanoseconds patience)
      : patience_{patience}, thread_([this] { serve(); }) {}

  bool is_open() const { return phase(state_.load(std::memory_order_acquire)) == open; }

  /// Only to an open worker and by one thread at a time. Returns the state to settle.
  unsigned offer(task const& offered_task) {
    task_ = offered_task;
    unsigned const state = state_.load(std::memory_order_relaxed) + 1;
    state_.store(state, std::memory_order_release);
    state_.notify_all();
    return state;
  }

  /// Take back what was offered, or wait until it is done where it has begun.
  void settle(unsigned offered_state) {
    unsigned state = offered_state;
    if (state_.compare_exchange_strong(state, next_turn(state), std::memory_order_acq_rel,
                                       std::memory_order_acquire)) {
      return;
    }
    wait_while(offered_state + 1);
  }

  /// The thread ends after the task that it is at. Only by whoever may offer.
  void end() {
    for (unsigned state; phase(state = state_.load(std::memory_order_acquire)) != open;) {
      wait_while(state);
    }
    offer({});
    thread_.join();
  }
  void abandon() { thread_.detach(); }

 private:
  enum : unsigned { open, offered, begun, phases = 4 };
  static unsigned phase(unsigned state) { return state % phases; }
  static unsigned next_turn(unsigned state) { return state - phase(state) + phases; }

  void wait_while(unsigned state) {
    auto const is_over = [&] { return state_.load(std::memory_order_acquire) != state; };
    if (!spin(patience_, is_over)) state_.wait(state, std::memory_order_acquire);
  }

  void serve() {
    is_at_work = true;
    for (unsigned state = state_.load(std::memory_order_acquire);;) {
      if (phase(state) == open) {
        wait_while(state);
        state = state_.load(std::memory_order_acquire);
      } else if (state_.compare_exchange_strong(state, state + 1, std::memory_order_acq_rel)) {
        if (task_.run == nullptr) return;
        task_.callers.adopt();
        task_.run(task_.with, task_.who);
        state = next_turn(state);
        state_.store(state, std::memory_order_release);
        state_.notify_all();
      }
    }
  }

  // In one cache line, the first: what crosses from thread to thread.
  std::atomic<unsigned> state_{open};
  task task_;
  std::chrono::nanoseconds const patience_;
  std::thread thread_;
};

/// The workers of a process: as many as its calls ever wanted at once. A worker may use those
/// processors that the thread may which first needed it.
class workforce {
 public:
  /// How long those who wait stay awake, while there is a processor for each: ten times what it
  /// takes to wake one.
  static constexpr std::chrono::microseconds patience{50};

  static workforce& current() {
    static lifetime const of_process;
    return *now_;
  }

  /// Call work(0) on this thread and work(i), i = 1 to `helpers`, each on one more or not at all;
  /// return when all that began are done. Call after call i is the same thread where it is free.
  template <class Work>
  void share(int helpers, Work const& work) {
    static_assert(noexcept(work(0)));
    task const shared{[](void const* with, int who) { (*static_cast<Work const*>(with))(who); },
                      &work, 0, rounding::current()};
    auto const offers = offer(static_cast<std::size_t>(helpers), shared);
    is_at_work = true;
    work(0);
    is_at_work = false;
    for (auto const& [helper, state] : offers) helper->settle(state);
  }

 private:
  /// Workers end with the process. The workforce itself stays: whoever computes later, in the
  /// destructor of a static object, finds nobody to help and does it alone.
  struct lifetime {
    lifetime() {
      now_ = new workforce;
#if defined(__unix__) || defined(__APPLE__)
      pthread_atfork(nullptr, nullptr, [] {  // the child has none of these threads
        auto* const of_child = new workforce;
        of_child->of_parent_ = now_;
        now_ = of_child;
      });
#endif
    }
    ~lifetime() {
      now_.load()->end();
    }
  };

  /// To those who are free, then to new ones. Where the system gives no more, fewer do the work.
  std::vector<std::pair<worker*, unsigned>> offer(std::size_t count, task shared) {
    std::vector<std::pair<worker*, unsigned>> offers;
    offers.reserve(count);
    std::lock_guard const lock{mutex_};
    if (has_ended_) return offers;
    auto const offer_to = [&](worker& each) {
      ++shared.who;
      offers.emplace_back(&each, each.offer(shared));
    };
    for (auto const& each : workers_) {
      if (offers.size() == count) return offers;
      if (each->is_open()) offer_to(*each);
    }
    try {
      while (offers.size() < count) {
        bool const has_processor = std::ssize(workers_) + 1 < processors();
        auto const awake = has_processor ? patience : std::chrono::nanoseconds{};
        offer_to(*workers_.emplace_back(std::make_unique<worker>(awake)));
      }
    } catch (std::exception const&) {
    }
    return offers;
  }

  void end() {
    std::lock_guard const lock{mutex_};
    has_ended_ = true;
    for (auto const& each : workers_) is_at_work ? each->abandon() : each->end();
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<worker>> workers_;
  bool has_ended_ = false;
  [[maybe_unused]] workforce* of_parent_ = nullptr;  ///< so that checkers of leaks find it

  inline static std::atomic<workforce*> now_{nullptr};
};

}  // namespace ssm::detail
