// SPDX-License-Identifier: Apache-2.0
// floors.hpp: what this machine can do at best, measured, and how long an operator must then take.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <ctime>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "ssm/detail/instruction_set.hpp"
#include "ssm/detail/simd.hpp"
#include "ssm/detail/simd_math.hpp"

namespace ssm::bench {

inline int all_threads() {
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

/// Call work(i) for each of so many threads, at once.
template <class Work>
void on_threads(int threads, Work const& work) {
  std::vector<std::jthread> helpers;
  for (int i = 1; i < threads; ++i) helpers.emplace_back(work, i);
  work(0);
}

/// Processor time of the calling thread so far: what others run meanwhile is not in it.
inline double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// At least `count` multiply-adds of single numbers, in registers, in chains that are independent.
template <class T>
void multiply_add_loop(instruction_set instructions, double count) {
  constexpr int chains = 12;  // two units with a latency of 4 or 5 cycles; 16 registers
  ssm::detail::dispatch(
      instructions, [&](auto width) __attribute__((always_inline)) {
        constexpr int lanes = decltype(width)::template lanes<T>;
        using pack = ssm::detail::pack<T, lanes>;
        pack sum[chains];
        ssm::detail::unrolled<chains>([&](auto i) __attribute__((always_inline)) {
          sum[decltype(i)::value] = pack(T(decltype(i)::value));
        });
        pack factor(T(0.5)), term(T(0.25));
        ssm::detail::keep(factor);
        ssm::detail::keep(term);
        auto const rounds = static_cast<index_t>(count / (lanes * chains)) + 1;
        for (index_t round = 0; round < rounds; ++round) {
          ssm::detail::unrolled<chains>([&](auto i) __attribute__((always_inline)) {
            pack& s = sum[decltype(i)::value];
            s = ssm::detail::multiply_add(s, factor, term);
            ssm::detail::keep(s);
          });
        }
        ssm::detail::unrolled<chains>([&](auto i) __attribute__((always_inline)) {
          T volatile const result = sum[decltype(i)::value].v[0];
          (void)result;
        });
      });
}

/// At least `count` of the library's powers of two, from and to the L1 cache.
template <class T>
void exponential_loop(instruction_set instructions, double count) {
  constexpr int size = 8192 / sizeof(T);
  alignas(64) T from[size], to[size];
  for (int i = 0; i < size; ++i) from[i] = T(-20) * T(i) / T(size);
  ssm::detail::dispatch(
      instructions, [&](auto width) __attribute__((always_inline)) {
        constexpr int lanes = decltype(width)::template lanes<T>;
        using pack = ssm::detail::pack<T, lanes>;
        for (double done = 0; done < count; done += size) {
          for (int i = 0; i < size; i += 4 * lanes) {
            ssm::detail::unrolled<4>([&](auto k) __attribute__((always_inline)) {
              int const at = i + decltype(k)::value * lanes;
              ssm::detail::exp2_in_range(pack::load(from + at)).store(to + at);
            });
          }
          asm volatile("" : : "r"(to) : "memory");
        }
      });
}

/// What so many threads together do in a second.
struct rates {
  double multiply_adds = 0;  ///< of single numbers
  double exponentials = 0;
  double copied_bytes = 0;  ///< read and written, between buffers too large for any cache
};

namespace detail {

/// The best of a few short runs: a floor is what the machine can do undisturbed.
template <class Work>
double best_rate(int threads, double done_by_one, Work const& work) {
  double best = 0;
  for (int run = 0; run < 5; ++run) {
    std::vector<double> seconds(static_cast<std::size_t>(threads));
    on_threads(threads, [&](int i) {
      double const start = thread_seconds();
      work(i);
      seconds[static_cast<std::size_t>(i)] = thread_seconds() - start;
    });
    best =
        std::max(best, threads * done_by_one / *std::max_element(seconds.begin(), seconds.end()));
  }
  return best;
}

}  // namespace detail

/// What a row may use of the machine.
struct resources {
  int threads = 1;
  instruction_set instructions = instruction_set::widest;
  int scalar_bytes = 4;  ///< of the numbers that are computed with

  friend auto operator<=>(resources const&, resources const&) = default;
};

/// All rates that are known.
inline std::map<resources, rates>& known_rates() {
  static std::map<resources, rates> known;
  return known;
}

inline rates const& rates_of(resources const& with) {
  return known_rates()[with];
}

/// Measure, and keep the best there ever was: others may have used the machine before. A copy is
/// one by memcpy, which writes past the cache where that is faster.
template <class T>
void measure_rates_as(resources const& with) {
  rates& best = known_rates()[with];
  auto const improve = [&](double& rate, double done_by_one, auto const& work) {
    rate = std::max(rate, detail::best_rate(with.threads, done_by_one, work));
  };
  auto const set = with.instructions;
  improve(best.multiply_adds, 5e8, [=](int) { multiply_add_loop<T>(set, 5e8); });
  improve(best.exponentials, 5e7, [=](int) { exponential_loop<T>(set, 5e7); });
  constexpr std::size_t block = std::size_t{64} << 20;
  auto const all = block * static_cast<std::size_t>(with.threads);
  std::vector<char> from(all, 1), to(all);
  improve(best.copied_bytes, 2.0 * block, [&](int i) {
    auto const at = block * static_cast<std::size_t>(i);
    std::memcpy(to.data() + at, from.data() + at, block);
  });
}

inline void measure_rates(resources const& with) {
  with.scalar_bytes == 8 ? measure_rates_as<double>(with) : measure_rates_as<float>(with);
}

/// What must be done for one token of one channel, whatever the implementation.
struct work {
  double multiply_adds = 0;  ///< of single numbers; a product or a sum alone counts as one
  double exponentials = 0;   ///< that are not in multiply_adds
  double bytes = 0;          ///< from and to memory
};

/// The seconds that it takes at least. Exponentials and multiply-adds want the same units.
inline double floor_of(work const& needed, rates const& machine) {
  return std::max(
      needed.multiply_adds / machine.multiply_adds + needed.exponentials / machine.exponentials,
      needed.bytes / machine.copied_bytes);
}

}  // namespace ssm::bench
