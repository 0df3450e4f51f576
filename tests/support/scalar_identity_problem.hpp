// SPDX-License-Identifier: Apache-2.0
// scalar_identity_problem.hpp: heads and groups, the diagonal system they stand for, and how their
// gradient is run.
#pragma once

#include <cstdint>

#include "ssm/scalar_identity.hpp"
#include "ssm/scan.hpp"
#include "support/diagonal_oracle.hpp"
#include "support/random_tensor.hpp"

namespace ssm::test {

inline constexpr direction directions[] = {direction::forward, direction::backward};

struct layout {
  index_t batch, length, heads, head_dim, groups, states;

  index_t channels() const { return heads * head_dim; }
};

/// Inputs of scalar_identity, C for its contraction, and the cotangents that arrive.
template <scalar T>
struct problem {
  layout size;
  tensor<real_t<T>, 3> step_size, x, y_cotangent;  // (batch, time, head), (.., channel) twice
  tensor<T, 1> eigenvalue;                         // (head)
  tensor<T, 4> B, C;                               // (batch, time, group, state), (.., channel, ..)
  tensor<T, 3> initial, final_cotangent;

  index_t head(index_t c) const { return c / size.head_dim; }
  index_t group(index_t c) const { return c / (size.channels() / size.groups); }

  /// The same system with every value spelled out for every channel and state.
  diagonal_system<T> spelled_out() const {
    tensor<real_t<T>, 3> step(x.extents());
    tensor<T, 2> lambda({size.channels(), size.states});
    tensor<T, 4> wide_B(C.extents());
    for_each_position(C.extents(), [&](auto const& position) {
      auto const [b, t, c, n] = position.value;
      step(b, t, c) = step_size(b, t, head(c));
      wide_B(b, t, c, n) = B(b, t, group(c), n);
    });
    for_each_position(lambda.extents(), [&](auto const& position) {
      auto const [c, n] = position.value;
      lambda(c, n) = eigenvalue(head(c));
    });
    return {step, x, y_cotangent, lambda, wide_B, C, initial, final_cotangent};
  }
};

/// Stable for every rule: |z| < 0.75 and Re z < 0.
template <scalar T>
problem<T> random_problem(layout const& s, std::uint64_t seed) {
  using real = real_t<T>;
  auto eigenvalue = random_tensor<T>({s.heads}, seed, -1.5, 0);
  if constexpr (complex_scalar<T>) {
    for (T& lambda : eigenvalue) lambda = T(lambda.real(), lambda.imag() + real(0.75));
  }
  return {s,
          random_tensor<real>({s.batch, s.length, s.heads}, seed + 1, 0.1, 0.5),
          random_tensor<real>({s.batch, s.length, s.channels()}, seed + 2),
          random_tensor<real>({s.batch, s.length, s.channels()}, seed + 3),
          eigenvalue,
          random_tensor<T>({s.batch, s.length, s.groups, s.states}, seed + 4),
          random_tensor<T>({s.batch, s.length, s.channels(), s.states}, seed + 5),
          random_tensor<T>({s.batch, s.channels(), s.states}, seed + 6),
          random_tensor<T>({s.batch, s.channels(), s.states}, seed + 7)};
}

template <scalar T>
problem<wide<T>> widened(problem<T> const& p) {
  using ssm::test::widened;
  return {p.size,
          widened(p.step_size),
          widened(p.x),
          widened(p.y_cotangent),
          widened(p.eigenvalue),
          widened(p.B),
          widened(p.C),
          widened(p.initial),
          widened(p.final_cotangent)};
}

template <class Rule, scalar T>
scalar_identity<Rule, T> recurrence_of(problem<T> const& p) {
  return {.step_size = p.step_size, .eigenvalue = p.eigenvalue, .B = p.B, .x = p.x};
}

template <recurrence R>
tensor<typename R::value_type, 4> run(parallel policy, R const& recurrence,
                                      tensor<typename R::value_type, 3> carry) {
  auto const [batch, length, channels, states] = recurrence.shape();
  auto result = poisoned<typename R::value_type>({batch, length, channels, states});
  scan(policy, recurrence, store_states<typename R::value_type>{result}, carry.view());
  return result;
}

template <scalar T>
struct gradients {
  tensor<real_t<T>, 3> step_size, x;
  tensor<T, 1> eigenvalue;
  tensor<T, 4> B, C;
  tensor<T, 3> initial;
};

template <class Rule, scalar T>
gradients<T> run_vjp(parallel policy, problem<T> const& p, direction order) {
  using real = real_t<T>;
  gradients<T> to{tensor<real, 3>(p.step_size.extents()),
                  tensor<real, 3>(p.x.extents()),
                  tensor<T, 1>(p.eigenvalue.extents()),
                  tensor<T, 4>(p.B.extents()),
                  tensor<T, 4>(p.C.extents()),
                  p.final_cotangent};
  typename scalar_identity<Rule, T>::gradient const gradient{to.step_size, to.eigenvalue, to.B,
                                                             to.x};
  scan_vjp(policy, recurrence_of<Rule>(p), contract_vjp<T>{p.C, p.y_cotangent, to.C}, p.initial,
           to.initial, gradient, order);
  return to;
}

template <class Rule, scalar T>
real_t<T> loss(problem<T> const& p, direction order) {
  tensor<real_t<T>, 3> y(p.x.extents());
  tensor<T, 3> carry = p.initial;
  scan(parallel{1, 100}, recurrence_of<Rule>(p), contract<T>{p.C, y}, carry, order);
  return inner_product(p.y_cotangent, y) + inner_product(p.final_cotangent, carry);
}

}  // namespace ssm::test
