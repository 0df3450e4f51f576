// SPDX-License-Identifier: Apache-2.0
// eigen.hpp: views as Eigen matrices and back, without copies. The one header that knows Eigen.
#pragma once

#include <Eigen/Core>
#include <type_traits>

#include "ssm/error.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm {
namespace detail {

template <class T, int Columns>
using eigen_matrix = Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, Columns,
                                   Columns == 1 ? Eigen::ColMajor : Eigen::RowMajor>;

template <class T, class Matrix>
using const_like = std::conditional_t<std::is_const_v<T>, Matrix const, Matrix>;

template <class T, int Rank>
void require_eigen_strides(tensor_view<T, Rank> const& view) {
  for (int axis = 0; axis < Rank; ++axis) {
    require<shape_error>(view.stride(axis) >= 0, "eigen_map: stride ", view.stride(axis),
                         " of axis ", axis, " is negative, expected 0 or more");
  }
}

}  // namespace detail

template <class T>
using eigen_vector_map = Eigen::Map<detail::const_like<T, detail::eigen_matrix<T, 1>>, 0,
                                    Eigen::InnerStride<Eigen::Dynamic>>;

template <class T>
using eigen_matrix_map = Eigen::Map<detail::const_like<T, detail::eigen_matrix<T, Eigen::Dynamic>>,
                                    0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;

/// A vector that shares the view's elements. Throws shape_error for a negative stride, which
/// Eigen does not take.
template <class T>
eigen_vector_map<T> eigen_map(tensor_view<T, 1> view) {
  detail::require_eigen_strides(view);
  return {view.data_handle(), view.extent(0), Eigen::InnerStride<Eigen::Dynamic>(view.stride(0))};
}

/// A (rows, columns) matrix that shares the view's elements.
template <class T>
eigen_matrix_map<T> eigen_map(tensor_view<T, 2> view) {
  detail::require_eigen_strides(view);
  return {view.data_handle(), view.extent(0), view.extent(1),
          Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>(view.stride(0), view.stride(1))};
}

/// The (rows, columns) view of a matrix, of either storage order; of a vector, one column.
template <class Derived>
auto view_of(Eigen::PlainObjectBase<Derived>& matrix) {
  using T = typename Derived::Scalar;
  index_t const row = Derived::IsRowMajor ? matrix.outerStride() : matrix.innerStride();
  index_t const column = Derived::IsRowMajor ? matrix.innerStride() : matrix.outerStride();
  return tensor_view<T, 2>{matrix.data(), {matrix.rows(), matrix.cols()}, {row, column}};
}

template <class Derived>
auto view_of(Eigen::PlainObjectBase<Derived> const& matrix) {
  using T = typename Derived::Scalar;
  index_t const row = Derived::IsRowMajor ? matrix.outerStride() : matrix.innerStride();
  index_t const column = Derived::IsRowMajor ? matrix.innerStride() : matrix.outerStride();
  return tensor_view<T const, 2>{matrix.data(), {matrix.rows(), matrix.cols()}, {row, column}};
}

}  // namespace ssm
