// SPDX-License-Identifier: Apache-2.0
// execution_test.cpp: how policies cut time, how windows walk it, and sums that any threads share.
#include "ssm/execution.hpp"

#include <gtest/gtest.h>

#include "ssm/detail/sum_into.hpp"
#include "support/oracle.hpp"
#include "support/random_tensor.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;
using ssm::detail::plan;
using ssm::detail::sum_into;

TEST(Execution, OnlyTheThreePoliciesArePolicies) {
  EXPECT_TRUE(execution_policy<sequential>);
  EXPECT_TRUE(execution_policy<chunked>);
  EXPECT_TRUE(execution_policy<parallel>);
  EXPECT_FALSE(execution_policy<int>);
  EXPECT_FALSE(execution_policy<parallel const&>);
}

TEST(Execution, ForwardWindowVisitsEveryStepInOrderAndBackwardInReverse) {
  for (index_t const length : {0, 1, 2, 13}) {
    auto const forward = whole(length, direction::forward);
    auto const backward = whole(length, direction::backward);
    EXPECT_EQ(forward.count, length);
    EXPECT_EQ(backward.count, length);
    for (index_t i = 0; i < length; ++i) {
      EXPECT_EQ(forward(i), i);
      EXPECT_EQ(backward(i), length - 1 - i);
    }
  }
}

TEST(Execution, PartOfAWindowVisitsTheSameTimesAsTheWindow) {
  for (direction const order : {direction::forward, direction::backward}) {
    auto const all = whole(11, order);
    for (index_t begin = 0; begin <= 11; ++begin) {
      auto const part = all.part(begin, 11 - begin);
      for (index_t i = 0; i < part.count; ++i) EXPECT_EQ(part(i), all(begin + i));
      auto const inner = part.part(part.count / 2, part.count - part.count / 2);
      for (index_t i = 0; i < inner.count; ++i) EXPECT_EQ(inner(i), part(part.count / 2 + i));
    }
  }
}

TEST(Execution, SequentialNeverCutsTime) {
  for (index_t const length : {0, 1, 100000}) {
    auto const p = plan(sequential{}, 5, length);
    EXPECT_EQ(p.threads, 1);
    EXPECT_GE(p.chunk, length);
    EXPECT_GE(p.chunk, 1);
  }
}

TEST(Execution, ChunkAndThreadsAreTakenAsGiven) {
  EXPECT_EQ(plan(chunked{.length = 7}, 3, 100).chunk, 7);
  EXPECT_EQ(plan(chunked{.length = 7}, 3, 100).threads, 1);
  EXPECT_EQ(plan(parallel{.threads = 5, .chunk = 9}, 3, 100).chunk, 9);
  EXPECT_EQ(plan(parallel{.threads = 5, .chunk = 9}, 3, 100).threads, 5);
}

TEST(Execution, DefaultChunkFollowsFromTheShapeAloneAndIsNeverShort) {
  for (index_t const lanes : {0, 1, 2, 3, 63, 64, 65, 1000}) {
    for (index_t const length : {0, 1, 1023, 1024, 1025, 65536, 1000003}) {
      index_t const chunk = plan(parallel{.threads = 1}, lanes, length).chunk;
      EXPECT_GE(chunk, ssm::detail::shortest_default_chunk);
      for (int const threads : {0, 2, 3, 7}) {
        EXPECT_EQ(plan(parallel{.threads = threads}, lanes, length).chunk, chunk);
      }
      if (lanes >= ssm::detail::default_pieces) {
        EXPECT_GE(chunk, length) << "time is cut though lanes are many: " << lanes;
      }
    }
  }
  EXPECT_LT(plan(parallel{}, 1, 1000003).chunk, 1000003) << "one long lane is not cut";
}

TEST(Execution, SettingThatCannotWorkThrowsAndNamesTheField) {
  EXPECT_EQ(message_of<shape_error>([] { plan(chunked{.length = 0}, 1, 1); }),
            "chunked: length is 0, expected at least 1");
  EXPECT_EQ(message_of<shape_error>([] { plan(chunked{.length = -4}, 1, 1); }),
            "chunked: length is -4, expected at least 1");
  EXPECT_EQ(message_of<shape_error>([] { plan(parallel{.threads = -1}, 1, 1); }),
            "parallel: threads is -1, expected 0 (all) or more");
  EXPECT_EQ(message_of<shape_error>([] { plan(parallel{.threads = 1, .chunk = -2}, 1, 1); }),
            "parallel: chunk is -2, expected 0 (from the shape) or more");
}

/// What sum_into should give, from its definition: every term once, in the order b, i, c, n.
tensor<double, 4> plain_sum(tensor<double, 4> into, tensor<double, 4> const& terms,
                            time_window const& window, index_array<4> const& is_summed) {
  for_each_position(terms.extents(), [&](index_array<4> const& p) {
    index_array<4> to{p[0], window(p[1]), p[2], p[3]};
    for (int axis = 0; axis < 4; ++axis) to[axis] = is_summed[axis] ? 0 : to[axis];
    at(into.view(), to) += at(terms.view(), p);
  });
  return into;
}

TEST(SumInto, AddsEveryTermOnceOverAnySetOfSummedAxesAndThreads) {
  index_array<4> const shape{2, 5, 3, 4};
  for (int axes = 0; axes < 16; ++axes) {
    index_array<4> const is_summed{axes & 1, axes >> 1 & 1, axes >> 2 & 1, axes >> 3 & 1};
    index_array<4> kept = shape;
    for (int axis = 0; axis < 4; ++axis) kept[axis] = is_summed[axis] ? 1 : shape[axis];
    for (direction const order : {direction::forward, direction::backward}) {
      auto const window = whole(5, order).part(1, 3);
      auto const terms = random_tensor<double>({2, 3, 3, 4}, 11);
      auto const before = random_tensor<double>({kept[0], kept[1], kept[2], kept[3]}, 12);
      auto const expected = plain_sum(before, terms, window, is_summed);
      for (int const threads : {1, 2, 3, 7}) {
        auto found = before;
        index_array<4> strides = found.view().strides();
        for (int axis = 0; axis < 4; ++axis) {
          if (is_summed[axis]) strides[axis] = 0;
        }
        sum_into(threads, window, trajectory_view<double>{found.data(), shape, strides},
                 [&](index_t b, index_t i, index_t c, index_t n) { return terms(b, i, c, n); });
        EXPECT_TRUE(has_same_bits(found, expected))
            << "summed axes " << to_string(is_summed) << ", threads " << threads;
      }
    }
  }
}

TEST(SumInto, EmptyViewTakesNothingAndEmptyWindowAddsNothing) {
  auto const never = [](index_t, index_t, index_t, index_t) -> double {
    ADD_FAILURE() << "a term was asked for";
    return 0;
  };
  sum_into(2, whole(5, direction::forward), trajectory_view<double>{}, never);
  auto values = random_tensor<double>({2, 5, 3, 4}, 13);
  auto const before = values;
  sum_into(2, time_window{}, values.view(), never);
  EXPECT_TRUE(has_same_bits(values, before));
}

}  // namespace
