// SPDX-License-Identifier: Apache-2.0
// state_space_dual_options_test.cpp: what Mamba-2's operator can be asked for.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "compiled/state_space_dual.hpp"
#include "support/oracle.hpp"
#include "support/random_scaling.hpp"
#include "support/ssd_problem.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

constexpr parallel one_thread{.threads = 1};

TEST(StateSpaceDualOptions, PackedSequencesAreSeparateCalls) {
  // Sequences of 1, 2, 13, 16, 17, 1, 100 and 10 steps, one of them over the end of a block.
  std::vector<index_t> const offsets{0, 1, 3, 16, 32, 49, 50, 150, 160};
  auto const sequence = sequence_index(offsets);
  ssd_problem<float> const problem({1, 160, 3, 20, 1, 24});
  auto inputs = problem.inputs();
  inputs.sequence = sequence.view();
  ssd_truth const truth(inputs, problem.initial);
  auto const found = run_ssd(one_thread, inputs, problem.initial);
  EXPECT_LE(worst_error(found, truth), 1);
  EXPECT_LE(worst_error(run_ssd(sequential{}, inputs, problem.initial), truth), 1);
  EXPECT_LE(worst_error(run_ssd(chunked{7}, inputs, problem.initial), truth), 1);
  // Separate calls end their chunks elsewhere, so they agree to rounding; and no state crosses.
  for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
    index_t const begin = offsets[i], count = offsets[i + 1] - begin;
    auto part = problem.inputs();
    for (auto* view : {&part.x, &part.gate}) *view = view->slice(1, begin, count);
    for (auto* view : {&part.B, &part.C}) *view = view->slice(1, begin, count);
    part.step_size = part.step_size.slice(1, begin, count);
    auto const alone = run_ssd(
        one_thread, part, i == 0 ? problem.initial : tensor<float, 4>(problem.initial.extents()));
    ssd_truth part_truth(part,
                         i == 0 ? problem.initial : tensor<float, 4>(problem.initial.extents()));
    EXPECT_LE(worst_error(alone, part_truth), 1) << i;
    for_each_position(alone.y.extents(), [&](auto const& position) {
      auto const [b, t, h, p] = position.value;
      EXPECT_NEAR(alone.y(b, t, h, p), found.y(b, begin + t, h, p), 1e-5) << i;
    });
  }
}

TEST(StateSpaceDualOptions, NothingOfOneSequenceReachesTheNext) {
  ssd_problem<float> problem({1, 40, 2, 20, 1, 24});
  auto const sequence = sequence_index(std::vector<index_t>{0, 18, 40});
  auto inputs = problem.inputs();
  inputs.sequence = sequence.view();
  auto const clean = run_ssd(one_thread, inputs, problem.initial);
  problem.x(0, 17, 0, 3) = problem.B(0, 3, 0, 0) = std::numeric_limits<float>::infinity();
  problem.initial(0, 0, 0, 0) = std::numeric_limits<float>::quiet_NaN();
  auto const found = run_ssd(one_thread, inputs, problem.initial);
  for (index_t t = 18; t < 40; ++t)
    for (index_t p = 0; p < 20; ++p) EXPECT_EQ(found.y(0, t, 0, p), clean.y(0, t, 0, p));
  EXPECT_TRUE(found.carry == clean.carry);
}

TEST(StateSpaceDualOptions, NoOutputDependsOnLaterInputs) {
  for (index_t const length : {7, 45}) {
    ssd_problem<float> problem({1, length, 1, 5, 1, 9});
    auto const clean = run_ssd(one_thread, problem.inputs(), problem.initial);
    for (index_t t = length - 1; t > 0; --t) {
      float const nan = std::numeric_limits<float>::quiet_NaN();
      problem.x(0, t, 0, 0) = problem.B(0, t, 0, 1) = problem.C(0, t, 0, 0) = nan;
      problem.step_size(0, t, 0) = problem.gate(0, t, 0, 0) = nan;
      auto const found = run_ssd(one_thread, problem.inputs(), problem.initial);
      for (index_t i = 0; i < t; ++i)
        for (index_t p = 0; p < 5; ++p) EXPECT_EQ(found.y(0, i, 0, p), clean.y(0, i, 0, p));
      EXPECT_NE(found.y(0, t, 0, 1), found.y(0, t, 0, 1));
    }
  }
}

TEST(StateSpaceDualOptions, EachMayBeLeftOut) {
  ssd_problem<float> const problem({1, 37, 2, 20, 1, 24});
  for (int const without : {0, 1, 2, 3, 4}) {
    auto inputs = problem.inputs();
    if (without == 0) inputs.D = {};
    if (without == 1) inputs.gate = {};
    if (without == 2) inputs.step_bias = {};
    if (without == 3) inputs.step_rule = {.softplus = false, .limits = {{-0.5F, 1}}};  // growth
    if (without == 4) inputs.step_rule.limits = {0.1F, 0.6F};
    ssd_truth const truth(inputs, problem.initial);
    EXPECT_LE(worst_error(run_ssd(one_thread, inputs, problem.initial), truth), 1) << without;
    EXPECT_LE(worst_error(run_ssd(sequential{}, inputs, problem.initial), truth), 1) << without;
  }
}

/// Steps first ... first + count - 1 of the inputs.
state_space_dual_inputs<float> part(state_space_dual_inputs<float> in, index_t first,
                                    index_t count) {
  for (auto* each : {&in.x, &in.gate, &in.B, &in.C}) *each = each->slice(1, first, count);
  in.step_size = in.step_size.slice(1, first, count);
  return in;
}

TEST(StateSpaceDualOptions, ScalingsAreThoseOfTheDefinitionAtOnceInPartsAndInSteps) {
  ssd_problem<float> const problem({2, 37, 3, 20, 1, 24});
  for_each_scaling<float>({1, 3, 1}, 40, [&](scaling_factors<float> const& factors) {
    auto inputs = problem.inputs();
    inputs.scaling = factors.scaling(0);
    ssd_truth const truth(inputs, problem.initial);
    auto const check = [&](auto policy, index_t size) {
      ssd_result<float> in_parts{tensor<float, 4>(problem.x.extents()), problem.initial};
      for (index_t t = 0; t < 37; t += size) {
        index_t const count = std::min(size, 37 - t);
        state_space_dual(policy, part(inputs, t, count), in_parts.carry.view(),
                         in_parts.y.view().slice(1, t, count));
      }
      EXPECT_LE(worst_error(in_parts, truth), 1) << name_of(factors) << ", parts of " << size;
    };
    for (index_t const size : {37, 16, 1}) check(one_thread, size);
    check(parallel{.threads = 1, .instructions = instruction_set::baseline}, 37);
    check(sequential{}, 37);
  });
}

TEST(StateSpaceDualOptions, AStepScaledByTwoGivesTwiceTheStatesOfAScaledByTwo) {
  ssd_problem<float> problem({1, 50, 3, 20, 1, 24});
  std::fill(problem.initial.begin(), problem.initial.end(), 0.0F);
  tensor<float, 2> const linear({3, 1}, 2.0F);
  tensor<float, 1> const step({3}, 2.0F);
  auto of_step = problem.inputs(), of_A = problem.inputs();
  of_step.D = of_A.D = {};
  of_step.scaling.step = step.view();
  of_A.scaling.linear = linear.view();
  for (index_t const length : {50, 6}) {
    auto const a = run_ssd(one_thread, part(of_step, 0, length), problem.initial);
    auto b = run_ssd(one_thread, part(of_A, 0, length), problem.initial);
    for (auto* numbers : {&b.y, &b.carry})
      for (float& element : *numbers) element *= 2;
    EXPECT_TRUE(a == b) << length;  // from a zero state; exact for a power of two
  }
}

template <class T>
void expect_exact_storage() {
  for (ssd_sizes const& sizes : {ssd_sizes{1, 40, 2, 20, 1, 24}, ssd_sizes{2, 3, 2, 20, 1, 24}}) {
    ssd_problem<T> const problem(sizes);
    ssd_truth const truth(problem.inputs(), problem.initial);
    for (auto const set : {instruction_set::baseline, instruction_set::widest}) {
      EXPECT_LE(worst_error(run_ssd(parallel{.threads = 1, .instructions = set}, problem.inputs(),
                                    problem.initial),
                            truth),
                1);
    }
    EXPECT_LE(worst_error(run_ssd(sequential{}, problem.inputs(), problem.initial), truth), 1);
  }
}

TEST(StateSpaceDualOptions, SixteenBitStorageRoundsOnceMore) {
  expect_exact_storage<bfloat16>();
  expect_exact_storage<float16>();
}

TEST(StateSpaceDualOptions, ExtremeDecaysAreRight) {
  ssd_problem<float> problem({1, 70, 5, 16, 1, 16});
  float const eigenvalues[] = {-1e4F, -60, -1e-6F, 0, -1e30F};  // gone at once ... kept for ever
  for (index_t h = 0; h < 5; ++h) problem.eigenvalue(h) = eigenvalues[h];
  ssd_truth const truth(problem.inputs(), problem.initial);
  EXPECT_LE(worst_error(run_ssd(one_thread, problem.inputs(), problem.initial), truth), 1);

  auto held = problem.inputs();  // Δ = 0: states are held, exactly
  held.step_rule.limits = {0, 0};
  held.gate = {};
  held.D = {};
  auto const found = run_ssd(one_thread, held, problem.initial);
  EXPECT_TRUE(found.carry == problem.initial);
}

TEST(StateSpaceDualOptions, GrowthOverflowsNoSoonerThanTheStates) {
  ssd_problem<float> problem({1, 48, 2, 16, 1, 16});
  problem.eigenvalue(0) = 2;  // e^2 a step: beyond the largest float after 45 steps
  problem.eigenvalue(1) = 40;
  auto inputs = problem.inputs();
  inputs.step_rule.limits = {1, 1};
  std::fill(problem.initial.begin(), problem.initial.end(), 0.0F);
  for (index_t t = 0; t < 40; ++t)
    for (index_t p = 0; p < 16; ++p) problem.x(0, t, 0, p) = problem.x(0, t, 1, p) = 0;
  for (index_t t = 40; t < 48; ++t)
    for (index_t p = 0; p < 16; ++p) problem.x(0, t, 1, p) = 0;
  ssd_truth const truth(inputs, problem.initial);
  auto const found = run_ssd(one_thread, inputs, problem.initial);
  EXPECT_LE(worst_error(found, truth), 1);
  for (index_t p = 0; p < 16; ++p) EXPECT_EQ(found.y(0, 47, 1, p), 0);  // no 0·∞
}

// Drives are divided by the decays before them: up to 2^63 here, by which these would overflow.
TEST(StateSpaceDualOptions, LargeInputsOverflowNoSoonerThanTheStates) {
  ssd_problem<float> problem({1, 64, 2, 16, 1, 16});
  problem.eigenvalue(0) = problem.eigenvalue(1) = -1.4F;
  auto inputs = problem.inputs();
  inputs.step_rule.limits = {0, 1};
  std::fill(problem.step_size.begin(), problem.step_size.end(), 5.0F);
  for (index_t t = 20; t < 64; t += 3)
    for (index_t p = 0; p < 16; ++p) problem.x(0, t, 1, p) *= 1e33F;
  for (index_t t = 41; t < 64; t += 12) problem.step_size(0, t, 1) = -60;  // D x alone is large
  ssd_truth const truth(inputs, problem.initial);
  auto const found = run_ssd(one_thread, inputs, problem.initial);
  EXPECT_LE(worst_error(found, truth), 1);
  for (float y : found.y) EXPECT_TRUE(std::isfinite(y));
}

TEST(StateSpaceDualOptions, SavesTheStatesThatEnterBlocks) {
  ssd_problem<float> const problem({1, 300, 2, 20, 1, 24});
  auto const sequence = sequence_index(std::vector<index_t>{0, 256, 300});
  auto inputs = problem.inputs();
  inputs.sequence = sequence.view();
  tensor<float, 5> states({1, 10, 2, 20, 24}, std::numeric_limits<float>::quiet_NaN());
  tensor<float, 4> ungated(problem.x.extents(), std::numeric_limits<float>::quiet_NaN());
  state_space_dual_saved<float> const saved{states.view(), ungated.view()};
  auto carry = problem.initial;
  tensor<float, 4> y(problem.x.extents());
  state_space_dual(one_thread, inputs, carry.view(), y.view(), saved);
  auto const plain = run_ssd(one_thread, inputs, problem.initial);
  EXPECT_TRUE(plain.y == y);
  EXPECT_TRUE(plain.carry == carry);

  EXPECT_TRUE(materialized(states.const_view().select(1, 0)) == problem.initial);
  for (index_t p = 0; p < 20; ++p) EXPECT_EQ(states(0, 8, 0, p, 0), 0);  // begins a sequence
  auto part = problem.inputs();
  for (auto* view : {&part.x, &part.gate, &part.B, &part.C}) *view = view->slice(1, 0, 32);
  part.step_size = part.step_size.slice(1, 0, 32);
  EXPECT_TRUE(materialized(states.const_view().select(1, 1)) ==
              run_ssd(one_thread, part, problem.initial).carry);
  inputs.gate = {};
  EXPECT_TRUE(run_ssd(one_thread, inputs, problem.initial).y == ungated);
}

TEST(StateSpaceDualOptions, WhatIsWrittenPastTheCachesHasTheSameBits) {
  ssd_problem<float> const problem({1, 1100, 32, 64, 1, 8});  // y has 9 MB
  auto const inputs = problem.inputs();
  auto const run = [&](tensor_view<float, 4> y, tensor_view<float, 5> states,
                       tensor_view<float, 4> ungated) {
    auto carry = problem.initial;
    state_space_dual(parallel{.threads = 2}, inputs, carry.view(), y, {states, ungated});
  };
  tensor<float, 4> y(problem.x.extents()), ungated(problem.x.extents());
  tensor<float, 5> states({1, 35, 32, 64, 8});
  auto const in_rows = channels_innermost(states.view());
  run(y.view(), in_rows, ungated.view());

  tensor<float, 4> wide_y({1, 1100, 32, 65}), wide_ungated({1, 1100, 32, 65});
  tensor<float, 5> states_by_channel({1, 35, 32, 64, 8});
  auto const odd_y = wide_y.view().slice(3, 1, 64),
             odd_ungated = wide_ungated.view().slice(3, 1, 64);
  run(odd_y, states_by_channel.view(), odd_ungated);
  EXPECT_TRUE(materialized(tensor_view<float const, 4>(odd_y)) == y);
  EXPECT_TRUE(materialized(tensor_view<float const, 4>(odd_ungated)) == ungated);
  EXPECT_TRUE(materialized(tensor_view<float const, 5>(in_rows)) == states_by_channel);
}

}  // namespace
