// SPDX-License-Identifier: Apache-2.0
// scan_problem.hpp: random maps and initial states, and their scan in 50 digits.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <type_traits>

#include "ssm/scan.hpp"
#include "support/oracle.hpp"
#include "support/random_tensor.hpp"

namespace ssm::test {

inline constexpr direction directions[] = {direction::forward, direction::backward};

/// A stable recurrence with random maps: |decay| < 1.
template <scalar T>
struct problem {
  std::uint64_t seed;
  tensor<T, 4> decay, drive;
  tensor<T, 3> initial;

  linear_recurrence<T> recurrence() const { return {decay, drive}; }

  /// Each step's state in 50 digits and the bound of its error, at the time it is visited.
  reference_trajectory<wide<T>> reference(direction order = direction::forward) const {
    if (order == direction::forward) {
      return reference_scan(widened(decay), widened(drive), widened(initial));
    }
    auto const mirrored = [](tensor<T, 4> const& from) {
      return widened(materialized(from.view().reversed(1)));
    };
    auto r = reference_scan(mirrored(decay), mirrored(drive), widened(initial));
    r.states = materialized(r.states.view().reversed(1));
    r.terms = materialized(r.terms.view().reversed(1));
    r.rounding = materialized(r.rounding.view().reversed(1));
    return r;
  }
};

template <scalar T>
problem<T> random_problem(scan_shape const& s, std::uint64_t seed) {
  double const side = complex_scalar<T> ? 0.7 : 1;
  return {seed, random_tensor<T>({s.batch, s.length, s.channels, s.states}, seed, -side, side),
          random_tensor<T>({s.batch, s.length, s.channels, s.states}, seed + 1),
          random_tensor<T>({s.batch, s.channels, s.states}, seed + 2)};
}

/// Decays so near 1 that a state matters for a thousand steps: a wrong carry cannot hide.
template <scalar T>
problem<T> slow_problem(scan_shape const& s, std::uint64_t seed) {
  auto p = random_problem<T>(s, seed);
  for (T& decay : p.decay) decay = T(1) + (decay - T(1)) * real_t<T>(1e-3);
  return p;
}

template <scalar T>
struct outcome {
  tensor<T, 4> states;
  tensor<T, 3> final_states;
};

template <class Policy, recurrence R>
outcome<typename R::value_type> run(Policy policy, R const& recurrence,
                                    tensor<typename R::value_type, 3> const& initial,
                                    direction order = direction::forward) {
  using T = typename R::value_type;
  auto const [batch, length, channels, states] = recurrence.shape();
  outcome<T> result{poisoned<T>({batch, length, channels, states}), initial};
  scan(policy, recurrence, store_states<T>{result.states}, result.final_states.view(), order);
  return result;
}

/// The bound that scan states. (In 50 digits the reference is rounded just as often.)
template <scalar T>
void expect_within_bound(outcome<T> const& found, problem<T> const& p, direction order) {
  double const k = eps_per_step<T> * (std::is_same_v<T, wide<T>> ? 2 : 1);
  auto const reference = p.reference(order);
  EXPECT_TRUE(is_within(k, found.states, reference.states, reference.rounding))
      << "states, seed " << p.seed;
  EXPECT_TRUE(is_within(k, found.final_states, reference.final_states, reference.final_rounding))
      << "final states, seed " << p.seed;
}

template <scalar T>
void expect_same_bits(outcome<T> const& found, outcome<T> const& expected, std::uint64_t seed) {
  EXPECT_TRUE(has_same_bits(found.states, expected.states)) << "states, seed " << seed;
  EXPECT_TRUE(has_same_bits(found.final_states, expected.final_states))
      << "final states, seed " << seed;
}

}  // namespace ssm::test
