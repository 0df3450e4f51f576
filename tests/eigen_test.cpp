// SPDX-License-Identifier: Apache-2.0
// eigen_test.cpp: a view and the Eigen matrix made of it are the same elements.
#include "ssm/eigen.hpp"

#include <gtest/gtest.h>

#include <Eigen/Core>
#include <complex>
#include <type_traits>

#include "ssm/tensor.hpp"
#include "support/oracle.hpp"
#include "support/random_tensor.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

template <class Map, class T>
void expect_same_elements(Map const& map, tensor_view<T, 2> view) {
  ASSERT_EQ(map.rows(), view.extent(0));
  ASSERT_EQ(map.cols(), view.extent(1));
  for (index_t i = 0; i < view.extent(0); ++i)
    for (index_t j = 0; j < view.extent(1); ++j) {
      EXPECT_EQ(&map.coeffRef(i, j), &view(i, j)) << i << ", " << j;
    }
}

TEST(EigenMap, MatrixSharesTheElementsForAnyStridesThatAreNotNegative) {
  auto memory = random_tensor<double>({400}, 1);
  for (index_t const rows : {0, 1, 2, 7}) {
    for (index_t const columns : {0, 1, 3, 5}) {
      for (index_t const outer : {0, 1, 5, 13}) {
        for (index_t const inner : {0, 1, 2, 31}) {
          tensor_view<double, 2> const view{memory.data(), {rows, columns}, {outer, inner}};
          expect_same_elements(eigen_map(view), view);
        }
      }
    }
  }
}

TEST(EigenMap, VectorSharesTheElementsForAnyStrideThatIsNotNegative) {
  auto memory = random_tensor<float>({100}, 2);
  for (index_t const stride : {0, 1, 2, 9}) {
    tensor_view<float, 1> const view{memory.data(), {11}, {stride}};
    auto const vector = eigen_map(view);
    ASSERT_EQ(vector.size(), 11);
    for (index_t i = 0; i < 11; ++i)
      EXPECT_EQ(&vector.coeffRef(i), &view(i)) << "stride " << stride;
  }
}

TEST(EigenMap, WritingThroughTheMapChangesTheTensor) {
  auto numbers = random_tensor<double>({3, 4}, 3);
  eigen_map(numbers.view())(2, 1) = 42;
  EXPECT_EQ(numbers(2, 1), 42);
}

TEST(EigenMap, ViewOfConstantElementsGivesAMapThatCannotWrite) {
  auto const numbers = random_tensor<double>({3, 4}, 4);
  auto const map = eigen_map(numbers.view());
  EXPECT_TRUE((std::is_same_v<decltype(map.data()), double const*>));
  EXPECT_EQ(map(2, 3), numbers(2, 3));
}

TEST(EigenMap, MatrixProductOfMapsEqualsTheSumsItStandsFor) {
  auto const a = random_tensor<double>({3, 5}, 5);
  auto const b = random_tensor<double>({5, 2}, 6);
  Eigen::MatrixXd const product = eigen_map(a.view()) * eigen_map(b.view());
  for (index_t i = 0; i < 3; ++i)
    for (index_t j = 0; j < 2; ++j) {
      digits50 expected = 0, terms = 0;
      for (index_t k = 0; k < 5; ++k) {
        expected += digits50(a(i, k)) * b(k, j);
        terms += magnitude(a(i, k)) * magnitude(b(k, j));
      }
      EXPECT_TRUE(is_within(3.0, product(i, j), expected, terms)) << i << ", " << j;
    }
}

TEST(EigenMap, NegativeStrideThrowsAndNamesTheAxis) {
  auto numbers = random_tensor<double>({3, 4}, 7);
  EXPECT_EQ(message_of<shape_error>([&] { eigen_map(numbers.view().reversed(1)); }),
            "eigen_map: stride -1 of axis 1 is negative, expected 0 or more");
  EXPECT_EQ(message_of<shape_error>([&] { eigen_map(numbers.view().select(1, 0).reversed(0)); }),
            "eigen_map: stride -4 of axis 0 is negative, expected 0 or more");
}

template <class Matrix>
class ViewOfMatrix : public ::testing::Test {};
using matrices =
    ::testing::Types<Eigen::MatrixXd, Eigen::Matrix<float, -1, -1, Eigen::RowMajor>,
                     Eigen::Matrix<std::complex<double>, 3, 4>, Eigen::Matrix<double, 3, 1>,
                     Eigen::Matrix<double, 1, 3>, Eigen::VectorXf, Eigen::RowVectorXd>;
TYPED_TEST_SUITE(ViewOfMatrix, matrices);

TYPED_TEST(ViewOfMatrix, SharesTheElementsOfEitherStorageOrder) {
  using T = typename TypeParam::Scalar;
  index_t const rows = TypeParam::RowsAtCompileTime == -1 ? 3 : TypeParam::RowsAtCompileTime;
  index_t const columns = TypeParam::ColsAtCompileTime == -1 ? 5 : TypeParam::ColsAtCompileTime;
  TypeParam matrix = TypeParam::Random(rows, columns);
  tensor_view<T, 2> const view = view_of(matrix);
  expect_same_elements(matrix, view);
  TypeParam const& constant = matrix;
  tensor_view<T const, 2> const constant_view = view_of(constant);
  EXPECT_EQ(constant_view.data_handle(), matrix.data());
  EXPECT_EQ(constant_view.strides(), view.strides());
}

TYPED_TEST(ViewOfMatrix, MapsBackToTheSameMatrix) {
  index_t const rows = TypeParam::RowsAtCompileTime == -1 ? 3 : TypeParam::RowsAtCompileTime;
  index_t const columns = TypeParam::ColsAtCompileTime == -1 ? 5 : TypeParam::ColsAtCompileTime;
  TypeParam matrix = TypeParam::Random(rows, columns);
  EXPECT_TRUE(eigen_map(view_of(matrix)) == matrix);
}

}  // namespace
