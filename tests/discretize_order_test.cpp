// SPDX-License-Identifier: Apache-2.0
// discretize_order_test.cpp: how fast the rules converge to the continuous system.
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/LU>
#include <boost/multiprecision/eigen.hpp>

#include "ssm/discretize.hpp"
#include "support/oracle.hpp"
#include "support/random_tensor.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

/// e^A by its series on A/2^k, squared k times.
using dense = Eigen::Matrix<digits50, Eigen::Dynamic, Eigen::Dynamic>;
dense exponential(dense const& A) {
  int const halvings = 20;
  dense const small = A / digits50(1 << halvings);
  dense sum = dense::Identity(A.rows(), A.cols());
  dense term = sum;
  for (int k = 1; k <= 12; ++k) {
    term = dense(term * small) / digits50(k);
    sum += term;
  }
  for (int k = 0; k < halvings; ++k) sum = dense(sum * sum);
  return sum;
}

// The state of h' = A h + b x with x constant is the last column of exp(t [A b; 0 0]) and h(0).
TEST(Convergence, ZeroOrderHoldOfAHeldInputEqualsTheExponentialOfTheDenseSystem) {
  index_t const states = 4, steps = 5;
  auto const eigenvalue = widened(random_tensor<double>({states}, 41, -3, 0));
  auto const B = widened(random_tensor<double>({states}, 42));
  auto const start = widened(random_tensor<double>({states}, 43));
  auto const mixing = widened(random_tensor<double>({states, states}, 44));
  digits50 const x = random_tensor<double>({1}, 45)(0), step_size = 0.3125;

  dense S(states, states), A = dense::Zero(states + 1, states + 1);
  dense h(states + 1, 1), b(states, 1), first(states, 1);
  for (index_t i = 0; i < states; ++i) {
    b(i) = B(i);
    first(i) = start(i);
    A(i, i) = eigenvalue(i);
    for (index_t j = 0; j < states; ++j) S(i, j) = mixing(i, j);
  }
  A.topLeftCorner(states, states) = dense(S * A.topLeftCorner(states, states) * dense(S.inverse()));
  A.topRightCorner(states, 1) = dense(S * b);
  h << dense(S * first), x;
  dense const exact = exponential(A * digits50(step_size * steps)) * h;

  dense diagonal_state = first;
  for (index_t t = 0; t < steps; ++t) {
    for (index_t n = 0; n < states; ++n) {
      diagonal_state(n) =
          discretize(zero_order_hold{}, step_size, eigenvalue(n), B(n), x)(diagonal_state(n));
    }
  }
  dense const found = S * diagonal_state;
  // The series leaves (|A| t 2^-20)^13 / 13!, below 1e-70; squaring doubles 1e-50 twenty times.
  for (index_t i = 0; i < states; ++i) {
    EXPECT_LT(magnitude(digits50(found(i) - exact(i))), digits50("1e-38")) << "state " << i;
  }
}

/// log2 of how the error at time 1 shrinks when the step is halved, x held at 1.
template <class Rule, class W>
double measured_order(W const& eigenvalue) {
  auto const error = [&](int steps) {
    digits50 const step_size = digits50(1) / steps;
    W h = W(digits50("0.75"));
    W const exact = exp(eigenvalue) * h + (exp(eigenvalue) - W(1)) / eigenvalue;
    for (int t = 0; t < steps; ++t) {
      h = discretize(Rule{}, step_size, eigenvalue, W(1), digits50(1))(h);
    }
    return magnitude(W(h - exact));
  };
  digits50 const coarse = error(256), fine = error(512);
  return log2(digits50(coarse / fine)).convert_to<double>();
}

TEST(Convergence, BilinearIsOfSecondOrderEulerAndMambaHoldOfFirst) {
  digits50 const real = -1.5;
  complex50 const complex(digits50(-0.5), digits50(3));
  EXPECT_NEAR((measured_order<bilinear>(real)), 2, 0.02);
  EXPECT_NEAR((measured_order<bilinear>(complex)), 2, 0.02);
  EXPECT_NEAR((measured_order<forward_euler>(real)), 1, 0.02);
  EXPECT_NEAR((measured_order<forward_euler>(complex)), 1, 0.02);
  EXPECT_NEAR((measured_order<mamba_hold>(real)), 1, 0.02);
  EXPECT_NEAR((measured_order<mamba_hold>(complex)), 1, 0.02);
}

}  // namespace
