// SPDX-License-Identifier: Apache-2.0
// diagonal_problem.hpp: random diagonal systems, and how they and their gradient are run.
#pragma once

#include <cstdint>

#include "ssm/diagonal.hpp"
#include "ssm/scan.hpp"
#include "support/diagonal_oracle.hpp"
#include "support/random_tensor.hpp"

namespace ssm::test {

inline constexpr direction directions[] = {direction::forward, direction::backward};

/// Stable for every rule: |z| < 0.75 and Re z < 0.
template <scalar T>
diagonal_system<T> random_system(scan_shape const& s, std::uint64_t seed) {
  auto eigenvalue = random_tensor<T>({s.channels, s.states}, seed, -1.5, 0);
  if constexpr (complex_scalar<T>) {
    for (T& lambda : eigenvalue) lambda = T(lambda.real(), lambda.imag() + real_t<T>(0.75));
  }
  auto const sequence = [&](std::uint64_t k, double low, double high) {
    return random_tensor<real_t<T>>({s.batch, s.length, s.channels}, seed + k, low, high);
  };
  auto const trajectory = [&](std::uint64_t k) {
    return random_tensor<T>({s.batch, s.length, s.channels, s.states}, seed + k);
  };
  auto const state = [&](std::uint64_t k) {
    return random_tensor<T>({s.batch, s.channels, s.states}, seed + k);
  };
  return {sequence(1, 0.1, 0.5), sequence(2, -1, 1), sequence(3, -1, 1), eigenvalue,
          trajectory(4),         trajectory(5),      state(6),           state(7)};
}

template <class Rule, scalar T>
diagonal<Rule, T> recurrence_of(diagonal_system<T> const& s) {
  return {.step_size = s.step_size, .eigenvalue = s.eigenvalue, .B = s.B, .x = s.x};
}

template <recurrence R>
tensor<typename R::value_type, 4> run(parallel policy, R const& recurrence,
                                      tensor<typename R::value_type, 3> carry,
                                      direction order = direction::forward) {
  auto const [batch, length, channels, states] = recurrence.shape();
  auto result = poisoned<typename R::value_type>({batch, length, channels, states});
  scan(policy, recurrence, store_states<typename R::value_type>{result}, carry.view(), order);
  return result;
}

/// The gradients of all inputs, C and the initial state.
template <scalar T>
struct gradients {
  tensor<real_t<T>, 3> step_size, x;
  tensor<T, 2> eigenvalue;
  tensor<T, 4> B, C;
  tensor<T, 3> initial;
};

template <class Rule, scalar T>
gradients<T> run_vjp(parallel policy, diagonal_system<T> const& s, direction order) {
  using real = real_t<T>;
  gradients<T> to{tensor<real, 3>(s.x.extents()),       tensor<real, 3>(s.x.extents()),
                  tensor<T, 2>(s.eigenvalue.extents()), tensor<T, 4>(s.B.extents()),
                  tensor<T, 4>(s.B.extents()),          s.final_cotangent};
  typename diagonal<Rule, T>::gradient const gradient{to.step_size, to.eigenvalue, to.B, to.x};
  scan_vjp(policy, recurrence_of<Rule>(s), contract_vjp<T>{s.C, s.y_cotangent, to.C}, s.initial,
           to.initial, gradient, order);
  return to;
}

template <class Rule, scalar T>
real_t<T> loss(diagonal_system<T> const& s, direction order) {
  tensor<real_t<T>, 3> y(s.x.extents());
  tensor<T, 3> carry = s.initial;
  scan(parallel{1, 100}, recurrence_of<Rule>(s), contract<T>{s.C, y}, carry, order);
  return inner_product(s.y_cotangent, y) + inner_product(s.final_cotangent, carry);
}

}  // namespace ssm::test
