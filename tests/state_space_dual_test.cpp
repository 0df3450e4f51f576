// SPDX-License-Identifier: Apache-2.0
// state_space_dual_test.cpp: Mamba-2's operator in every policy against its definition in double.
#include "compiled/state_space_dual.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <initializer_list>
#include <limits>
#include <string>
#include <vector>

#include "support/random_tensor.hpp"
#include "support/ssd_problem.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

constexpr instruction_set all_sets[] = {instruction_set::baseline, instruction_set::avx2,
                                        instruction_set::avx512};

constexpr ssd_sizes odd_sizes[] = {
    {1, 0, 1, 1, 1, 1},     {2, 1, 3, 5, 1, 7},     {1, 15, 1, 1, 1, 1},   {2, 16, 3, 16, 3, 16},
    {1, 17, 2, 64, 1, 128}, {1, 63, 3, 80, 1, 200}, {2, 64, 1, 5, 1, 128}, {1, 65, 4, 64, 2, 16},
    {1, 130, 2, 80, 2, 7},  {1, 7, 2, 80, 1, 200},  {1, 8, 2, 3, 1, 130},  {0, 9, 2, 3, 1, 4},
    {1, 9, 2, 0, 1, 4},     {1, 20, 2, 3, 1, 0},    {1, 3, 2, 3, 1, 0},    {2, 5, 20, 17, 2, 16},
};

template <class T>
void expect_exact(char const* type) {
  double worst = 0;
  for (ssd_sizes const& sizes : odd_sizes) {
    SCOPED_TRACE(std::string(type) + " " + test::to_string(sizes));
    ssd_problem<T> const problem(sizes);
    ssd_truth const truth(problem.inputs(), problem.initial);
    auto const compare = [&](auto policy, char const* name) {
      double const error = worst_error(run_ssd(policy, problem.inputs(), problem.initial), truth);
      EXPECT_LE(error, 1) << name;
      worst = std::max(worst, error);
    };
    compare(sequential{}, "sequential");
    for (instruction_set const set : all_sets) {
      compare(parallel{.threads = 1, .instructions = set}, "parallel");
    }
  }
  std::printf("[ k = N/2 + Q + 20 ] %s: worst error %.2g of k eps of the terms\n", type, worst);
}

TEST(StateSpaceDual, IsExactToDerivedRoundingInFloat) {
  expect_exact<float>("float");
}
TEST(StateSpaceDual, IsExactToDerivedRoundingInDouble) {
  expect_exact<double>("double");
}

TEST(StateSpaceDual, IsTheSameForEveryChunkLength) {
  ssd_problem<float> const problem({1, 150, 2, 20, 1, 24});
  for (index_t const chunk : {1, 2, 3, 5, 16, 24, 33, 64, 200, 1000000}) {
    ssd_truth const truth(problem.inputs(), problem.initial, std::min<index_t>(chunk, 32));
    for (instruction_set const set : all_sets) {
      EXPECT_LE(worst_error(run_ssd(parallel{.threads = 1, .chunk = chunk, .instructions = set},
                                    problem.inputs(), problem.initial),
                            truth),
                1)
          << chunk;
    }
    if (chunk < 1000) {
      EXPECT_LE(worst_error(run_ssd(chunked{chunk}, problem.inputs(), problem.initial), truth), 1)
          << chunk;
    }
  }
}

TEST(StateSpaceDual, HasTheSameBitsForEveryThreadCount) {
  // States that stay where the carry is, of several heads at a time; that must be copied; one step.
  for (ssd_sizes const& sizes : {ssd_sizes{2, 70, 14, 32, 2, 20},
                                 {1, 40, 5, 128, 1, 128},
                                 {2, 70, 6, 40, 2, 64},
                                 {3, 1, 40, 64, 1, 64}}) {
    ssd_problem<float> const problem(sizes);
    ASSERT_GE(sizes.batch * sizes.length * sizes.heads * sizes.head_dim * sizes.states,
              ssm::detail::least_threaded_work);
    auto const expected = run_ssd(parallel{.threads = 1}, problem.inputs(), problem.initial);
    EXPECT_LE(worst_error(expected, ssd_truth(problem.inputs(), problem.initial)), 1);
    for (int const threads : {2, 3, 7}) {
      EXPECT_TRUE(run_ssd(parallel{.threads = threads}, problem.inputs(), problem.initial) ==
                  expected)
          << threads;
    }
  }
}

/// One call for each of the stretches that end at `cuts`.
template <class Policy, class T>
ssd_result<T> run_in_parts(Policy policy, ssd_problem<T> const& problem,
                           std::vector<index_t> const& cuts) {
  ssd_result<T> result{tensor<T, 4>(problem.x.extents()), problem.initial};
  auto const whole_inputs = problem.inputs();
  index_t begin = 0;
  for (index_t const end : cuts) {
    auto part = whole_inputs;
    auto const cut = [&](auto& view) { view = view.slice(1, begin, end - begin); };
    cut(part.x);
    cut(part.step_size);
    cut(part.B);
    cut(part.C);
    cut(part.gate);
    state_space_dual(policy, part, result.carry.view(),
                     result.y.view().slice(1, begin, end - begin));
    begin = end;
  }
  return result;
}

template <int Rank>
double largest_difference(tensor<float, Rank> const& a, tensor<float, Rank> const& b) {
  double largest = 0;
  for (index_t i = 0; i < a.size(); ++i) {
    double const difference = std::abs(a.data()[i] - b.data()[i]);
    if (!(difference <= largest)) largest = difference;
  }
  return largest;
}

double largest_magnitude(tensor<float, 4> const& a) {
  double largest = 0;
  for (float const element : a) largest = std::max(largest, std::abs(double{element}));
  return largest;
}

TEST(StateSpaceDual, CutAnywhereIsTheWhole) {
  ssd_problem<float> const problem({1, 200, 2, 24, 1, 20});
  auto const expected = run_ssd(parallel{.threads = 1}, problem.inputs(), problem.initial);
  double const largest = largest_magnitude(expected.y);
  random_stream const stream{5};
  for (index_t i = 0; i < 100; ++i) {
    auto const cut = static_cast<index_t>(stream.uniform(i) * 201);
    auto const found = run_in_parts(parallel{.threads = 1}, problem, {cut, 200});
    EXPECT_LE(largest_difference(found.y, expected.y), 1e-6 * largest) << "cut at " << cut;
    EXPECT_LE(largest_difference(found.carry, expected.carry), 1e-6) << "cut at " << cut;
  }
}

TEST(StateSpaceDual, EqualsItsStepsOverALongTime) {
  index_t const length = 65536;
  ssd_problem<float> problem({1, length, 1, 4, 1, 4});
  problem.eigenvalue(0) = -0.01F;
  auto const together = run_ssd(parallel{.threads = 1}, problem.inputs(), problem.initial);
  std::vector<index_t> cuts(static_cast<std::size_t>(length));
  for (index_t t = 0; t < length; ++t) cuts[static_cast<std::size_t>(t)] = t + 1;
  auto const steps = run_in_parts(parallel{.threads = 1}, problem, cuts);
  double const largest = largest_magnitude(together.y);
  EXPECT_GT(largest, 1);
  EXPECT_LE(largest_difference(together.y, steps.y), 1e-5 * largest);
}

TEST(StateSpaceDual, EqualsItsCutsToRounding) {
  // The bound of the test above, derived: both are within rounding of the truth.
  ssd_problem<float> const problem({1, 200, 2, 24, 1, 20});
  ssd_truth const truth(problem.inputs(), problem.initial);
  for (index_t const cut : {0, 1, 7, 8, 100, 128, 193, 200}) {
    EXPECT_LE(worst_error(run_in_parts(parallel{.threads = 1}, problem, {cut, 200}), truth), 1);
  }
}

/// The views of one projection's output, as a Mamba-2 layer makes them: z, x, B, C, step.
TEST(StateSpaceDual, StridedViewsGiveTheSameBits) {
  for (ssd_sizes const& sizes :
       {ssd_sizes{2, 3, 3, 20, 1, 24}, {2, 40, 3, 20, 1, 24}, {2, 40, 3, 16, 1, 24}}) {
    ssd_problem<float> const problem(sizes);
    auto const& s = problem.sizes;
    index_t const inner = s.heads * s.head_dim, wide = 2 * inner + 2 * s.states + s.heads + 1;
    tensor<float, 3> parent({s.batch, s.length, wide}, std::numeric_limits<float>::quiet_NaN());
    auto const part4 = [&](index_t offset, auto const& from) {
      tensor_view<float, 4> const view{
          parent.data() + offset,
          from.extents(),
          {parent.view().stride(0), parent.view().stride(1), from.extent(3), 1}};
      for_each_position(from.extents(), [&](auto const& position) {
        test::at(view, position) = test::at(from.view(), position);
      });
      return view;
    };
    auto inputs = problem.inputs();
    inputs.gate = part4(0, problem.gate);
    inputs.x = part4(inner, problem.x);
    inputs.B = part4(2 * inner, problem.B);
    inputs.C = part4(2 * inner + s.states, problem.C);
    scattered<float, 3> const steps(problem.step_size);
    inputs.step_size = steps.view();
    auto const expected = run_ssd(parallel{.threads = 1}, problem.inputs(), problem.initial);
    EXPECT_TRUE(run_ssd(parallel{.threads = 1}, inputs, problem.initial) == expected);

    // Elements apart, from their ends, and outputs that lie likewise.
    scattered<float, 4> const x(problem.x), B(problem.B), C(problem.C), gate(problem.gate);
    inputs.x = x.view();
    inputs.B = B.view();
    inputs.C = C.view();
    inputs.gate = gate.view();
    scattered<float, 4> const y(tensor<float, 4>(problem.x.extents(), 0.0F));
    scattered<float, 4> const carry(problem.initial);
    state_space_dual(parallel{.threads = 1}, inputs, carry.view(), y.view());
    EXPECT_TRUE(materialized(y.view()) == expected.y);
    EXPECT_TRUE(materialized(carry.view()) == expected.carry);
    EXPECT_EQ(y.overwritten(), 0);
    EXPECT_EQ(carry.overwritten(), 0);
  }
}

TEST(StateSpaceDual, OneNumberAHeadIsABroadcastD) {
  ssd_problem<float> problem({1, 20, 3, 20, 1, 4});
  auto inputs = problem.inputs();
  inputs.D = {problem.D.data(), {3, 20}, {20, 0}};
  auto const found = run_ssd(parallel{.threads = 1}, inputs, problem.initial);
  for (index_t h = 0; h < 3; ++h)
    for (index_t p = 1; p < 20; ++p) problem.D(h, p) = problem.D(h, 0);
  EXPECT_TRUE(found == run_ssd(parallel{.threads = 1}, problem.inputs(), problem.initial));
}

}  // namespace
