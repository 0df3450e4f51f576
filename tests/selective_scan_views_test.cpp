// SPDX-License-Identifier: Apache-2.0
// selective_scan_views_test.cpp: what must not change a bit of selective_scan: threads, strides,
// packing; what is stored beside y; and storage in 16 bits.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "compiled/selective_scan.hpp"

#include "support/oracle.hpp"
#include "support/selective_scan_problem.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

constexpr instruction_set sets[] = {instruction_set::baseline, instruction_set::avx2,
                                    instruction_set::avx512};

template <class T>
void expect_same(selective_outcome<T> const& found, selective_outcome<T> const& expected) {
  EXPECT_TRUE(has_same_bits(found.y, expected.y)) << "y";
  EXPECT_TRUE(has_same_bits(found.carry, expected.carry)) << "final state";
}

TEST(SelectiveScanViews, ThreadsChangeNoBit) {
  for (scan_shape const& s : {scan_shape{1, 33, 130, 64}, {3, 64, 257, 6}, {2, 5, 1700, 16}}) {
    auto const p = random_selective<float>(s, 1, selective_options::all(), 100);
    ASSERT_GE(s.batch * s.length * s.channels * s.states, ssm::detail::least_parallel_work);
    auto const expected = run_selective(parallel{1}, p);
    for (int const threads : {0, 2, 3, 7}) {
      SCOPED_TRACE(p.name() + ", threads " + std::to_string(threads));
      expect_same(run_selective(parallel{threads}, p), expected);
    }
  }
}

/// Every input, the state and the output in `scattered` memory.
template <class Policy>
void expect_right_from_scattered(Policy policy, selective_problem<float> const& p, bool same_bits) {
  scattered<float, 3> const x(p.x), step_size(p.step_size), gate(p.gate), carry(p.initial);
  scattered<float, 4> const B(p.B), C(p.C);
  scattered<float, 2> const eigenvalue(p.eigenvalue), linear(p.linear), power(p.power);
  scattered<float, 1> const D(p.D), step_bias(p.step_bias), step(p.step);
  scattered<float, 3> const y(poisoned<float>({p.shape.batch, p.shape.length, p.shape.channels}));
  auto in = p.inputs();
  in.x = x, in.step_size = step_size, in.gate = gate, in.B = B, in.C = C;
  in.eigenvalue = eigenvalue, in.D = D, in.step_bias = step_bias;
  in.scaling = {.linear = linear, .power = power, .step = step};
  selective_scan(policy, in, carry.view(), y.view());
  EXPECT_EQ(y.overwritten() + carry.overwritten(), 0);
  selective_outcome<float> const found{materialized(y.view()), materialized(carry.view())};
  if (same_bits) expect_same(found, run_selective(policy, p));
  selective_truth const truth(converted_problem<double>(p));
  EXPECT_LE(worst_ratio(found.y, truth.y, truth.y_bound), 1);
  EXPECT_LE(worst_ratio(found.carry, truth.carry, truth.carry_bound), 1);
}

TEST(SelectiveScanViews, NegativeAndSteppedStridesChangeNoBit) {
  auto const p = random_selective<float>({2, 41, 18, 7}, 2, selective_options::all(), 200);
  for (auto const set : sets) expect_right_from_scattered(parallel{1, 0, set}, p, true);
  expect_right_from_scattered(sequential{}, p, true);
}

// Short calls update contiguous states where they lie, others in a workspace: the order of Σ
// differs.
TEST(SelectiveScanViews, ShortCallsTakeAnyStrides) {
  for (index_t const states : {7, 16}) {
    auto const p = random_selective<float>({2, 3, 18, states}, 2, selective_options::all(), 300);
    for (auto const set : sets) expect_right_from_scattered(parallel{1, 0, set}, p, false);
  }
}

// x, gate, step_size, B and C as columns of one matrix, states and y as parts of larger ones.
TEST(SelectiveScanViews, ColumnsOfAProjectionChangeNoBit) {
  index_t const channels = 35, states = 16;
  for (index_t const length : {1, 7, 40})
    for (auto const set : sets) {
      auto const p =
          random_selective<float>({2, length, channels, states}, 1, selective_options::all(), 400);
      tensor<float, 3> projection({2, length, 3 * channels + 2 * states + 1});
      index_t next = 1;  // so that nothing is aligned
      auto const columns = [&](index_t count) {
        next += count;
        return projection.view().slice(2, next - count, count);
      };
      auto const copied = [](auto const& to, auto const& from) {
        for_each_position(to.extents(), [&](auto const& i) { at(to, i) = at(from, i); });
        return to;
      };
      auto in = p.inputs();
      in.x = copied(columns(channels), p.x.view());
      in.gate = copied(columns(channels), p.gate.view());
      in.step_size = copied(columns(channels), p.step_size.view());
      in.B = copied(columns(states).broadcast(2, 1), p.B.view());
      in.C = copied(columns(states).broadcast(2, 1), p.C.view());
      auto all = poisoned<float>({2, length, channels + 9});
      auto states_of_all = poisoned<float>({2, channels + 4, states});
      auto const y = all.view().slice(2, 5, channels);
      auto const carry = copied(states_of_all.view().slice(1, 3, channels), p.initial.view());
      selective_scan(parallel{1, 0, set}, in, carry, y);
      expect_same({materialized(y), materialized(carry)}, run_selective(parallel{1, 0, set}, p));
      EXPECT_TRUE(is_poisoned(materialized(all.view().slice(2, 0, 5))));
      EXPECT_TRUE(is_poisoned(materialized(all.view().slice(2, 5 + channels, 4))));
      EXPECT_TRUE(is_poisoned(materialized(states_of_all.view().slice(1, 0, 3))));
      EXPECT_TRUE(is_poisoned(materialized(states_of_all.view().slice(1, 3 + channels, 1))));
    }
}

TEST(SelectiveScanViews, ConstantBAndCAreViewsOfStride0) {
  for (index_t const states : {5, 16}) {
    auto p = random_selective<float>({2, 40, 9, states}, 1, {}, 500);
    auto const B = p.B.view().slice(1, 0, 1).select(1, 0).broadcast(1, 40),
               C = p.C.view().slice(1, 0, 1).select(1, 0).broadcast(1, 40);
    tensor<float, 3> carry = p.initial;
    auto y = poisoned<float>({2, 40, 9});
    auto in = p.inputs();
    in.B = B, in.C = C;
    selective_scan(parallel{}, in, carry, y);
    p.B = tensor<float, 4>(materialized(B)), p.C = tensor<float, 4>(materialized(C));
    expect_same({y, carry}, run_selective(parallel{}, p));
  }
}

/// Two rows of sequences, of which row 1 begins as row 0 ends.
tensor<std::int32_t, 2> sequences_of(std::vector<index_t> const& lengths) {
  index_t total = 0;
  for (index_t const length : lengths) total += length;
  tensor<std::int32_t, 2> index({2, total});
  std::int32_t number = -3;
  for (index_t i = 0, t = 0; i < static_cast<index_t>(lengths.size()); ++i, number += 2)
    for (index_t k = 0; k < lengths[static_cast<std::size_t>(i)]; ++k, ++t) {
      index(0, t) = number;
      index(1, t) = number;
    }
  return index;
}

// Calls of at least 8 steps sum over states in the order of the packed run.
TEST(SelectiveScanViews, PackedSequencesEqualCallsOfTheirOwn) {
  std::vector<index_t> const all_lengths[] = {
      std::vector<index_t>(40, 1), {5, 60, 1, 1, 31, 2, 8, 32, 33}, {32, 32, 9}, {70}, {1, 69}};
  for (auto const& lengths : all_lengths) {
    auto const index = sequences_of(lengths);
    index_t const length = index.extent(1);
    auto p = random_selective<float>({2, length, 19, 9}, 1, {.packed = true}, 600);
    p.sequence = index;
    selective_truth const truth(converted_problem<double>(p));
    for (auto const set : sets) {
      parallel const policy{1, 0, set};
      auto const packed = run_selective(policy, p);
      EXPECT_LE(worst_ratio(packed.y, truth.y, truth.y_bound), 1);
      auto carry = p.initial;
      index_t first = 0;
      for (index_t const count : lengths) {
        auto in = p.inputs();
        for (auto* view : {&in.x, &in.step_size, &in.gate}) *view = view->slice(1, first, count);
        for (auto* view : {&in.B, &in.C}) *view = view->slice(1, first, count);
        in.sequence = {};
        if (first > 0) std::fill(carry.begin(), carry.end(), 0.f);
        auto y = poisoned<float>({2, count, 19});
        selective_scan(policy, in, carry, y);
        auto const part = [&](auto const& whole) {
          return materialized(whole.view().slice(1, first, count));
        };
        if (count >= ssm::detail::selective_scan_short_call) {
          EXPECT_TRUE(has_same_bits(y, part(packed.y))) << "from " << first;
        }
        EXPECT_LE(worst_ratio(y, part(truth.y), part(truth.y_bound)), 1) << "from " << first;
        first += count;
      }
      EXPECT_TRUE(has_same_bits(packed.carry, carry));
    }
  }
}

template <class Policy>
void expect_checkpoints(Policy policy, selective_problem<float> const& p) {
  scan_shape const& s = p.shape;
  index_t const blocks = (s.length + selective_scan_block - 1) / selective_scan_block;
  scattered<float, 4> const checkpoints(poisoned<float>({s.batch, blocks, s.states, s.channels}));
  auto carry = p.initial;
  auto y = poisoned<float>({s.batch, s.length, s.channels});
  selective_scan(policy, p.inputs(), carry, y, checkpoints.view());
  EXPECT_EQ(checkpoints.overwritten(), 0);
  expect_same({y, carry}, run_selective(policy, p));
  for (index_t k = 0; k < blocks; ++k) {
    auto entering = p.initial;
    auto in = p.inputs();
    index_t const t = k * selective_scan_block;
    for (auto* view : {&in.x, &in.step_size, &in.gate}) *view = view->slice(1, 0, t);
    for (auto* view : {&in.B, &in.C}) *view = view->slice(1, 0, t);
    if (p.options.packed) in.sequence = in.sequence.slice(1, 0, t);
    auto before = poisoned<float>({s.batch, t, s.channels});
    selective_scan(policy, in, entering, before);
    tensor<float, 3> found(entering.extents());
    for_each_position(found.extents(), [&](auto const& i) {
      auto const [b, c, n] = i.value;
      found(b, c, n) = checkpoints.view()(b, k, n, c);
      bool const starts = p.options.packed && t > 0 && p.sequence(b, t) != p.sequence(b, t - 1);
      if (starts) entering(b, c, n) = 0;
    });
    EXPECT_TRUE(has_same_bits(found, entering)) << "block " << k << ", " << p.name();
  }
}

TEST(SelectiveScanViews, CheckpointsAreTheStatesThatEnterEachBlock) {
  for (bool const packed : {false, true})
    for (index_t const length : {1, 8, 32, 33, 97}) {
      auto p = random_selective<float>({2, length, 21, 5}, 1, {.packed = packed}, 700);
      if (length == 97) p.sequence(1, 64) = ++p.sequence(1, 65), p.sequence(1, 96) += 9;
      for (index_t t = 1; t < length; ++t) {
        p.sequence(1, t) = std::max(p.sequence(1, t), p.sequence(1, t - 1));
      }
      expect_checkpoints(sequential{}, p);
      if (length < ssm::detail::selective_scan_short_call) continue;
      for (auto const set : sets) expect_checkpoints(parallel{1, 0, set}, p);
    }
}

/// What is stored in 16 bits is right to the bound in float and half a unit of the last place.
template <class T>
void expect_rounded_results(double unit, double smallest) {
  for (scan_shape const& s : {scan_shape{2, 3, 37, 16}, {2, 45, 37, 7}}) {
    auto const p = random_selective<T>(s, 1, selective_options::all(), 800);
    auto const exact = converted_problem<double>(p);
    selective_truth const truth(exact);
    auto const check = [&](auto policy) {
      auto const found = run_selective(policy, p);
      EXPECT_LE(worst_ratio(found.carry, truth.carry, truth.carry_bound), 1);
      tensor<double, 3> bound = truth.y_bound;
      for (index_t i = 0; i < bound.size(); ++i) {  // in eps of float
        double const rounding = std::max(unit / 2 * ssm::abs(truth.y.data()[i]), smallest / 2);
        bound.data()[i] += (1 + unit) * rounding / std::numeric_limits<float>::epsilon();
      }
      EXPECT_LE(worst_ratio(converted<float>(found.y), truth.y, bound), 1);
    };
    check(sequential{});
    for (auto const set : sets) check(parallel{1, 0, set});
  }
}

TEST(SelectiveScanViews, Bfloat16IsTheRoundedResultOfFloat) {
  expect_rounded_results<bfloat16>(0x1p-7, 0x1p-133);
}

TEST(SelectiveScanViews, Float16IsTheRoundedResultOfFloat) {
  expect_rounded_results<float16>(0x1p-10, 0x1p-24);
}

}  // namespace
