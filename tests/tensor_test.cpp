// SPDX-License-Identifier: Apache-2.0
// tensor_test.cpp: ownership, copies and views of host tensors.
#include "ssm/tensor.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <type_traits>
#include <utility>

#include "support/oracle.hpp"
#include "support/random_tensor.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

double sum(tensor_view<double const, 2> view) {
  double total = 0;
  for_each_position(view.extents(), [&](auto const& position) { total += at(view, position); });
  return total;
}

TEST(Tensor, EveryElementStartsAsTheValueGivenOrElseAsZero) {
  for (float const element : tensor<float, 3>({2, 3, 5}, 1.5f)) EXPECT_EQ(element, 1.5f);
  for (float const element : tensor<float, 3>({2, 3, 5})) EXPECT_EQ(element, 0.0f);
}

TEST(Tensor, ElementsAreContiguousWithTheLastAxisFastest) {
  auto numbers = random_tensor<double>({3, 4, 5}, 1);
  EXPECT_TRUE(numbers.view().is_contiguous());
  double const* next = numbers.data();
  for (index_t i = 0; i < 3; ++i)
    for (index_t j = 0; j < 4; ++j)
      for (index_t k = 0; k < 5; ++k) EXPECT_EQ(&numbers(i, j, k), next++);
  EXPECT_EQ(next, numbers.data() + numbers.size());
}

TEST(Tensor, OfAnySizeBeginsWithACacheLineAndEndsAsItBegins) {
  for (index_t const size :
       {1, 1000, (1 << 20) - 1, 1 << 20, 3000001}) {  // huge pages from 2^20 on
    tensor<float, 1> const numbers({size}, 2.5f);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(numbers.data()) % 64, 0u) << size;
    EXPECT_EQ(numbers(0), 2.5f) << size;
    EXPECT_EQ(numbers(size - 1), 2.5f) << size;
  }
}

TEST(Tensor, ExtentOfZeroOnAnyAxisLeavesNoElement) {
  EXPECT_EQ((tensor<double, 3>({0, 3, 5}).size()), 0);
  EXPECT_EQ((tensor<double, 3>({2, 0, 5}).size()), 0);
  EXPECT_EQ((tensor<double, 3>({2, 3, 0}).size()), 0);
  EXPECT_TRUE((tensor<double, 3>({2, 3, 0}).view().empty()));
  EXPECT_EQ((tensor<double, 3>{}.extents()), (index_array<3>{0, 0, 0}));
}

TEST(Tensor, NegativeExtentThrowsAndNamesTheExtents) {
  EXPECT_EQ(message_of<shape_error>([] {
              tensor<float, 3>({2, -1, 4});
            }),
            "tensor: extents (2, -1, 4) hold a negative number, expected none");
}

TEST(Tensor, ViewsShareTheElementsAndOneAxisMayBeAll) {
  auto numbers = random_tensor<double>({2, 7}, 2);
  numbers.view()(1, 6) = 42;
  EXPECT_EQ(numbers(1, 6), 42);
  EXPECT_EQ(numbers.const_view().data_handle(), numbers.data());
  tensor<double, 1> one_axis({3}, 2.0);
  EXPECT_EQ(one_axis(2), 2.0);
}

TEST(Tensor, CopiesHoldElementsOfTheirOwn) {
  auto const original = random_tensor<double>({2, 3}, 3);
  auto copy = original;
  EXPECT_EQ(copy, original);
  EXPECT_NE(copy.data(), original.data());
  copy(1, 2) += 1;
  EXPECT_NE(copy, original);
}

TEST(Tensor, MovesKeepTheElementsWhereTheyAre) {
  auto original = random_tensor<double>({2, 3}, 4);
  double const* const data = original.data();
  auto const moved = std::move(original);
  EXPECT_EQ(moved.data(), data);
}

TEST(Tensor, ShapesThatDifferAreUnequalEvenWithTheSameElements) {
  EXPECT_NE((tensor<double, 2>({2, 3})), (tensor<double, 2>({3, 2})));
}

TEST(Tensor, PassesAsAViewOfConstantElements) {
  auto numbers = random_tensor<double>({3, 3}, 5);
  auto const& constant = numbers;
  EXPECT_EQ(sum(numbers), sum(constant));
  EXPECT_EQ(sum(numbers), sum(numbers.view()));
}

TEST(Tensor, ConstantTensorGivesNoWayToChangeAnElement) {
  using constant = tensor<double, 2> const;
  EXPECT_FALSE((std::is_convertible_v<constant&, tensor_view<double, 2>>));
  EXPECT_TRUE((std::is_same_v<decltype(std::declval<constant&>()(0, 0)), double const&>));
  EXPECT_TRUE((std::is_same_v<decltype(std::declval<constant&>().data()), double const*>));
}

}  // namespace
