// SPDX-License-Identifier: Apache-2.0
// sum_into.hpp: add the terms of a gradient in an order that no thread count changes.
#pragma once

#include "ssm/detail/parallel_for.hpp"
#include "ssm/execution.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm::detail {

/// to(b, window(i), c, n) += term(b, i, c, n) for every position. An axis of stride 0 is summed
/// over. Threads share out the longest axis that is not, so each element is summed by one thread,
/// in the order of the loops below. An empty view takes nothing.
template <class T, class Term>
void sum_into(int threads, time_window const& window, trajectory_view<T> to, Term const& term) {
  if (to.data_handle() == nullptr) return;
  index_array<4> count = to.extents();
  count[1] = window.count;

  int shared = -1;
  for (int axis = 0; axis < 4; ++axis) {
    if (to.stride(axis) != 0 && (shared < 0 || count[axis] > count[shared])) shared = axis;
  }
  auto const run = [&](index_t begin, index_t end) {
    index_array<4> first{};
    index_array<4> last = count;
    if (shared >= 0) {
      first[shared] = begin;
      last[shared] = end;
    }
    for (index_t b = first[0]; b < last[0]; ++b)
      for (index_t i = first[1]; i < last[1]; ++i)
        for (index_t c = first[2]; c < last[2]; ++c)
          for (index_t n = first[3]; n < last[3]; ++n) to(b, window(i), c, n) += term(b, i, c, n);
  };
  if (shared < 0) {
    run(0, 0);
  } else {
    parallel_for(threads, count[shared], run);
  }
}

/// A gradient view must have the shape of what it is the gradient of, or be empty (not wanted).
template <class T, int Rank, memory Where>
void require_gradient_shape(tensor_view<T, Rank, Where> const& view,
                            index_array<Rank> const& expected, char const* name, char const* axes) {
  if (view.data_handle() != nullptr) require_shape(view, expected, name, axes);
}

}  // namespace ssm::detail
