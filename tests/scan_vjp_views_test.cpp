// SPDX-License-Identifier: Apache-2.0
// scan_vjp_views_test.cpp: strided, empty and wrong views in the gradient of scan.
#include <gtest/gtest.h>

#include <string>

#include "ssm/scan.hpp"
#include "support/oracle.hpp"
#include "support/random_tensor.hpp"
#include "support/scan_vjp_problem.hpp"
#include "support/text.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

TEST(ScanVjpViews, EmptyGradientsAreSkippedAndTheOthersKeepTheirBits) {
  auto const p = random_problem<double>({2, 13, 3, 2}, 470);
  auto const all = run_vjp<contraction>(chunked{5}, p);
  auto const with = [&](bool decay, bool drive, bool C) {
    gradients<double> to = run_vjp<contraction>(chunked{5}, p);
    for (double& g : to.decay) g = 0;
    for (double& g : to.drive) g = 0;
    for (double& g : to.C) g = 0;
    to.initial = p.final_cotangent;
    using view = trajectory_view<double>;
    scan_vjp(chunked{5}, p.recurrence(),
             contract_vjp<double>{p.C, p.y_cotangent, C ? to.C.view() : view{}}, p.initial,
             to.initial, {decay ? to.decay.view() : view{}, drive ? to.drive.view() : view{}});
    if (decay) {
      EXPECT_TRUE(has_same_bits(to.decay, all.decay));
    }
    if (drive) {
      EXPECT_TRUE(has_same_bits(to.drive, all.drive));
    }
    if (C) {
      EXPECT_TRUE(has_same_bits(to.C, all.C));
    }
    EXPECT_TRUE(has_same_bits(to.initial, all.initial));
  };
  for (int wanted = 0; wanted < 8; ++wanted) {
    SCOPED_TRACE(text("wanted ", wanted));
    with((wanted & 1) != 0, (wanted & 2) != 0, (wanted & 4) != 0);
  }
}

TEST(ScanVjpViews, StridedViewsGiveTheBitsOfContiguousOnesAndNothingBetweenIsWritten) {
  using T = double;
  auto const p = random_problem<T>({2, 7, 3, 2}, 480);
  auto const expected = run_vjp<contraction>(chunked{3}, p);
  scattered const decay(p.decay), drive(p.drive), C(p.C);
  scattered const initial(p.initial), y_cotangent(p.y_cotangent), carry(p.final_cotangent);
  tensor<T, 4> const zero({2, 7, 3, 2});
  scattered const to_decay(zero), to_drive(zero), to_C(zero);
  scan_vjp(chunked{3}, linear_recurrence<T>{decay, drive}, contract_vjp<T>{C, y_cotangent, to_C},
           initial, carry, {to_decay, to_drive});
  expect_same_bits({materialized(to_decay.view()), materialized(to_drive.view()),
                    materialized(to_C.view()), materialized(carry.view())},
                   expected);
  EXPECT_EQ(to_decay.overwritten() + to_drive.overwritten() + to_C.overwritten(), 0);
  EXPECT_EQ(carry.overwritten(), 0);
}

TEST(ScanVjpViews, LengthZeroPassesTheCotangentOnAndAddsNothing) {
  auto const p = random_problem<double>({2, 0, 3, 2}, 490);
  for (direction const order : directions) {
    EXPECT_EQ(run_vjp<contraction>(parallel{}, p, order).initial, p.final_cotangent);
  }
}

TEST(ScanVjpErrors, WrongShapeOrSettingThrowsNamesItAndWritesNothing) {
  using T = double;
  auto const p = random_problem<T>({2, 6, 3, 4}, 500);
  tensor<T, 3> const short_state({2, 3, 3}, 0.5);
  tensor<T, 3> carry({2, 3, 4}, not_a_number<T>()), short_carry({2, 2, 4}, not_a_number<T>());
  tensor<T, 4> gradient({2, 6, 3, 4}, not_a_number<T>()), wrong({2, 5, 3, 4}, not_a_number<T>());
  auto const expect = [&](std::string const& message, auto const& call) {
    EXPECT_EQ(message_of<shape_error>(call), message);
    for (auto const& output : {gradient, wrong}) EXPECT_TRUE(is_poisoned(output)) << message;
    for (auto const& output : {carry, short_carry}) EXPECT_TRUE(is_poisoned(output)) << message;
  };
  using gradient_views = linear_recurrence<T>::gradient;
  auto const r = p.recurrence();
  contract_vjp<T> const readout{p.C, p.y_cotangent, gradient};
  gradient_views const to{gradient, gradient};
  expect("scan_vjp: initial has shape (2, 3, 3), expected (2, 3, 4) (batch, channel, state)",
         [&] { scan_vjp(sequential{}, r, readout, short_state, carry, to); });
  expect(
      "scan_vjp: carry_cotangent has shape (2, 2, 4), expected (2, 3, 4) "
      "(batch, channel, state)",
      [&] { scan_vjp(sequential{}, r, readout, p.initial, short_carry, to); });
  expect(
      "linear_recurrence: gradient.decay has shape (2, 5, 3, 4), expected (2, 6, 3, 4) "
      "(batch, time, channel, state)",
      [&] {
        scan_vjp(sequential{}, r, readout, p.initial, carry, {wrong, gradient});
      });
  expect(
      "linear_recurrence: gradient.drive has shape (2, 5, 3, 4), expected (2, 6, 3, 4) "
      "(batch, time, channel, state)",
      [&] {
        scan_vjp(sequential{}, r, readout, p.initial, carry, {gradient, wrong});
      });
  expect(
      "contract_vjp: C_gradient has shape (2, 5, 3, 4), expected (2, 6, 3, 4) "
      "(batch, time, channel, state)",
      [&] {
        contract_vjp<T> const bad{p.C, p.y_cotangent, wrong};
        scan_vjp(sequential{}, r, bad, p.initial, carry, to);
      });
  expect(
      "contract_vjp: y_cotangent has shape (2, 5, 3), expected (2, 6, 3) "
      "(batch, time, channel)",
      [&] {
        contract_vjp<T> const bad{p.C, p.y_cotangent.view().slice(1, 0, 5), gradient};
        scan_vjp(sequential{}, r, bad, p.initial, carry, to);
      });
  expect(
      "store_states_vjp: cotangent has shape (2, 5, 3, 4), expected (2, 6, 3, 4) "
      "(batch, time, channel, state)",
      [&] {
        store_states_vjp<T> const bad{p.C.view().slice(1, 0, 5)};
        scan_vjp(sequential{}, r, bad, p.initial, carry, to);
      });
  expect(
      "squared_norm_vjp: cotangent has shape (2, 5, 3), expected (2, 6, 3) "
      "(batch, time, channel)",
      [&] {
        squared_norm_vjp<T> const bad{p.y_cotangent.view().slice(1, 0, 5)};
        scan_vjp(sequential{}, r, bad, p.initial, carry, to);
      });
  expect("chunked: length is -1, expected at least 1",
         [&] { scan_vjp(chunked{-1}, r, readout, p.initial, carry, to); });
}

}  // namespace
