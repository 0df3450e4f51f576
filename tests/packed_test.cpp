// SPDX-License-Identifier: Apache-2.0
// packed_test.cpp: several sequences in one row, told apart by their index.
#include "ssm/packed.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <limits>
#include <vector>

#include "support/oracle.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

std::vector<std::int32_t> index_of(std::vector<index_t> const& offsets) {
  auto const index = sequence_index(offsets);
  EXPECT_EQ(index.extent(0), 1);
  return {index.begin(), index.end()};
}

TEST(Packed, IndexCountsSequencesAndSkipsEmptyOnes) {
  EXPECT_EQ(index_of({0, 2, 3, 6}), (std::vector<std::int32_t>{0, 0, 1, 2, 2, 2}));
  EXPECT_EQ(index_of({0, 0, 2, 2, 2, 3}), (std::vector<std::int32_t>{1, 1, 4}));
  EXPECT_TRUE(index_of({0}).empty());
  EXPECT_TRUE(index_of({0, 0}).empty());
}

TEST(Packed, OffsetsMustBeginWith0AndNotFall) {
  auto const message = [](std::vector<index_t> const& offsets) {
    return message_of<shape_error>([&] { sequence_index(offsets); });
  };
  EXPECT_EQ(message({1, 2}), "sequence_index: offsets begin with 1, expected 0");
  EXPECT_EQ(message({-3, 2}), "sequence_index: offsets begin with -3, expected 0");
  EXPECT_EQ(message({0, 4, 3}),
            "sequence_index: offsets fall from 4 to 3, expected never less than before");
  EXPECT_EQ(message({}), "sequence_index: offsets are empty, expected 0 first");
}

TEST(Packed, SequencesStartWhereTheIndexChangesAndNotAtTheFirstStep) {
  tensor<std::int32_t, 2> index({2, 5});
  std::int32_t const numbers[] = {7, 7, 8, 8, 20, -5, -4, -4, -4, -4};
  std::copy(std::begin(numbers), std::end(numbers), index.begin());
  bool const starts[2][5] = {{false, false, true, false, true}, {false, true, false, false, false}};
  for (index_t b = 0; b < 2; ++b)
    for (index_t t = 0; t < 5; ++t) {
      EXPECT_EQ(starts_sequence(index, b, t), starts[b][t]) << b << ", " << t;
      EXPECT_FALSE(starts_sequence({}, b, t));
      for (index_t end = t + 1; end <= 5; ++end) {
        index_t expected = t + 1;
        while (expected < end && !starts[b][expected]) ++expected;
        EXPECT_EQ(end_of_sequence(index, b, t, end), expected);
        EXPECT_EQ(end_of_sequence({}, b, t, end), end);
      }
    }
}

TEST(Packed, IndexMustFitAndNotFall) {
  tensor<std::int32_t, 2> index({2, 3});
  auto const message = [&](index_t batch, index_t length) {
    return message_of<shape_error>([&] { require_sequence(index, batch, length, "sequence"); });
  };
  EXPECT_EQ(message(2, 3), "no exception");
  EXPECT_EQ(message(2, 4), "sequence has shape (2, 3), expected (2, 4) (batch, time)");
  EXPECT_EQ(message(3, 3), "sequence has shape (2, 3), expected (3, 3) (batch, time)");
  index(1, 0) = std::numeric_limits<std::int32_t>::max();
  EXPECT_EQ(message(2, 3),
            "sequence falls from 2147483647 to 0 at (1, 1), expected never less than before");
  EXPECT_EQ(message_of<shape_error>([] { require_sequence({}, 2, 3, "sequence"); }),
            "no exception");
}

}  // namespace
