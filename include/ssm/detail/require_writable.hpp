// SPDX-License-Identifier: Apache-2.0
// require_writable.hpp: an output that is a broadcast view holds its last value only.
#pragma once

#include "ssm/error.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm::detail {

/// Throw shape_error where an axis of a view that is written repeats its elements.
template <class T, int Rank, memory Where>
void require_writable(tensor_view<T, Rank, Where> const& view, char const* name) {
  for (int axis = 0; axis < Rank; ++axis) {
    require<shape_error>(view.stride(axis) != 0 || view.extent(axis) <= 1 || view.empty(), name,
                         " has stride 0 along axis ", axis, " of extent ", view.extent(axis),
                         ", expected elements of its own at every position");
  }
}

}  // namespace ssm::detail
