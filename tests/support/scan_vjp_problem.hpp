// SPDX-License-Identifier: Apache-2.0
// scan_vjp_problem.hpp: a recurrence, its readouts and cotangents, and how its gradient is run.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>

#include "ssm/scan.hpp"
#include "support/oracle.hpp"
#include "support/random_tensor.hpp"

namespace ssm::test {

inline constexpr direction directions[] = {direction::forward, direction::backward};

/// A stable recurrence, what reads it, and the cotangents that arrive.
template <scalar T>
struct problem {
  std::uint64_t seed;
  tensor<T, 4> decay, drive, C, states_cotangent;
  tensor<T, 3> initial, final_cotangent;
  tensor<real_t<T>, 3> y_cotangent;  // of the contraction or of the energy

  linear_recurrence<T> recurrence() const { return {decay, drive}; }
};

template <scalar T>
problem<T> random_problem(scan_shape const& s, std::uint64_t seed) {
  double const side = complex_scalar<T> ? 0.7 : 1;
  auto const trajectory = [&](std::uint64_t k, double size) {
    return random_tensor<T>({s.batch, s.length, s.channels, s.states}, seed + k, -size, size);
  };
  auto const state = [&](std::uint64_t k) {
    return random_tensor<T>({s.batch, s.channels, s.states}, seed + k);
  };
  return {seed,
          trajectory(1, side),
          trajectory(2, 1),
          trajectory(3, 1),
          trajectory(4, 1),
          state(5),
          state(6),
          random_tensor<real_t<T>>({s.batch, s.length, s.channels}, seed + 7)};
}

template <scalar T>
problem<wide<T>> widened(problem<T> const& p) {
  using ssm::test::widened;
  return {p.seed,
          widened(p.decay),
          widened(p.drive),
          widened(p.C),
          widened(p.states_cotangent),
          widened(p.initial),
          widened(p.final_cotangent),
          widened(p.y_cotangent)};
}

/// Every gradient is a sum of products of these numbers with factors 1 or 2, so the gradient of
/// the problem of their magnitudes is Σ|terms|.
template <scalar T>
problem<digits50> term_sizes(problem<T> const& p) {
  return {p.seed,
          magnitude(p.decay),
          magnitude(p.drive),
          magnitude(p.C),
          magnitude(p.states_cotangent),
          magnitude(p.initial),
          magnitude(p.final_cotangent),
          magnitude(p.y_cotangent)};
}

template <scalar T>
struct gradients {
  tensor<T, 4> decay, drive, C;
  tensor<T, 3> initial;
};

// What is read out, the loss in terms of it, and the vjp of the readout.

struct only_final_states {
  template <scalar T>
  static real_t<T> loss(problem<T> const& p, auto const& run) {
    (void)p;
    run(discard{});
    return real_t<T>(0);
  }
  template <scalar T>
  static discard_vjp<T> vjp(problem<T> const&, gradients<T>&) {
    return {};
  }
  static constexpr int travels = 1;
};

struct all_states {
  template <scalar T>
  static real_t<T> loss(problem<T> const& p, auto const& run) {
    tensor<T, 4> states(p.drive.extents());
    run(store_states<T>{states});
    return inner_product(p.states_cotangent, states);
  }
  template <scalar T>
  static store_states_vjp<T> vjp(problem<T> const& p, gradients<T>&) {
    return {p.states_cotangent};
  }
  static constexpr int travels = 1;
};

struct contraction {
  template <scalar T>
  static real_t<T> loss(problem<T> const& p, auto const& run) {
    tensor<real_t<T>, 3> y(p.y_cotangent.extents());
    run(contract<T>{p.C, y});
    return inner_product(p.y_cotangent, y);
  }
  template <scalar T>
  static contract_vjp<T> vjp(problem<T> const& p, gradients<T>& to) {
    return {p.C, p.y_cotangent, to.C};
  }
  static constexpr int travels = 1;
};

/// The state is in the cotangent too, so a term may travel the whole way twice.
struct energy {
  template <scalar T>
  static real_t<T> loss(problem<T> const& p, auto const& run) {
    tensor<real_t<T>, 3> e(p.y_cotangent.extents());
    run(squared_norm<T>{e});
    return inner_product(p.y_cotangent, e);
  }
  template <scalar T>
  static squared_norm_vjp<T> vjp(problem<T> const& p, gradients<T>&) {
    return {p.y_cotangent};
  }
  static constexpr int travels = 2;
};

template <class Readout, scalar T>
real_t<T> loss(problem<T> const& p, direction order) {
  tensor<T, 3> carry = p.initial;
  auto const read = Readout::loss(
      p, [&](auto const& readout) { scan(sequential{}, p.recurrence(), readout, carry, order); });
  return read + inner_product(p.final_cotangent, carry);
}

template <class Readout, class Policy, scalar T>
gradients<T> run_vjp(Policy policy, problem<T> const& p, direction order = direction::forward) {
  auto const shape = p.drive.extents();
  gradients<T> to{tensor<T, 4>(shape), tensor<T, 4>(shape), tensor<T, 4>(shape), p.final_cotangent};
  auto const readout = Readout::vjp(p, to);
  scan_vjp(policy, p.recurrence(), readout, p.initial, to.initial, {to.decay, to.drive}, order);
  return to;
}

template <scalar T>
void expect_same_bits(gradients<T> const& found, gradients<T> const& expected) {
  EXPECT_TRUE(has_same_bits(found.decay, expected.decay)) << "decay";
  EXPECT_TRUE(has_same_bits(found.drive, expected.drive)) << "drive";
  EXPECT_TRUE(has_same_bits(found.C, expected.C)) << "C";
  EXPECT_TRUE(has_same_bits(found.initial, expected.initial)) << "initial";
}

}  // namespace ssm::test
