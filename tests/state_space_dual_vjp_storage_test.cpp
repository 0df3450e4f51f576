// SPDX-License-Identifier: Apache-2.0
// state_space_dual_vjp_storage_test.cpp: the gradient of Mamba-2's operator from 16-bit inputs. (A
// file of its own: each number type is compiled for each instruction set.)
#include <gtest/gtest.h>

#include "compiled/state_space_dual.hpp"
#include "support/ssd_vjp_problem.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

TEST(StateSpaceDualVjp, OfSixteenBitInputsIsThatOfTheirValues) {
  vjp_problem<bfloat16> const problem({1, 40, 2, 20, 1, 24});
  auto const exact = in_double(problem), positive = with_magnitudes(exact);
  expect_near(run_ssd_vjp(parallel{.threads = 1}, problem.scaled_inputs(), problem.initial,
                          problem.y_cotangent, problem.carry_cotangent),
              exact, exact.scaled_inputs(), positive.scaled_inputs());
}

}  // namespace
