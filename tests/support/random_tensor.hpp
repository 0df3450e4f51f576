// SPDX-License-Identifier: Apache-2.0
// random_tensor.hpp: inputs that a seed repeats, outputs that start as NaN, and awkward strides.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "ssm/random.hpp"
#include "ssm/scalar.hpp"
#include "ssm/tensor.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm::test {

template <scalar T>
T not_a_number() {
  auto const nan = std::numeric_limits<real_t<T>>::quiet_NaN();
  if constexpr (complex_scalar<T>) {
    return T(nan, nan);
  } else {
    return nan;
  }
}

namespace detail {

template <int Rank>
index_array<Rank> shape_of(index_t const (&extents)[Rank]) {
  index_array<Rank> shape{};
  for (int axis = 0; axis < Rank; ++axis) shape[axis] = extents[axis];
  return shape;
}

}  // namespace detail

/// Uniform on (low, high), of a complex number both parts; element i is a function of (seed, i).
template <scalar T, int Rank>
tensor<T, Rank> random_tensor(index_t const (&extents)[Rank], std::uint64_t seed, double low = -1,
                              double high = 1) {
  tensor<T, Rank> result(detail::shape_of(extents));
  random_stream const stream{seed};
  index_t i = 0;
  auto const draw = [&] {
    return static_cast<real_t<T>>(low + (high - low) * stream.uniform(i++));
  };
  for (T& element : result) {
    if constexpr (complex_scalar<T>) {
      auto const real = draw();
      element = T(real, draw());
    } else {
      element = draw();
    }
  }
  return result;
}

/// An output before it is written.
template <scalar T, int Rank>
tensor<T, Rank> poisoned(index_t const (&extents)[Rank]) {
  return tensor<T, Rank>(detail::shape_of(extents), not_a_number<T>());
}

template <class T, int Rank>
T& at(tensor_view<T, Rank> const& view, index_array<Rank> const& position) {
  index_t offset = 0;
  for (int axis = 0; axis < Rank; ++axis) offset += position[axis] * view.stride(axis);
  return view.data_handle()[offset];
}

/// Call visit(position) for every position, the last axis fastest.
template <int Rank, class Visit>
void for_each_position(index_array<Rank> const& extents, Visit const& visit) {
  for (int axis = 0; axis < Rank; ++axis) {
    if (extents[axis] == 0) return;
  }
  index_array<Rank> position{};
  for (int axis = Rank - 1; axis >= 0;) {
    if (axis == Rank - 1) visit(position);
    if (++position[axis] < extents[axis]) {
      axis = Rank - 1;
    } else {
      position[axis--] = 0;
    }
  }
}

/// The elements of a view, contiguous.
template <class T, int Rank>
tensor<std::remove_const_t<T>, Rank> materialized(tensor_view<T, Rank> const& view) {
  tensor<std::remove_const_t<T>, Rank> result(view.extents());
  for_each_position(view.extents(), [&](auto const& position) {
    at(result.view(), position) = at(view, position);
  });
  return result;
}

/// A tensor's elements inside a larger one: at every second place of every axis, all axes but the
/// first from their ends, so strides are negative. What lies between them is NaN.
template <scalar T, int Rank>
class scattered {
 public:
  explicit scattered(tensor<T, Rank> const& from) {
    index_array<Rank> extents{};
    for (int axis = 0; axis < Rank; ++axis) extents[axis] = 2 * from.extent(axis) + 1;
    parent_ = tensor<T, Rank>(extents, not_a_number<T>());

    index_array<Rank> strides = parent_.view().strides();
    T* first = parent_.data();
    for (int axis = 0; axis < Rank; ++axis) {
      first += strides[axis];
      strides[axis] *= 2;
    }
    view_ = {first, from.extents(), strides};
    for (int axis = 1; axis < Rank; ++axis) view_ = view_.reversed(axis);
    for_each_position(from.extents(), [&](auto const& position) {
      at(view_, position) = at(from.view(), position);
    });
  }
  scattered(scattered const&) = delete;
  scattered& operator=(scattered const&) = delete;

  tensor_view<T, Rank> view() const { return view_; }
  operator tensor_view<T, Rank>() const { return view_; }
  operator tensor_view<T const, Rank>() const { return view_; }

  /// How many of the elements that are not the view's have been written to.
  index_t overwritten() const {
    index_t numbers = 0;
    for (T const& element : parent_) numbers += element == element ? 1 : 0;
    for_each_position(view_.extents(), [&](auto const& position) {
      numbers -= at(view_, position) == at(view_, position) ? 1 : 0;
    });
    return numbers;
  }

 private:
  tensor<T, Rank> parent_;
  tensor_view<T, Rank> view_;
};

}  // namespace ssm::test
