// SPDX-License-Identifier: Apache-2.0
// tensor_view_test.cpp: where a strided view finds its elements, and what its shapes must be.
#include "ssm/tensor_view.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <type_traits>
#include <vector>

#include "support/oracle.hpp"

namespace {

using namespace ssm;
using ssm::test::message_of;

/// 0, 1, 2, ... so that an element says where it lies.
std::vector<int> counted(index_t size) {
  std::vector<int> numbers(static_cast<std::size_t>(size));
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

TEST(TensorView, ContiguousViewHasTheLastAxisFastest) {
  auto memory = counted(2 * 3 * 5);
  tensor_view<int, 3> const view{memory.data(), {2, 3, 5}};
  int expected = 0;
  for (index_t i = 0; i < 2; ++i)
    for (index_t j = 0; j < 3; ++j)
      for (index_t k = 0; k < 5; ++k) EXPECT_EQ(view(i, j, k), expected++);
  EXPECT_EQ(view.size(), 30);
  EXPECT_EQ(view.strides(), (index_array<3>{15, 5, 1}));
  EXPECT_TRUE(view.is_contiguous());
}

TEST(TensorView, ElementIsAtTheSumOfPositionTimesStrideForAnyStrides) {
  auto memory = counted(100);
  for (index_t const outer : {-7, 0, 1, 11}) {
    for (index_t const inner : {-3, 0, 1, 2}) {
      tensor_view<int, 2> const view{memory.data() + 50, {4, 3}, {outer, inner}};
      for (index_t i = 0; i < 4; ++i)
        for (index_t j = 0; j < 3; ++j) {
          EXPECT_EQ(view(i, j), 50 + i * outer + j * inner) << outer << ' ' << inner;
        }
    }
  }
}

TEST(TensorView, IndexTypesOfEveryIntegerKindAddressTheSameElement) {
  auto memory = counted(6);
  tensor_view<int, 2> const view{memory.data(), {2, 3}};
  EXPECT_EQ(view(1, 2), 5);
  EXPECT_EQ(view(std::size_t{1}, short{2}), 5);
  EXPECT_EQ(view(1u, index_t{2}), 5);
}

TEST(TensorView, DefaultViewIsEmptyAndHasNoData) {
  tensor_view<float, 3> const view;
  EXPECT_TRUE(view.empty());
  EXPECT_EQ(view.size(), 0);
  EXPECT_EQ(view.data_handle(), nullptr);
  EXPECT_EQ(view.slice(0, 0, 0).data_handle(), nullptr);
  EXPECT_EQ(view.reversed(1).data_handle(), nullptr);
  EXPECT_EQ(view.broadcast(0, 5).data_handle(), nullptr);
  EXPECT_EQ(view.select(2, 0).data_handle(), nullptr);
}

TEST(TensorView, ViewWithAnyExtentZeroIsEmpty) {
  int element = 0;
  EXPECT_TRUE((tensor_view<int, 3>{&element, {0, 2, 3}}).empty());
  EXPECT_TRUE((tensor_view<int, 3>{&element, {2, 0, 3}}).empty());
  EXPECT_TRUE((tensor_view<int, 3>{&element, {2, 3, 0}}).empty());
  EXPECT_FALSE((tensor_view<int, 3>{&element, {1, 1, 1}}).empty());
  EXPECT_EQ((tensor_view<int, 2>{&element, {0, 4}}).reversed(0).data_handle(), &element);
}

TEST(TensorView, IsContiguousWhereThereAreNoElements) {
  int element = 0;
  EXPECT_TRUE((tensor_view<int, 3>{}.is_contiguous()));
  EXPECT_TRUE((tensor_view<int, 2>{&element, {0, 4}, {7, 3}}.is_contiguous()));
}

TEST(TensorView, ContiguityOfElementsIgnoresAxesOfExtentOneAndNothingElse) {
  auto memory = counted(30);
  auto const strided = [&](index_array<3> const& extents, index_array<3> const& strides) {
    return tensor_view<int, 3>{memory.data(), extents, strides}.is_contiguous();
  };
  EXPECT_TRUE(strided({2, 3, 5}, {15, 5, 1}));
  EXPECT_TRUE(strided({2, 1, 5}, {5, -99, 1}));
  EXPECT_TRUE(strided({1, 3, 1}, {0, 1, 42}));
  EXPECT_FALSE(strided({2, 3, 5}, {1, 2, 6}));    // first axis fastest
  EXPECT_FALSE(strided({2, 3, 4}, {15, 5, 1}));   // gaps
  EXPECT_FALSE(strided({2, 3, 5}, {0, 5, 1}));    // broadcast
  EXPECT_FALSE(strided({2, 3, 5}, {15, 5, -1}));  // reversed
}

TEST(TensorView, SliceSeesTheCutStretchOfOneAxis) {
  auto memory = counted(2 * 7 * 3);
  tensor_view<int, 3> const view{memory.data(), {2, 7, 3}};
  for (index_t first = 0; first <= 7; ++first) {
    for (index_t count = 0; first + count <= 7; ++count) {
      auto const part = view.slice(1, first, count);
      EXPECT_EQ(part.extents(), (index_array<3>{2, count, 3}));
      for (index_t b = 0; b < 2; ++b)
        for (index_t t = 0; t < count; ++t)
          for (index_t c = 0; c < 3; ++c) EXPECT_EQ(&part(b, t, c), &view(b, first + t, c));
    }
  }
}

TEST(TensorView, ReversedReadsAnAxisFromItsEndAndTwiceIsTheViewItself) {
  auto memory = counted(2 * 5);
  tensor_view<int, 2> const view{memory.data(), {2, 5}};
  for (int axis = 0; axis < 2; ++axis) {
    auto const mirror = view.reversed(axis);
    for (index_t i = 0; i < 2; ++i)
      for (index_t j = 0; j < 5; ++j) {
        EXPECT_EQ(&mirror(i, j), axis == 0 ? &view(1 - i, j) : &view(i, 4 - j));
        EXPECT_EQ(&mirror.reversed(axis)(i, j), &view(i, j));
      }
    EXPECT_FALSE(mirror.is_contiguous());
  }
}

TEST(TensorView, BroadcastShowsTheViewAtEveryIndexOfTheNewAxis) {
  auto memory = counted(2 * 3);
  tensor_view<int, 2> const view{memory.data(), {2, 3}};
  for (int axis = 0; axis <= 2; ++axis) {
    auto const wide = view.broadcast(axis, 4);
    EXPECT_EQ(wide.extent(axis), 4);
    EXPECT_EQ(wide.stride(axis), 0);
    EXPECT_EQ(wide.size(), 24);
    for (index_t k = 0; k < 4; ++k)
      for (index_t i = 0; i < 2; ++i)
        for (index_t j = 0; j < 3; ++j) {
          int const& found = axis == 0 ? wide(k, i, j) : axis == 1 ? wide(i, k, j) : wide(i, j, k);
          EXPECT_EQ(&found, &view(i, j)) << "axis " << axis;
        }
  }
}

TEST(TensorView, SelectDropsTheAxisAndUndoesBroadcast) {
  auto memory = counted(2 * 3 * 4);
  tensor_view<int, 3> const view{memory.data(), {2, 3, 4}};
  for (index_t k = 0; k < 3; ++k) {
    auto const plane = view.select(1, k);
    EXPECT_EQ(plane.extents(), (index_array<2>{2, 4}));
    for (index_t i = 0; i < 2; ++i)
      for (index_t j = 0; j < 4; ++j) EXPECT_EQ(&plane(i, j), &view(i, k, j));
    auto const back = view.broadcast(2, 9).select(2, k);
    EXPECT_EQ(back.extents(), view.extents());
    EXPECT_EQ(back.strides(), view.strides());
    EXPECT_EQ(back.data_handle(), view.data_handle());
  }
}

TEST(TensorView, SlicesOfReversedBroadcastViewsCompose) {
  auto memory = counted(7);
  tensor_view<int, 1> const view{memory.data(), {7}};
  auto const part = view.reversed(0).broadcast(0, 3).slice(1, 2, 3);  // (3, 3): 4, 3, 2 each
  for (index_t i = 0; i < 3; ++i)
    for (index_t j = 0; j < 3; ++j) EXPECT_EQ(part(i, j), 4 - j);
}

TEST(TensorView, MutableConvertsToConstantAndNothingElseConverts) {
  using view = tensor_view<float, 3>;
  EXPECT_TRUE((std::is_convertible_v<view, tensor_view<float const, 3>>));
  EXPECT_FALSE((std::is_convertible_v<tensor_view<float const, 3>, view>));
  EXPECT_FALSE((std::is_convertible_v<view, tensor_view<double const, 3>>));
  EXPECT_FALSE((std::is_convertible_v<view, tensor_view<float const, 2>>));
  EXPECT_FALSE((std::is_convertible_v<view, tensor_view<float, 3, memory::device>>));
  EXPECT_FALSE((std::is_convertible_v<view, tensor_view<float const, 3, memory::device>>));
}

TEST(TensorView, ConversionKeepsDataExtentsAndStrides) {
  auto memory = counted(20);
  tensor_view<int, 2> const view{memory.data() + 10, {2, 3}, {-4, 2}};
  tensor_view<int const, 2> const constant = view;
  EXPECT_EQ(constant.data_handle(), view.data_handle());
  EXPECT_EQ(constant.extents(), view.extents());
  EXPECT_EQ(constant.strides(), view.strides());
}

TEST(TensorView, IsTriviallyCopyableSoThatKernelsTakeItByValue) {
  EXPECT_TRUE((std::is_trivially_copyable_v<tensor_view<float, 4>>));
  EXPECT_TRUE((std::is_trivially_copyable_v<tensor_view<float const, 1, memory::device>>));
  EXPECT_TRUE((std::is_trivially_copyable_v<index_array<3>>));
}

TEST(TensorView, WorksInConstantExpressions) {
  constexpr auto middle = [] {
    int memory[] = {1, 2, 3, 4, 5, 6};
    tensor_view<int, 2> const view{memory, {2, 3}};
    return view.select(0, 1).reversed(0)(0) * 10 + view.slice(1, 1, 2)(0, 0);
  }();
  static_assert(middle == 62);
}

TEST(TensorView, RequireShapeNamesArgumentFoundAndExpected) {
  float element = 0;
  tensor_view<float, 3> const carry{&element, {2, 3, 4}};
  EXPECT_NO_THROW(require_shape(carry, {2, 3, 4}, "scan: carry", "batch, channel, state"));
  EXPECT_EQ(message_of<shape_error>([&] {
              require_shape(carry, {2, 3, 5}, "scan: carry", "batch, channel, state");
            }),
            "scan: carry has shape (2, 3, 4), expected (2, 3, 5) (batch, channel, state)");
}

TEST(TensorView, ShapesPrintInParentheses) {
  EXPECT_EQ(to_string(index_array<1>{7}), "(7)");
  EXPECT_EQ(to_string(index_array<3>{2, -1, 0}), "(2, -1, 0)");
}

}  // namespace
