// SPDX-License-Identifier: Apache-2.0
// scan_readout_test.cpp: what a scan hands to its readout and when, and what it refuses.
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <atomic>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "ssm/scan.hpp"
#include "support/oracle.hpp"
#include "support/random_tensor.hpp"
#include "support/scan_problem.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

// y = M x + N h_0 with M_ts = C_t Π_{k=s+1..t} decay_k gain_s and N_t = C_t Π_{k=0..t} decay_k,
// the lower triangular semiseparable matrix of arXiv:2509.19633, eq. 5.
TEST(ScanDense, ContractionOfTheStatesIsTheSemiseparableMatrixTimesTheInput) {
  using T = double;
  for (index_t const length : {1, 2, 5, 13}) {
    index_t const states = 3;
    auto p = random_problem<T>({1, length, 1, states}, 340);
    auto const gain = random_tensor<T>({length, states}, 341);
    auto const C = random_tensor<T>({1, length, 1, states}, 342);
    auto const x = random_tensor<T>({length}, 343);
    Eigen::MatrixXd M = Eigen::MatrixXd::Zero(length, length), sizes = M;
    Eigen::VectorXd expected = Eigen::VectorXd::Zero(length), terms = expected, input(length);
    for (index_t t = 0; t < length; ++t) input(t) = x(t);
    for (index_t n = 0; n < states; ++n) {
      for (index_t s = 0; s < length; ++s) p.drive(0, s, 0, n) = gain(s, n) * x(s);
      for (index_t t = 0; t < length; ++t) {
        double product = C(0, t, 0, n);
        for (index_t s = t; s >= 0; --s) {
          M(t, s) += product * gain(s, n);
          sizes(t, s) += std::abs(product * gain(s, n));
          product *= p.decay(0, s, 0, n);
        }
        expected(t) += product * p.initial(0, 0, n);
        terms(t) += std::abs(product * p.initial(0, 0, n));
      }
    }
    expected += M * input;
    terms += sizes * input.cwiseAbs();
    // At most two roundings for each of `length` steps and four more in each of the two ways,
    // and the sums over time and state.
    double const bound =
        static_cast<double>(3 * length + states + 4) * std::numeric_limits<T>::epsilon();
    for (index_t const chunk : {index_t{1}, index_t{4}, length}) {
      auto y = poisoned<T>({1, length, 1});
      auto carry = p.initial;
      scan(chunked{chunk}, p.recurrence(), contract<T>{C, y}, carry);
      for (index_t t = 0; t < length; ++t) {
        EXPECT_NEAR(y(0, t, 0), expected(t), bound * terms(t))
            << "length " << length << ", chunk " << chunk << ", step " << t << ", seed 340";
      }
    }
  }
}

/// A recurrence and a readout of a user: counts, and records who was visited when.
struct counting {
  using value_type = double;
  scan_shape extents;

  struct step {
    affine_map<double> operator()(index_t) const { return {1, 1}; }
  };
  step at(index_t, index_t, index_t) const { return {}; }
  scan_shape shape() const { return extents; }
};

struct visit_recorder {
  std::vector<std::atomic<int>>* visits;  // (batch, time, channel)
  std::vector<index_t>* times;            // in the order of finish(), if wanted
  scan_shape extents;

  void require_shape_for(index_t, index_t, index_t, index_t) const {}
  struct collector {
    visit_recorder const& self;
    index_t b, t, c;
    index_t next = 0;
    void operator()(index_t n, double) {
      EXPECT_EQ(n, next);
      ++next;
    }
    void finish() {
      EXPECT_EQ(next, self.extents.states);
      auto const place = (b * self.extents.length + t) * self.extents.channels + c;
      ++(*self.visits)[static_cast<std::size_t>(place)];
      if (self.times != nullptr) self.times->push_back(t);
    }
  };
  collector at(index_t b, index_t t, index_t c) const { return {*this, b, t, c}; }
};

TEST(ScanVisits, EveryStepIsReadOutOnceWithItsStatesInOrderUnderEveryPolicy) {
  scan_shape const s{2, 13, 3, 4};
  for (index_t const chunk : {1, 4, 13, 20}) {
    std::vector<std::atomic<int>> visits(static_cast<std::size_t>(s.batch * s.length * s.channels));
    visit_recorder const recorder{&visits, nullptr, s};
    tensor<double, 3> carry({s.batch, s.channels, s.states}, 0.5);
    scan(parallel{3, chunk}, counting{s}, recorder, carry);
    scan(sequential{}, counting{s}, recorder, carry, direction::backward);
    for (auto const& count : visits) EXPECT_EQ(count, 2) << "chunk " << chunk;
    for (double const h : carry) EXPECT_EQ(h, 26.5);
  }
}

TEST(ScanVisits, BackwardVisitsTheLastStepFirst) {
  scan_shape const s{1, 5, 1, 2};
  for (direction const order : directions) {
    std::vector<std::atomic<int>> visits(5);
    std::vector<index_t> times;
    tensor<double, 3> carry({1, 1, 2});
    scan(sequential{}, counting{s}, visit_recorder{&visits, &times, s}, carry, order);
    EXPECT_EQ(times, order == direction::forward ? (std::vector<index_t>{0, 1, 2, 3, 4})
                                                 : (std::vector<index_t>{4, 3, 2, 1, 0}));
  }
}

TEST(ScanErrors, WrongShapeOrSettingThrowsNamesItAndWritesNothing) {
  using T = double;
  auto const p = random_problem<T>({2, 6, 3, 4}, 350);
  auto const check = [&](std::string const& expected, auto policy, linear_recurrence<T> const& r,
                         index_array<4> const& states_shape, index_array<3> const& carry_shape) {
    tensor<T, 4> states(states_shape, not_a_number<T>());
    tensor<T, 3> carry(carry_shape, not_a_number<T>());
    auto const found =
        message_of<shape_error>([&] { scan(policy, r, store_states<T>{states}, carry.view()); });
    EXPECT_EQ(found, expected);
    EXPECT_TRUE(is_poisoned(states)) << expected;
    EXPECT_TRUE(is_poisoned(carry)) << expected;
  };
  auto const r = p.recurrence();
  check("scan: carry has shape (2, 3, 5), expected (2, 3, 4) (batch, channel, state)", sequential{},
        r, {2, 6, 3, 4}, {2, 3, 5});
  check("scan: carry has shape (3, 2, 4), expected (2, 3, 4) (batch, channel, state)", parallel{},
        r, {2, 6, 3, 4}, {3, 2, 4});
  check(
      "store_states: states has shape (2, 7, 3, 4), expected (2, 6, 3, 4) "
      "(batch, time, channel, state)",
      sequential{}, r, {2, 7, 3, 4}, {2, 3, 4});
  check(
      "linear_recurrence: decay has shape (2, 5, 3, 4), expected (2, 6, 3, 4) "
      "(batch, time, channel, state)",
      sequential{}, {p.decay.view().slice(1, 0, 5), p.drive}, {2, 6, 3, 4}, {2, 3, 4});
  check("chunked: length is 0, expected at least 1", chunked{0}, r, {2, 6, 3, 4}, {2, 3, 4});
  check("parallel: threads is -3, expected 0 (all) or more", parallel{-3, 1}, r, {2, 6, 3, 4},
        {2, 3, 4});
  check("parallel: chunk is -1, expected 0 (from the shape) or more", parallel{1, -1}, r,
        {2, 6, 3, 4}, {2, 3, 4});
}

}  // namespace
